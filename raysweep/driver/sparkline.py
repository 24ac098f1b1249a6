"""A curve in a few characters of a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

BLOCKS, ASCII = "▁▂▃▄▅▆▇█", "_.-=+*#%"


def sparkline(values: Sequence[float | None], total: int, width: int, ascii_only: bool = False) -> str:
    """Draw a curve from its lowest to its highest value, as far as it has come.

    Args:
        values: one value per epoch; None and values that are not finite leave a gap.
        total: the epochs of the whole curve, which is `width` characters wide.
        width: the whole curve's characters.
        ascii_only: whether to do without block elements, for terminals whose encoding has none.
    """
    finite = [value for value in values if value is not None and math.isfinite(value)]
    if not finite:
        return ""
    steps = ASCII if ascii_only else BLOCKS
    low, span = min(finite), max(finite) - min(finite) or 1.0
    count = len(values)
    cells = max(1, round(width * min(1.0, count / max(1, total))))

    def cell(index: int) -> str:
        start, end = index * count // cells, (index + 1) * count // cells
        part = [value for value in values[start : max(start + 1, end)] if value is not None and math.isfinite(value)]
        return steps[round((fmean(part) - low) / span * (len(steps) - 1))] if part else " "

    return "".join(map(cell, range(cells)))
