"""Recorded learning curves in place of training: what a sweep over them would have spent, found and taken.

* Curves               recorded runs: a score an epoch, how long each was to be, whether it diverged
* none, ray_asha, ours a sweep over some of the runs on some slots, event by event: an `Outcome`
* synchronous          the decisions of `ours` for many draws at once, as arrays: `Outcomes`

Time is counted in epochs: each takes one unit, nothing else takes any. A run that diverged spends the epoch in which
it did, under every method.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from raysweep.halving.rules import rules_of
from raysweep.halving.rungs import Halving, Member, Rules, Verdict
from raysweep.halving.scores import rung_scores
from raysweep.sweepfile.schema import AshaConfig, Objective, RankBy

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

SCORES = ("curve_top_1", "curve_val_acc")


@dataclass(frozen=True)
class Curves:
    """Recorded runs; row i of each array is run i."""

    name: str
    score: Floats
    """runs x most epochs: validation accuracy 0..1 after each epoch; NaN from where a run diverged or ended."""
    epochs: Ints
    """The epochs that each run was to train."""
    recorded: Ints
    """The epochs that it did train: fewer if it diverged."""

    def __len__(self) -> int:
        return len(self.epochs)

    @property
    def spent(self) -> Ints:
        """Epochs that each run takes if nobody stops it."""
        return np.minimum(self.recorded + 1, self.epochs)

    @property
    def best(self) -> Floats:
        """Each run's best score; 0 if it has none."""
        return best_until(self, self.epochs)


def load_curves(path: Path) -> Curves:
    """Read a Parquet file with a row a run: a list column of `SCORES`, and `epochs` unless all are of one length."""
    table = pq.read_table(path)
    name = next((name for name in SCORES if name in table.column_names), None)
    if name is None:
        raise SystemExit(f"{path}: has none of the columns {', '.join(SCORES)}")
    rows: list[list[float]] = table[name].to_pylist()
    recorded = np.array([len(row) for row in rows])
    epochs = table["epochs"].to_numpy() if "epochs" in table.column_names else np.full(len(rows), recorded.max())
    score = np.full((len(rows), int(epochs.max())), np.nan)
    for i, row in enumerate(rows):
        score[i, : len(row)] = row
    return Curves(path.stem, score, epochs.astype(np.int64), recorded)


def best_until(curves: Curves, until: Ints) -> Floats:
    """Return each run's best score within its first `until` epochs; 0 if it has none."""
    seen = np.arange(curves.score.shape[1]) < until[:, None]
    return np.max(np.where(seen & np.isfinite(curves.score), curves.score, 0.0), axis=1)


@dataclass(frozen=True)
class Outcome:
    """What a sweep spent and found."""

    epochs: float
    best: float
    makespan: float


# ---------------------------------------------------------------------------------------------------------
# Sweeps event by event


def none(curves: Curves, draw: Ints, slots: int) -> Outcome:
    """Every run to its end, in the order of the draw."""
    return _first_come(curves, draw, slots, lambda run: [int(curves.spent[run])], lambda run, epoch: True)


def ray_asha(curves: Curves, draw: Ints, slots: int, grace_period: int = 1, reduction_factor: float = 4) -> Outcome:
    """Tune's own AsyncHyperBandScheduler, which is asked at every epoch where it has a rung."""
    from ray.tune.schedulers import AsyncHyperBandScheduler

    scheduler = AsyncHyperBandScheduler(
        "epoch", "score", "max", max_t=100, grace_period=grace_period, reduction_factor=reduction_factor
    )
    trials = {int(run): SimpleNamespace(trial_id=str(run)) for run in draw}
    for trial in trials.values():
        scheduler.on_trial_add(SimpleNamespace(metadata={}), trial)
    rungs = [int(milestone) for milestone, _ in scheduler._brackets[0]._rungs][::-1]

    def stops(run: int) -> list[int]:
        recorded = int(curves.recorded[run])
        return [rung for rung in rungs if rung < recorded] + [int(curves.spent[run])]

    def goes_on(run: int, epoch: int) -> bool:
        if epoch > curves.recorded[run]:
            return False
        result = {"epoch": epoch, "score": float(curves.score[run, epoch - 1])}
        if epoch == curves.epochs[run]:
            scheduler.on_trial_complete(None, trials[run], result)
            return False
        return bool(scheduler.on_trial_result(None, trials[run], result) == "CONTINUE")

    return _first_come(curves, draw, slots, stops, goes_on)


