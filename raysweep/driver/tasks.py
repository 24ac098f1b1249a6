"""The tasks that a run starts on a trial's slot: one for each data set before the trials, and one for the winner after.

In: the trials' configs, and the run folder. Out: the prepared arrays in Ray's object store, with the trials'
conditions; and the run folder's evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ray

from raysweep.cluster.slots import Slot, wait_for
from raysweep.config import LoopConfig
from raysweep.driver.stop import StopRequest
from raysweep.driver.view import View
from raysweep.errors import UserError
from raysweep.loops import loop
from raysweep.results.evaluation import Accuracies, Evaluation, is_wanted, views_to_evaluate, write_evaluation
from raysweep.results.run import read_results
from raysweep.store import Record, RunFolder
from raysweep.worker.tasks import TaskSetting, evaluate, prepare

Prepared = tuple[dict[str, Any], dict[str, dict[str, Any]]]
"""The object reference of each data set's arrays, by `LoopConfig.data_key`; and each trial's conditions, by its id."""


class TaskRunner:
    """Starts tasks on a trial's slot, with the resources of one worker, and waits until they end or the run stops."""

    def __init__(self, slot: Slot, sweep_folder: Path, imports: tuple[str, ...], view: View, stop: StopRequest) -> None:
        self.slot, self.view, self._stop = slot, view, stop
        self._setting = TaskSetting(str(sweep_folder), imports, slot.threads)

    def start(self, task: Callable[..., Any], *arguments: Any, results: int = 1) -> Any:
        """Start a task; return the object references of its results."""
        resources: dict[str, Any] = {"num_cpus": self.slot.cpus, "num_gpus": self.slot.gpus}
        return ray.remote(num_returns=results, **resources)(task).remote(self._setting, *arguments)

    def wait(self, reference: Any, what: str) -> bool:
        """Wait for a result, showing `what` is done meanwhile; return False if the run is to stop first."""
        with self.view.step(what):
            return wait_for(reference, self.slot, self.view.say, lambda: self._stop.requested)


def prepare_data(configs: Mapping[str, LoopConfig], tasks: TaskRunner) -> Prepared | None:
    """Prepare each data set of the trials once, and check that their networks can be built for it.

    Return None if the run is to stop before all is prepared.

    Raises:
        DataError: a data set cannot be read as asked.
        UserError: a network cannot be built, or not for these images.
    """
    sharing: dict[str, dict[str, LoopConfig]] = {}
    for id, config in configs.items():
        sharing.setdefault(config.data_key(), {})[id] = config
    references: dict[str, Any] = {}
    conditions: dict[str, dict[str, Any]] = {}
    for key, of_trials in sharing.items():
        alike = list(of_trials.values())
        references[key], found = tasks.start(prepare, alike, tasks.slot.workers, results=2)
        if not tasks.wait(found, f"preparing {alike[0].data_name()}"):
            return None
        conditions.update(zip(of_trials, _get(found), strict=True))
    return references, conditions


def _get(reference: Any) -> Any:
    """Get a result; the user's errors are raised as they were, without the remote traceback."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from None
        raise


def evaluate_best(folder: RunFolder, tta: list[int], data: Mapping[str, Any], tasks: TaskRunner) -> None:
    """Measure the winner's best weights under `tta` numbers of views, unless the run folder has it already.

    The `data` that is prepared is used, by `LoopConfig.data_key`. A fault is only said, since the trials are done all
    the same; a rerun tries again.
    """
    best = read_results(folder).best
    if best is None or best.best is None or not is_wanted(folder, best, tta):
        return
    try:
        accuracies = _measure(folder, best, tta, data, tasks)
    except ray.exceptions.RayError as error:
        lines = str(getattr(error, "cause", None) or error).strip().splitlines()
        reason = lines[-1] if lines else type(error).__name__  # the last line of a traceback says what went wrong
        tasks.view.say(f"{best.id}: its evaluation failed: {reason}")
        return
    if accuracies is not None:
        weights = best.weights["best"].sha256
        write_evaluation(folder, Evaluation(best.id, best.best.epoch, best.best.averaged, weights, accuracies))


def _measure(
    folder: RunFolder, best: Record, tta: list[int], data: Mapping[str, Any], tasks: TaskRunner
) -> list[Accuracies] | None:
    arrays = data.get(loop().config.model_validate(best.config).data_key())
    views = views_to_evaluate(best, tta)
    reference = tasks.start(evaluate, best, folder.parent.uri, folder.name, views, arrays)
    if not tasks.wait(reference, f"evaluating {best.id}"):
        return None
    accuracies: list[Accuracies] = ray.get(reference)
    return accuracies
