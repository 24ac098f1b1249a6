"""What an epoch is worth: the objective's metric, of the plain or the EMA weights, whichever is better.

Pure functions of recorded metrics; no torch, no Ray.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import median

from raysweep.store.metrics import CLOCK, EMA, roles_of
from raysweep.store.record import COSTS, Record, Score
from raysweep.sweepfile.schema import Objective, RankBy, SingleObjective


def score_epoch(metrics: Mapping[str, float], objective: Objective) -> tuple[float, bool] | None:
    """Return one epoch's (score, whether the EMA weights reached it), or None if it has no finite score."""
    plain = objective.metric.removesuffix(EMA)
    candidates = [(metrics.get(f"{plain}{EMA}"), True)]
    if objective.metric == plain:
        candidates.insert(0, (metrics.get(plain), False))
    finite = [(value, averaged) for value, averaged in candidates if value is not None and math.isfinite(value)]
    if not finite:
        return None
    sign = 1 if objective.maximize else -1
    return max(finite, key=lambda candidate: (sign * candidate[0], not candidate[1]))


def value_of(record: Record, objective: SingleObjective) -> float | None:
    """Return a trial's value of another objective, at the epoch and of the weights that its score is of.

    What is known before training is among its conditions. Of what the clock says, which one epoch says by accident, it
    is the median over the epochs. None where it is not known, or no finite number.
    """
    costs, best, plain = record.conditions.get(COSTS, {}), record.best, objective.metric.removesuffix(EMA)
    if objective.metric in costs:
        return float(costs[objective.metric])
    if objective.metric in CLOCK:
        told = (row.get(objective.metric) for row in record.metrics)
        times = [value for value in told if value is not None and math.isfinite(value)]
        return median(times) if times else None
    row = record.metrics[best.epoch - 1] if best and best.epoch <= record.epoch else {}
    names = [objective.metric, *([f"{plain}{EMA}"] if best and best.averaged else [])]
    value = next((row[name] for name in reversed(names) if row.get(name) is not None), math.nan)
    return value if math.isfinite(value) else None


def costs_of(record: Record, objective: Objective, names: Collection[str]) -> list[float]:
    """Return those of a trial's objectives that are known before training, in their order."""
    known = record.conditions.get(COSTS, {})
    return [known.get(each.metric, math.nan) for each in objective.against if each.metric in names]


def best_epoch(history: Sequence[Mapping[str, float]], objective: Objective) -> Score | None:
    """Return the best of a trial's epochs (the earliest of equals), or None if none has a finite score."""
    best: Score | None = None
    for metrics in history:
        best = better_of(best, metrics, objective)
    return best


def score_again(best: Score | None, history: Sequence[Mapping[str, float]], objective: Objective) -> Score | None:
    """Return the best epoch's score under an objective that may be another than it was chosen by.

    The epoch stays the best, since its weights are those that are kept; None if it has no finite score.
    """
    if best is None or best.epoch > len(history):
        return best
    plain = objective.metric.removesuffix(EMA)
    value = history[best.epoch - 1].get(f"{plain}{EMA}" if best.averaged else plain, math.nan)
    return replace(best, score=value) if value is not None and math.isfinite(value) else None


def better_of(best: Score | None, metrics: Mapping[str, float], objective: Objective) -> Score | None:
    """Return the better of the best epoch so far and the one with these metrics; the former if they are equal."""
    scored = score_epoch(metrics, objective)
    if scored is None or (best is not None and not is_better(scored[0], best.score, objective)):
        return best
    score, averaged = scored
    return Score(int(metrics["epoch"]), score, averaged, metrics.get("val_acc_ema" if averaged else "val_acc"))


def best_with(record: Record, state: Record, objective: Objective) -> Score | None:
    """Return the best epoch of a trial, had it trained by itself those that are ahead of it in another one's state."""
    best = record.best or best_epoch(record.judged_metrics, objective)
    first = max(record.epoch, record.start.epoch if record.start else 0)
    for metrics in state.metrics[first:]:
        best = better_of(best, metrics, objective)
    return best


