"""Hours that a trial's epochs took, and hours that stopping it early saved."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raysweep.store.record import Record
from raysweep.store.spent import Spent
from raysweep.sweepfile.prefixes import Prefixes
from raysweep.terminal import count_of


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

    trained: float  # the hours of all epochs, added up; those that trials share count once
    gpu: float  # GPU-hours as the driver counted them; 0 where there was no GPU
    saved: float  # the hours that the rest of the stopped trials' epochs would have taken, at each trial's own pace
    epochs: int  # that were trained
    shared: int  # that trials took over beside these, since others had trained them
    epochs_saved: int

    @property
    def in_words(self) -> str:
        """The epochs, and how many of them were shared."""
        if not self.shared:
            return count_of(self.epochs, "epoch")
        return f"{self.epochs + self.shared:,} epochs, {self.epochs:,} of them trained: {self.shared:,} were shared"

    @property
    def gpu_saved(self) -> float:
        """GPU-hours saved: each trial held the same share of GPUs."""
        return self.gpu * self.saved / self.trained if self.trained else 0.0


def hours_of(records: Sequence[Record], spent: Spent, prefixes: Prefixes | None = None) -> Hours:
    """Add up what the trials of a run took.

    Args:
        records: its trials.
        spent: what its driver counted.
        prefixes: which epochs the trials share: stopping two of them early saves what they share once.
    """
    stopped = [record for record in records if record.status == "stopped"]
    trained = sum(len(record.own_metrics) for record in records)
    unfinished = sum(record.epochs - record.epoch for record in stopped)
    reached = {record.id: record.epoch for record in records}
    saved = prefixes.left(reached, [record.id for record in stopped]) if prefixes else unfinished
    return Hours(
        trained=math.fsum(trained_hours(record.own_metrics) for record in records),
        gpu=spent.gpu_s / 3600,
        saved=math.fsum(saved_hours(record.metrics, record.epochs) for record in stopped) * saved / max(1, unfinished),
        epochs=trained,
        shared=sum(reached.values()) - trained,
        epochs_saved=saved,
    )
