"""`limits.gpu_hours` and `limits.wall_hours`: what the run and its earlier runs have spent of them."""

from __future__ import annotations

import time

from raysweep.store import RunFolder
from raysweep.store.spent import read_spent, write_spent
from raysweep.sweepfile.schema import Limits

SAVE_EVERY_S = 10.0
"""How often a run's cost is to be saved: so much may go uncounted if the driver is killed."""


class Meter:
    """Counts a run's hours and those that its trials hold GPUs, and tells when a limit is spent."""

    def __init__(self, folder: RunFolder, limits: Limits) -> None:
        self._folder, self._limits = folder, limits
        self._spent = read_spent(folder)
        self._spent.cut_short = None
        self.start()

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
        limits = self._limits
        for name, spent_s, hours in (
            ("gpu_hours", self._spent.gpu_s, limits.gpu_hours),
            ("wall_hours", self._spent.wall_s, limits.wall_hours),
        ):
            if hours is not None and spent_s / 3600 >= hours:
                return f"limits.{name}: {hours:g} are spent"
        return None

    def save(self, cut_short: str | None = None) -> None:
        """Write what was counted to the run folder, and the limit that ended the run, if one did."""
        self._spent.cut_short = cut_short
        write_spent(self._folder, self._spent)
