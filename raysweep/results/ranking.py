"""Who is best: records in, their order out, and how one trial stands in `--json` documents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from raysweep.store import Record
from raysweep.sweepfile.schema import Objective


def rank(records: Sequence[Record], objective: Objective) -> list[Record]:
    """Sort trials best first, by score, then by id; trials that cannot win come last."""
    sign = -1 if objective.maximize else 1

    def key(record: Record) -> tuple[bool, float, str]:
        return not can_win(record), sign * record.best.score if record.best else 0.0, record.id

    return sorted(records, key=key)


def can_win(record: Record) -> bool:
    """Whether a trial counts in the ranking: it has a score, and neither diverged nor failed."""
    return record.best is not None and record.status not in ("diverged", "failed")


def trial_as_json(record: Record) -> dict[str, Any]:
    """Return one trial of `status --json`; `val_acc` is that of its best epoch's weights."""
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
