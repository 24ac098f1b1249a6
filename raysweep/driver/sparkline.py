"""A curve in a few characters of a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

BLOCKS, ASCII = "▁▂▃▄▅▆▇█", "_.-=+*#%"


def sparkline(values: Sequence[float | None], total: int, width: int, ascii_only: bool = False) -> str:
    """Draw a curve from its lowest to its highest value, as far as it has come.

    Args:
        values: one an epoch; what is no finite number leaves a gap.
        total: epochs when it is whole: `width` characters then.
        width: in characters.
        ascii_only: where the terminal's encoding has no block elements.
    """
    steps = ASCII if ascii_only else BLOCKS
    numbers = [value if value is not None and math.isfinite(value) else math.nan for value in values]
    finite = [value for value in numbers if not math.isnan(value)]
    if not finite:
        return ""
    low, span = min(finite), max(finite) - min(finite)
    cells = max(1, round(width * min(1.0, len(numbers) / max(1, total))))
    line = ""
    for cell in range(cells):
        start = cell * len(numbers) // cells
        part = [
            value for value in numbers[start : max(start + 1, (cell + 1) * len(numbers) // cells)] if value == value
        ]
        height = (sum(part) / len(part) - low) / span if part and span else 0.0
        line += steps[round(height * (len(steps) - 1))] if part else " "
    return line
