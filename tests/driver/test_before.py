"""What a run does before and after its trials, without a cluster."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any, cast

import pytest
import ray
from rich.console import Console

from raysweep.cluster.slots import Slot
from raysweep.driver import before
from raysweep.driver.before import _check_conditions, _check_start, run_task
from raysweep.driver.board import Board
from raysweep.driver.stop import StopRequest
from raysweep.driver.view import View
from raysweep.errors import UserError
from raysweep.sweepfile.plan import StartedFrom


def test_a_task_whose_node_goes_away_starts_again_as_often_as_it_takes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    losses = iter(range(10))

    def lose_the_node_ten_times(*arguments: Any) -> str:
        if next(losses, None) is not None:
            raise ray.exceptions.NodeDiedError("the node was reclaimed")
        return "done"

    monkeypatch.setattr(before.ray, "remote", lambda **resources: lambda task: SimpleNamespace(remote=print))
    monkeypatch.setattr(before, "wait_for", lose_the_node_ten_times)
    monkeypatch.setattr(before, "alive_hosts", lambda: ["here"])
    view = View(Console(stderr=True), "small", Board([], maximize=True), "val_acc")
    sweep = SimpleNamespace(name="small", loop="classify")
    run: Any = SimpleNamespace(
        sweep=sweep, sweep_path=tmp_path / "small.yaml", imports=(), stop=StopRequest(), view=view
    )
    assert run_task(run, Slot(1, 0, 1), "preparing digits", print) == "done"
    assert next(losses, "all lost") == "all lost"


def test_a_task_in_which_the_run_is_stopped_says_so_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    stop, shown = StopRequest(), io.StringIO()
    monkeypatch.setattr(before.ray, "remote", lambda **resources: lambda task: SimpleNamespace(remote=print))
    monkeypatch.setattr(before, "wait_for", lambda *arguments: stop.request())
    monkeypatch.setattr(before, "alive_hosts", lambda: ["here"])
    run: Any = SimpleNamespace(
        sweep=SimpleNamespace(name="small", loop="classify"),
        sweep_path=tmp_path / "small.yaml",
        imports=(),
        stop=stop,
        view=View(Console(file=shown), "small", Board([], maximize=True), "val_acc"),
    )
    assert run_task(run, Slot(1, 0, 1), "evaluating best", print) is None
    assert shown.getvalue().splitlines()[-1] == "stopping: evaluating best ends here (again to end at once)"


def test_a_rerun_on_another_kind_of_gpu_is_refused_while_trials_are_unfinished() -> None:
    begun, new = (SimpleNamespace(id=id, epoch=epoch) for id, epoch in (("begun", 3), ("new", 0)))
    begun.conditions, new.conditions = {"precision": "bf16", "workers": 1, "data": "0123"}, {}
    now = {"precision": "fp32", "workers": 1, "data": "0123"}
    left: list[Any] = [begun, new]
    with pytest.raises(UserError, match="precision was 'bf16', is 'fp32'"):
        _check_conditions("runs/small", left, {"begun": now, "new": now})
    _check_conditions("runs/small", left[1:], {"new": now})


def test_a_rerun_with_other_weights_to_begin_with_is_refused_while_trials_are_unfinished() -> None:
    begun = SimpleNamespace(id="begun", epoch=3, conditions={"data": "0123", "weights": "abcd"})
    now = {"precision": "fp32", "workers": 1, "data": "0123", "weights": "beef"}
    with pytest.raises(UserError, match=r"the weights to begin with \(model\.weights\) changed since the run began"):
        _check_conditions("runs/small", cast(Any, [begun]), {"begun": now})


def test_a_trial_of_another_run_is_gone_on_from_only_where_its_epochs_come_out_the_same() -> None:
    then = {"precision": "bf16", "workers": 1, "data": "0123"}
    start, record = StartedFrom("runs/other", "first", 3, "classify", {}, 0, None, then), SimpleNamespace(id="new")
    with pytest.raises(UserError) as caught:
        _check_start(start, cast(Any, [record]), {"new": {**then, "precision": "fp32", "data": "4567"}})
    assert [problem.partition(";")[0] for problem in caught.value.problems] == [
        "start: the data changed since first was trained: data was '0123', is '4567', so its epochs would come out "
        "otherwise",
        "start: precision resolves differently here (resources.accelerator names a kind of GPU) since first was "
        "trained: precision was 'bf16', is 'fp32', so its epochs would come out otherwise",
    ]
    _check_start(start, cast(Any, [record]), {"new": {**then, "node": "another"}})
    _check_start(None, cast(Any, [record]), {"new": {}})