def _first_come(
    curves: Curves, draw: Ints, slots: int, stops: Callable[[int], list[int]], goes_on: Callable[[int, int], bool]
) -> Outcome:
    """Trials in the order of the draw, each on its slot until it ends or is stopped at one of its `stops`."""
    waiting, events, trained, now = [int(run) for run in draw][::-1], [], dict[int, int](), 0
    arrival = 0
    plans: dict[int, list[int]] = {}
    while waiting or events:
        while waiting and len(events) < slots:
            run = waiting.pop()
            plans[run] = stops(run)
            heapq.heappush(events, (now + plans[run][0], arrival, run))
            arrival += 1
        now, order, run = heapq.heappop(events)
        trained[run] = plans[run].pop(0)
        if goes_on(run, trained[run]) and plans[run]:
            heapq.heappush(events, (now + plans[run][0] - trained[run], order, run))
    return _outcome(curves, trained, now)


def ours(curves: Curves, draw: Ints, slots: int, rules: Rules, scores: Floats) -> Outcome:
    """`raysweep.halving.rungs` as the driver uses it; `scores`: runs x rungs, as `scores_at_rungs` returns them."""
    halving = Halving(rules, [Member(str(run), int(run), "", int(curves.epochs[run])) for run in draw])
    stops = {int(run): rules.rung_epochs(int(curves.epochs[run])) for run in draw}
    events: list[tuple[int, int, int]] = []
    trained = {int(run): 0 for run in draw}
    reached = dict.fromkeys(trained, 0)  # rungs
    now = arrival = busy = 0

    def train_on(run: int) -> None:
        nonlocal arrival
        target = stops[run][reached[run]] if reached[run] < len(stops[run]) else int(curves.epochs[run])
        target = min(target, int(curves.spent[run]))
        heapq.heappush(events, (now + target - trained[run], arrival, run))
        trained[run] = target
        arrival += 1

    while True:
        while busy < slots and (id := halving.next_trial()) is not None:
            halving.start(id)
            busy += 1
            train_on(int(id))
        if not events:
            return _outcome(curves, trained, now)
        now, _, run = heapq.heappop(events)
        id = str(run)
        if trained[run] > curves.recorded[run]:
            halving.diverge(id)
        else:
            while reached[run] < len(stops[run]) and stops[run][reached[run]] == trained[run]:
                halving.record(id, reached[run], scores[run, reached[run]])
                reached[run] += 1
            if trained[run] == curves.epochs[run]:
                halving.finish(id)
            elif halving.verdict(id) is Verdict.SAFE:
                train_on(run)
                continue
        busy -= 1
        halving.release(id)


def _outcome(curves: Curves, trained: dict[int, int], makespan: float) -> Outcome:
    best = 0.0
    for run, epochs in trained.items():
        seen = curves.score[run, : min(epochs, curves.recorded[run])]
        best = max(best, float(seen.max(initial=0.0)))
    return Outcome(sum(trained.values()), best, makespan)


# ---------------------------------------------------------------------------------------------------------
# Many sweeps at once


@dataclass(frozen=True)
class Outcomes:
    """What sweeps spent and found, an entry a draw."""

    epochs: Floats
    best: Floats
    makespan: Floats

    def some(self, which: Ints) -> Outcomes:
        return Outcomes(self.epochs[which], self.best[which], self.makespan[which])


