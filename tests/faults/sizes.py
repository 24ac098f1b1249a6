"""How much damage is done: a little in `make test`, all of it in `make faults`."""

from __future__ import annotations

import os

IN_FULL = bool(os.environ.get("RAYSWEEP_FAULTS"))


def cases(few: int, many: int) -> int:
    """Return how many cases to try."""
    return many if IN_FULL else few
