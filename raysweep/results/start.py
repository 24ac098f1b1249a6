"""Finds the trial that `start: {run, trial, epoch}` of a sweep file names, in its run folder. No torch, no Ray.

What was found is in resolved.yaml of the sweep's own run folder, and holds as long as the file says the same: the other
run may go on, be moved or be deleted, and the trials keep their ids.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from raysweep.errors import StorageError, SweepFileError, UserError, did_you_mean
from raysweep.loops import loop_named, loop_of
from raysweep.store import Record, RunFolder
from raysweep.store.resolved import read_resolved
from raysweep.store.runfolder import split_path
from raysweep.sweepfile import Sweep, storage_of
from raysweep.sweepfile.plan import StartedFrom, id_named
from raysweep.sweepfile.prefixes import deciding
from raysweep.sweepfile.schema import Start
from raysweep.terminal import count_of


def find_start(sweep: Sweep, storage: str | None = None, is_fresh: bool = False) -> StartedFrom:
    """Return where the trials of a sweep begin, whose `start` names a trial.

    `storage` is where run folders lie, if not where the sweep says; `is_fresh`: an own run folder does not count.

    Raises:
        SweepFileError: there is no such trial, or its epochs cannot be gone on from; with the place in the file.
    """
    start, file = sweep.start, sweep.source.path or f"{sweep.name}.yaml"
    assert start is not None
    own = RunFolder(storage_of(sweep, file, storage), sweep.name)
    other = RunFolder(*split_path(place_of(start, file)))
    if own.path == other.path:
        raise _wrong(sweep, "run", f"{other.path} is this sweep's own run folder; give the sweep another name")
    if not is_fresh and (found := _found_before(own, start, file)):
        return found
    try:
        return _look_up(sweep, start, other)
    except StorageError as error:
        raise SweepFileError(*(sweep.source.problem(("start", "run"), each) for each in error.problems)) from error


def place_of(start: Start, file: str) -> str:
    """Return the run folder that `start` names in a sweep file, as an absolute path or a URI."""
    run = str(start.run)
    return run if "://" in run else os.path.normpath(Path(file).absolute().parent / Path(run).expanduser())


def _found_before(own: RunFolder, start: Start, file: str) -> StartedFrom | None:
    """Return what the last run of the sweep found, if its file said the same; the path may be written otherwise."""
    if not own.exists():
        return None
    try:
        resolved = read_resolved(own, lenient=True)
        before = Start.model_validate(resolved.document["sweep"].get("start"))
    except ValidationError:  # it began anew
        return None
    except StorageError:  # it is damaged, and will be written again: the trials' records have it, too
        known = filter(None, own.records(own.trial_ids(), lenient=True).values())
        return next((each.start for each in known if each.start and _is_named(each.start, start, file)), None)
    is_same = place_of(before, file) == place_of(start, file)
    return resolved.start if is_same and (before.trial, before.epoch) == (start.trial, start.epoch) else None


def _is_named(found: StartedFrom, start: Start, file: str) -> bool:
    """Whether a trial and epoch that were found are those that `start` names."""
    names = str(start.trial)
    is_trial = found.trial.startswith(names) or found.trial.endswith(names)
    return is_trial and found.run == place_of(start, file) and start.epoch in (None, found.epoch)


def _look_up(sweep: Sweep, start: Start, folder: RunFolder) -> StartedFrom:
    ids = _ids(sweep, folder)
    try:
        id = id_named(str(start.trial), ids)
    except UserError as error:
        raise _wrong(sweep, "trial", f"{error} (in {folder.path})") from None
    record = folder.record(id)
    if record is None:
        damage = "; ".join(f"{path}: {why}" for path, why in folder.damaged.items()) or "it has no record"
        raise _wrong(sweep, "trial", f"{start.trial}: its record cannot be read: {damage} (in {folder.path})")
    if (loop := loop_of(record.conditions)) != sweep.loop:
        raise _wrong(sweep, "trial", f"{record.id} was trained by loop {loop!r}, this sweep's is {sweep.loop!r}")
    _check_config(sweep, record)
    return _started(folder, record, _epoch(sweep, start, record), loop)


def _wrong(sweep: Sweep, key: str, message: str) -> SweepFileError:
    return SweepFileError(sweep.source.problem(("start", key), message))


def _ids(sweep: Sweep, folder: RunFolder) -> list[str]:
    """Return the ids of the trials that have begun in a run folder; refuse where there is none."""
    if not folder.exists():
        folder.files.check_bucket()
        is_file = folder.files.is_file() or folder.name.endswith((".yaml", ".yml"))
        names = folder.parent.list_folders()
        advice = "name the run folder of that sweep, as `raysweep status` does" if is_file else ""
        why = f"no run folder is at {folder.path}{did_you_mean(folder.name, names)}"
        relative = "" if "://" in str(sweep.start and sweep.start.run) else "a path is relative to the sweep file"
        raise _wrong(sweep, "run", "; ".join(filter(None, (why, advice or relative))))
    if ids := folder.trial_ids():
        return ids
    raise _wrong(sweep, "run", f"no trial of {folder.path} has begun yet")


def _check_config(sweep: Sweep, record: Record) -> None:
    try:
        loop_named(sweep.loop).config.model_validate(record.config)
    except ValidationError as error:
        why = error.errors(include_url=False)[0]
        what = f"{'.'.join(map(str, why['loc']))}: {why['msg']}"
        raise _wrong(sweep, "trial", f"{record.id} has settings that this raysweep does not take: {what}") from error


def _epoch(sweep: Sweep, start: Start, record: Record) -> int:
    """Return the epoch to begin after."""
    has = f"{record.id} has trained {count_of(record.epoch, 'epoch')} so far" if record.epoch else ""
    if not has:
        raise _wrong(sweep, "trial", f"{record.id} has trained no epoch yet: there is nothing to go on from")
    if start.epoch is not None and start.epoch > record.epoch:
        raise _wrong(sweep, "epoch", f"got {start.epoch}, must be at most {record.epoch}: {has}")
    return start.epoch or record.epoch


def _started(folder: RunFolder, record: Record, epoch: int, loop: str) -> StartedFrom:
    """Return the trial whose epochs these are: where one began with those of another, they may be the other's."""
    before = record.start
    if before is None or epoch > before.epoch:
        known = record.config, record.seed, before, deciding(record.conditions)
        return StartedFrom(folder.files.uri, record.id, epoch, loop, *known)
    while before.start is not None and epoch <= before.start.epoch:
        before = before.start
    return replace(before, epoch=epoch)
