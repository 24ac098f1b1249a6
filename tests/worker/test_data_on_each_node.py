"""A data set that no object store holds: what a trial's process does until it has it, without Ray."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import raysweep
from raysweep.config import LoopConfig
from raysweep.errors import DataError, UnfitNodeError
from raysweep.store import Record, RunFolder
from raysweep.sweepfile.schema import Objective
from raysweep.worker import data, trial
from raysweep.worker.data import OnEachNode
from raysweep.worker.tasks import Assignment, TaskSetting

SETTING = TaskSetting(".", (), threads=1, device="cpu", loop="large")


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


def test_a_node_that_joined_later_and_has_not_the_data_ends_the_process_so_that_the_trial_goes_elsewhere(
    begun: tuple[trial._Run, threading.Event, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _, _ = begun

    def answers(answer: Any) -> None:
        def result_of(task: Any) -> Any:
            if isinstance(answer, Exception):
                raise answer
            return answer

        monkeypatch.setattr(data, "result_of", result_of)
        monkeypatch.setattr(trial, "_is_there", lambda task: True)
        monkeypatch.setattr(OnEachNode, "begin_on", lambda placed, nodes, name: ["task"])

    answers(DataError("h4: no such file"))
    with pytest.raises(UnfitNodeError, match=r"^h4: no such file$"):
        run.to_the_end()
    answers(("h4", {"data": "4567"}))
    with pytest.raises(UnfitNodeError, match=r"^h4: the data is not what the run began with: copy its files"):
        run.to_the_end()
