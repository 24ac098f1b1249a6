"""What Tune asks while it runs a sweep, and where its questions go: nearly all of them to the `TrialQueue`.

Tune takes its decisions from two objects. The searcher (`suggest`) makes new trials; the scheduler says what becomes of
the trials that exist. On the main thread Tune repeats one step until all trials have ended and the searcher is done:

1. `suggest`, while fewer than TUNE_MAX_PENDING_TRIALS_PG trials are pending: the config of one more trial, or "none
   now" (None), or "none any more" (FINISHED).
2. `choose_trial_to_run`: a pending or paused trial to be given a process, a warm one if one is free. The pending trials
   that were not chosen follow in the order in which they came.
3. One event of the cluster: a process is ready or has died, or a trial reported (`on_trial_result`, whose answer is
   CONTINUE, STOP or NOOP) or returned.

Tune's own `asha` is here too, to compare with.
"""

from __future__ import annotations

from typing import Any

import ray
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from raysweep.driver.nodes import SlotRequest
from raysweep.driver.queue import TrialQueue
from raysweep.halving.rungs import Verdict
from raysweep.sweepfile.schema import Objective, RayAshaConfig, SchedulerConfig


class Stateless:
    """An object that Tune pickles and saves as nothing: the records in the run folder are the state."""

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Save nothing; a `Searcher` has to have this method."""


class PlanSearcher(Stateless, Searcher):
    """Hands Tune the trials of the plan whose turn it is, and none once the run is to stop."""

    def __init__(self, queue: TrialQueue) -> None:
        super().__init__(metric="score", mode="max")
        self._queue = queue

    def suggest(self, trial_id: str) -> Any:
        """Return the next trial's config, None while others must report first, or FINISHED at the end."""
        assignment = self._queue.hand_out(trial_id)
        if assignment is None and self._queue.go_on():
            assignment = self._queue.hand_out(trial_id)
        if assignment is not None:
            return {"assignment": assignment}
        # With no trial left to wait for, None would make Tune block for up to ten minutes, in which signals have no
        # effect. FINISHED too early would make it end the warm processes that paused trials are to go on in.
        return None if self._queue.is_busy else Searcher.FINISHED

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tune is done with a trial; `error`: it could not start it."""
        self._queue.leave(trial_id, failed=error)


class HalvingScheduler(Stateless, FIFOScheduler):
    """Pauses trials at rungs until their place is sure, brings them back, and stops those without a chance.

    With no rungs (`scheduler: none`) every trial runs to its end. A trial has committed before it reports a rung, so it
    can be paused or stopped at once, with no checkpoint of Tune's.
    """

    def __init__(self, queue: TrialQueue, request: SlotRequest) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._queue, self._request = queue, request
        self._new: list[TuneTrial] = []

    def on_trial_add(self, tune_controller: Any, trial: TuneTrial) -> None:
        """A trial is new, or is to be tried again after its process died."""
        _take_over(trial, self._request)
        if self._queue.know(trial):
            self._new.append(trial)

    def on_trial_result(self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]) -> str:
        """A trial reported an epoch, or its end; say whether it goes on."""
        match self._queue.judge(trial, result):
            case Verdict.SAFE:
                return TrialScheduler.CONTINUE
            case Verdict.OUT:
                return TrialScheduler.STOP
        # The answer PAUSE would have Tune save a checkpoint first; so the trial is paused here, and Tune does nothing.
        tune_controller.pause_trial(trial, should_checkpoint=False)
        return TrialScheduler.NOOP

    def choose_trial_to_run(self, tune_controller: Any) -> TuneTrial | None:
        """Return the trial whose turn it is: a paused one, else one that the searcher has just handed out.

        Each trial is returned once. It takes a warm process if one is free, else Tune starts one for it. If it were
        returned again at the next step, while its process starts, Tune would give it the next warm process that comes
        free, and so take that from the trial whose turn it is then.
        """
        _stop_those_over(tune_controller, self._queue)
        new, self._new = self._new, []
        return self._queue.promote() or next((trial for trial in new if trial.status == TuneTrial.PENDING), None)


class RayAsha(Stateless, ASHAScheduler):
    """Tune's own ASHA, made to stop the trials that are not to be started again."""

    def __init__(self, queue: TrialQueue, request: SlotRequest, **options: Any) -> None:
        super().__init__(**options)
        self._queue, self._request = queue, request

    def on_trial_add(self, tune_controller: Any, trial: TuneTrial) -> None:
        """A trial is new."""
        self._queue.know(trial)
        _take_over(trial, self._request)
        super().on_trial_add(tune_controller, trial)

    def choose_trial_to_run(self, tune_controller: Any) -> TuneTrial | None:
        """Return the next trial in the order in which they came."""
        _stop_those_over(tune_controller, self._queue)
        return super().choose_trial_to_run(tune_controller)


def _take_over(trial: TuneTrial, request: SlotRequest) -> None:
    """Prepare a trial that Tune has just made."""
    request.take_the_place_of_tunes_own(trial)
    # In the end Tune asks for its folder, also of a trial that was stopped before it could start.
    trial.init_local_path()  # type: ignore[no-untyped-call]


def _stop_those_over(tune_controller: Any, queue: TrialQueue) -> None:
    for trial in queue.take_out():
        starting = _process_that_starts(tune_controller, trial)
        tune_controller.stop_trial(trial)
        if starting is not None:
            ray.kill(starting)  # else Tune waits until it is ready to be told to stop


def _process_that_starts(tune_controller: Any, trial: TuneTrial) -> Any:
    """Return the actor that is being started for a trial, if there is one; it has done nothing yet."""
    process = tune_controller._trial_to_actor.get(trial)
    if process is None or process in tune_controller._started_actors:
        return None
    actor, _ = tune_controller._actor_manager._live_actors_to_ray_actors_resources.get(process, (None, None))
    return actor


def make_scheduler(
    asha: SchedulerConfig, objective: Objective, queue: TrialQueue, request: SlotRequest, longest: int
) -> TrialScheduler:
    """Build the Tune scheduler that the sweep file names; the longest trial has `longest` epochs."""
    if not isinstance(asha, RayAshaConfig):
        return HalvingScheduler(queue, request)
    options = {
        "mode": "max" if objective.maximize else "min",
        "max_t": max(longest, asha.grace_period + 1),
        "grace_period": asha.grace_period,
        "reduction_factor": asha.eta,
        "brackets": asha.brackets,
    }
    return RayAsha(queue, request, time_attr="epoch", metric="score", **options)
