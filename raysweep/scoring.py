"""What an epoch is worth: the objective's metric, of the plain or the averaged weights, whichever is better.

Pure functions of recorded metrics; no torch, no Ray.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from raysweep.sweepfile.schema import Objective


@dataclass(frozen=True)
class Best:
    """The best epoch of a trial."""

    epoch: int
    score: float
    """Of the objective's metric."""
    averaged: bool
    """Whether the averaged weights reached it, not the plain ones."""


def score_epoch(metrics: Mapping[str, float], objective: Objective) -> tuple[float, bool] | None:
    """Return one epoch's (score, whether the averaged weights reached it), or None if it has no finite score."""
    plain = objective.metric.removesuffix("_ema")
    candidates = [(metrics.get(f"{plain}_ema"), True)]
    if objective.metric == plain:
        candidates.insert(0, (metrics.get(plain), False))
    finite = [(value, averaged) for value, averaged in candidates if value is not None and math.isfinite(value)]
    if not finite:
        return None
    sign = 1 if objective.maximize else -1
    return max(finite, key=lambda candidate: (sign * candidate[0], not candidate[1]))


def best_epoch(history: Sequence[Mapping[str, float]], objective: Objective) -> Best | None:
    """Return the best of a trial's epochs (the earliest of equals), or None if none has a finite score."""
    best: Best | None = None
    for metrics in history:
        scored = score_epoch(metrics, objective)
        if scored and (best is None or is_better(scored[0], best.score, objective)):
            best = Best(int(metrics["epoch"]), *scored)
    return best


def is_better(score: float, other: float, objective: Objective) -> bool:
    """Whether one score beats another."""
    return score > other if objective.maximize else score < other
