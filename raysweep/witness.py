"""What tells early who will win: one number from a trial's scores so far.

Pure functions of a list of scores, one an epoch; docs/early_stopping.md has the evidence for them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def trend(scores: Sequence[float]) -> float:
    """Return the last score plus half of its rise over the last third of the epochs: where it is heading.

    Early in a schedule scores still rise fast, some faster than others: those that will be passed rise less. The whole
    rise in place of half would carry a curve that grows with the logarithm of time to one and a half times its epochs,
    but it doubles the noise of a single epoch, too.

    Args:
        scores: at least one, one an epoch from the first on. One that is not finite has no rise taken from it.
    """
    last = scores[-1]
    before = scores[math.ceil(len(scores) * 2 / 3) - 1]
    return last + (last - before) / 2 if math.isfinite(before) else last
