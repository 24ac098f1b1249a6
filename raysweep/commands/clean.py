"""`raysweep clean`: delete from a run folder what nothing owns and, if asked, trials that the sweep file no longer has.

Nothing owns what a commit, a write or a driver that was cut off has left. A trial's own share of it goes when the trial
next runs; the rest lies there for ever.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from raysweep.errors import StorageError
from raysweep.store import RunFolder
from raysweep.sweepfile import load_sweep, storage_of
from raysweep.sweepfile.plan import plan_trials
from raysweep.terminal import format_bytes

LINES_SHOWN = 40


@dataclass(frozen=True)
class Rubbish:
    """What may be deleted from a run folder."""

    files: dict[str, str]
    """That nothing owns, and why, by path."""
    removed_trials: dict[str, int]
    """Ids of the trials that the sweep file no longer has, with their bytes."""
    sizes: Mapping[str, int]
    """Bytes of all files of the run folder."""

    @property
    def file_bytes(self) -> int:
        """Of the files that nothing owns."""
        return sum(self.sizes[path] for path in self.files)


def clean_run(
    sweep_path: str,
    overrides: Sequence[str] = (),
    storage: str | None = None,
    removed: bool = False,
    dry_run: bool = False,
    as_json: bool = False,
) -> int:
    """Delete what nothing owns, and say what; return the exit code.

    Args:
        sweep_path: of the sweep file.
        overrides: `key=value` each, patched into it; with them it must be the plan that is to be kept.
        storage: where the run folder lies; default: $RAYSWEEP_STORAGE, else the sweep file's.
        removed: delete the trials that the plan no longer has, too.
        dry_run: only say what would be deleted.
        as_json: print one JSON document.

    Raises:
        StorageError: there is no run folder, or a driver holds it.
    """
    sweep = load_sweep(sweep_path, overrides)
    planned = {trial.id for trial in plan_trials(sweep)}
    folder = RunFolder(storage_of(sweep, sweep_path, storage), sweep.name)
    if not folder.exists():
        folder.files.check_bucket()
        raise StorageError(f"{folder.path}: not a run folder (no resolved.yaml); there is nothing to clean")
    if dry_run and folder.is_driven():
        raise StorageError(f"{folder.path}: a raysweep drives this run; clean it once that has ended")
    with nullcontext() if dry_run else folder.lease():
        rubbish = find_rubbish(folder, planned)
        if not dry_run:
            _delete(folder, rubbish, removed)
    for path, why in folder.damaged.items():
        Console(stderr=True).print(f"{path}: {why}", highlight=False, markup=False, soft_wrap=True)
    if as_json:
        print(json.dumps(_document(folder, rubbish, removed, dry_run)))
    else:
        for line in _lines(folder, rubbish, removed, dry_run):
            Console().print(line, highlight=False, markup=False, soft_wrap=True)
    return 0


def find_rubbish(folder: RunFolder, planned: set[str]) -> Rubbish:
    """Look for what may be deleted.

    Args:
        folder: that no driver holds but its caller.
        planned: ids of the sweep's trials.
    """
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
    lines.append(f"{_count(len(rows), 'file')} that nothing owns {done}, {format_bytes(rubbish.file_bytes)}")
    if gone := rubbish.removed_trials:
        what = f"{_count(len(gone), 'trial')} that the sweep file no longer has"
        size = format_bytes(sum(gone.values()))
        lines += [f"{id}: {format_bytes(count)}" for id, count in list(gone.items())[:LINES_SHOWN] if removed]
        lines.append(f"{what} {done}, {size}" if removed else f"{what} kept, {size}; --removed deletes them")
    lines.append(f"run folder: {folder.path}")
    return lines


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
