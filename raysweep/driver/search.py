"""The plan as a Tune Searcher."""

from __future__ import annotations

from typing import Any

from ray.tune.search import Searcher

from raysweep.driver.queue import TrialQueue
from raysweep.driver.stop import StopRequest


class PlanSearcher(Searcher):
    """Hands Tune the trials of the plan whose turn it is; none once the run is to stop."""

    def __init__(self, queue: TrialQueue, stop: StopRequest) -> None:
        super().__init__(metric="score", mode="max")
        self._queue = queue
        self._stop = stop

    def suggest(self, trial_id: str) -> Any:
        """The next trial's config; None while others must report first; FINISHED at the end."""
        if self._stop.requested:
            return Searcher.FINISHED
        assignment = self._queue.hand_out(trial_id)
        if assignment is not None:
            return {"assignment": assignment}
        # None with nothing left to wait for would make Tune block for minutes, deaf to signals; FINISHED too early
        # would make it drop the warm processes that paused trials go on in.
        return None if self._queue.is_busy else Searcher.FINISHED

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tune is done with a trial; `error`: its process died once too often."""
        self._queue.leave(trial_id, failed=error)

    def __getstate__(self) -> dict[str, Any]:
        """Nothing to pickle, though Tune asks: the records are the state."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the records are the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore."""
