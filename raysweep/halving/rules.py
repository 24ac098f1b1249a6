"""A sweep's scheduler and its trials, as `halving` knows them. No torch, no Ray."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from raysweep.halving.rungs import Member, Rules, group_of
from raysweep.store.record import Record
from raysweep.sweepfile.plan import Trial, config_key
from raysweep.sweepfile.schema import AshaConfig, Objective, SchedulerConfig


def rules_of(
    scheduler: SchedulerConfig,
    objective: Objective,
    planned: Iterable[Trial | Record] = (),
    costs: Collection[str] = (),
) -> Rules:
    """Return the rules of a sweep's scheduler; those of `none` and `ray_asha` have no rungs.

    `planned` are the sweep's trials or their records, which say whether they begin with another run's epochs, `costs`
    the objectives that are known before training.
    """
    if not isinstance(scheduler, AshaConfig):
        return Rules(rungs=(), maximize=objective.maximize)
    return Rules(
        eta=scheduler.eta,
        rungs=tuple(scheduler.rungs),
        min_survivors=scheduler.min_survivors,
        tolerance=scheduler.tolerance,
        maximize=objective.maximize,
        costs=tuple(each.maximize for each in objective.against if each.metric in costs),
        after=max((each.start.epoch for each in planned if each.start), default=0),
    )


def member_of(
    id: str, config: Mapping[str, Any], epochs: int, scheduler: SchedulerConfig, generation: int | None = None
) -> Member:
    """Return a trial as `Halving` knows it: the seeds of one config share its key.

    `group_by` tells its group, together with the `generation` of a search.
    """
    group = group_of(config, scheduler.group_by if isinstance(scheduler, AshaConfig) else [])
    return Member(id, config_key(config), group if generation is None else (generation, *group), epochs)
