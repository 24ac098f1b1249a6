"""What a sampler is told of the proposals so far. Records in, `Told` out; no Optuna, no torch, no Ray."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Literal

from raysweep.halving.dominance import in_order
from raysweep.halving.rules import rules_of
from raysweep.halving.scores import first_rung_scores, value_of
from raysweep.results.ranking import SeedScores
from raysweep.store import Record
from raysweep.sweepfile import Sweep
from raysweep.sweepfile.proposals import Generation
from raysweep.sweepfile.schema import AshaConfig, SingleObjective
from raysweep.sweepfile.space import Settings

State = Literal["finished", "stopped", "failed", "pending"]


@dataclass(frozen=True)
class Told:
    """A proposal, and what is known of it: the means over its seeds."""

    settings: Settings
    state: State
    score: float | None  # the objective's best, of a finished or stopped proposal
    rungs: list[tuple[float, float]]  # (the share of its epochs, its score there) of each rung that it reached


def tell(
    sweep: Sweep,
    generations: Sequence[Generation],
    ids: Mapping[tuple[int, int], Collection[str]],
    records: Mapping[str, Record],
    knows: Collection[str],
) -> list[Told]:
    """Return what is told of all proposals so far, in order.

    Args:
        sweep: whose objective and scheduler say what a score is.
        generations: what has been proposed.
        ids: the trials of each proposal, by the numbers of its generation and of itself within it.
        records: the trials' records, by id.
        knows: the trials whose results are told; all others are pending.
    """
    of_proposals = [
        (settings, [records[id] for id in ids[generation.number, place] if id in knows])
        for generation in generations
        for place, settings in enumerate(generation.proposals)
    ]
    told = [_told(sweep, settings, own) for settings, own in of_proposals]
    if not sweep.objective.against:
        return told
    return _by_dominance(sweep, told, [own for _, own in of_proposals])


def _by_dominance(sweep: Sweep, told: Sequence[Told], records: Sequence[Sequence[Record]]) -> list[Told]:
    """Return what is told with places in the order of dominance for scores, worse ones being farther from 0.

    A sampler sees an order alone, so that with several objectives it is told that of `dominance`. At a rung the
    objectives are those that are known there, as in halving.
    """
    others = sweep.objective.against
    at_rungs = [place for place, each in enumerate(others) if each.metric in sweep.costs]
    values = [[_mean_of(own, each) for each in others] for own in records]
    finished = {i: (each.score, *values[i]) for i, each in enumerate(told) if each.state == "finished"}
    scores = _places((sweep.objective, *others), finished)
    rungs: list[dict[int, float]] = []
    for rung in range(max((len(each.rungs) for each in told), default=0)):
        there = {i: each.rungs[rung][1] for i, each in enumerate(told) if len(each.rungs) > rung}
        known = {i: (score, *(values[i][place] for place in at_rungs)) for i, score in there.items()}
        rungs.append(_places((sweep.objective, *(others[place] for place in at_rungs)), known))
    return [
        replace(
            each,
            score=scores.get(i, each.score),
            rungs=[(share, rungs[rung][i]) for rung, (share, _) in enumerate(each.rungs)],
        )
        for i, each in enumerate(told)
    ]


def _places(objectives: Sequence[SingleObjective], values: Mapping[int, Sequence[float | None]]) -> dict[int, float]:
    """Return for each proposal its place in the order of dominance, in the sign of the first objective."""
    points = [
        [
            math.inf if value is None or not math.isfinite(value) else -value if objective.maximize else value
            for objective, value in zip(objectives, own, strict=True)
        ]
        for own in values.values()
    ]
    ids, sign = list(values), -1.0 if objectives[0].maximize else 1.0
    return {ids[i]: sign * place for place, i in enumerate(in_order(points))}


def _mean_of(records: Sequence[Record], objective: SingleObjective) -> float | None:
    known = [value for record in records if (value := value_of(record, objective)) is not None]
    return fmean(known) if known else None


def _told(sweep: Sweep, settings: Settings, records: Sequence[Record]) -> Told:
    if not records:
        return Told(settings, "pending", None, [])
    score = SeedScores.of(records).mean
    if score is None or not math.isfinite(score):
        return Told(settings, "failed", None, [])
    state: State = "finished" if any(record.status == "finished" for record in records) else "stopped"
    rules = rules_of(sweep.scheduler, sweep.objective, records)
    rank_by = sweep.scheduler.rank_by if isinstance(sweep.scheduler, AshaConfig) else "ema"
    seeds = [first_rung_scores(each, rules.rung_epochs(each.epochs), sweep.objective, rank_by) for each in records]
    rungs = [
        (float(share), fmean(scores[place][0] for scores in seeds if len(scores) > place))
        for place, share in enumerate(rules.rungs)
        if any(len(scores) > place for scores in seeds)
    ]
    return Told(settings, state, score, rungs)
