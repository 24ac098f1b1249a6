"""What a trial's epochs took, and what those that it was not to train would have."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any


def trained_s(metrics: Sequence[Mapping[str, Any]]) -> float:
    """Seconds of recorded epochs."""
    return math.fsum(_seconds(metrics))


def saved_s(metrics: Sequence[Mapping[str, Any]], epochs: int) -> float:
    """Seconds that the rest of so many epochs would have taken, at the trial's own pace; 0 where that is not known."""
    seconds = _seconds(metrics)
    return max(0, epochs - len(metrics)) * math.fsum(seconds) / len(seconds) if seconds else 0.0


def _seconds(metrics: Sequence[Mapping[str, Any]]) -> list[float]:
    known = (row.get("seconds") for row in metrics)
    return [value for value in known if isinstance(value, int | float) and math.isfinite(value)]
