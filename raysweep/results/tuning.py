"""How good the best of so many random configs is: the scores of a random search in, its tuning curve with a band out.

The configs of `random:` are independent draws of one distribution, if none was stopped early; so the best of k has the
distribution F^k, and its median is where F reaches 0.5^(1/k). A band about F gives one about the curve, right for all k
at once whatever F is (Lourie, Cho and He 2024, "Show Your Work with Confidence: Confidence Bands for Tuning Curves").
The band here is the exact one of Kolmogorov and Smirnov, which is somewhat wider than theirs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import kstwo


@dataclass(frozen=True)
class TuningCurve:
    """The best score to be expected of 1, 2, ... random configs; entry k is that of k + 1."""

    median: list[float]  # the best of so many is as likely better as worse
    low: list[float]
    high: list[float]  # with `low` the band, for all entries at once


def tuning_curve(scores: Sequence[float], best_possible: float = math.inf, confidence: float = 0.95) -> TuningCurve:
    """Return the curve up to as many configs as were tried.

    Args:
        scores: one for each config of the search, in any order, more is better; `-inf` where training failed.
        best_possible: what no score exceeds, such as 1 for accuracies; `high` is this where nothing better is known.
        confidence: of the band.
    """
    ordered = np.sort(np.asarray(scores, float))
    count = len(ordered)
    if not count:
        return TuningCurve([], [], [])
    levels = 0.5 ** (1 / np.arange(1, count + 1))
    wrong_by = float(kstwo.ppf(confidence, count))
    known = np.concatenate([[-math.inf], ordered, [best_possible]])

    def reached(shift: float) -> list[float]:
        """Return the smallest score at which the share of scores, and `shift`, come to each level."""
        rank = np.ceil(count * (levels - shift) - 1e-9).astype(int)
        return [float(known[each]) for each in np.clip(rank, 0, count + 1)]

    return TuningCurve(median=reached(0.0), low=reached(wrong_by), high=reached(-wrong_by))
