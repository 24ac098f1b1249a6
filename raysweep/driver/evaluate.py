"""The winner's evaluation, where the data is: one Ray task on a trial's slot, after the last trial."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from raysweep.config import TrialConfig
from raysweep.data import DataSet, open_data
from raysweep.driver.cluster import Slot
from raysweep.driver.stop import StopRequest
from raysweep.errors import StorageError
from raysweep.evaluation import Accuracies, Evaluation, is_wanted, views_to_evaluate, write_evaluation
from raysweep.process import data_variables, set_up_process
from raysweep.results import read_results
from raysweep.store import Record, RunFolder


@dataclass(frozen=True)
class _Task:
    """What the task is told."""

    record: Record
    storage: str
    run_name: str
    sweep_folder: str
    imports: tuple[str, ...]
    tta: list[int]
    threads: int
    variables: dict[str, str]


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
    task = _Task(
        best,
        folder.parent.uri,
        folder.name,
        str(sweep_folder),
        imports,
        views_to_evaluate(best, tta),
        slot.threads,
        data_variables(),
    )
    remote = ray.remote(num_cpus=slot.cpus, num_gpus=slot.gpus)(_evaluate)
    key = TrialConfig.model_validate(best.config).data.model_dump_json()
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


def _evaluate(task: _Task, arrays: dict[str, Any] | None) -> list[Accuracies]:
    """Remote: the accuracies of each number of views. `arrays`: of the prepared set; None: it is opened here."""
    from raysweep.inference import Classifier
    from raysweep.pull import build_from_record

    set_up_process(task.imports, task.threads, task.variables)
    known = task.record.conditions
    if arrays is None:
        data = open_data(TrialConfig.model_validate(task.record.config).data, sweep_folder=Path(task.sweep_folder))
    else:
        data = DataSet.from_arrays(arrays)
    if data.fingerprint != known["data"]:
        raise StorageError(f"{task.record.id} was trained on other images or labels than there are now")
    model = build_from_record(RunFolder(task.storage, task.run_name), task.record)
    classifier = Classifier(model, known["mean"], known["std"], known["precision"])
    return [
        Accuracies(
            views,
            classifier.accuracy(data.val, views),
            classifier.accuracy(data.test, views) if data.test else None,
        )
        for views in task.tta
    ]
