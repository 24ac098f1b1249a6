"""What a rerun of a sweep file makes of the run that was begun with it, before that file was edited perhaps.

Decided as the rerun itself decides it: from the new plan and the records. No Ray, no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from raysweep.errors import StorageError
from raysweep.halving.replay import is_done, replay
from raysweep.halving.rungs import Verdict
from raysweep.store.record import RECORD, Record, planned_record
from raysweep.store.resolved import read_resolved
from raysweep.store.runfolder import RunFolder
from raysweep.sweepfile import Sweep
from raysweep.sweepfile.plan import Trial


@dataclass(frozen=True)
class Edits:
    """Trials of the plan, by what becomes of them, and what else changes."""

    new: int
    """Not begun yet."""
    to_continue: int
    """Begun; they go on from their last commits, or wait at a rung."""
    failed: int
    """To be tried again."""
    finished: int
    stopped: int
    """By the scheduler: others are better."""
    diverged: int
    removed: int
    """In the run folder, but no longer in the file: kept, out of the ranking."""
    notes: list[str]
    """What else the rerun does, or refuses, in words."""

    def in_words(self) -> list[str]:
        """Lines to print."""
        parts = [
            (self.new, "new"),
            (self.finished, "finished"),
            (self.to_continue, "to continue"),
            (self.stopped, "stopped"),
            (self.diverged, "diverged"),
            (self.failed, "failed, to be tried again"),
            (self.removed, "no longer in the file, kept"),
        ]
        return [f"run folder: {', '.join(f'{count} {what}' for count, what in parts if count)}", *self.notes]

    def as_json(self) -> dict[str, Any]:
        """The entry of `plan --json`."""
        return asdict(self)


def edits_of(sweep: Sweep, trials: Sequence[Trial], storage: str) -> Edits | None:
    """Return what a rerun does; None where no run was begun, or the run folder is on an object store.

    Args:
        sweep: as loaded now.
        trials: its plan.
        storage: where its run folder lies.
    """
    if "://" in storage:
        return None
    folder = RunFolder(storage, sweep.name)
    try:
        if not folder.exists():
            return None
    except StorageError:  # what cannot be looked up is not there
        return None
    committed = folder.records([trial.id for trial in trials], lenient=True)
    records = [_known(trial, committed[trial.id]) for trial in trials]
    halving = replay(records, sweep.scheduler, sweep.objective, retry_failed=True)
    kinds = dict.fromkeys(("new", "to_continue", "failed", "finished", "stopped", "diverged"), 0)
    going_on = []
    for record in records:
        if is_done(record, sweep.scheduler):
            kind = record.status
        elif halving.verdict(record.id) is Verdict.OUT:
            kind = "stopped"
        elif record.status == "failed":
            kind = "failed"
        else:
            kind = "to_continue" if record.epoch else "new"
        kinds[kind] += 1
        if kind in ("failed", "to_continue") and record.epoch:
            going_on.append(record)
    others = set(folder.trial_ids()) - set(committed)
    removed = sum(folder.files.is_file(f"trials/{trial_id}/{RECORD}") for trial_id in others)
    return Edits(**kinds, removed=removed, notes=_notes(sweep, folder, going_on))


def _known(trial: Trial, record: Record | None) -> Record:
    planned = planned_record(trial)
    return record.with_(config=planned.config) if record else planned


def _notes(sweep: Sweep, folder: RunFolder, going_on: Sequence[Record]) -> list[str]:
    notes = []
    begun_with = {record.conditions["workers"] for record in going_on if "workers" in record.conditions}
    if others := begun_with - {sweep.resources.workers}:
        notes.append(
            f"resources.workers is {sweep.resources.workers}, but trials to continue began with "
            f"{', '.join(map(str, sorted(others)))}: refused; put it back, or start anew with --fresh"
        )
    try:
        objective = read_resolved(folder, lenient=True).objective.metric
    except StorageError:  # the rerun writes it anew
        return notes
    if objective != sweep.objective.metric:
        notes.append(
            f"objective was {objective}: trials are ranked anew, by {sweep.objective.metric} at the epochs whose "
            f"weights are kept, which {objective} has chosen so far"
        )
    return notes