def draw_runs(pool: Ints, draws: int, size: int, rng: np.random.Generator) -> Ints:
    """Return draws x size: so many of the runs in `pool`, without repeats, in random order."""
    return np.stack([rng.choice(pool, size, replace=False) for _ in range(draws)])


def synchronous(curves: Curves, draws: Ints, rules: Rules, scores: Floats, rungs_after: Ints | None = None) -> Outcomes:
    """Return what `ours` spends and finds on each of the draws, a row each: it does not depend on slots or order.

    `rungs_after`: runs x rungs, the epochs after which they are reached, if not those of the rules.

    Synchronous successive halving: at each rung those who will reach the next are ranked, the best take the places,
    and whoever diverges between the two spends epochs only if it ranked before the last place.
    """
    stops = np.column_stack([rung_epochs(curves, rules) if rungs_after is None else rungs_after, curves.epochs])
    level = levels(curves, draws, rules, scores, stops)
    trained = np.minimum(stops, curves.spent[:, None])
    best = np.column_stack([best_until(curves, stop) for stop in stops.T])
    spent = trained[draws, level].sum(axis=1).astype(float)
    return Outcomes(spent, best[draws, level].max(axis=1), np.full(len(draws), np.nan))


def levels(curves: Curves, draws: Ints, rules: Rules, scores: Floats, stops: Ints) -> Ints:
    """Return draws x runs: from how many rungs each goes on; `stops`: runs x rungs, and their last epochs."""
    order = key_ranks(scores)
    level = np.zeros(draws.shape, np.int64)
    contestants = np.ones(draws.shape, bool)
    for r, places in enumerate(rules.places(draws.shape[1])):
        reached = contestants & (curves.recorded >= stops[:, r])[draws]
        lasting = reached & (curves.recorded >= stops[:, r + 1])[draws]
        rank = np.where(lasting, order[draws, r], len(curves))
        last = np.sort(rank, axis=1)[:, min(places, rank.shape[1]) - 1, None]
        among = order[draws, r] <= last
        if rules.tolerance:
            cutoff = np.min(np.where(lasting & among, scores[draws, r], np.inf), axis=1, keepdims=True)
            among |= scores[draws, r] >= cutoff - rules.tolerance
        level[reached & among] = r + 1
        contestants = lasting & among
    return level


def default_rules() -> tuple[Rules, RankBy]:
    """Return what `scheduler: asha` is by default."""
    asha = AshaConfig(name="asha")
    return rules_of(asha, Objective()), asha.rank_by


def scores_at_rungs(curves: Curves, rules: Rules, rank_by: RankBy) -> Floats:
    """Return runs x rungs: raysweep's own score of each run there, NaN where it does not come to be."""
    scores = np.full((len(curves), len(rules.rungs)), np.nan)
    for i, row in enumerate(curves.score):
        history = [{"epoch": e + 1.0, "val_acc": float(row[e])} for e in range(curves.recorded[i])]
        reached = rung_scores(history, rules.rung_epochs(int(curves.epochs[i])), Objective(), rank_by)
        scores[i, : len(reached)] = [score for score, _ in reached]
    return scores


def rung_epochs(curves: Curves, rules: Rules) -> Ints:
    """Return runs x rungs: the epoch after which each rung is reached."""
    of_length = {int(epochs): rules.rung_epochs(int(epochs)) for epochs in np.unique(curves.epochs)}
    return np.array([of_length[int(epochs)] for epochs in curves.epochs], np.int64).reshape(len(curves), -1)


def key_ranks(scores: Floats) -> Ints:
    """Return each run's place in each rung's order: higher score first, none last, equals by the text of their id."""
    ids = np.argsort(np.argsort(np.arange(len(scores)).astype(str)))
    cost = np.where(np.isfinite(scores), -scores, np.inf)
    ranks = np.empty(scores.shape, np.int64)
    for r in range(scores.shape[1]):
        ranks[np.lexsort((ids, cost[:, r])), r] = np.arange(len(scores))
    return ranks
