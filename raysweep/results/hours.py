"""Hours that a trial's epochs took, and those that the epochs it was spared would have taken."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any


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
