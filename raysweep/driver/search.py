"""The plan as a Tune Searcher, and the scheduler that the sweep file names."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from raysweep.driver.stop import StopRequest
from raysweep.sweepfile.schema import RayAshaConfig, Sweep
from raysweep.trial import Assignment


class PlanSearcher(Searcher):
    """Hands Tune the trials of the plan that are still to do, in order; none once the user stops the run."""

    def __init__(self, assignments: Sequence[Assignment], stop: StopRequest) -> None:
        super().__init__(metric="score", mode="max")
        self._waiting = deque(assignments)
        self._stop = stop

    def suggest(self, trial_id: str) -> Any:
        """The next trial's config, or FINISHED."""
        if not self._waiting or self._stop.requested:
            return Searcher.FINISHED  # None would make Tune wait for minutes, deaf to signals
        return {"assignment": self._waiting.popleft()}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing to learn: the plan is fixed."""

    def __getstate__(self) -> dict[str, Any]:
        """Nothing to pickle, though Tune asks: the records are the state."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the records are the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore."""


def make_scheduler(sweep: Sweep, longest: int) -> TrialScheduler:
    """Build the Tune scheduler of the sweep file.

    Args:
        sweep: names it.
        longest: epochs of the longest trial.
    """
    match sweep.scheduler:
        case RayAshaConfig() as asha:
            return ASHAScheduler(
                time_attr="epoch",
                metric="score",
                mode="max" if sweep.objective.maximize else "min",
                max_t=max(longest, asha.grace_period + 1),
                grace_period=asha.grace_period,
                reduction_factor=asha.eta,
                brackets=asha.brackets,
            )
        case _:
            return FIFOScheduler()  # type: ignore[no-untyped-call]
