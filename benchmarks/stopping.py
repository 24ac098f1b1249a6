"""Is there a better way to stop than halving? What was tried, on recorded learning curves.

    stopping.py [CURVES.parquet] [--draws N] [--splits N]

The yardstick is hard to beat (Egele, Mohr, Viering, Balaprakash 2024, "The unreasonable effectiveness of early
discarding after one epoch in neural network hyperparameter optimization"): all runs train a share of their epochs, and
the best k train on to their end. It is measured for many shares and k, on draws of 25 and of 100 runs.

All other ways have numbers to choose. They are chosen on a random half of the runs and judged on the other, in draws of
25, over ten splits, each half taking its turn. Two choices: the setting that keeps the best most often for at most 33 %
of the epochs, and the one that keeps it in at least 94.5 % for the fewest. The ways:

* rungs                of any places, by share of the epochs or by progress (the learning rate that has been spent, too)
* settled              no more rungs, once the same runs lead at two rungs (after PASHA: Bohdal et al. 2023, "PASHA:
                       efficient HPO and NAS with progressive resource allocation")
* leader first         the finalists one after another, the best at the last rung first. One is stopped at a check where
                       its value and the most that it may still rise are less than the best result so far
* side by side         the finalists together. One is stopped where its bound is less than what another is expected to
                       reach

What a run may still rise is what those that finished in the same sweep did, times c; or a quantile of what those of the
choosing half did beyond what was expected of them: nothing, or by a Gaussian process on the learning rate's schedule,
on the hyperparameters, too, or on all that is recorded. What is expected of one of them is fitted on the others (the
jackknife; Barber et al. 2021, "Predictive inference with the jackknife+"). None of this depends on the order of
arrival; who goes after the leader waits for it.

Last, what two witnesses together tell, on the runs of `witness.py`: the EMA weights' accuracy, and the probability that
they give to the right class (the geometric mean: exp(-val_loss)).
"""

from __future__ import annotations

import argparse
import itertools
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
from _replay import (
    Curves,
    Floats,
    Ints,
    best_until,
    default_rules,
    draw_runs,
    key_ranks,
    levels,
    load_curves,
    rung_epochs,
    scores_at_rungs,
    synchronous,
)
from _report import emit, parse_arguments, skip
from _tried import LAST, TREND, Witness, rungs_by_progress, witnessed
from early_stopping import RECORDED, SIZES, recorded_sets
from scipy.linalg import cho_solve
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.preprocessing import StandardScaler
from witness import CURVES, DRAWN, HALVING, interval, load_histories, loss, subsets, values_at

from raysweep.halving.rungs import Rules

MOST_EPOCHS, LEAST_KEPT = 0.33, 0.945
"""What would have made a new default: at most this share of the epochs, and the best kept at least so often."""
TARGETS = {"shippable_epochs": ("<=", MOST_EPOCHS), "shippable_best_kept": (">=", LEAST_KEPT)}
"""For the best way that needs no curves of the same task to be fitted on."""
FIGURES = ("epochs", "best_kept", "regret")
NINTH, SECOND = Fraction(1, 9), Fraction(2, 9)
ONE_EPOCH = Fraction(1, 10_000)
"""A share that is the first epoch of every run."""
FIRST = (ONE_EPOCH, *(Fraction(share) for share in ("1/20", "1/12", "1/9", "1/6", "2/9", "1/3", "1/2", "2/3")))
CHECKS = tuple(Fraction(share) for share in ("1/3", "4/9", "5/9", "2/3", "7/9", "8/9"))
MISSED = (0.0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2)
"""The shares of the runs that may rise by more than the bound allows."""
SETTINGS = 300
"""At most so many of each way, at random if there are more."""


FEW = 64
"""So many runs are known where few are: some 23 of them finished and are good enough to be fitted on."""
T = TypeVar("T")
Places = tuple[int, ...]
Shares = tuple[Fraction, ...]


@dataclass(frozen=True)
class Placed(Rules):
    """Rules that say how many go on from each rung, whatever the cohort's size."""

    given: Places = ()

    def places(self, configs: int) -> Places:
        """Return what was given."""
        return self.given


