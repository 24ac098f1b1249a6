"""What a sampler is told of the proposals so far. Records in, `Told` out; no Optuna, no torch, no Ray."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from raysweep.halving.rules import rules_of
from raysweep.halving.scores import first_rung_scores
from raysweep.results.ranking import SeedScores
from raysweep.store import Record
from raysweep.sweepfile import Sweep
from raysweep.sweepfile.proposals import Generation
from raysweep.sweepfile.schema import AshaConfig
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
    return [
        _told(sweep, settings, [records[id] for id in ids[generation.number, place] if id in knows])
        for generation in generations
        for place, settings in enumerate(generation.proposals)
    ]


def _told(sweep: Sweep, settings: Settings, records: Sequence[Record]) -> Told:
    if not records:
        return Told(settings, "pending", None, [])
    score = SeedScores.of(records).mean
    if score is None:
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
