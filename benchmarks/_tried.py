"""Rules that were tried on the recorded AlexNet curves beside the defaults, on the same draws."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from _replay import Curves, Floats, Ints, draw_runs, synchronous

from raysweep.halving.rungs import Rules

NINTH, SECOND, THIRD = Fraction(1, 9), Fraction(2, 9), Fraction(1, 3)
EARLY, LATE = (NINTH, SECOND), (NINTH, THIRD)

Witness = Callable[[Floats], float]
"""A function of one run's scores, one an epoch, up to a rung."""


def rise(back_to: float, times: float) -> Witness:
    """The last score plus some times its rise since an earlier share of the epochs."""

    def witness(scores: Floats) -> float:
        return float(scores[-1] + times * (scores[-1] - scores[math.ceil(len(scores) * back_to) - 1]))

    return witness


def line(scores: Floats) -> float:
    """A line through the last half of the scores over log(epoch), at one and a half times the epochs."""
    epochs = np.arange(1, len(scores) + 1)
    half = len(scores) // 2
    if len(scores) - half < 2:
        return float(scores[-1])
    slope, start = np.polyfit(np.log(epochs[half:]), scores[half:], 1)
    return float(start + slope * math.log(1.5 * len(scores)))


BEST: Witness = np.max
LAST = rise(1, 0)
TREND = rise(2 / 3, 1 / 2)


def rules(rungs: tuple[Fraction, ...], survivors: int = 4, tolerance: float = 0.0) -> Rules:
    return Rules(eta=3, rungs=rungs, min_survivors=survivors, tolerance=tolerance)


TRIED: list[tuple[str, Rules, Witness]] = [
    ("rungs 1/9, 1/3; best so far (plain halving)", rules(LATE), BEST),
    ("rungs 1/9, 1/3; last", rules(LATE), LAST),
    ("rungs 1/9, 1/3; trend", rules(LATE), TREND),
    ("rungs 1/9, 2/9; best so far", rules(EARLY), BEST),
    ("rungs 1/9, 2/9; last", rules(EARLY), LAST),
    ("rungs 1/9, 2/9; trend", rules(EARLY), TREND),
    ("rungs 1/9, 1/5; trend", rules((NINTH, Fraction(1, 5))), TREND),
    ("rungs 1/8, 2/9; trend", rules((Fraction(1, 8), SECOND)), TREND),
    ("rungs 1/9, 1/4; trend", rules((NINTH, Fraction(1, 4))), TREND),
    ("rungs 1/9, 1/4; last", rules((NINTH, Fraction(1, 4))), LAST),
    ("rungs 1/12, 1/8, 2/9, eta 2; trend", Rules(2, (Fraction(1, 12), Fraction(1, 8), SECOND), 4), TREND),
    ("rungs 1/9, 2/9; trend since half of the epochs", rules(EARLY), rise(1 / 2, 1 / 2)),
    ("rungs 1/9, 2/9; trend with the whole rise", rules(EARLY), rise(2 / 3, 1)),
    ("rungs 1/9, 2/9; trend with twice the rise", rules(EARLY), rise(2 / 3, 2)),
    ("rungs 1/9, 2/9; a line through the last half", rules(EARLY), line),
    ("rungs 1/9, 2/9; trend; 5 survivors", rules(EARLY, 5), TREND),
    ("rungs 1/9, 2/9; trend; 3 survivors, tolerance 0.02", rules(EARLY, 3, 0.02), TREND),
    ("rungs 1/9, 2/9, 2/3; trend; 9, 3 and 2 survivors", rules((*EARLY, Fraction(2, 3)), 2), TREND),
]


def try_all(path: Path, curves: Curves, size: int, draws: int) -> Iterator[tuple[str, Floats]]:
    """Yield the name of each, and its share of the epochs, how often it keeps the best, and its mean regret."""
    drawn = draw_runs(np.arange(len(curves)), draws, size, np.random.default_rng(0))
    full = curves.spent[drawn].sum()

    def figures(which: Rules, after: Ints, witness: Witness, values: Floats) -> Floats:
        outcomes = synchronous(curves, drawn, which, witnessed(curves, after, witness, values), after)
        regret = curves.best[drawn].max(axis=1) - outcomes.best
        return np.array([outcomes.epochs.sum() / full, (regret <= 0).mean(), regret.mean()])

    for name, which, witness in TRIED:
        after = np.array([which.rung_epochs(int(epochs)) for epochs in curves.epochs])
        yield name, figures(which, after, witness, curves.score)
    extra = pq.read_table(path)
    if {"curve_train_loss", "lr_peak_epoch"} <= set(extra.column_names):
        loss = np.full_like(curves.score, np.nan)
        for i, row in enumerate(extra["curve_train_loss"].to_pylist()):
            loss[i, : len(row)] = row
        after = np.array([rules(EARLY).rung_epochs(int(epochs)) for epochs in curves.epochs])
        yield "rungs 1/9, 2/9; training loss", figures(rules(EARLY), after, LAST, -loss)
        peaks = extra["lr_peak_epoch"].to_numpy()
        for shares in ((0.08, 0.15), (0.08, 0.16), (0.09, 0.15)):
            after = rungs_by_progress(curves, peaks, shares)
            yield (
                f"rungs at {shares[0]} and {shares[1]} of the progress; trend",
                figures(rules(EARLY), after, TREND, curves.score),
            )


def witnessed(curves: Curves, after: Ints, witness: Witness, values: Floats) -> Floats:
    """Return runs x rungs: the witness of the values up to there, NaN where a run does not come to be."""
    scores = np.full(after.shape, np.nan)
    for i, r in np.ndindex(after.shape):
        if after[i, r] <= curves.recorded[i]:
            scores[i, r] = witness(values[i, : after[i, r]])
    return scores


def rungs_by_progress(curves: Curves, peaks: Ints, shares: tuple[float, ...]) -> Ints:
    """Return runs x rungs: where the mean of the shares of the epochs and of the summed learning rate reaches `shares`.

    The recorded runs' learning rate rises linearly from 0 to its peak and falls linearly to 0.
    """
    after = np.empty((len(curves), len(shares)), np.int64)
    for i, (epochs, peak) in enumerate(zip(curves.epochs, peaks, strict=True)):
        middle = np.arange(epochs) + 0.5
        lr = np.where(middle < peak, middle / max(peak, 1e-9), (epochs - middle) / (epochs - peak))
        progress = (np.cumsum(lr) / lr.sum() + np.arange(1, epochs + 1) / epochs) / 2
        after[i] = np.searchsorted(progress, np.array(shares) - 1e-9) + 1
    return after
