"""Hours that a trial's epochs took, and hours that stopping it early saved."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raysweep.store.record import Record
from raysweep.store.spent import Spent


def trained_hours(metrics: Sequence[Mapping[str, Any]]) -> float:
    """Return the hours that these epochs took; an epoch whose time is not known counts as none."""
    return math.fsum(_seconds(metrics)) / 3600


def saved_hours(metrics: Sequence[Mapping[str, Any]], epochs: int) -> float:
    """Return the hours that the rest of `epochs` would have taken at the trial's own pace, or 0 if that is unknown."""
    seconds = _seconds(metrics)
    return max(0, epochs - len(metrics)) * math.fsum(seconds) / len(seconds) / 3600 if seconds else 0.0


def _seconds(metrics: Sequence[Mapping[str, Any]]) -> list[float]:
    known = (row.get("seconds") for row in metrics)
    return [value for value in known if isinstance(value, int | float) and math.isfinite(value)]


@dataclass(frozen=True)
class Hours:
    """What the trials of a run took, and what stopping some of them early saved."""

    trained: float  # the hours of all trials' epochs, added up
    gpu: float  # GPU-hours as the driver counted them; 0 where there was no GPU
    saved: float  # the hours that the rest of the stopped trials' epochs would have taken, at each trial's own pace
    epochs: int
    epochs_saved: int

    @property
    def gpu_saved(self) -> float:
        """GPU-hours saved: each trial held the same share of GPUs."""
        return self.gpu * self.saved / self.trained if self.trained else 0.0


def hours_of(records: Sequence[Record], spent: Spent) -> Hours:
    """Add up what the trials of a run took."""
    stopped = [record for record in records if record.status == "stopped"]
    return Hours(
        trained=math.fsum(trained_hours(record.metrics) for record in records),
        gpu=spent.gpu_s / 3600,
        saved=math.fsum(saved_hours(record.metrics, record.epochs) for record in stopped),
        epochs=sum(record.epoch for record in records),
        epochs_saved=sum(record.epochs - record.epoch for record in stopped),
    )
