"""The states of other run folders that a sweep's trials may begin with (`start` in its file). No Ray, no torch.

In: a trial that does not begin anew. Out: after which of its first epochs there are states to go on from, and where.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from raysweep.errors import StorageError
from raysweep.store import Record, RunFolder
from raysweep.store.runfolder import split_path
from raysweep.store.states import StateStore
from raysweep.sweepfile.plan import Trial
from raysweep.sweepfile.prefixes import Prefixes, starts_of


@dataclass(frozen=True)
class Offer:
    """A state that a run folder lists; whether it is whole shows when it is read."""

    epoch: int
    key: str
    run: str  # the path or URI of the run folder
    folder: RunFolder
    waiting: Record | None = None  # of the trial whose commit it is, one that waits at a rung; None: a kept state


def keys_of_start(trial: Trial, conditions: Mapping[str, Any]) -> dict[str, int]:
    """Return the epochs that a trial takes over, by the keys of the states after them.

    There are none if its loop does not say what decides its epochs.
    """
    prefixes = Prefixes([trial])
    if trial.start is None or not prefixes.may_share(trial.id):
        return {}
    return {prefixes.key(trial.id, epoch, conditions): epoch for epoch in range(1, trial.start.epoch + 1)}


def offers_for(trial: Trial, keys: Mapping[str, int]) -> list[Offer]:
    """Return the states with these keys of the run folders in which a trial's first epochs were trained, deepest first.

    A run folder that is gone, or cannot be read, has none: the epochs are trained again.
    """
    offers: list[Offer] = []
    for place in dict.fromkeys(each.run for each in starts_of(trial.start)):
        try:
            offers += _offers(place, trial, keys)
        except StorageError:
            continue
    return sorted(offers, key=attrgetter("epoch"), reverse=True)


def _offers(place: str, trial: Trial, keys: Mapping[str, int]) -> Iterator[Offer]:
    folder = RunFolder(*split_path(place))
    if not folder.exists():
        return
    store, by_epoch = StateStore(folder), {epoch: key for key, epoch in keys.items()}
    for key in filter(store.has, keys.keys() & set(store.listed())):
        yield Offer(keys[key], key, place, folder)
    for start in starts_of(trial.start):
        record = folder.record(start.trial) if start.run == place else None
        if record is not None and record.status == "paused" and record.epoch <= start.epoch:
            yield Offer(record.epoch, by_epoch[record.epoch], place, folder, record)


def epochs_there(trial: Trial, own: RunFolder) -> int | None:
    """Return how many of the epochs that a trial takes over need not be trained again, as run folders list states.

    None if its loop does not say what decides its epochs: each trial trains them again. `own` is the sweep's run
    folder, which need not exist.
    """
    keys = keys_of_start(trial, trial.start.conditions if trial.start else {})
    if not keys:
        return None
    try:
        here = [keys[key] for key in keys.keys() & StateStore(own).all().keys()]
    except StorageError:
        here = []
    return max([*here, *(offer.epoch for offer in offers_for(trial, keys))], default=0)