def fits(record: Record, state: Record, objective: Objective) -> bool:
    """Whether a trial can go on from another one's state to the weights that it would have by itself.

    A state has those of the epoch that was the best when it was left: by another objective, or for a trial that begins
    elsewhere (`start`), it may be another epoch.
    """
    best = best_with(record, state, objective)
    return best is None or best.epoch <= record.epoch or is_same_epoch(best, state.best)


def those_that_fit(record: Record, states: Iterable[Record], objective: Objective) -> list[Record]:
    """Return the states that a trial can take over, one after another, from the first to the deepest."""
    found = []
    for state in sorted(states, key=lambda state: state.epoch):
        if fits(record, state, objective):
            metrics = [*record.metrics, *state.metrics[record.epoch :]]
            record = record.with_(metrics=metrics, best=best_with(record, state, objective))
            found.append(state)
    return found


def is_same_epoch(one: Score, other: Score | None) -> bool:
    """Whether two scores are of the same weights of one history."""
    return other is not None and (one.epoch, one.averaged) == (other.epoch, other.averaged)


def is_better(score: float, other: float, objective: Objective) -> bool:
    """Whether one score beats another."""
    return score > other if objective.maximize else score < other


def rung_scores(
    history: Sequence[Mapping[str, float]], epochs: Sequence[int], objective: Objective, rank_by: RankBy
) -> list[tuple[float, float]]:
    """Return a trial's (score, validation loss) at each rung that its history reaches; NaN where it has no finite one.

    The history has one row an epoch; `epochs` are those of the rungs, ascending.
    """
    return [_rung_score(history[:epoch], objective, rank_by) for epoch in epochs if epoch <= len(history)]


def first_rung_scores(
    record: Record, epochs: Sequence[int], objective: Objective, rank_by: RankBy
) -> list[tuple[float, float]]:
    """Return a trial's scores at its rungs, as `rung_scores`, each from the history that was the first to reach it.

    A trial may have to go back, and its epochs may come out differently when they are trained again. What was decided
    by its first scores stands, here as in a `Halving`.
    """
    scores: list[tuple[float, float]] = []
    for history in (*record.former_metrics, record.metrics):
        scores += rung_scores(history, epochs, objective, rank_by)[len(scores) :]
    return scores


def _rung_score(history: Sequence[Mapping[str, float]], objective: Objective, rank_by: RankBy) -> tuple[float, float]:
    if rank_by == "trend":
        return _trend_score(history, objective)
    best, best_loss = math.nan, math.nan
    for metrics in history[-1:] if rank_by == "last" else history:
        scored = _ema_score(metrics, objective) if rank_by == "ema" else score_epoch(metrics, objective)
        if scored is not None and (math.isnan(best) or is_better(scored[0], best, objective)):
            best, averaged = scored
            best_loss = _val_loss(metrics, objective, averaged)
    return best, best_loss


def _trend_score(history: Sequence[Mapping[str, float]], objective: Objective) -> tuple[float, float]:
    scored = [_ema_score(metrics, objective) or (math.nan, False) for metrics in history]
    return trend([score for score, _ in scored]), _val_loss(history[-1], objective, averaged=scored[-1][1])


def _val_loss(metrics: Mapping[str, float], objective: Objective, averaged: bool) -> float:
    roles = roles_of(tuple(metrics), objective.metric, objective.maximize)
    loss = metrics.get(roles.get("val_loss_ema" if averaged else "val_loss", ""))
    return math.nan if loss is None else loss


def _ema_score(metrics: Mapping[str, float], objective: Objective) -> tuple[float, bool] | None:
    """Return the EMA weights' score, or the plain ones' in a trial without (`ema: false`)."""
    name = objective.metric.removesuffix(EMA)
    averaged = metrics.get(f"{name}{EMA}")
    return score_epoch(metrics if averaged is None else {f"{name}{EMA}": averaged}, objective)


def trend(scores: Sequence[float]) -> float:
    """Return the last score plus half of its rise over the last third of the epochs: where it is heading.

    Early in a schedule scores still rise fast, some faster than others: those that will be passed rise less. The whole
    rise in place of half would carry a curve that grows with the logarithm of time to one and a half times its epochs,
    but it doubles the noise of a single epoch, too. No rise is taken from a score that is not finite.
    """
    last = scores[-1]
    before = scores[math.ceil(len(scores) * 2 / 3) - 1]
    return last + (last - before) / 2 if math.isfinite(before) else last
