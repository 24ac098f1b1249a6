"""The states of another run, for trials here that begin with its epochs (`start` in a sweep file).

The deepest one is copied into the run folder, under the key that it has: trials then go on from it as from a twin's.
What the other run no longer has is trained again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raysweep.results.offers import Offer, keys_of_start, offers_for
from raysweep.store import Record, RunFolder
from raysweep.store.runfolder import SUFFIX
from raysweep.store.states import Files, StateStore
from raysweep.sweepfile.plan import Trial
from raysweep.worker.sharing import signed

State = tuple[Record, Files]


def adopt(store: StateStore, trial: Trial, conditions: Mapping[str, Any]) -> str:
    """Copy the deepest state that a trial, and others of its start, can begin from into a run's `store`.

    Return what the user is to hear: which epochs are trained again.
    """
    start, keys = trial.start, keys_of_start(trial, conditions)
    assert start is not None
    whose = f"the first {start.epoch} epochs, those of {start.trial}"
    if not keys:
        return f"loop {trial.loop!r} does not say what decides its epochs (horizon): each trial trains {whose}, again"
    have = max((keys[key] for key in keys.keys() & store.all().keys()), default=0)
    for offer in offers_for(trial, keys):
        if offer.epoch > have and (found := _read(offer)):
            store.keep(offer.key, *found)
            have = offer.epoch
            break
    again = f"epochs {have + 1} to {start.epoch} are" if have + 1 < start.epoch else f"epoch {start.epoch} is"
    return "" if have == start.epoch else f"of {whose}, not all are there to go on from: {again} trained again"


def _read(offer: Offer) -> State | None:
    """Return a state with its files; None if it is not whole."""
    if offer.waiting is None:
        return _of_the_store(StateStore(offer.folder), offer.key, offer.run)
    return _of_a_trial(offer.folder, offer.waiting, offer.run)


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
