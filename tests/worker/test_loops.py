"""Loops of the user's own as trials: what is committed of them, how they go on, and what is refused. No Ray."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load as load_safetensors
from torch import nn

import raysweep
from raysweep.loops import loop_named
from raysweep.store import Record, RunFolder
from raysweep.sweepfile.schema import Objective
from raysweep.worker import trial as worker_trial
from raysweep.worker.tasks import Assignment

TRIAL = "net-0123456789ab"
Train = Callable[[Any, raysweep.TrialContext], Iterator[raysweep.Epoch]]


class Config(raysweep.Config):
    """A trial's settings."""

    epochs: int = 6
    lr: float = 0.05
    examples: int = 24


def examples(examples: int) -> Mapping[str, Any]:
    """Return a regression's data."""
    x = np.random.RandomState(0).randn(examples, 3).astype("float32")
    return {"x": x, "y": x.sum(1)}


def plain(config: Config, trial: raysweep.TrialContext) -> Iterator[raysweep.Epoch]:
    """Train as a script does, by torch's global generator alone."""
    x, y = torch.tensor(trial.data["x"]), torch.tensor(trial.data["y"])
    net = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 1))
    optimizer = torch.optim.Adam(net.parameters(), lr=config.lr)
    if trial.state:
        net.load_state_dict(trial.state["net"])
        optimizer.load_state_dict(trial.state["optimizer"])
    for _ in range(trial.epoch, config.epochs):
        for batch in torch.randperm(len(x)).split(8):
            loss = nn.functional.mse_loss(net(x[batch])[:, 0], y[batch]) + float(np.random.rand())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        yield raysweep.Epoch(
            {"val_mse": loss.detach(), "epoch": 7.0},
            state=lambda: {"net": net.state_dict(), "optimizer": optimizer.state_dict()},
            weights=net.state_dict,
        )


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No Ray and no Tune."""
    monkeypatch.setattr(worker_trial, "run_ranks", lambda run, *_: run())
    monkeypatch.setattr(worker_trial, "_nodes_of_this_slot", lambda workers: ["here"])
    monkeypatch.setattr(worker_trial.notices, "watch", lambda nodes: SimpleNamespace(since=None))
    monkeypatch.setattr(worker_trial._Run, "_wait_for_data", lambda run, reference: reference)
    monkeypatch.setattr(worker_trial.tune, "report", lambda metrics: None)


class Trial:
    """A trial of a registered loop in a run folder of its own."""

    def __init__(self, folder: Path, function: Train, every_s: float, rungs: tuple[int, ...], metric: str) -> None:
        raysweep.register_loop("own", config=Config, metrics={"val_mse": "min"}, prepare=examples)(function)
        self.folder = RunFolder(str(folder), "run")
        loop, config = loop_named("own"), Config()
        arrays = loop.prepare(config, folder)
        self.data = {loop.data_key(config): arrays}
        planned = Record(TRIAL, "net", 3, {}, config.model_dump(mode="json"), config.epochs)
        objective = Objective(metric=metric, mode="min")
        conditions = loop.conditions(config, arrays)
        self.assignment = Assignment(
            planned, str(folder), "run", objective, 0, every_s, 1, conditions, "cpu", rungs=rungs, loop="own"
        )

    def run(self, stop_after: int = 1000) -> Record:
        """Train until the end, or until the run is to stop after so many questions whether it is."""
        asked = itertools.count()
        worker_trial._Run(self.assignment, self.data, lambda: next(asked) >= stop_after).to_the_end()
        committed = self.folder.record(TRIAL)
        assert committed is not None
        return committed


@pytest.fixture
def make_trial(tmp_path: Path) -> Callable[..., Trial]:
    """Make a trial of a loop, in a run folder of the given name."""

    def make(
        function: Train, name: str = "", every_s: float = 1e9, rungs: tuple[int, ...] = (), metric: str = "val_mse"
    ) -> Trial:
        return Trial(tmp_path / (name or function.__name__), function, every_s, rungs, metric)

    return make


def test_a_plain_loop_that_saves_network_and_optimizer_resumes_to_the_bit_after_each_epoch(
    make_trial: Callable[..., Trial],
) -> None:
    expected = make_trial(plain, "whole").run()
    assert [row["epoch"] for row in expected.metrics] == [1, 2, 3, 4, 5, 6]
    stopped = make_trial(plain, "stopped")
    for epoch in range(1, 6):
        assert (record := stopped.run(stop_after=0)).epoch == epoch, "it was not stopped at the end of its epoch"
        assert record.status == "running"
    record = stopped.run()
    assert record.metrics == expected.metrics
    assert record.weights["best"].sha256 == expected.weights["best"].sha256


def test_the_best_epochs_weights_are_kept_as_they_were_then(make_trial: Callable[..., Trial]) -> None:
    def rising(config: Config, trial: raysweep.TrialContext) -> Iterator[raysweep.Epoch]:
        weight = torch.zeros(2)
        tied = {"one": weight, "same": weight, "turned": torch.zeros(2, 3).T}
        for epoch in range(1, config.epochs + 1):
            weight += 1
            yield raysweep.Epoch({"val_mse": abs(epoch - 4)}, weights=lambda: tied)

    trial = make_trial(rising)
    record = trial.run()
    assert record.best is not None
    assert record.best.epoch == 4
    data = trial.folder.read_weights(record, "best")
    assert data is not None
    assert load_safetensors(data)["same"].tolist() == [4.0, 4.0]


def test_a_loop_that_gives_no_state_begins_anew_and_keeps_the_scores_by_which_it_was_judged(
    make_trial: Callable[..., Trial],
) -> None:
    begun = []

    def forgetful(config: Config, trial: raysweep.TrialContext) -> Iterator[raysweep.Epoch]:
        begun.append((trial.epoch, trial.state))
        for epoch in range(1, config.epochs + 1):
            yield raysweep.Epoch({"val_mse": 1.0 / epoch}, weights=lambda: {"w": torch.zeros(1)})

    trial = make_trial(forgetful, rungs=(2,))
    assert (record := trial.run(stop_after=2)).epoch == 3
    assert record.best is not None
    record = trial.run()
    assert begun == [(0, None), (0, None)]
    assert (record.status, record.epoch) == ("finished", 6)
    assert [row["val_mse"] for row in record.former_metrics[-1]] == [1, 1 / 2, 1 / 3]


def test_a_loop_that_gives_its_state_every_third_epoch_goes_back_to_the_last_one(
    make_trial: Callable[..., Trial],
) -> None:
    begun = []

    def seldom(config: Config, trial: raysweep.TrialContext) -> Iterator[raysweep.Epoch]:
        state = trial.state
        begun.append((trial.epoch, state and state["epoch"]))
        for epoch in range(trial.epoch + 1, config.epochs + 1):
            given = {"epoch": epoch}
            yield raysweep.Epoch(
                {"val_mse": float(epoch)},
                state=(lambda given=given: given) if epoch % 3 == 0 else None,
                weights=lambda given=given: {"w": torch.tensor([given["epoch"]])},
            )

    trial = make_trial(seldom, every_s=0)
    assert (record := trial.run(stop_after=4)).epoch == 5
    assert record.weights["last"].epoch == 3
    record = trial.run()
    assert begun == [(0, None), (3, 3)]
    assert [row["val_mse"] for row in record.metrics] == [1, 2, 3, 4, 5, 6]
    assert record.best is not None
    assert record.best.epoch == record.weights["best"].epoch == 1


def test_a_loop_that_only_asks_whether_to_stop_is_told_in_mid_epoch_where_that_loses_no_whole_one(
    make_trial: Callable[..., Trial],
) -> None:
    def in_steps(config: Config, trial: raysweep.TrialContext) -> Iterator[raysweep.Epoch]:
        for epoch in range(trial.epoch + 1, config.epochs + 1):
            for _ in range(4):
                if trial.should_stop():
                    raise raysweep.Interrupted("told to stop")
            yield raysweep.Epoch({"val_mse": float(epoch)}, state=dict)

    at_once, later = make_trial(in_steps, "at_once", every_s=0), make_trial(in_steps, "later")
    assert at_once.run(stop_after=7).epoch == 1, "the first epoch is committed"
    assert later.run(stop_after=7).epoch >= 2, "the first epoch would be lost"


def test_the_best_weights_are_committed_with_a_pause_where_no_state_is_given(make_trial: Callable[..., Trial]) -> None:
    def every_second(config: Config, trial: raysweep.TrialContext) -> Iterator[raysweep.Epoch]:
        for epoch in range(trial.epoch + 1, config.epochs + 1):
            state = dict if epoch % 2 == 0 else None
            yield raysweep.Epoch({"val_mse": 1.0 / epoch}, state=state, weights=lambda: {"w": torch.zeros(1)})

    record = make_trial(every_second, every_s=0, rungs=(3,)).run(stop_after=2)
    assert (record.status, record.epoch, record.weights["last"].epoch) == ("paused", 3, 2)
    assert record.best is not None
    assert record.weights["best"].epoch == record.best.epoch == 3


def test_weights_of_another_epoch_are_not_kept_as_those_of_a_best_one_that_gives_none(
    make_trial: Callable[..., Trial],
) -> None:
    def first_only(config: Config, trial: raysweep.TrialContext) -> Iterator[raysweep.Epoch]:
        for epoch in range(1, config.epochs + 1):
            weights = (lambda: {"w": torch.zeros(1)}) if epoch == 1 else None
            yield raysweep.Epoch({"val_mse": 1.0 / epoch}, state=dict, weights=weights)

    record = make_trial(first_only, every_s=0).run()
    assert record.best is not None
    assert (record.best.epoch, set(record.weights)) == (6, set())


def test_a_loop_that_saves_where_it_is_asked_to_stops_there_and_saves_once(make_trial: Callable[..., Trial]) -> None:
    steps = []

    def as_documented(config: Config, trial: raysweep.TrialContext) -> Iterator[raysweep.Epoch]:
        step = (trial.state or {"step": 0})["step"]
        while step < 4 * config.epochs:
            if trial.should_save():
                yield raysweep.Epoch(state=lambda: {"step": step})  # noqa: B023 (called before the loop goes on)
            step += 1
            steps.append(step)
            if step % 4 == 0:
                yield raysweep.Epoch({"val_mse": float(step)}, state=lambda: {"step": step})  # noqa: B023

    trial = make_trial(as_documented)
    assert trial.run(stop_after=2).epoch == 0
    assert steps == [1, 2]
    trial.run()
    assert steps == list(range(1, 25))


def test_a_loop_that_returns_when_the_run_is_to_stop_has_not_failed(make_trial: Callable[..., Trial]) -> None:
    def polite(config: Config, trial: raysweep.TrialContext) -> Iterator[raysweep.Epoch]:
        for epoch in range(trial.epoch + 1, config.epochs + 1):
            if trial.should_stop():
                return
            yield raysweep.Epoch({"val_mse": 1.0 / epoch}, state=dict)

    trial = make_trial(polite, every_s=0)
    assert (record := trial.run(stop_after=4)).status == "running"
    assert record.epoch == 2
    assert trial.run().status == "finished"


def test_a_loop_that_ends_its_process_has_failed(make_trial: Callable[..., Trial]) -> None:
    def exits(config: Config, trial: raysweep.TrialContext) -> Iterator[raysweep.Epoch]:
        yield raysweep.Epoch({"val_mse": 1.0})
        sys.exit(3)

    record = make_trial(exits).run()
    assert record.status == "failed"
    assert record.error is not None
    assert record.error["message"] == "loop 'own' ended its process (SystemExit: 3)"


def test_a_loop_without_a_state_has_its_best_weights_at_a_rung(make_trial: Callable[..., Trial]) -> None:
    def stateless(config: Config, trial: raysweep.TrialContext) -> Iterator[raysweep.Epoch]:
        for epoch in range(1, config.epochs + 1):
            yield raysweep.Epoch({"val_mse": 1.0 / epoch}, weights=lambda: {"w": torch.zeros(1)})

    record = make_trial(stateless, rungs=(2,)).run(stop_after=1)
    assert (record.status, record.weights["best"].epoch) == ("paused", 2)


def no_number(config: Config, trial: raysweep.TrialContext) -> Iterator[raysweep.Epoch]:
    yield raysweep.Epoch({"val_mse": torch.zeros(2)})  # type: ignore[dict-item]


def no_epoch(config: Config, trial: raysweep.TrialContext) -> Iterator[raysweep.Epoch]:
    yield {"val_mse": 1.0}  # type: ignore[misc]


def other_metric(config: Config, trial: raysweep.TrialContext) -> Iterator[raysweep.Epoch]:
    yield raysweep.Epoch({"val_mae": 1.0, "train_mse": 1.0})


def too_few(config: Config, trial: raysweep.TrialContext) -> Iterator[raysweep.Epoch]:
    for _ in range(2):
        yield raysweep.Epoch({"val_mse": 1.0})


def unsafe_state(config: Config, trial: raysweep.TrialContext) -> Iterator[raysweep.Epoch]:
    yield raysweep.Epoch({"val_mse": 1.0}, state=lambda: {"when": [Path("/")]})


def numpy_state(config: Config, trial: raysweep.TrialContext) -> Iterator[raysweep.Epoch]:
    yield raysweep.Epoch({"val_mse": 1.0}, state=lambda: {"loss": np.float64(1)})


def no_tensor(config: Config, trial: raysweep.TrialContext) -> Iterator[raysweep.Epoch]:
    yield raysweep.Epoch({"val_mse": 1.0}, weights=lambda: {"w": 1.0})  # type: ignore[dict-item]


def no_function(config: Config, trial: raysweep.TrialContext) -> Iterator[raysweep.Epoch]:
    yield raysweep.Epoch({"val_mse": 1.0}, state={"step": 1})  # type: ignore[arg-type]


def returns(config: Config, trial: raysweep.TrialContext) -> None:
    pass


def only_at_first(config: Config, trial: raysweep.TrialContext) -> Iterator[raysweep.Epoch]:
    yield raysweep.Epoch({"val_mse": 1.0})
    yield raysweep.Epoch({"train_mse": 1.0})


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (no_number, "loop 'own': metric 'val_mse': got tensor([0., 0.]), must be a number"),
        (no_epoch, "loop 'own': yielded {'val_mse': 1.0}, must be a raysweep.Epoch"),
        (
            other_metric,
            "objective 'val_mse' is not among the metrics of epoch 1 (did you mean 'val_mae'?); there are "
            "val_mae, train_mse",
        ),
        (too_few, "loop 'own' ended after 2 epochs of the trial's 6; it must go on"),
        (unsafe_state, "loop 'own': Epoch.state: when.0 is a pathlib.PosixPath, which cannot be loaded again safely"),
        (numpy_state, "loop 'own': Epoch.state: loss is a numpy.float64, which cannot be loaded again safely"),
        (no_tensor, "Epoch.weights: w is a float; it must be a tensor"),
        (no_function, "Epoch(state=...): got a dict; it must be a function: state=lambda: ..."),
        (returns, "loop 'own': returns returned None; it must yield a raysweep.Epoch after each epoch"),
        (only_at_first, "objective 'val_mse' is not among the metrics of epoch 2"),
    ],
)
def test_what_a_loop_may_not_do_is_said_and_not_tried_again(
    make_trial: Callable[..., Trial], function: Train, message: str
) -> None:
    record = make_trial(function).run()
    assert (record.status, record.attempts) == ("failed", 1)
    assert record.error is not None
    assert record.error["message"].startswith(message)


def test_a_loop_that_would_train_on_is_ended_after_the_trials_last_epoch(make_trial: Callable[..., Trial]) -> None:
    ended = []

    def endless(config: Config, trial: raysweep.TrialContext) -> Iterator[raysweep.Epoch]:
        try:
            while True:
                yield raysweep.Epoch({"val_mse": 1.0})
        finally:
            ended.append(True)

    record = make_trial(endless).run()
    assert (record.status, record.epoch, ended) == ("finished", 6, [True])
