"""Which deaths of its process cost a trial a try, as Tune's callbacks tell of them; Tune's own part is played here."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from raysweep.driver import events as events_module
from raysweep.driver.board import Board
from raysweep.driver.events import FALSE_STARTS, TuneEvents
from raysweep.driver.nodes import Nodes
from raysweep.driver.stop import StopRequest
from raysweep.store import Record
from raysweep.sweepfile.schema import Objective
from raysweep.worker.tasks import Assignment

WORKER, NODE = "The actor is dead because its worker process has died.", "The actor died because its node has died."
FULL = "raysweep.errors.StorageError: /runs/a: the disk is full; make room, then run the same command again"


UNFIT = "raysweep.errors.UnfitNodeError: [node {node}] h4: folder: no such folder"
B = "b" * 56


class Handle:
    """An actor's handle: like Ray's, it makes its methods when they are asked for."""

    def __getattr__(self, method: str) -> Any:
        if method != "train":
            raise AttributeError(method)
        return SimpleNamespace(options=lambda name: SimpleNamespace(remote=lambda: f"a task named {name}"))


class Tune:
    """One trial under Tune, that starts and dies as told."""

    def __init__(self, folder: Path, retries: int = 1, stall_minutes: float | None = None) -> None:
        record = Record("net-1a2b3c4d", "net", 0, {}, {"batch_size": 32}, 10)
        assignment = Assignment(
            record, str(folder), "run", Objective(), retries, commit_every_s=300, threads=1, conditions={}
        )
        self.error_file = folder / "error.txt"
        self.trial: Any = SimpleNamespace(
            config={"assignment": assignment},
            status="RUNNING",
            error_file=str(self.error_file),
            temporary_state=SimpleNamespace(ray_actor=Handle()),
        )
        self.nodes = Nodes(lambda without: 1)
        self.given_up: list[Any] = []
        self.failed: list[str] = []
        self.stop = StopRequest()
        self.board = Board([record], maximize=True)
        self.events = TuneEvents(
            self.board,
            self.stop,
            retries,
            stall_minutes,
            SimpleNamespace(give_up=self.given_up.append),  # type: ignore[arg-type]
            self.nodes,
            lambda record, failure: self.failed.append(failure.type),
            print,
        )

    def start(self) -> None:
        self.events.on_trial_start(0, [], self.trial)

    def die(self, why: str) -> None:
        self.error_file.write_text(f"Failure # 1 (occurred at 2026-01-01)\n{why}\n")
        self.events.on_trial_recover(0, [], self.trial)

    @property
    def assignment(self) -> Assignment:
        assignment: Assignment = self.trial.config["assignment"]
        return assignment


def test_a_trial_is_given_up_when_its_processes_died_more_often_than_it_may_be_retried(tmp_path: Path) -> None:
    tune = Tune(tmp_path, retries=1)
    tune.start()
    tune.die(WORKER)
    assert (tune.given_up, tune.failed) == ([], [])
    assert tune.assignment.deaths == 1
    assert tune.assignment.past_error is not None
    assert tune.assignment.past_error["type"] == "ProcessDied"
    tune.start()
    tune.die(WORKER)
    assert tune.given_up == [tune.trial]
    assert tune.failed == ["ProcessDied"]
    assert tune.board.trials["net-1a2b3c4d"].status == "failed"


def test_nodes_may_go_away_as_often_as_they_like(tmp_path: Path) -> None:
    tune = Tune(tmp_path, retries=0)
    for _ in range(5):
        tune.start()
        tune.die(NODE)
    assert tune.given_up == []
    assert tune.assignment.deaths == 0


def test_a_process_that_died_before_the_trial_began_in_it_costs_no_try_but_not_for_ever(tmp_path: Path) -> None:
    tune = Tune(tmp_path, retries=0)
    for _ in range(FALSE_STARTS):
        tune.die(WORKER)
    assert tune.given_up == []
    assert tune.assignment.deaths == 0
    tune.die(WORKER)
    assert tune.given_up == [tune.trial]


def test_a_trial_that_cannot_commit_ends_the_run_and_is_not_failed(tmp_path: Path) -> None:
    tune = Tune(tmp_path, retries=0)
    tune.start()
    tune.die(FULL)
    assert tune.stop.requested
    assert tune.stop.fault == "/runs/a: the disk is full; make room, then run the same command again"
    assert tune.failed == []


def test_a_node_that_a_trial_finds_unfit_is_avoided_though_the_process_ran_on_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events_module, "node_names", lambda: {B: "10.0.0.2"})
    tune = Tune(tmp_path, retries=0)
    for _ in range(2):
        tune.start()
        tune.die(UNFIT.format(node=B))
    assert tune.nodes.avoided == [B]
    assert tune.assignment.deaths == 0
    assert tune.assignment.past_error is not None
    assert tune.assignment.past_error["message"] == "h4: folder: no such folder (on 10.0.0.2)"


def test_a_trial_that_is_silent_for_too_long_is_ended_once_and_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[Any] = []
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(events_module, "ray", SimpleNamespace(kill=killed.append))
    tune = Tune(tmp_path, retries=1, stall_minutes=1)
    tune.start()
    for seconds, expected in ((30, 0), (29, 0), (2, 1), (5, 1)):
        now += seconds
        tune.events.on_step_begin(0, [tune.trial])
        assert len(killed) == expected
    tune.die(WORKER)
    assert tune.assignment.deaths == 1
    assert tune.assignment.past_error is not None
    assert tune.assignment.past_error["message"] == "no report for 1 minutes (limits.stall_minutes)"
    now += 300
    tune.events.on_step_begin(0, [tune.trial])
    assert len(killed) == 1, "it has not begun again yet"


def test_the_calls_of_a_warm_process_are_named_after_the_trial_that_it_serves_now(tmp_path: Path) -> None:
    tune = Tune(tmp_path)
    tune.start()
    process = tune.trial.temporary_state.ray_actor
    assert process.train.remote() == "a task named raysweep run/net-1a2b3c4d"
    record = Record("net-5e6f7a8b", "net", 1, {}, {"batch_size": 32}, 10)
    tune.board.trials[record.id] = tune.board.trials["net-1a2b3c4d"]
    tune.trial.config["assignment"] = replace(tune.assignment, record=record)
    tune.start()
    assert process.train.remote() == "a task named raysweep run/net-5e6f7a8b"
