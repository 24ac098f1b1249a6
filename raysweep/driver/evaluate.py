"""The winner's evaluation, where the data is: one Ray task on a trial's slot, after the last trial."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import ray

from raysweep.cluster.slots import Slot
from raysweep.driver.stop import StopRequest
from raysweep.registry import loop
from raysweep.results.evaluation import Evaluation, is_wanted, views_to_evaluate, write_evaluation
from raysweep.results.run import read_results
from raysweep.store import RunFolder
from raysweep.worker.tasks import EvaluationTask, data_variables, evaluate


def evaluate_best(
    folder: RunFolder,
    tta: list[int],
    sweep_folder: Path,
    imports: tuple[str, ...],
    slot: Slot,
    data: Mapping[str, Any],
    stop: StopRequest,
    say: Callable[[str], None],
    step: Callable[[str], AbstractContextManager[None]],
) -> None:
    """Measure the winner's best weights and write the evaluation, unless the run folder has it already.

    What goes wrong is said, and tried again by a rerun: the trials are done all the same.

    Args:
        folder: the run folder.
        tta: numbers of views asked for.
        sweep_folder: of the sweep file, to find the data.
        imports: modules of the user's.
        slot: what the task holds: that of a trial's first worker.
        data: object references of the prepared arrays, by data config, as far as there are any.
        stop: ends the wait.
        say: prints a line.
        step: shows that it takes a while.
    """
    best = read_results(folder).best
    if best is None or not is_wanted(folder, best, tta):
        return
    task = EvaluationTask(
        best,
        folder.parent.uri,
        folder.name,
        str(sweep_folder),
        imports,
        views_to_evaluate(best, tta),
        slot.threads,
        data_variables(),
    )
    remote = ray.remote(num_cpus=slot.cpus, num_gpus=slot.gpus)(evaluate)
    key = loop().config.model_validate(best.config).data_key()
    reference = remote.remote(task, data.get(key))
    with step(f"evaluating {best.id}"):
        while not ray.wait([reference], timeout=0.2)[0]:
            if stop.requested:
                ray.cancel(reference, force=True)
                return
    try:
        accuracies = ray.get(reference)
    except ray.exceptions.RayError as error:
        lines = str(getattr(error, "cause", None) or error).strip().splitlines()  # a traceback's last says what
        reason = lines[-1] if lines else type(error).__name__
        say(f"{best.id}: its evaluation failed: {reason}")
        return
    assert best.best is not None
    weights = best.weights["best"].sha256
    write_evaluation(folder, Evaluation(best.id, best.best.epoch, best.best.averaged, weights, accuracies))
