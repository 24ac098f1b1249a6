"""A sweep's records to a `Halving`. They are the whole state, so a rerun decides as the run did. No Ray, no torch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from itertools import groupby
from statistics import fmean

from raysweep.halving.rules import member_of, rules_of
from raysweep.halving.rungs import Halving, Member, Rival
from raysweep.halving.scores import costs_of, first_rung_scores
from raysweep.store.record import Record
from raysweep.sweepfile.schema import AshaConfig, Objective, RayAshaConfig, SchedulerConfig

Knows = Mapping[int, Collection[str]]
"""With which trials those of each generation of a search compete, by its number."""


def replay(
    records: Iterable[Record],
    scheduler: SchedulerConfig,
    objective: Objective,
    retry_failed: bool = False,
    knows: Knows | None = None,
    costs: Collection[str] = (),
    others: Sequence[Record] = (),
) -> Halving:
    """Return what follows from the records of all trials of a plan, in the plan's order, those not begun included.

    With `retry_failed`, failed trials are to be tried again, so they are not out yet. `costs` are the objectives that
    are known before training; whoever has a score has these. `others` are trials that `knows` names and no plan has.
    """
    records = list(records)
    halving = Halving(rules_of(scheduler, objective, records, costs), ())
    for generation, own in groupby(records, key=lambda record: record.generation):
        known = (knows or {}).get(-1 if generation is None else generation, ())
        rivals = [record for record in (*records, *others) if record.id in known]
        take_in(halving, list(own), rivals, scheduler, objective, retry_failed, costs)
    return halving


def left_out(knows: Knows, ids: Collection[str]) -> list[str]:
    """Return the trials that others compete with and that are not in the plan: what they have decided stands."""
    return list(dict.fromkeys(id for known in knows.values() for id in known if id not in ids))


def take_in(
    halving: Halving,
    records: Sequence[Record],
    rivals: Sequence[Record],
    scheduler: SchedulerConfig,
    objective: Objective,
    retry_failed: bool = False,
    costs: Collection[str] = (),
) -> None:
    """Add trials to a `Halving`, all of a plan or one generation of a search, and what their records say of them."""
    generation = records[0].generation if records else None

    def member(record: Record) -> Member:
        return member_of(record.id, record.config, record.epochs, scheduler, generation)

    seeds: dict[tuple[Hashable, Hashable], list[Record]] = defaultdict(list)
    for record in rivals:
        seeds[member(record).group, member(record).config_key].append(record)
    halving.add(
        map(member, records),
        (_rival(halving, group, of_config, scheduler, objective, costs) for (group, _), of_config in seeds.items()),
    )
    for record in records:
        for rung, (score, val_loss) in enumerate(_scores(halving, record, scheduler, objective)):
            halving.record(record.id, rung, score, val_loss, costs_of(record, objective, costs))
        if is_done(record, scheduler):
            halving.diverge(record.id) if record.status == "diverged" else halving.finish(record.id)
        elif record.status == "failed" and not retry_failed:
            halving.fail(record.id)


def _rival(
    halving: Halving,
    group: Hashable,
    seeds: Sequence[Record],
    scheduler: SchedulerConfig,
    objective: Objective,
    costs: Collection[str],
) -> Rival:
    scores = [_scores(halving, record, scheduler, objective) for record in seeds]
    reached = [[each[rung] for each in scores if len(each) > rung] for rung in range(max(map(len, scores)))]
    means = [(fmean(score for score, _ in there), fmean(loss for _, loss in there)) for there in reached]
    known = [costs_of(record, objective, costs) for record, there in zip(seeds, scores, strict=True) if there]
    return Rival(min(record.id for record in seeds), group, means, [fmean(each) for each in zip(*known, strict=True)])


def _scores(
    halving: Halving, record: Record, scheduler: SchedulerConfig, objective: Objective
) -> list[tuple[float, float]]:
    rank_by = scheduler.rank_by if isinstance(scheduler, AshaConfig) else "ema"
    return first_rung_scores(record, halving.rules.rung_epochs(record.epochs), objective, rank_by)


def is_done(record: Record, scheduler: SchedulerConfig) -> bool:
    """Whether nothing can make a trial go on; one that `asha` stopped may get a place in a larger plan."""
    by_ray = record.status == "stopped" and isinstance(scheduler, RayAshaConfig)
    return record.status in ("finished", "diverged") or by_ray
