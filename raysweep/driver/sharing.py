"""The states that the trials of a run keep for one another: where, under which keys, and for how long."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from raysweep.halving.twins import Twins
from raysweep.store import Record
from raysweep.sweepfile.plan import Trial
from raysweep.sweepfile.prefixes import Prefixes
from raysweep.sweepfile.schema import RayAshaConfig, SchedulerConfig, Sweep

WORTH_KEEPING = 0.5
"""A trial's last state stays for a longer one only if that one's epochs agree with so much of it."""


class Sharing:
    """What the trials of a stage, those that are not done, share."""

    def __init__(
        self,
        trials: Sequence[Trial],
        records: Sequence[Record],
        conditions: Mapping[str, Mapping[str, Any]],
        rungs: Callable[[Record], Sequence[int]],
        keeps_last: bool,
        kept: Mapping[str, Record],
    ) -> None:
        """`conditions` by trial; `kept` are the states that there are already, by key."""
        prefixes = self.prefixes = Prefixes(trials)
        rungs_of = {record.id: rungs(record) for record in records}
        self.stops: dict[str, dict[int, str]] = {}
        """The epochs after which each trial's state is of use, with the states' keys, by its id."""
        self.lasting: dict[str, str] = {}
        """The key of the state that each trial leaves for longer ones, by its id."""
        forks = prefixes.stops(rungs_of.__getitem__)
        kept_at = sorted({record.epoch for record in kept.values()})
        for id in filter(prefixes.may_share, (trial.id for trial in trials)):
            key = partial(prefixes.key, id, conditions=conditions[id])
            found = [epoch for epoch in kept_at if epoch <= prefixes.epochs(id) and key(epoch) in kept]
            stops = {epoch: key(epoch) for epoch in (*forks.get(id, ()), *found)}
            if keeps_last and (last := lasting_epoch(prefixes, id)):
                stops[last] = self.lasting[id] = key(last)
            self.stops[id] = dict(sorted(stops.items()))
        self.twins = Twins(self.stops, rungs_of, {record.id: record.epoch for record in records}, kept)

    @property
    def known(self) -> set[str]:
        """The keys of all states that these trials may keep."""
        return {key for stops in self.stops.values() for key in stops.values()}

    def wanted(self, epochs: Mapping[str, int]) -> set[str]:
        """Return the keys of the states that trials may still want; `epochs`: how far those have come that go on."""
        return {key for id, done in epochs.items() for epoch, key in self.stops.get(id, {}).items() if epoch > done}


def lasting_epoch(prefixes: Prefixes, id: str) -> int:
    """Return the epoch whose state a longer trial can go on from, if it is worth keeping; else 0."""
    last = prefixes.lasting(id)
    return last if last >= WORTH_KEEPING * prefixes.epochs(id) else 0


def lasting_keys(trials: Sequence[Trial], records: Mapping[str, Record]) -> dict[str, str]:
    """Return the key of the state that each trial which has finished may have left for longer ones, by its id."""
    prefixes, keys = Prefixes(trials), {}
    for id, record in records.items():
        if record.status == "finished" and prefixes.may_share(id) and (last := lasting_epoch(prefixes, id)):
            keys[id] = prefixes.key(id, last, record.conditions)
    return keys


def shares(sweep: Sweep, scheduler: SchedulerConfig) -> bool:
    """Whether a sweep's trials share epochs: not where Tune's own ASHA compares them as their epochs come in."""
    return sweep.share and not isinstance(scheduler, RayAshaConfig)


def whose_last_stays(sweep: Sweep, losers: Sequence[Record]) -> Callable[[str], bool]:
    """Return what tells of a trial's id whether its last state stays; `losers` are those that keep no weights."""
    keep, lost = sweep.checkpoints.keep_last, {record.id for record in losers}
    return lambda id: keep == "all" or (keep == "best" and id not in lost)
