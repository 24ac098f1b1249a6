"""Who goes on, as a Tune TrialScheduler: order-proof ASHA, of which running every trial to its end is the case without
rungs. Tune's own ASHA is there to compare with.
"""

from __future__ import annotations

from typing import Any

from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from raysweep.driver.queue import TrialQueue
from raysweep.driver.stop import StopRequest
from raysweep.halving.rungs import Verdict
from raysweep.sweepfile.schema import RayAshaConfig, Sweep


class HalvingScheduler(TrialScheduler):
    """Pauses trials at rungs until their place is sure, brings them back, and stops those without a chance.

    A trial has committed before it reports a rung, so it can be paused or stopped at once: nothing is saved by Tune.
    """

    def __init__(self, queue: TrialQueue, stop: StopRequest) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._queue = queue
        self._stop = stop
        self._new: list[TuneTrial] = []

    def on_trial_add(self, tune_controller: Any, trial: TuneTrial) -> None:
        """A trial is new, or to be tried again after its process died."""
        if self._queue.know(trial):
            self._new.append(trial)

    def on_trial_error(self, tune_controller: Any, trial: TuneTrial) -> None:
        """A trial's process died; whether for the last time is for the searcher to hear."""

    def on_trial_result(self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]) -> str:
        """A trial reported an epoch, or its end."""
        verdict = self._queue.judge(trial, result)
        if verdict is Verdict.SAFE:
            return TrialScheduler.CONTINUE
        if verdict is Verdict.OUT:
            return TrialScheduler.STOP
        tune_controller.pause_trial(trial, should_checkpoint=False)
        return TrialScheduler.NOOP

    def on_trial_complete(self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]) -> None:
        """The searcher is told as well, and that is enough."""

    def on_trial_remove(self, tune_controller: Any, trial: TuneTrial) -> None:
        """See `on_trial_complete`."""

    def choose_trial_to_run(self, tune_controller: Any) -> TuneTrial | None:
        """The trial whose turn it is: a paused one, else one just handed out by the searcher.

        Tune asks at every step. Each trial is named once: it then takes a warm process if one is free, else gets a new
        one. Were it named again meanwhile, it would take the next free process from the trial whose turn it is then.
        """
        _stop_those_over(tune_controller, self._queue, self._stop)
        if self._stop.requested:
            return None
        for trial in self._queue.take_out():
            tune_controller.stop_trial(trial)
        new, self._new = self._new, []
        return self._queue.promote() or next((trial for trial in new if trial.status == TuneTrial.PENDING), None)

    def debug_string(self) -> str:
        """For Tune's own reporter, which is off."""
        return type(self).__name__

    def __getstate__(self) -> dict[str, Any]:
        """Nothing to pickle, though Tune asks: the records are the state."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the records are the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore."""


class RayAsha(ASHAScheduler):
    """Tune's own ASHA, which also stops the trials that are not to be started again."""

    def __init__(self, queue: TrialQueue, stop: StopRequest, **options: Any) -> None:
        super().__init__(**options)
        self._queue = queue
        self._stop = stop

    def choose_trial_to_run(self, tune_controller: Any) -> TuneTrial | None:
        """The next trial in the order of arrival."""
        _stop_those_over(tune_controller, self._queue, self._stop)
        chosen: TuneTrial | None = super().choose_trial_to_run(tune_controller)
        return chosen

    def __getstate__(self) -> dict[str, Any]:
        """Nothing to pickle, though Tune asks: the records are the state."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the records are the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore."""


def _stop_those_over(tune_controller: Any, queue: TrialQueue, stop: StopRequest) -> None:
    """Stop the trials that failed for good; where the run is to stop, those that hold nothing and keep Tune waiting."""
    over = queue.take_given_up()
    if stop.requested:
        over += [trial for trial in queue.tune_trials if trial.status in (TuneTrial.PAUSED, TuneTrial.PENDING)]
    for trial in over:
        tune_controller.stop_trial(trial)


def make_scheduler(sweep: Sweep, queue: TrialQueue, stop: StopRequest, longest: int) -> TrialScheduler:
    """Build the Tune scheduler of the sweep file.

    Args:
        sweep: names it.
        queue: of its trials.
        stop: whether the run is to stop.
        longest: epochs of the longest trial.
    """
    if not isinstance(sweep.scheduler, RayAshaConfig):
        return HalvingScheduler(queue, stop)
    asha = sweep.scheduler
    return RayAsha(
        queue,
        stop,
        time_attr="epoch",
        metric="score",
        mode="max" if sweep.objective.maximize else "min",
        max_t=max(longest, asha.grace_period + 1),
        grace_period=asha.grace_period,
        reduction_factor=asha.eta,
        brackets=asha.brackets,
    )
