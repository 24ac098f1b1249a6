"""A data set that no object store holds: what a trial's process does until it has it, without Ray."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import NodeDiedError, OutOfMemoryError, RayTaskError, TaskUnschedulableError, WorkerCrashedError

import raysweep
from raysweep.config import LoopConfig
from raysweep.driver.failures import failure_of, find_node
from raysweep.errors import DataError, UnfitNodeError
from raysweep.store import Record, RunFolder
from raysweep.sweepfile.schema import Objective
from raysweep.worker import data, trial
from raysweep.worker.data import OnEachNode
from raysweep.worker.tasks import Assignment, TaskSetting

SETTING = TaskSetting(".", (), threads=1, device="cpu", loop="large")
LATE = "1a2b3c4d" * 7
"""A node that has joined since the run began."""


class Settings(LoopConfig):
    """A trial's."""

    files: str = "here"


@pytest.fixture
def is_prepared() -> Iterator[threading.Event]:
    """Until it is set, the loop `large` prepares its data."""
    event = threading.Event()

    def prepare(files: str) -> dict[str, Any]:
        event.wait(60)
        return {"files": files}

    @raysweep.register_loop("large", config=Settings, metrics={"loss": "min"}, prepare=prepare)
    def train(config: Settings, trial: raysweep.TrialContext) -> Iterator[raysweep.Epoch]:
        yield raysweep.Epoch({"loss": float(len(trial.data["files"]))}, state=dict)

    yield event
    event.set()


