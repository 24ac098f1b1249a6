"""The states that the trials of a run keep for one another: where, under which keys, and for how long."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from raysweep.halving.twins import Twins
from raysweep.results.ranking import RankedConfig
from raysweep.store import Record
from raysweep.sweepfile.plan import Trial
from raysweep.sweepfile.prefixes import Prefixes
from raysweep.sweepfile.schema import Sweep


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
        self.last_states: dict[str, str] = {}
        """The key of the state that each trial leaves for longer ones, by its id."""
        forks = prefixes.stops(rungs_of.__getitem__)
        for id in filter(prefixes.may_share, (trial.id for trial in trials)):
            key = partial(prefixes.key, id, conditions=conditions[id])
            stops = {epoch: key(epoch) for epoch in forks.get(id, ())} | _found(prefixes.epochs(id), key, kept)
            if keeps_last and (last := prefixes.last_state(id)):
                stops[last] = self.last_states[id] = key(last)
            self.stops[id] = dict(sorted(stops.items()))
        self.twins = Twins(self.stops, rungs_of, {record.id: record.epoch for record in records}, kept)

    @property
    def known(self) -> set[str]:
        """The keys of all states that these trials may keep."""
        return {key for stops in self.stops.values() for key in stops.values()}

    def wanted(self, epochs: Mapping[str, int]) -> set[str]:
        """Return the keys of the states that trials may still want; `epochs`: how far those have come that go on."""
        return {key for id, done in epochs.items() for epoch, key in self.stops.get(id, {}).items() if epoch > done}


def _found(epochs: int, key: Callable[[int], str], kept: Mapping[str, Record]) -> dict[int, str]:
    """Return the keys of the states that there are already and are those of a trial with so many epochs, by epoch."""
    at = {record.epoch for record in kept.values() if record.epoch <= epochs}
    return {epoch: key(epoch) for epoch in sorted(at) if key(epoch) in kept}


def keys_of_last_states(trials: Sequence[Trial], records: Mapping[str, Record]) -> dict[str, str]:
    """Return the key of the state that each trial which has finished may have left for longer ones, by its id."""
    prefixes, keys = Prefixes(trials), {}
    for id, record in records.items():
        if record.status == "finished" and (last := prefixes.last_state(id)):
            keys[id] = prefixes.key(id, last, record.conditions)
    return keys


def whose_last_stays(sweep: Sweep, ranked: Sequence[RankedConfig]) -> Callable[[str], bool]:
    """Return what tells of a trial's id whether its last state stays."""
    keep = sweep.checkpoints.keep_last
    best = {config.best.id for config in ranked[: sweep.checkpoints.keep_best] if config.best}
    return lambda id: keep == "all" or (keep == "best" and id in best)
