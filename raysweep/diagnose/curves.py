"""A trial's metrics as arrays, and how noisy a curve is."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Epochs = npt.NDArray[np.int64]
Places = npt.NDArray[np.intp]
LOCAL_EPOCHS = 15
"""Epochs in the window of the local noise estimate."""
BESIDE_EPOCHS = 31
"""Epochs in the window of the noise beside an epoch."""
FEWEST = 4
"""Residuals that tell a curve's noise."""
LONG = 30
"""Epochs from which a curve's last three are its end; of a shorter curve they are a good part."""
NORMAL_MAD = 1.4826
"""A normal distribution's standard deviation over its median absolute deviation."""


@dataclass(frozen=True)
class Curves:
    """Arrays over the epochs of one trial; a metric that was not recorded is NaN throughout."""

    epochs: Epochs
    metrics: Mapping[str, Array]
    gaps: Mapping[str, npt.NDArray[np.bool_]] = field(default_factory=dict)
    """Of metrics that not every epoch reported: which did not. What it reported, but is no finite number, is no gap."""

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]]) -> Curves:
        """Gather recorded rows, one an epoch; rows without `epoch` are numbered from 1."""
        names = dict.fromkeys(name for row in rows for name in row if name != "epoch")
        epochs = np.array([int(row.get("epoch") or place) for place, row in enumerate(rows, 1)], np.int64)
        is_whole = all(len(row) - ("epoch" in row) == len(names) for row in rows)
        absent = {} if is_whole else {name: np.array([name not in row for row in rows]) for name in names}
        gaps = {name: where for name, where in absent.items() if where.any()}
        return cls(epochs, {name: np.array([as_number(row.get(name)) for row in rows]) for name in names}, gaps)

    def __getitem__(self, name: str) -> Array:
        return self.metrics.get(name, np.full(len(self.epochs), np.nan))

    def __len__(self) -> int:
        return len(self.epochs)

    def has(self, name: str) -> bool:
        """Return whether any epoch has a finite value."""
        return bool(np.isfinite(self[name]).any())

    def until(self, count: int) -> Curves:
        """Return the curves of the first `count` epochs."""
        gaps = {name: each[:count] for name, each in self.gaps.items()}
        return Curves(self.epochs[:count], {name: values[:count] for name, values in self.metrics.items()}, gaps)

    def known_as(self, roles: Mapping[str, str]) -> Curves:
        """Return the curves with those of the named metrics under these names as well; accuracies of 0..100 as 0..1."""
        named = {role: self[name] for role, name in roles.items()}
        accuracies = np.concatenate([[0.0], *(values for role, values in named.items() if "acc" in role)])
        scale = 0.01 if np.nanmax(accuracies) > 1 else 1.0
        named = {role: values * scale if "acc" in role else values for role, values in named.items()}
        gaps = {role: self.gaps[name] for role, name in roles.items() if name in self.gaps}
        return Curves(self.epochs, {**self.metrics, **named}, {**self.gaps, **gaps})

    def lost(self, name: str) -> Epochs:
        """Return the last epochs, where a metric was reported and is no finite number any more, though it was before.

        A loop that measures now and then reports NaN between: so they are more than ever came between finite values.
        """
        reported = ~self.gaps[name] if name in self.gaps else np.ones(len(self), bool)
        finite = np.flatnonzero(np.isfinite(self[name][reported]))
        if not len(finite):
            return self.epochs[:0]
        longest = int(np.diff(finite, prepend=-1).max()) - 1
        last = self.epochs[reported][finite[-1] + 1 :]
        return last if len(last) > longest else last[:0]

    def finite(self, *names: str) -> tuple[npt.NDArray[Any], ...]:
        """Return the epochs in which these metrics all are finite, and the values of each."""
        known = np.all([np.isfinite(self[name]) for name in names], axis=0)
        return self.epochs[known], *(self[name][known] for name in names)


def as_number(value: Any) -> float:
    """Return a recorded value as a float, or NaN if it is not a number."""
    return float(value) if isinstance(value, int | float) else math.nan


def noise_level(values: Array) -> Array:
    """Estimate the standard deviation of a curve's noise, for each epoch; zeros for fewer than three values.

    It comes from pseudo-residuals, each value against the line through its neighbours (Gasser, Sroka and
    Jennen-Steinmetz 1986, "Residual variance and residual pattern in nonlinear regression"), so that a trend does not
    count as noise; and from their median, so that dips do not either. The larger of the whole curve's and the
    neighbourhood's is taken: a high learning rate makes a stretch noisier than the rest.
    """
    count = len(values)
    if count < 3:
        return np.zeros(count)
    residuals = _residuals(values)
    overall = median(residuals)
    local = _running_median(np.pad(residuals, LOCAL_EPOCHS // 2, mode="reflect"), LOCAL_EPOCHS)
    return np.maximum(overall, np.pad(local, 1, mode="edge"))


def noise_beside(values: Array, place: int) -> float:
    """Estimate the noise at one place as `noise_level` does, from the residuals that do not see that place itself.

    So what stands out there does not count as noise; in a short curve it would be much of it. Infinite where fewer
    than `FEWEST` residuals are left.
    """
    residuals, distance = _residuals(values), np.abs(np.arange(1, len(values) - 1) - place)
    others, near = residuals[distance > 1], residuals[(distance > 1) & (distance <= BESIDE_EPOCHS // 2)]
    return max(median(others), median(near)) if len(near) >= FEWEST else math.inf


def _residuals(values: Array) -> Array:
    """Return how far each inner value is from the line through its neighbours; the median estimates the deviation."""
    return np.abs(values[1:-1] - (values[:-2] + values[2:]) / 2) * (NORMAL_MAD / math.sqrt(1.5))


def smoothed(values: Array) -> Array:
    """Return the running median of three; the first and last values stand for those beyond the ends."""
    return _running_median(np.pad(values, 1, mode="edge"), 3)


def _running_median(values: Array, window: int) -> Array:
    """Return the median of each stretch of `window` values, an odd number. (np.median takes ten times as long.)"""
    medians: Array = np.sort(np.lib.stride_tricks.sliding_window_view(values, window), axis=1)[:, window // 2]
    return medians


def median(values: Array) -> float:
    """Return the median of a few values. (np.median takes ten times as long for so few.)"""
    return float(statistics.median(values.tolist()))


def ending(values: Array) -> float:
    """Return a curve's value at its end: the median of its last three, or its last if it is short; else NaN."""
    return level(values, 3 if len(values) >= LONG else 1)


def level(values: Array, count: int = 3) -> float:
    """Return the median of the last `count` finite values; NaN if there is none."""
    finite = values[np.isfinite(values)][-count:]
    return median(finite) if len(finite) else math.nan