@dataclass(frozen=True, eq=False)
class Recorded:
    """The curves, and all else that the file has of each run."""

    curves: Curves
    table: pd.DataFrame


@cache
def epochs_at(recorded: Recorded, share: Fraction) -> Ints:
    """Return the epoch after which each run has trained a share of its own, rounded up."""
    return np.array([math.ceil(share * int(epochs)) for epochs in recorded.curves.epochs])


@cache
def seen_at(recorded: Recorded, share: Fraction, witness: Witness) -> Floats:
    """Return a witness of each run's scores up to a share of its epochs; NaN where it does not come to be."""
    curves = recorded.curves
    return witnessed(curves, epochs_at(recorded, share)[:, None], witness, curves.score)[:, 0]


def load(path: Path) -> Recorded:
    return Recorded(load_curves(path), pd.read_parquet(path))


# ---------------------------------------------------------------------------------------------------------
# Sweeps: draws in, (epochs spent, best score) of each out

Sweep = Callable[[Ints], tuple[Floats, Floats]]


@dataclass(frozen=True)
class Finalists:
    """Those that go on from the last rung, a row a draw, the best first; and what the others spent and found."""

    runs: Ints
    there: np.ndarray  # draws x finalists: whether there is one
    epochs: Floats
    best: Floats


def halve(curves: Curves, drawn: Ints, stops: Ints, scores: Floats, places: Places) -> Finalists:
    """Train the drawn runs to the last rung."""
    last = len(places)
    stops = np.column_stack([stops, curves.epochs])
    level = levels(curves, drawn, Placed(given=places), scores, stops)
    goes_on = level == last
    order = np.where(goes_on, key_ranks(scores)[drawn, last - 1], len(curves))
    width = int(goes_on.sum(axis=1).max())
    by_rank = np.argsort(order, axis=1)[:, :width]
    level = np.where(goes_on, 0, level)
    trained = np.minimum(stops, curves.spent[:, None])[drawn, level]
    found = np.column_stack([best_until(curves, stop) for stop in stops.T])[drawn, level]
    return Finalists(
        np.take_along_axis(drawn, by_rank, 1),
        np.take_along_axis(goes_on, by_rank, 1),
        np.where(goes_on, 0, trained).sum(axis=1).astype(float),
        np.where(goes_on, 0, found).max(axis=1),
    )


@dataclass(frozen=True)
class Checks:
    """Where finalists may be stopped; runs x checks, but for the margin."""

    stops: Ints
    seen: Floats
    """The best score up to there."""
    value: Floats
    """What is expected of a run's result: at least its score; NaN where a run does not come to be."""
    margin: Floats
    """By check: by how much the result may be better than expected."""


def leader_first(curves: Curves, finalists: Finalists, checks: Checks, own_rises: float = 0.0) -> tuple[Floats, Floats]:
    """Train finalists one after another; `own_rises`: take for the margin so many times the most that one rose."""
    epochs, best = finalists.epochs.copy(), finalists.best.copy()
    margin = np.tile(checks.margin, (len(best), 1)) if not own_rises else np.full((len(best), len(CHECKS)), np.inf)
    for runs, there in zip(finalists.runs.T, finalists.there.T, strict=True):
        spent, got = curves.spent[runs].astype(float), curves.best[runs]
        running = there.copy()
        for c in range(len(CHECKS)):
            out = running & (checks.value[runs, c] + margin[:, c] < best)
            spent, got = np.where(out, checks.stops[runs, c], spent), np.where(out, checks.seen[runs, c], got)
            running &= ~out
        epochs += np.where(there, spent, 0)
        best = np.maximum(best, np.where(there, got, 0))
        if own_rises:
            rise = own_rises * (curves.best[runs, None] - checks.value[runs])
            known = np.where(np.isfinite(margin), np.fmax(margin, rise), rise)
            finished = running & (curves.recorded == curves.epochs)[runs]
            margin = np.where(finished[:, None], known, margin)
    return epochs, best


