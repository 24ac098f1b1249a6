"""The states that the trials of a run keep for one another: where, under which keys, and for how long."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

from raysweep.halving.scores import those_that_fit
from raysweep.halving.twins import Twins
from raysweep.store import Record
from raysweep.sweepfile.plan import Trial
from raysweep.sweepfile.prefixes import Prefixes
from raysweep.sweepfile.schema import Objective, Sweep


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
        objective: Objective,
    ) -> None:
        """`conditions` by trial; `kept` are the states that there are already, by key."""
        prefixes = self.prefixes = Prefixes(trials)
        rungs_of = {record.id: rungs(record) for record in records}
        self.stops: dict[str, dict[int, str]] = {}
        """The epochs after which each trial's state is of use, with the states' keys, by its id."""
        self.last_states: dict[str, str] = {}
        """The key of the state that each trial leaves for longer ones, by its id."""
        self._begins: dict[str, int] = {}
        """The epoch of the deepest state from which each trial can go on that was there before."""
        forks, there = prefixes.stops(rungs_of.__getitem__), set[str]()
        by_id = {record.id: record for record in records}
        for id in filter(prefixes.may_share, (trial.id for trial in trials)):
            key = partial(prefixes.key, id, conditions=conditions[id])
            found = _found(by_id[id], key, kept, objective)
            self._begins[id] = max(found, default=0)
            there |= set(found.values())
            stops = {epoch: key(epoch) for epoch in forks.get(id, ())} | found
            if keeps_last and (last := prefixes.last_state(id)):
                stops[last] = self.last_states[id] = key(last)
            self.stops[id] = dict(sorted(stops.items()))
        self.twins = Twins(self.stops, rungs_of, {record.id: record.epoch for record in records}, there)

    def join(self, others: Sharing) -> None:
        """Take in trials that begin while these run; they share with one another, and what was kept before."""
        self.prefixes.join(others.prefixes)
        self.stops |= others.stops
        self.last_states |= others.last_states
        self._begins |= others._begins
        self.twins.join(others.twins)

    @property
    def known(self) -> set[str]:
        """The keys of all states that these trials may keep."""
        return {key for stops in self.stops.values() for key in stops.values()}

    def left(self, epochs: Mapping[str, int], going_on: Collection[str]) -> int:
        """Return how many epochs those trials that go on have to train; `epochs`: how far all have come.

        Of a trial that has ended others find the states alone.
        """
        reached = {
            id: max(self._begins[id], epochs[id])
            if id in going_on
            else max((epoch for epoch in stops if epoch <= epochs[id]), default=0)
            for id, stops in self.stops.items()
        }
        return self.prefixes.left(reached, going_on)

    def wanted(self, epochs: Mapping[str, int]) -> set[str]:
        """Return the keys of the states that trials may still want; `epochs`: how far those have come that go on."""
        return {key for id, done in epochs.items() for epoch, key in self.stops.get(id, {}).items() if epoch > done}


def _found(
    record: Record, key: Callable[[int], str], kept: Mapping[str, Record], objective: Objective
) -> dict[int, str]:
    """Return the keys of the states that there are already and from which a trial can go on, by epoch."""
    keys = {state.epoch: key(state.epoch) for state in kept.values() if state.epoch <= record.epochs}
    its_own = (kept[each] for each in keys.values() if each in kept)
    return {state.epoch: keys[state.epoch] for state in those_that_fit(record, its_own, objective)}


def keys_of_last_states(trials: Sequence[Trial], records: Mapping[str, Record]) -> dict[str, str]:
    """Return the key of the state that each trial which has finished may have left for longer ones, by its id."""
    prefixes, keys = Prefixes(trials), {}
    for id, record in records.items():
        if record.status == "finished" and (last := prefixes.last_state(id)):
            keys[id] = prefixes.key(id, last, record.conditions)
    return keys


def whose_last_stays(sweep: Sweep, losers: Sequence[Record]) -> Callable[[str], bool]:
    """Return what tells of a trial's id whether its last state stays; `losers` are those that keep no weights."""
    keep, lost = sweep.checkpoints.keep_last, {record.id for record in losers}
    return lambda id: keep == "all" or (keep == "best" and id not in lost)