@pytest.fixture
def begun(
    is_prepared: threading.Event, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[trial._Run, threading.Event, list[Any]]:
    """A trial that is to train on such data, what stops it, and what it tells Tune."""
    stop, told = threading.Event(), list[Any]()
    monkeypatch.setattr(trial, "run_ranks", lambda run, *_: run())
    monkeypatch.setattr(trial, "_nodes_of_this_slot", lambda workers: ["here"])
    monkeypatch.setattr(trial.notices, "watch", lambda nodes: SimpleNamespace(since=None))
    monkeypatch.setattr(trial, "TELL_EVERY_S", 0.1)
    monkeypatch.setattr(trial, "LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(trial.tune, "report", told.append)
    monkeypatch.setattr(data, "_opened", {})
    config = Settings(epochs=1)
    record = Record("large-1a2b3c4d", "large", 0, {}, config.model_dump(mode="json"), 1)
    objective = Objective(metric="loss", mode="min")
    assignment = Assignment(record, str(tmp_path), "run", objective, 0, 1e9, 1, {"data": "0123"}, loop="large")
    placed = OnEachNode(SETTING, config, {"data": "0123"}, frozenset({"here"}))
    key = raysweep.loops.loop_named("large").data_key(config)
    return trial._Run(assignment, {key: placed}, stop.is_set), stop, told


def test_a_trial_that_waits_for_data_reports_that_it_is_alive_and_then_trains_on_it(
    begun: tuple[trial._Run, threading.Event, list[Any]], is_prepared: threading.Event, tmp_path: Path
) -> None:
    run, _, told = begun
    threading.Timer(0.5, is_prepared.set).start()
    run.to_the_end()
    assert len(told) >= 3, "it told more than its end"
    assert {each["status"] for each in told[:-1]} == {"running"}
    record = RunFolder(str(tmp_path), "run").record("large-1a2b3c4d")
    assert record is not None
    assert (record.status, record.metrics[0]["loss"]) == ("finished", 4.0)


def test_a_trial_that_waits_for_data_ends_when_the_run_is_to_stop(
    begun: tuple[trial._Run, threading.Event, list[Any]], tmp_path: Path
) -> None:
    run, stop, _ = begun
    stop.set()
    run.to_the_end()
    assert RunFolder(str(tmp_path), "run").record("large-1a2b3c4d") is None


def test_a_set_that_two_threads_open_is_opened_once(
    begun: tuple[trial._Run, threading.Event, list[Any]], is_prepared: threading.Event
) -> None:
    (placed,) = begun[0].data.values()
    threads = [data.in_a_thread(placed.open) for _ in range(2)]
    time.sleep(0.1)  # both are inside
    is_prepared.set()
    one, other = (thread.result(10) for thread in threads)
    assert one is other


# -- a node that joined later, whose tasks are pretended


@pytest.fixture
def answer(
    begun: tuple[trial._Run, threading.Event, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> tuple[list[Any], list[tuple[str, bool]]]:
    """What such a node answers that is asked to prepare the set, and on which nodes, and whether on no other, that was
    asked."""
    answers, asked = list[Any](), list[tuple[str, bool]]()

    def options(name: str, scheduling_strategy: Any) -> Any:
        asked.append((scheduling_strategy.node_id, not scheduling_strategy.soft))
        return SimpleNamespace(remote=lambda setting, config: answers[0])

    def result_of(task: Any) -> Any:
        if isinstance(task, Exception):
            raise task
        return task

    begun[0].nodes = ["here", LATE]
    monkeypatch.setattr(data.ray, "remote", lambda **how: lambda task: SimpleNamespace(options=options))
    monkeypatch.setattr(data, "result_of", result_of)
    monkeypatch.setattr(trial, "_is_there", lambda task: True)
    return answers, asked


def test_a_node_that_joined_later_and_no_other_prepares_the_data_before_the_trial_begins(
    begun: tuple[trial._Run, threading.Event, list[Any]],
    answer: tuple[list[Any], list[tuple[str, bool]]],
    is_prepared: threading.Event,
) -> None:
    is_prepared.set()
    answer[0].append(("h4", {"data": "0123"}))
    begun[0].to_the_end()
    assert answer[1] == [(LATE, True)]
    assert begun[2][-1]["status"] == "finished"


NO_FILE = FileNotFoundError(2, "No such file or directory", "/data/corpus.npy")


@pytest.mark.parametrize(
    ("answered", "fault", "message"),
    [
        (DataError("h4: no such file"), "UnfitNode", "h4: no such file"),
        (("h4", {"data": "4567"}), "UnfitNode", "h4: the data is not what the run began with: copy its files from an"),
        (
            RayTaskError("prepare_here", "Traceback\n  in prepare\nFileNotFoundError: no corpus", NO_FILE),
            "UnfitNode",
            "the data could not be prepared on this node: FileNotFoundError: no corpus",
        ),
        (
            OutOfMemoryError("Task was killed due to the node running low on memory.\nTo adjust the threshold ..."),
            "UnfitNode",
            "the data could not be prepared on this node: Task was killed due to the node running low on memory.",
        ),
        (WorkerCrashedError(), "UnfitNode", "the data could not be prepared on this node: The worker died unexpected"),
        (NodeDiedError("Task failed because the node it was running on is dead"), "NodeDied", "its node went away"),
        (TaskUnschedulableError("The node specified ... doesn't exist any more"), "NodeDied", "its node went away"),
    ],
)
def test_a_node_that_joined_later_and_cannot_prepare_the_data_ends_the_process_so_that_the_trial_goes_elsewhere(
    begun: tuple[trial._Run, threading.Event, list[Any]],
    answer: tuple[list[Any], list[tuple[str, bool]]],
    answered: Any,
    fault: str,
    message: str,
) -> None:
    run, _, _ = begun
    run.assignment = replace(run.assignment, retries=3)
    answer[0].append(answered)
    with pytest.raises((UnfitNodeError, NodeDiedError)) as raised:
        run.to_the_end()
    assert len(answer[1]) == 1, "it is not asked again"
    tunes_text = "".join(traceback.format_exception(raised.value))
    failure = failure_of(tunes_text, batch_size=None)
    assert (failure.type, failure.message[: len(message)]) == (fault, message)
    if fault == "UnfitNode":
        assert find_node(tunes_text) == LATE, "not the node of the trial's own process"
