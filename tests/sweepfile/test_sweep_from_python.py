"""A sweep given from Python as values is checked as a file is, and is named in a line."""

from __future__ import annotations

from pathlib import Path

import pytest

from raysweep.errors import SweepFileError
from raysweep.sweepfile import load_sweep, sweep_of
from raysweep.sweepfile.plan import plan_trials

SWEEP = {"name": "a", "base": {"epochs": 2, "ema": False}, "grid": {"lr": (0.1, 1e-3), "model.width": [8, 16]}}


def test_a_dict_plans_what_its_text_plans_as_a_file(tmp_path: Path) -> None:
    sweep, text = sweep_of(SWEEP, ["batch_size=32"])
    (tmp_path / "a.yaml").write_text(text)
    from_file = plan_trials(load_sweep(tmp_path / "a.yaml", ["batch_size=32"]))
    assert [trial.id for trial in plan_trials(sweep)] == [trial.id for trial in from_file]
    assert len(from_file) == 4


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"base": {"epochs": 0}}, "base.epochs: got 0, must be at least 1"),
        ({"grid": {"lr": [0.1, "x"]}}, "grid.lr.1: got 'x', must be a number"),
        ({"base": {"lr": object()}}, "must be of plain values alone"),
    ],
)
def test_what_is_wrong_in_a_dict_is_told_by_its_keys(values: dict[str, object], message: str) -> None:
    with pytest.raises(SweepFileError) as caught:
        sweep_of({"name": "a", **values})
    (problem,) = caught.value.problems
    assert message in problem
    assert ".yaml" not in problem


def test_sweeps_and_trials_are_named_in_a_line() -> None:
    sweep, _ = sweep_of(SWEEP)
    for each in (sweep, *plan_trials(sweep)):
        assert len(repr(each)) < 100
        assert "\n" not in repr(each)
