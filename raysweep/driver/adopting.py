"""The states of another run, for trials here that begin with its epochs (`start` in a sweep file).

The deepest one is copied into the run folder, under the key that it has: trials then go on from it as from a twin's.
What the other run no longer has is trained again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from operator import itemgetter
from typing import Any

from raysweep.errors import StorageError
from raysweep.store import Record, RunFolder
from raysweep.store.runfolder import SUFFIX, split_path
from raysweep.store.states import Files, StateStore
from raysweep.sweepfile.plan import Trial
from raysweep.sweepfile.prefixes import Prefixes, starts_of
from raysweep.worker.sharing import signed

State = tuple[Record, Files]


def adopt(store: StateStore, trial: Trial, conditions: Mapping[str, Any]) -> str:
    """Copy the deepest state that a trial, and others of its start, can begin from into a run's `store`.

    Return what the user is to hear: which epochs are trained again.
    """
    start, prefixes = trial.start, Prefixes([trial])
    assert start is not None
    whose = f"the first {start.epoch} epochs, those of {start.trial}"
    if not prefixes.may_share(trial.id):
        return f"loop {trial.loop!r} does not say what decides its epochs (horizon): each trial trains {whose}, again"
    keys = {prefixes.key(trial.id, epoch, conditions): epoch for epoch in range(1, start.epoch + 1)}
    have = max((keys[key] for key in keys.keys() & store.all().keys()), default=0)
    for key, (record, files) in _found(trial, keys, deeper_than=have):
        store.keep(key, record, files)
        have = record.epoch
        break
    again = f"epochs {have + 1} to {start.epoch} are" if have + 1 < start.epoch else f"epoch {start.epoch} is"
    return "" if have == start.epoch else f"of {whose}, not all are there to go on from: {again} trained again"


def _found(trial: Trial, keys: Mapping[str, int], deeper_than: int) -> Iterator[tuple[str, State]]:
    """Yield the whole states of other run folders that have these keys, of so many epochs, the deepest first."""
    places = list(dict.fromkeys(each.run for each in starts_of(trial.start)))
    offers: list[tuple[int, str, Callable[[], State | None]]] = []
    for place in places:
        try:
            offers += _offers(place, trial, keys)
        except StorageError:  # it is gone, or cannot be read: the epochs are trained again
            continue
    for epoch, key, read in sorted(offers, key=itemgetter(0), reverse=True):
        if epoch > deeper_than and (found := read()):
            yield key, found


def _offers(place: str, trial: Trial, keys: Mapping[str, int]) -> Iterator[tuple[int, str, Callable[[], State | None]]]:
    """Yield the states of a run folder: epoch, key and what reads one."""
    folder = RunFolder(*split_path(place))
    if not folder.exists():
        return
    store, by_epoch = StateStore(folder), {epoch: key for key, epoch in keys.items()}
    for key in keys.keys() & set(store.listed()):
        yield keys[key], key, partial(_of_the_store, store, key, place)
    for start in starts_of(trial.start):
        record = folder.record(start.trial) if start.run == place else None
        if record is not None and record.status == "paused" and record.epoch <= start.epoch:
            yield record.epoch, by_epoch[record.epoch], partial(_of_a_trial, folder, record, place)


def _of_the_store(store: StateStore, key: str, run: str) -> State | None:
    found = store.find(key)
    return found and (_bare(signed(found[0], run)), found[1])


def _of_a_trial(folder: RunFolder, record: Record, run: str) -> State | None:
    """Return the commit of a trial that waits at a rung, if it is whole: others may be from inside an epoch."""
    files = {kind: folder.read_weights(record, kind) for kind in SUFFIX if kind in record.weights}
    whole = {kind: data for kind, data in files.items() if data is not None}
    return (_bare(signed(record, run)), whole) if "last" in whole and len(whole) == len(files) else None


def _bare(record: Record) -> Record:
    """Return a record without files, whose bytes come beside it."""
    return record.with_(status="running", weights={})
