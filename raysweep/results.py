"""A run folder as results: the ranking of its trials, a table for pandas, the best network.

`open_run(path)` reads the folder alone; no Ray is needed, and it may be read while the run goes on elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML

from raysweep.errors import StorageError
from raysweep.store import Record, RunFolder
from raysweep.sweepfile.schema import Objective

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn


def rank(records: Sequence[Record], objective: Objective) -> list[Record]:
    """Sort trials best first: by score, then by id; those that diverged or failed, or have no score, last."""
    sign = -1 if objective.maximize else 1

    def key(record: Record) -> tuple[bool, float, str]:
        cannot_win = record.best is None or record.status in ("diverged", "failed")
        return cannot_win, sign * record.best.score if record.best else 0.0, record.id

    return sorted(records, key=key)


@dataclass(frozen=True)
class SweepResult:
    """What a run folder holds of one sweep's plan."""

    name: str
    path: str
    objective: Objective
    trials: list[Record]
    """Best first; those not begun are `planned`."""
    folder: RunFolder

    @property
    def best(self) -> Record | None:
        """The trial ranked first that has a score, or None."""
        return next((record for record in self.trials if can_win(record)), None)

    def to_pandas(self) -> pd.DataFrame:
        """One row a trial, best first: the columns of results.parquet."""
        from raysweep.store.views import results_table

        return results_table(self.trials).to_pandas()

    def load_model(self) -> nn.Module:
        """The best trial's network with its best weights, in evaluation mode.

        Raises:
            StorageError: there is none, or its weights are not whole.
        """
        from raysweep.pull import build_from_record

        if self.best is None:
            raise StorageError(f"{self.path}: no trial has a score yet")
        return build_from_record(self.folder, self.best)


def can_win(record: Record) -> bool:
    """Whether a trial counts in the ranking: it has a score, and neither diverged nor failed."""
    return record.best is not None and record.status not in ("diverged", "failed")


def open_run(path: str) -> SweepResult:
    """Read a run folder.

    Args:
        path: of the folder, local or a URI.

    Raises:
        StorageError: it is not a run folder.
    """
    storage, _, name = path.rstrip("/").rpartition("/")
    return read_results(RunFolder(storage or ".", name))


def read_results(folder: RunFolder) -> SweepResult:
    """Read the trials of the last run's plan; those the sweep file no longer has stay out.

    Raises:
        StorageError: it is not a run folder.
    """
    if not folder.exists():
        raise StorageError(f"{folder.path}: not a run folder (no resolved.yaml); run the sweep first")
    resolved: dict[str, Any] = YAML(typ="safe", pure=True).load(folder.files.read("resolved.yaml").decode())
    objective = Objective.model_validate(resolved["sweep"]["objective"])
    alive = folder.is_driven()
    records = []
    for planned in resolved["trials"]:
        record = folder.record(planned["id"]) or Record(**planned)
        records.append(record if alive or record.status != "running" else record.with_(status="paused"))
    return SweepResult(folder.name, folder.path, objective, rank(records, objective), folder)


def as_json(result: SweepResult) -> dict[str, Any]:
    """The document of `status --json`."""
    return {"name": result.name, "path": result.path, "trials": [trial_as_json(record) for record in result.trials]}


def trial_as_json(record: Record) -> dict[str, Any]:
    """One trial of `status --json`; `val_acc` is that of its best epoch's weights."""
    best = record.best
    return {
        "id": record.id,
        "config": record.config,
        "seed": record.seed,
        "status": record.status,
        "epoch": record.epoch,
        "epochs": record.epochs,
        "val_acc": best.val_acc if best else None,
        "score": best.score if best else None,
        "best_epoch": best.epoch if best else None,
        "averaged": best.averaged if best else None,
        "error": (record.error or {}).get("message") if record.status in ("failed", "diverged") else None,
    }
