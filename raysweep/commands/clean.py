"""`raysweep clean`: deletes leftover files and, if asked, the trials that the sweep file no longer has.

A commit, a write or a driver that is cut off leaves files behind. Those of a trial are deleted when the trial next
runs; the others would stay forever. So would states that trials kept for others, once no trial may want them.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from raysweep.commands.context import Context, add_sweep_flags
from raysweep.errors import StorageError
from raysweep.registry import accepting_names_of
from raysweep.terminal import count_of, counting, format_bytes, say

if TYPE_CHECKING:
    from raysweep.store import Record, RunFolder

SUMMARY = "delete the files that interrupted commands left in a run folder"
LINES_SHOWN = 40


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    add_sweep_flags(parser)
    parser.add_argument("--removed", action="store_true", help="also delete trials that the sweep file no longer has")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be deleted")


def run(arguments: argparse.Namespace) -> int:
    """Delete the leftover files and say which they were; return the exit code."""
    context = Context.of(arguments)
    folder, removed, dry_run = context.folder, arguments.removed, arguments.dry_run
    if not folder.exists():
        folder.files.check_bucket()
        raise StorageError(f"{folder.path}: not a run folder (no resolved.yaml), so there is nothing to clean")
    if dry_run and folder.is_driven():
        raise StorageError(f"{folder.path}: a raysweep process drives this run; clean it when that process has ended")
    with nullcontext() if dry_run else folder.lease():
        planned, loop = _planned(context)
        found = _find(folder, {record.id for record in planned})
        kept = () if removed else {trial["id"] for trial in found["no_longer_planned"]}
        found["states"] = _states(folder, planned, loop, kept)
        if not dry_run:
            _delete(folder, found, removed)
    for path, why in folder.damaged.items():
        say(f"{path}: {why}", stderr=True)
    if arguments.json:
        print(json.dumps({**found, "dry_run": dry_run, "removed": removed and not dry_run}))
    else:
        say("\n".join(_lines(found, removed, "would be deleted" if dry_run else "deleted")))
    return 0


def _planned(context: Context) -> tuple[list[Record], str]:
    """Return the trials that stay, as they are planned, and the name of their loop: those of the sweep file or, for a
    run folder, of its last run; and those that `confirm` added in the last run.

    The sweep file may name what the last run used, although the modules that registered it are not imported now.
    """
    from raysweep.loops import CLASSIFY
    from raysweep.results.rerun import trials_of
    from raysweep.store.record import planned_record
    from raysweep.store.resolved import read_resolved

    try:
        resolved = read_resolved(context.folder, lenient=True)
        last, fresh = resolved.plan, resolved.fresh
    except StorageError:
        if context.is_run_folder:
            raise
        last, fresh = [], []  # resolved.yaml is damaged; the sweep file alone says what stays
    if context.is_run_folder:
        return [*last, *fresh], str(resolved.document["sweep"].get("loop", CLASSIFY))
    with accepting_names_of(record.config for record in last):
        return [*map(planned_record, trials_of(context.sweep, context.folder)), *fresh], context.sweep.loop


def _find(folder: RunFolder, planned: set[str]) -> dict[str, Any]:
    """Look for what may be deleted from a run folder that no other process drives; it becomes the JSON document."""
    sizes = folder.files.list_sizes()
    files: list[dict[str, Any]] = [
        {"path": path, "bytes": sizes[path], "why": why} for path, why in folder.rubbish(sizes, tell=counting).items()
    ]
    owned = Counter[str]()
    for path, size in sizes.items():
        if path.startswith(("trials/", "tensorboard/")):
            owned[path.split("/")[1]] += size
    gone = [{"id": id, "bytes": owned[id]} for id in folder.trial_ids() if id not in planned]
    total = sum(file["bytes"] for file in files)
    return {"name": folder.name, "path": folder.path, "files": files, "bytes": total, "no_longer_planned": gone}


def _states(folder: RunFolder, planned: Sequence[Record], loop: str, kept: Collection[str]) -> list[dict[str, Any]]:
    """Look for the states that no trial may want, unless one of those that are `kept` left them, and torn ones."""
    from raysweep.results.shared import prefixes_of, unwanted_states
    from raysweep.store.states import FOLDER, StateStore

    store = StateStore(folder)
    whole, listed = store.all(), store.listed()
    committed = folder.records([record.id for record in planned], lenient=True) if whole else {}
    records = [committed.get(record.id) or record for record in planned]
    prefixes = prefixes_of(records, loop)
    # Of a loop that is not known here, it is not known either what its trials share.
    unwanted = unwanted_states(whole, records, prefixes) if prefixes and whole else set()
    sizes = Counter[str]()
    for path, size in folder.files.list_sizes().items() if listed else ():
        if path.startswith(f"{FOLDER}/"):
            sizes[path.split("/")[1]] += size
    unwanted = {key for key in unwanted if whole[key].id not in kept}
    why = dict.fromkeys(sorted(unwanted), "no trial may want it any more")
    why |= {key: "it is not whole" for key in listed if key not in whole}
    return [{"key": key, "bytes": sizes[key], "why": text} for key, text in why.items()]


def _delete(folder: RunFolder, found: dict[str, Any], removed: bool) -> None:
    from raysweep.store.states import StateStore

    folder.files.for_each(folder.files.delete, [file["path"] for file in found["files"]])
    StateStore(folder).drop(state["key"] for state in found["states"])
    if removed:
        folder.files.for_each(folder.remove, [trial["id"] for trial in found["no_longer_planned"]])


def _lines(found: dict[str, Any], removed: bool, done: str) -> list[str]:
    files, gone = found["files"], found["no_longer_planned"]
    lines = [f"{file['path']}: {file['why']}, {format_bytes(file['bytes'])}" for file in files[:LINES_SHOWN]]
    lines += [f"... and {len(files) - LINES_SHOWN} more"] if len(files) > LINES_SHOWN else []
    lines.append(f"{count_of(len(files), 'leftover file')} {done}, {format_bytes(found['bytes'])}")
    if states := found["states"]:
        lines += [f"states/{state['key']}: {state['why']}, {format_bytes(state['bytes'])}" for state in states]
        lines.append(f"{count_of(len(states), 'state')} {done}, {format_bytes(sum(each['bytes'] for each in states))}")
    if gone:
        what = f"{count_of(len(gone), 'trial')} that the sweep file no longer has"
        size = format_bytes(sum(trial["bytes"] for trial in gone))
        lines += [f"{trial['id']}: {format_bytes(trial['bytes'])}" for trial in gone[:LINES_SHOWN] if removed]
        lines.append(f"{what} {done}, {size}" if removed else f"{what} kept, {size}; --removed deletes them")
    return [*lines, f"run folder: {found['path']}"]
