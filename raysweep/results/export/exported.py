"""What is exported of a run: plain data, the same for every tool."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import accumulate
from typing import Any

from raysweep.results.ranking import has_ended, standings
from raysweep.results.run import SweepResult
from raysweep.results.settings import setting_text, varied_settings
from raysweep.store import Record
from raysweep.sweepfile.patch import flatten


@dataclass(frozen=True)
class ExportedTrial:
    """One trial that has begun."""

    id: str
    key: str  # the same for this trial of this run folder at every export: letters and digits
    seed: int
    status: str
    has_ended: bool
    config: dict[str, Any]  # every setting, by dotted key
    varied: dict[str, str]  # those that the sweep varies, for people
    curves: dict[int, dict[str, float]]  # finite metrics by epoch
    ms: dict[int, int]  # milliseconds trained by the end of each epoch
    final: dict[str, float]  # score, val_acc and best_epoch, once it has a score
    rank: int | None  # its config's place in the ranking
    weights: str | None  # where the best weights are
    error: str | None

    @property
    def digest(self) -> str:
        """A checksum of all of it."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True, default=str).encode()).hexdigest()


@dataclass(frozen=True)
class ExportedSweep:
    """A run."""

    name: str
    path: str  # of the run folder
    description: str
    trials: list[ExportedTrial]
    is_driven: bool  # whether it still goes on

    @property
    def key(self) -> str:
        """The same for this run folder at every export: letters and digits."""
        return _key(self.path)


def exported(result: SweepResult) -> ExportedSweep:
    """Return what is exported of a run: its trials that have a whole epoch or have ended."""
    ranks = {id: each["config_rank"] for id, each in standings(result.configs).items()}
    keys = varied_settings(result.trials)
    trials = [_trial(result, record, keys, ranks[record.id]) for record in result.trials if _is_there(record)]
    description = str(result.resolved.get("sweep", {}).get("description") or "")
    return ExportedSweep(result.name, result.path, description, trials, result.is_driven)


def _is_there(record: Record) -> bool:
    return bool(record.epoch) or has_ended(record)


def _trial(result: SweepResult, record: Record, keys: list[str], rank: int | None) -> ExportedTrial:
    weights = result.folder.weights_path(record, "best")
    final = {"score": record.best.score, "best_epoch": record.best.epoch} if record.best else {}
    if record.best and record.best.val_acc is not None:
        final["val_acc"] = record.best.val_acc
    seconds = accumulate(row.get("seconds") or 0.0 for row in record.metrics)
    return ExportedTrial(
        id=record.id,
        key=_key(f"{result.path}/{record.id}"),
        seed=record.seed,
        status=record.status,
        has_ended=has_ended(record),
        config=dict(flatten(record.config, "")),
        varied={key: setting_text(record, key) for key in keys},
        curves={int(row["epoch"]): dict(_finite(row)) for row in record.metrics},
        ms={epoch: round(1000 * total) for epoch, total in enumerate(seconds, 1)},
        final=dict(_finite(final)),
        rank=rank if record.best else None,
        weights=f"{result.path}/{weights}" if weights else None,
        error=(record.error or {}).get("message") if record.status in ("failed", "diverged") else None,
    )


def _finite(row: Any) -> Iterator[tuple[str, float]]:
    return ((tag, value) for tag, value in row.items() if value is not None and math.isfinite(value))


def _key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:20]
