"""`limits.gpu_hours` and `limits.wall_hours`: what the run and its earlier runs have spent of them."""

from __future__ import annotations

import time

from raysweep.store import RunFolder
from raysweep.store.spent import read_spent, write_spent
from raysweep.sweepfile.schema import Limits

SAVE_EVERY_S = 10.0
"""How often it is to be saved meanwhile: so much may go uncounted if the driver is killed."""


class Meter:
    """Counts a run's hours and those that its trials hold GPUs, and tells when a limit is spent."""

    def __init__(self, folder: RunFolder, limits: Limits) -> None:
        self._folder, self._limits = folder, limits
        self._spent = read_spent(folder)
        self._spent.cut_short = None
        self._counted_at = time.monotonic()

    def start(self) -> None:
        """Count from now on."""
        self._counted_at = time.monotonic()

    def count(self, gpus: float) -> None:
        """Add the time since the last count, during which trials held so many GPUs."""
        now = time.monotonic()
        self._spent.wall_s += now - self._counted_at
        self._spent.gpu_s += (now - self._counted_at) * gpus
        self._counted_at = now

    def spent_limit(self) -> str | None:
        """Return which limit is spent, in words, or None."""
        for name, used, limit in (
            ("gpu_hours", self._spent.gpu_s / 3600, self._limits.gpu_hours),
            ("wall_hours", self._spent.wall_s / 3600, self._limits.wall_hours),
        ):
            if limit is not None and used >= limit:
                return f"limits.{name}: {limit:g} are spent"
        return None

    def save(self, cut_short: str | None = None) -> None:
        """Write it to the run folder."""
        self._spent.cut_short = cut_short
        write_spent(self._folder, self._spent)
