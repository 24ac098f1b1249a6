"""A sweep's records to a `Halving`. They are the whole state, so a rerun decides as the run did. No Ray, no torch."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from raysweep.halving.rules import member_of, rules_of
from raysweep.halving.rungs import Halving
from raysweep.halving.scores import costs_of, first_rung_scores
from raysweep.store.record import Record
from raysweep.sweepfile.schema import AshaConfig, Objective, RayAshaConfig, SchedulerConfig


def replay(
    records: Iterable[Record],
    scheduler: SchedulerConfig,
    objective: Objective,
    retry_failed: bool = False,
    costs: Collection[str] = (),
) -> Halving:
    """Return what follows from the records of all trials of a plan, in the plan's order, those not begun included.

    With `retry_failed`, failed trials are to be tried again, so they are not out yet. `costs` are the objectives that
    are known before training; whoever has a score has these.
    """
    records = list(records)
    rules = rules_of(scheduler, objective, records, costs)
    halving = Halving(rules, (member_of(record.id, record.config, record.epochs, scheduler) for record in records))
    rank_by = scheduler.rank_by if isinstance(scheduler, AshaConfig) else "ema"
    for record in records:
        scores = first_rung_scores(record, rules.rung_epochs(record.epochs), objective, rank_by)
        for rung, (score, val_loss) in enumerate(scores):
            halving.record(record.id, rung, score, val_loss, costs_of(record, objective, costs))
        if is_done(record, scheduler):
            halving.diverge(record.id) if record.status == "diverged" else halving.finish(record.id)
        elif record.status == "failed" and not retry_failed:
            halving.fail(record.id)
    return halving


def is_done(record: Record, scheduler: SchedulerConfig) -> bool:
    """Whether nothing can make a trial go on; one that `asha` stopped may get a place in a larger plan."""
    by_ray = record.status == "stopped" and isinstance(scheduler, RayAshaConfig)
    return record.status in ("finished", "diverged") or by_ray
