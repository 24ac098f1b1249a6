"""`raysweep clean`: deletes leftover files and, if asked, the trials that the sweep file no longer has.

A commit, a write or a driver that is cut off leaves files behind. Those of a trial are deleted when the trial next
runs; the others would stay for ever.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from raysweep.commands.context import Context, add_sweep_flags
from raysweep.errors import StorageError
from raysweep.registry import accepting_names_of
from raysweep.terminal import count_of, format_bytes, say

if TYPE_CHECKING:
    from raysweep.store import RunFolder

SUMMARY = "delete the files that interrupted commands left in a run folder"
LINES_SHOWN = 40


@dataclass(frozen=True)
class Rubbish:
    """What may be deleted from a run folder."""

    files: dict[str, str]
    """Why each leftover file is one, by path."""
    removed_trials: dict[str, int]
    """Trials that are no longer planned, by id, with their bytes."""
    sizes: Mapping[str, int]
    """The bytes of every file in the run folder."""

    @property
    def file_bytes(self) -> int:
        """The bytes of the leftover files."""
        return sum(self.sizes[path] for path in self.files)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    add_sweep_flags(parser)
    parser.add_argument("--removed", action="store_true", help="also delete trials that the sweep file no longer has")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be deleted")


def run(arguments: argparse.Namespace) -> int:
    """Delete the leftover files and say which they were; return the exit code.

    Raises:
        StorageError: there is no run folder, or a driver holds it.
    """
    context = Context.of(arguments)
    folder, removed, dry_run = context.folder, arguments.removed, arguments.dry_run
    if not folder.exists():
        folder.files.check_bucket()
        raise StorageError(f"{folder.path}: not a run folder (no resolved.yaml), so there is nothing to clean")
    if dry_run and folder.is_driven():
        raise StorageError(f"{folder.path}: a raysweep process drives this run; clean it when that has ended")
    with nullcontext() if dry_run else folder.lease():
        rubbish = find_rubbish(folder, _planned(context))
        if not dry_run:
            _delete(folder, rubbish, removed)
    for path, why in folder.damaged.items():
        say(f"{path}: {why}", stderr=True)
    if arguments.json:
        print(json.dumps(_document(folder, rubbish, removed, dry_run)))
    else:
        for line in _lines(folder, rubbish, removed, dry_run):
            say(line)
    return 0


def _planned(context: Context) -> set[str]:
    """Return the ids of the trials that stay: those of the sweep file or, for a run folder, of its last run.

    The sweep file may name what the last run used, although the modules that registered it are not imported now.
    """
    from raysweep.store.resolved import read_resolved

    try:
        last = read_resolved(context.folder, lenient=True).plan
    except StorageError:
        if context.is_run_folder:
            raise
        last = []  # resolved.yaml is damaged; the sweep file alone says what stays
    if context.is_run_folder:
        return {record.id for record in last}
    with accepting_names_of(record.config for record in last):
        return {trial.id for trial in context.trials}


def find_rubbish(folder: RunFolder, planned: set[str]) -> Rubbish:
    """Look for what may be deleted from a run folder that no driver but the caller holds."""
    sizes = folder.files.list_sizes()
    gone: dict[str, int] = {}
    for trial_id in folder.trial_ids():
        if trial_id not in planned:
            own = (f"trials/{trial_id}/", f"tensorboard/{trial_id}/")
            gone[trial_id] = sum(size for path, size in sizes.items() if path.startswith(own))
    return Rubbish(folder.rubbish(sizes), gone, sizes)


def _delete(folder: RunFolder, rubbish: Rubbish, removed: bool) -> None:
    for path in rubbish.files:
        folder.files.delete(path)
    for trial_id in rubbish.removed_trials if removed else ():
        folder.remove(trial_id)


def _document(folder: RunFolder, rubbish: Rubbish, removed: bool, dry_run: bool) -> dict[str, Any]:
    return {
        "name": folder.name,
        "path": folder.path,
        "dry_run": dry_run,
        "files": [{"path": path, "bytes": rubbish.sizes[path], "why": why} for path, why in rubbish.files.items()],
        "bytes": rubbish.file_bytes,
        "no_longer_planned": [{"id": id, "bytes": size} for id, size in rubbish.removed_trials.items()],
        "removed": removed and not dry_run,
    }


def _lines(folder: RunFolder, rubbish: Rubbish, removed: bool, dry_run: bool) -> list[str]:
    rows = [f"{path}: {why}, {format_bytes(rubbish.sizes[path])}" for path, why in rubbish.files.items()]
    lines = rows[:LINES_SHOWN] + ([f"... and {len(rows) - LINES_SHOWN} more"] if len(rows) > LINES_SHOWN else [])
    done = "would be deleted" if dry_run else "deleted"
    lines.append(f"{count_of(len(rows), 'leftover file')} {done}, {format_bytes(rubbish.file_bytes)}")
    if gone := rubbish.removed_trials:
        what = f"{count_of(len(gone), 'trial')} that the sweep file no longer has"
        size = format_bytes(sum(gone.values()))
        lines += [f"{id}: {format_bytes(count)}" for id, count in list(gone.items())[:LINES_SHOWN] if removed]
        lines.append(f"{what} {done}, {size}" if removed else f"{what} kept, {size}; --removed deletes them")
    lines.append(f"run folder: {folder.path}")
    return lines