def side_by_side(curves: Curves, finalists: Finalists, checks: Checks) -> tuple[Floats, Floats]:
    """Train finalists together, to each check in turn."""
    runs, running = finalists.runs, finalists.there.copy()
    spent, got = curves.spent[runs].astype(float), curves.best[runs]
    for c in range(len(CHECKS)):
        value = np.where(running, checks.value[runs, c], np.nan)
        top = np.fmax.reduce(value, axis=1, initial=-np.inf)[:, None]
        out = running & (value + checks.margin[c] < top)
        spent, got = np.where(out, checks.stops[runs, c], spent), np.where(out, checks.seen[runs, c], got)
        running &= ~out
    return _sum_up(finalists, spent, got)


def settled(curves: Curves, finalists: Finalists, checks: Checks, leaders: int, lead: float) -> tuple[Floats, Floats]:
    """Train finalists together until the same ones lead the rest at two checks, by at least `lead`."""
    runs, running = finalists.runs, finalists.there.copy()
    spent, got = curves.spent[runs].astype(float), curves.best[runs]
    before = np.arange(runs.shape[1]) < leaders  # by the last rung
    for c in range(len(CHECKS)):
        value = np.where(running & np.isfinite(checks.value[runs, c]), checks.value[runs, c], -np.inf)
        ordered = -np.sort(-value, axis=1)
        gap = ordered[:, leaders - 1] - ordered[:, leaders] if value.shape[1] > leaders else np.zeros(len(value))
        lead_now = (value >= ordered[:, leaders - 1, None]) & np.isfinite(value)
        is_settled = (lead_now == before).all(axis=1) & (gap >= lead)
        out = running & is_settled[:, None] & ~lead_now & np.isfinite(value)
        spent, got = np.where(out, checks.stops[runs, c], spent), np.where(out, checks.seen[runs, c], got)
        running &= ~out
        before = lead_now
    return _sum_up(finalists, spent, got)


def _sum_up(finalists: Finalists, spent: Floats, got: Floats) -> tuple[Floats, Floats]:
    there = finalists.there
    best = np.where(there, got, 0).max(axis=1, initial=0)
    return finalists.epochs + np.where(there, spent, 0).sum(axis=1), np.maximum(finalists.best, best)


# ---------------------------------------------------------------------------------------------------------
# What is expected of a run


FEATURES = {"schedule": 6, "hyperparameters": 12, "all": 14}
"""How many features, from the first, are known of a run, by what is expected by."""


def features(recorded: Recorded, share: Fraction) -> Floats:
    """Return runs x features after a share of the epochs; NaN where a run does not come to be."""
    curves, table = recorded.curves, recorded.table
    rows = np.full((len(curves), 14), np.nan)
    for i, epoch in enumerate(epochs_at(recorded, share)):
        if epoch > curves.recorded[i]:
            continue
        scores, epochs, peak = curves.score[i, :epoch], int(curves.epochs[i]), int(table["lr_peak_epoch"][i])
        middle = np.arange(epochs) + 0.5
        lr = np.where(middle < peak, middle / max(peak, 1e-9), (epochs - middle) / (epochs - peak))
        strength = table["lr"][i] / (1 - table["momentum"][i])
        rows[i] = (
            scores[-1],
            scores[-1] - scores[math.ceil(2 / 3 * epoch) - 1],
            scores.max(),
            lr[epoch - 1],
            lr[:epoch].sum() / lr.sum(),
            math.log(epochs),
            math.log(strength),
            math.log(strength * lr[epoch - 1]),
            math.log(table["weight_decay"][i]),
            math.log(table["weight_decay"][i] * strength),
            math.log(table["batch_size"][i]),
            table["label_smoothing"][i],
            table["curve_train_loss"][i][epoch - 1],
            table["curve_top_5"][i][epoch - 1],
        )
    return rows


@dataclass(frozen=True)
class Expected:
    """What is expected of each run's result at some share of the epochs, fitted on some of the runs."""

    value: Floats
    rest: Floats
    """By how much the fitted runs' results were better, each expected from the others."""


