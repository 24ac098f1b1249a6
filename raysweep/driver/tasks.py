"""The tasks that a run starts on a trial's slot: one for each data set before the trials, and one for the winner after.

In: the trials' configs, and the run folder. Out: the prepared arrays in Ray's object store, with the trials'
conditions; and the run folder's evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from raysweep.cluster.slots import Slot, wait_for
from raysweep.config import LoopConfig
from raysweep.driver.stop import StopRequest
from raysweep.driver.view import View
from raysweep.errors import UserError
from raysweep.loops import loop
from raysweep.results.evaluation import Evaluation, is_wanted, views_to_evaluate, write_evaluation
from raysweep.results.run import read_results
from raysweep.store import RunFolder
from raysweep.worker.tasks import TaskSetting, evaluate, prepare


class TaskRunner:
    """Starts tasks on a trial's slot and waits for them.

    Args:
        slot: a trial's slot; a task holds what the trial's first worker would.
        sweep_folder: the folder of the sweep file.
        imports: the user's modules.
        view: shows what is waited for.
        stop: ends the wait.
    """

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


@dataclass(frozen=True)
class Prepared:
    """What trials are given, and what their numbers will depend on."""

    references: dict[str, Any]
    """The object reference of each data set's arrays, by `LoopConfig.data_key`."""
    conditions: dict[str, dict[str, Any]]
    """The conditions of each trial, by id."""


def prepare_data(configs: Mapping[str, LoopConfig], tasks: TaskRunner) -> Prepared | None:
    """Prepare each data set once, and check that the networks can be built for it.

    Args:
        configs: the trials' configs, by id.
        tasks: runs the preparation.

    Returns:
        None if the run is to stop before all is prepared.

    Raises:
        DataError: a data set cannot be read as asked.
        UserError: a network cannot be built, or not for these images.
    """
    sharing: dict[str, dict[str, LoopConfig]] = {}
    for id, config in configs.items():
        sharing.setdefault(config.data_key(), {})[id] = config
    prepared = Prepared({}, {})
    for key, of_trials in sharing.items():
        alike = list(of_trials.values())
        prepared.references[key], found = tasks.start(prepare, alike, tasks.slot.workers, results=2)
        if not tasks.wait(found, f"preparing {alike[0].data_name()}"):
            return None
        prepared.conditions.update(zip(of_trials, _get(found), strict=True))
    return prepared


def _get(reference: Any) -> Any:
    """Get a result; the user's errors are raised as they were, without the remote traceback."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from None
        raise


def evaluate_best(folder: RunFolder, tta: list[int], data: Mapping[str, Any], tasks: TaskRunner) -> None:
    """Measure the winner's best weights and write the evaluation, unless the run folder has it already.

    A fault is said and no more, since the trials are done all the same; a rerun tries again.

    Args:
        folder: the run folder.
        tta: the numbers of views that the sweep asks for.
        data: the object references of the arrays that are prepared already, by `LoopConfig.data_key`.
        tasks: runs the evaluation.
    """
    best = read_results(folder).best
    if best is None or best.best is None or not is_wanted(folder, best, tta):
        return
    arrays = data.get(loop().config.model_validate(best.config).data_key())
    views = views_to_evaluate(best, tta)
    reference = tasks.start(evaluate, best, folder.parent.uri, folder.name, views, arrays)
    if not tasks.wait(reference, f"evaluating {best.id}"):
        return
    try:
        accuracies = ray.get(reference)
    except ray.exceptions.RayError as error:
        lines = str(getattr(error, "cause", None) or error).strip().splitlines()
        reason = lines[-1] if lines else type(error).__name__  # the last line of a traceback says what went wrong
        tasks.view.say(f"{best.id}: its evaluation failed: {reason}")
        return
    weights = best.weights["best"].sha256
    write_evaluation(folder, Evaluation(best.id, best.best.epoch, best.best.averaged, weights, accuracies))
