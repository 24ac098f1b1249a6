"""GPU-hours of a run, over all its reruns, while it goes on: spent, and saved by stopping trials early."""

from __future__ import annotations

import math
from collections.abc import Iterable

from raysweep.driver.events import Progress
from raysweep.results.hours import saved_s, trained_s
from raysweep.store import Record


def curve_of(progress: Progress) -> list[dict[str, float]]:
    """Metrics of a trial's epochs so far, those of earlier runs too."""
    first = progress.history[0]["epoch"] if progress.history else math.inf
    return [*(row for row in progress.record.metrics if row["epoch"] < first), *progress.history]


class Costs:
    """Adds up what epochs took.

    Args:
        records: of all trials, as they were when the run began.
    """

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self.gpus = 0.0
        """That a trial holds. Where it holds none, its hours are those of its slot."""
        self._spent_s = 0.0
        self._saved_s: dict[str, float] = {}
        self._counted: dict[str, dict[str, float]] = {}
        for record in records:
            self._spent_s += trained_s(record.metrics)
            if record.status == "stopped":
                self._saved_s[record.id] = saved_s(record.metrics, record.epochs)

    @property
    def spent(self) -> float:
        """Hours of the epochs that were trained; those that were trained again after a death count twice."""
        return self._spent_s * (self.gpus or 1) / 3600

    @property
    def saved(self) -> float:
        """Hours that the other epochs of stopped trials would have taken."""
        return sum(self._saved_s.values()) * (self.gpus or 1) / 3600

    def note(self, what: str, progress: Progress) -> None:
        """Take note of what happened to a trial: see `Board.update`."""
        trial_id, newest = progress.record.id, progress.metrics
        if newest and newest is not self._counted.get(trial_id):
            self._counted[trial_id] = newest
            self._spent_s += trained_s([newest])
        if what == "started":  # one that an earlier run stopped may come back
            self._saved_s.pop(trial_id, None)
        if what == "ended" and progress.status == "stopped":
            self._saved_s[trial_id] = saved_s(curve_of(progress), progress.record.epochs)

    def __str__(self) -> str:
        unit = "GPU-hours" if self.gpus else "slot-hours"
        text = f"{self.spent:.2f} {unit} spent"
        return f"{text}, {self.saved:.2f} saved by early stopping" if self._saved_s else text
