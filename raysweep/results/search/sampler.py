"""Asks Optuna for proposals. A pure function: the same space, seed and results give the same proposals."""

from __future__ import annotations

from collections.abc import Sequence

from raysweep.results.search.told import Told
from raysweep.sweepfile import Sweep
from raysweep.sweepfile.space import Settings


def ask(sweep: Sweep, number: int, told: Sequence[Told], count: int) -> list[Settings]:
    """Return up to `count` new proposals for generation `number`, none of which was made before.

    Raises:
        UserError: a package that proposes is missing.
    """
    raise NotImplementedError