def expect(recorded: Recorded, half: Ints, share: Fraction, kind: str) -> Expected:
    """Fit on a half of the runs: the better half of those that finished, since the others are out at the first rungs.

    `kind`: "score": no rise is expected; else by so many `FEATURES`.
    """
    curves, score = recorded.curves, seen_at(recorded, share, LAST)
    finished = half[(curves.recorded == curves.epochs)[half]]
    middle = np.median(score[finished])
    fitted = finished[score[finished] > middle]
    if kind == "score":
        return Expected(score, (curves.best - score)[fitted])
    rows = features(recorded, share)[:, : FEATURES[kind]]
    scaler = StandardScaler().fit(rows[fitted])
    kernel = ConstantKernel() * RBF(3.0, (0.3, 100)) + WhiteKernel(0.1)
    process = GaussianProcessRegressor(kernel, normalize_y=True, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # hardly any noise is as good an answer as any
        process.fit(scaler.transform(rows[fitted]), (curves.best - score)[fitted])
    # What is left of each when it is left out follows from one fit (Rasmussen & Williams 2006, equation 5.12)
    inverse = cho_solve((process.L_, True), np.eye(len(fitted)))
    rest = process._y_train_std * process.alpha_ / np.diag(inverse)
    value = score - 1  # behind all of whom more is known
    known = np.flatnonzero(score > middle)
    value[known] = score[known] + process.predict(scaler.transform(rows[known]))
    value[fitted] = curves.best[fitted] - rest
    return Expected(value, rest)


# ---------------------------------------------------------------------------------------------------------
# Ways to stop, each with its settings


@dataclass(frozen=True)
class Way:
    """One way to stop."""

    title: str
    settings: list[Sweep]
    transfers: bool = True
    """Whether it needs no finished runs of the same task to be fitted on."""


class Known:
    """The curves, and the runs that something may be fitted on."""

    def __init__(self, recorded: Recorded, runs: Ints) -> None:
        self.recorded, self.curves, self.runs = recorded, recorded.curves, runs
        self._expected: dict[tuple[Fraction, str], Expected] = {}

    def expected(self, share: Fraction, kind: str) -> Expected:
        """Return what is expected of each run's result after a share of its epochs."""
        if (share, kind) not in self._expected:
            self._expected[share, kind] = expect(self.recorded, self.runs, share, kind)
        return self._expected[share, kind]

    def checks(self, kind: str, missed: float) -> Checks:
        """Return the checks whose bound a share `missed` of the runs may rise above."""
        expected = [self.expected(share, kind) for share in CHECKS]
        stops = np.column_stack([epochs_at(self.recorded, share) for share in CHECKS])
        there = (stops <= self.curves.recorded[:, None]) & (stops < self.curves.epochs[:, None])
        value = np.where(there, np.column_stack([one.value for one in expected]), np.nan)
        seen = np.column_stack([best_until(self.curves, stop) for stop in stops.T])
        return Checks(stops, seen, value, np.array([np.quantile(one.rest, 1 - missed) for one in expected]))

    def rungs(self, shares: Shares, kind: str = "trend") -> tuple[Ints, Floats]:
        """Return runs x rungs, twice: their epochs, and what runs are ranked by there."""
        stops = np.column_stack([epochs_at(self.recorded, share) for share in shares])
        if kind == "trend":
            return stops, np.column_stack([seen_at(self.recorded, share, TREND) for share in shares])
        return stops, np.column_stack([self.expected(share, kind).value for share in shares])

    def halving(self, shares: Shares, places: Places, kind: str = "trend") -> Sweep:
        """Return synchronous halving."""
        return halving(self.curves, places, *self.rungs(shares, kind))

    def finish(
        self,
        how: Callable[..., tuple[Floats, Floats]],
        checks: Checks,
        places: Places,
        shares: Shares = (NINTH, SECOND),
        kind: str = "trend",
        **options: float,
    ) -> Sweep:
        """Return halving to the last rung, and one of the ways to finish from there."""
        stops, scores = self.rungs(shares, kind)
        return lambda drawn: how(self.curves, halve(self.curves, drawn, stops, scores, places), checks, **options)


def halving(curves: Curves, places: Places, stops: Ints, scores: Floats) -> Sweep:
    """Return synchronous halving with rungs after `stops`, ranked by `scores`, both runs x rungs."""

    def sweep(drawn: Ints) -> tuple[Floats, Floats]:
        outcomes = synchronous(curves, drawn, Placed(given=places), scores, stops)
        return outcomes.epochs, outcomes.best

    return sweep


def ways(recorded: Recorded, half: Ints) -> Iterator[Way]:
    """Yield what is tried, where the runs of one half are known."""
    known = Known(recorded, half)
    yield from halving_ways(known)
    yield from ways_to_finish(known)
    yield from fitted_ways(known, Known(recorded, half[:FEW]))


def halving_ways(known: Known) -> Iterator[Way]:
    """Yield the default, and other rungs and places; who diverges is as in `raysweep.halving.rungs`."""
    curves = known.curves
    default, rank_by = default_rules()
    stops = rung_epochs(curves, default)
    scores = scores_at_rungs(curves, default, rank_by)
    yield Way("`asha`, its defaults", [halving(curves, default.places(SIZES[0]), stops, scores)])
    yield Way(
        "one rung, then the best k to their end",
        [known.halving((share,), (k,)) for share, k in itertools.product(FIRST, range(1, 9))],
    )
    yield Way(
        "a cut before the default's rungs",
        [
            known.halving((cut, NINTH, SECOND), places)
            for cut in FIRST[:3]
            for places in falling((18, 15, 12), (9, 7), (5, 4, 3))
        ],
    )
    shares = (*FIRST[1:], Fraction(5, 6))
    anywhere = [
        (rungs, places)
        for numbers in (((12, 10, 9, 8, 7), (4, 3, 2)), ((12, 10, 9, 8), (7, 6, 5, 4), (4, 3, 2)))
        for rungs in itertools.combinations(shares, len(numbers))
        for places in falling(*numbers)
    ]
    yield Way(
        "two or three rungs anywhere, late ones, too",
        [known.halving(rungs, places) for rungs, places in some(anywhere)],
    )
    progress = [
        (rungs, places)
        for numbers, late in (
            (((12, 10, 8), (4, 3)), ((),)),
            (((12, 10, 8), (6, 5, 4), (3, 2)), ((0.3,), (0.5,), (0.7,))),
        )
        for rungs in ((first, second, *last) for first in (0.04, 0.06, 0.08) for second in (0.1, 0.15) for last in late)
        for places in falling(*numbers)
    ]
    yield Way(
        "the same by progress",
        [halving(curves, places, *by_progress(known.recorded, rungs)) for rungs, places in some(progress)],
    )


@cache
def by_progress(recorded: Recorded, shares: tuple[float, ...]) -> tuple[Ints, Floats]:
    """Return runs x rungs, twice: after which epochs the shares of the progress are made, and the trend there."""
    stops = rungs_by_progress(recorded.curves, recorded.table["lr_peak_epoch"].to_numpy(), shares)
    return stops, witnessed(recorded.curves, stops, TREND, recorded.curves.score)


STARTS = [(9, 6), (9, 5), (9, 4), (9, 3), (7, 6), (7, 5), (7, 4), (7, 3)]
"""How many go on from the default's rungs, where another way to finish begins."""


def ways_to_finish(known: Known) -> Iterator[Way]:
    """Yield ways to stop finalists that need nothing to be fitted on."""
    plain = known.checks("score", 0)
    yield Way(
        "settled: on with the best one or two, once the same lead twice",
        [
            known.finish(settled, plain, places, leaders=leaders, lead=lead)
            for places in STARTS
            for leaders in (1, 2)
            for lead in (0, 0.01, 0.02, 0.05, 0.1)
        ],
    )
    yield Way(
        "leader first, bounded by the sweep's own rises",
        [
            known.finish(leader_first, plain, places, own_rises=times)
            for places in STARTS
            for times in (1, 1.5, 2, 3, 4)
        ],
    )


def fitted_ways(known: Known, few: Known) -> Iterator[Way]:
    """Yield ways that are fitted on finished runs: on those of a half, or on few of them."""

    def bounded(how: Callable[..., tuple[Floats, Floats]], kind: str) -> list[Sweep]:
        return [
            known.finish(how, checks, places)
            for checks in [known.checks(kind, missed) for missed in MISSED]
            for places in STARTS
        ]

    yield Way("leader first, conformal: score alone", bounded(leader_first, "score"), False)
    yield Way("leader first, conformal: score, schedule", bounded(leader_first, "schedule"), False)
    yield Way("side by side, conformal: score, schedule", bounded(side_by_side, "schedule"), False)
    yield Way(
        "leader first, conformal: score, schedule, hyperparameters", bounded(leader_first, "hyperparameters"), False
    )
    yield Way("leader first, conformal: all", bounded(leader_first, "all"), False)
    yield Way("side by side, conformal: all", bounded(side_by_side, "all"), False)
    early = tuple(Fraction(share) for share in ("1/12", "1/9", "1/6", "2/9", "1/3"))
    ranked = itertools.product(itertools.combinations(early, 2), falling((12, 9, 7, 5), (5, 4, 3, 2)))
    yield Way(
        "two rungs, ranked by what is expected: all",
        [known.halving(rungs, places, "all") for rungs, places in ranked],
        False,
    )

    def both(fitted: Known, how: Callable[..., tuple[Floats, Floats]]) -> list[Sweep]:
        settings = itertools.product(
            [fitted.checks("all", missed) for missed in MISSED[2:6]],
            falling((12, 9, 7), (6, 5, 4)),
            itertools.combinations(early[:4], 2),
            ("all", "trend"),
        )
        return [fitted.finish(how, *setting) for setting in some(list(settings))]

    yield Way("both: ranked so, leader first", both(known, leader_first), False)
    yield Way("both: ranked so, side by side", both(known, side_by_side), False)
    yield Way(f"both, leader first, fitted on {FEW} of the runs", both(few, leader_first), False)


def some(settings: list[T]) -> list[T]:
    """Return `SETTINGS` of them, always the same."""
    if len(settings) <= SETTINGS:
        return settings
    return [settings[i] for i in np.random.default_rng(0).choice(len(settings), SETTINGS, replace=False)]


def falling(*places: Places) -> list[Places]:
    """Return all ways to take one of each that fall from rung to rung."""
    return [one for one in itertools.product(*places) if list(one) == sorted(set(one), reverse=True)]


def spans(recorded: Recorded, draws: int) -> dict[str, float]:
    """Return the epochs between the last rung and the end where each finalist has a slot, as means over draws."""
    curves = recorded.curves
    known = Known(recorded, np.arange(len(curves)))
    drawn = draw_runs(known.runs, draws, SIZES[0], np.random.default_rng(0))
    stops, scores = known.rungs((NINTH, SECOND))
    finalists = halve(curves, drawn, stops, scores, (9, 5))
    begun = np.where(finalists.there, stops[finalists.runs, -1], 0).sum(axis=1)
    in_turn = leader_first(curves, finalists, known.checks("all", 0.1))[0] - finalists.epochs - begun
    four = halve(curves, drawn, stops, scores, (9, 4))
    at_once = np.where(four.there, curves.spent[four.runs] - stops[four.runs, -1], 0).max(axis=1)
    return {"finish_leader_first_epochs": float(in_turn.mean()), "finish_asha_epochs": float(at_once.mean())}


# ---------------------------------------------------------------------------------------------------------
# Choosing and judging


def figures(curves: Curves, drawn: Ints, sweep: Sweep) -> Floats:
    """Return the share of the epochs, how often the best is kept, and the mean regret."""
    epochs, best = sweep(drawn)
    regret = curves.best[drawn].max(axis=1) - best
    return np.array([epochs.sum() / curves.spent[drawn].sum(), (regret <= 0).mean(), regret.mean()])


@dataclass(frozen=True)
class Verdict:
    """What one way reached on the halves that it was not chosen on."""

    way: Way
    cheap: Floats
    """Halves x figures: chosen for at most `MOST_EPOCHS`."""
    good: Floats
    """The same: chosen for at least `LEAST_KEPT`."""


def judge(recorded: Recorded, draws: int, splits: int) -> list[Verdict]:
    """Choose each way's setting on one half of the runs, and judge it on the other."""
    curves, found = recorded.curves, dict[str, tuple[Way, list[tuple[Floats, Floats]]]]()
    for split in range(splits):
        rng = np.random.default_rng(split)
        order = rng.permutation(len(curves))
        halves = order[: len(order) // 2], order[len(order) // 2 :]
        for here, there in (halves, halves[::-1]):
            drawn, others = draw_runs(here, draws, SIZES[0], rng), draw_runs(there, draws, SIZES[0], rng)
            for way in ways(recorded, here):
                tried = [(figures(curves, drawn, sweep), sweep) for sweep in way.settings]
                cheap = max(tried, key=lambda one: _order(one[0][1], MOST_EPOCHS - one[0][0]))
                good = max(tried, key=lambda one: _order(-one[0][0], one[0][1] - LEAST_KEPT))
                judged = figures(curves, others, cheap[1]), figures(curves, others, good[1])
                found.setdefault(way.title, (way, []))[1].append(judged)
    return [
        Verdict(way, np.array([one for one, _ in rows]), np.array([one for _, one in rows]))
        for way, rows in found.values()
    ]


def _order(value: float, room: float) -> tuple[bool, float]:
    """What there is room for comes first, by its value; else what misses least."""
    return room >= 0, value if room >= 0 else room


def verdict_table(verdicts: list[Verdict]) -> str:
    """Return Markdown; behind ±: half of a 95 % interval for the runs as a sample (the delete-half jackknife)."""
    default = verdicts[0].cheap

    def text(rows: Floats, beside: bool) -> str:
        mean, half = rows.mean(axis=0), 1.96 * rows.std(axis=0)
        beyond = 100 * (rows[:, 1] - default[:, 1])
        ahead = f" {beyond.mean():+.1f} ± {1.96 * beyond.std():.1f} |" if beside else ""
        return f"{100 * mean[0]:.1f} % ± {100 * half[0]:.1f} | {100 * mean[1]:.1f} % |{ahead} {mean[2]:.4f}"

    lines = [
        f"| way | for {100 * MOST_EPOCHS:.0f} %: epochs | best kept | against `asha` | regret "
        f"| for {100 * LEAST_KEPT:.1f} %: epochs | best kept | regret |",
        f"|{' --- |' * 8}",
    ]
    rows = [f"| {one.way.title} | {text(one.cheap, True)} | {text(one.good, False)} |" for one in verdicts]
    return "\n".join([*lines, *rows])


# ---------------------------------------------------------------------------------------------------------
# The yardstick


def yardstick(recorded: Recorded, size: int, draws: int) -> dict[tuple[Fraction, int], Floats]:
    """Return by share and k, for one rung and the best k: figures, and half of their intervals for draws and for runs.

    For the runs as in `early_stopping.py`; none on 100, which half of the runs are too few for.
    """
    curves = recorded.curves
    known = Known(recorded, np.arange(len(curves)))
    rng = np.random.default_rng(1)
    drawn = draw_runs(known.runs, draws, size, np.random.default_rng(0))
    fewer = max(draws // 10, 50)
    of_halves = [
        draw_runs(rng.permutation(known.runs)[: len(curves) // 2], fewer, size, rng)
        for _ in range(40 if size == SIZES[0] else 0)
    ]
    rows = {}
    for share, k in itertools.product(FIRST, (1, 2, 3, 4, 5, 6, 8, 12)):
        sweep = known.halving((share,), (k,))
        epochs, best = sweep(drawn)
        regret = curves.best[drawn].max(axis=1) - best
        each = np.column_stack([epochs / curves.spent[drawn].sum(axis=1).mean(), regret <= 0, regret])
        deviation = each.std(axis=0)
        among = np.var([figures(curves, some, sweep) for some in of_halves], axis=0) if of_halves else 0 * deviation
        runs = np.sqrt(np.maximum(among - deviation**2 / fewer, 0))
        rows[share, k] = np.stack([figures(curves, drawn, sweep), 1.96 * deviation / math.sqrt(draws), 1.96 * runs])
    return rows


def yardstick_table(rows: dict[tuple[Fraction, int], Floats], name: str, size: int, draws: int) -> str:
    """Return Markdown."""
    shown = sorted({k for _, k in rows})
    lines = [
        f"| {size} runs of {name}, {draws} draws | {' | '.join(f'best {k}' for k in shown)} |",
        f"| --- |{' --- |' * len(shown)}",
    ]
    for share in FIRST:
        cells = []
        for k in shown:
            (epochs, kept, regret), of_draws, of_runs = rows[share, k]
            plus = f"{100 * of_draws[1]:.1f} / {100 * of_runs[1]:.1f}"
            cells.append(f"{100 * epochs:.1f} %, {100 * kept:.1f} % ± {plus}, {regret:.4f}")
        lines.append(f"| {'epoch 1' if share == ONE_EPOCH else share} | {' | '.join(cells)} |")
    return "\n".join(lines)


# ---------------------------------------------------------------------------------------------------------
# Two witnesses


def two_witnesses(draws: int) -> str:
    """Return Markdown: what halving loses as in `witness.py`, on its choosing and its judging half."""
    curves, histories = load_histories(CURVES)
    accuracy = values_at(curves, histories, "averaged, trend", HALVING.rungs)
    right = np.exp(values_at(curves, histories, "averaged val_loss, last", HALVING.rungs))
    witnesses = {
        "EMA accuracy, trend (the default)": accuracy,
        "EMA probability of the right class": right,
        "the mean of the two": (accuracy + right) / 2,
        "probability at 1/9, accuracy at 1/3": np.column_stack([right[:, 0], accuracy[:, 1]]),
        "probability at 1/9, the mean at 1/3": np.column_stack([right[:, 0], (accuracy + right)[:, 1] / 2]),
    }
    lines = ["| witness | choosing half: best kept, regret | judging half |", "| --- | --- | --- |"]
    for name, scores in witnesses.items():
        cells = []
        for first in (0, 1):
            runs = np.arange(len(curves))[first::2]
            rng = np.random.default_rng(4)
            whole = loss(curves, draw_runs(runs, draws, DRAWN, rng), HALVING, scores)
            parts = [
                loss(curves, draw_runs(part, max(50, draws // 10), DRAWN, rng), HALVING, scores)
                for part in subsets(runs, 60)
            ]
            kept = interval([one.best_kept for one in parts], len(runs))
            lost = interval([one.regret for one in parts], len(runs))
            cells.append(f"{100 * whole.best_kept:.1f} % ± {100 * kept:.1f}, {whole.regret:.4f} ± {lost:.4f}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "curves", nargs="*", type=Path, help="default: the two sets in $RAYSWEEP_SHARED; ways are judged on the first"
    )
    parser.add_argument("--draws", type=int, default=1000, help="of 25 and of 100 runs; half on halves (default: 1000)")
    parser.add_argument("--splits", type=int, default=10, help="into two halves of the runs (default: 10)")


def main() -> None:
    arguments = parse_arguments(__doc__, add_arguments)
    paths = recorded_sets(arguments.curves)
    recorded = load(paths[0])
    if missing := {"lr_peak_epoch", "curve_train_loss", "curve_top_5"} - set(recorded.table.columns):
        skip(f"{paths[0]} has no {', '.join(sorted(missing))}; only {RECORDED[0]} has all that is tried")
    draws, splits = (60, 1) if arguments.quick else (arguments.draws, arguments.splits)
    if not arguments.json:
        others = [] if arguments.quick else [(paths[0], SIZES[1]), *((path, SIZES[0]) for path in paths[1:])]
        for path, size in [(paths[0], SIZES[0]), *others]:
            print(yardstick_table(yardstick(load(path), size, draws), path.stem, size, draws), end="\n\n", flush=True)
        print(two_witnesses(2 * draws), end="\n\n", flush=True)
    found: dict[str, float] = {}
    found |= spans(recorded, draws)
    verdicts = judge(recorded, draws // 2, splits)
    for one in verdicts:
        key = one.way.title.translate(str.maketrans(" ", "_", ",`:'"))
        for chosen, rows in (("cheap", one.cheap), ("good", one.good)):
            means = rows.mean(axis=0)
            found |= {f"{key}_{chosen}_{name}": float(value) for name, value in zip(FIGURES, means, strict=True)}
    candidates = [one.cheap.mean(axis=0) for one in verdicts if one.way.transfers]
    best = max(candidates, key=lambda row: _order(row[1], MOST_EPOCHS + 0.005 - row[0]))
    found |= {"shippable_epochs": float(best[0]), "shippable_best_kept": float(best[1])}
    if not arguments.json:
        print(verdict_table(verdicts), end="\n\n")
    emit("stopping", found, TARGETS, arguments)


if __name__ == "__main__":
    main()
