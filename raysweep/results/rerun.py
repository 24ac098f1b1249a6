"""What a rerun of a sweep file makes of the run that was begun with it, before that file was edited perhaps.

Decided as the rerun itself decides it: from the new plan and the records. No Ray, no torch; a local run folder is read
without pyarrow, too, so that `raysweep plan` answers at once.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from raysweep.halving.replay import is_done, replay
from raysweep.halving.rungs import Verdict
from raysweep.store.record import RECORD, Record, read_local_record
from raysweep.store.sealed import SEAL, TornFileError, unseal
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
    folder = Path(storage) / sweep.name
    if "://" in storage or not os.path.isfile(folder / "resolved.yaml"):  # False, too, where it cannot be looked up
        return None
    records = [_known(trial, read_local_record(folder / "trials" / trial.id)) for trial in trials]
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
    removed = len({path.parent.name for path in folder.glob(f"trials/*/{RECORD}")} - {trial.id for trial in trials})
    return Edits(**kinds, removed=removed, notes=_notes(sweep, folder, going_on))


def _known(trial: Trial, record: Record | None) -> Record:
    config = trial.config.model_dump(mode="json")
    if record is None:
        return Record(trial.id, trial.name, trial.seed, dict(trial.axes), config, trial.config.epochs)
    return record.with_(config=config)


def _notes(sweep: Sweep, folder: Path, going_on: Sequence[Record]) -> list[str]:
    notes = []
    begun_with = {record.conditions["workers"] for record in going_on if "workers" in record.conditions}
    if others := begun_with - {sweep.resources.workers}:
        notes.append(
            f"resources.workers is {sweep.resources.workers}, but trials to continue began with "
            f"{', '.join(map(str, sorted(others)))}: refused; put it back, or start anew with --fresh"
        )
    objective = _last_sweep(folder).get("objective", {}).get("metric", sweep.objective.metric)
    if objective != sweep.objective.metric:
        notes.append(
            f"objective was {objective}: trials are ranked anew, by {sweep.objective.metric} at the epochs whose "
            f"weights are kept, which {objective} has chosen so far"
        )
    return notes


def _last_sweep(folder: Path) -> Mapping[str, Any]:
    """The sweep of the last run; empty where its resolved.yaml is damaged, which the rerun writes anew."""
    try:
        document = json.loads((folder / "resolved.yaml").read_text())
        sweep = (unseal(document) if SEAL in document else document)["sweep"]
    except (OSError, ValueError, RecursionError, TornFileError, KeyError, TypeError):
        return {}
    return sweep if isinstance(sweep, dict) else {}
