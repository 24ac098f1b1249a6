"""Runs side by side."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from run_folders import SWEEP, make_run

from raysweep.cli import main
from raysweep.results.comparison import compare
from raysweep.results.run import open_run
from raysweep.store import Record


def lower(record: Record, place: int) -> Record:
    """The same trial, with three points less from epoch 10 on."""
    metrics = [
        {**row, "val_acc": row["val_acc"] - 0.03, "val_acc_ema": row["val_acc_ema"] - 0.03}
        if row["epoch"] >= 10
        else row
        for row in record.metrics
    ]
    return record.with_(metrics=metrics)


def test_a_run_is_identical_to_itself(tmp_path: Path) -> None:
    make_run(tmp_path)
    result = open_run(str(tmp_path / "runs" / "made"))
    comparison = compare([result, result])
    assert comparison.settings == {}
    assert len(comparison.common) == 6
    for config in comparison.common:
        assert config.scores[0] == config.scores[1]
        assert config.scores[0]
        assert config.scores[0].seeds == 2
        assert all(curve.identical and curve.largest == 0 and curve.epochs == 30 for curve in config.curves[1])
    assert comparison.pairs == [{"run": 1, "configs": 6, "mean_difference": 0, "standard_error": 0, "ahead": 0}]


def test_differences_of_scores_and_curves_are_measured(tmp_path: Path) -> None:
    make_run(tmp_path, "a")
    make_run(tmp_path, "b", end=lower)
    comparison = compare([open_run(str(tmp_path / "runs" / name)) for name in ("a", "b")])
    (pair,) = comparison.pairs
    assert pair["mean_difference"] == pytest.approx(-0.03, abs=0.002)
    assert pair["ahead"] == 0
    for config in comparison.common:
        for curve in config.curves[1]:
            assert curve.largest == pytest.approx(0.03)
            assert curve.at >= 10
            assert not curve.identical


def test_configs_match_beside_a_setting_in_which_the_runs_as_a_whole_differ(tmp_path: Path) -> None:
    make_run(tmp_path, "short", epochs=10)
    make_run(tmp_path, "long", epochs=30)
    comparison = compare([open_run(str(tmp_path / "runs" / name)) for name in ("short", "long")])
    assert comparison.settings == {"epochs": [["10"], ["30"]]}
    assert len(comparison.common) == 6
    assert {curve.epochs for config in comparison.common for curve in config.curves[1]} == {10}


def test_only_configs_that_both_have_are_common(tmp_path: Path) -> None:
    make_run(tmp_path, "a")
    make_run(tmp_path, "b", text=SWEEP.replace("[0.5, 0.1, 0.01]", "[0.1, 0.7]"))
    comparison = compare([open_run(str(tmp_path / "runs" / name)) for name in ("a", "b")])
    assert comparison.settings == {"lr": [["0.01", "0.1", "0.5"], ["0.1", "0.7"]]}
    assert len(comparison.common) == 2


def test_the_command_takes_sweep_files_and_run_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, _ = make_run(tmp_path, "a"), make_run(tmp_path, "b", end=lower)
    runs = str(tmp_path / "runs")
    assert main(["compare", str(a), f"{runs}/b", "--storage", runs]) == 0
    out = capsys.readouterr().out
    assert "B against A, over 6 configs in common" in out
    assert "ahead in 0 of 6" in out
    assert main(["compare", str(a), f"{runs}/b", "--storage", runs, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [run["name"] for run in document["runs"]] == ["a", "b"]
    assert len(document["common"]) == 6


def test_trials_that_failed_or_never_began_are_shown_as_such(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path, "a", end=lambda record, place: record.with_(status="failed", metrics=[], error={"message": "x"}))
    make_run(tmp_path, "b")
    assert main(["compare", str(tmp_path / "runs/a"), str(tmp_path / "runs/b")]) == 0
    out = capsys.readouterr().out
    assert "failed" in out
    assert "no scored config in common" in out


def test_one_run_and_a_path_that_is_none_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path, "a")
    assert main(["compare", str(tmp_path / "runs/a")]) == 2
    assert "at least two runs" in capsys.readouterr().err
    assert main(["compare", str(tmp_path / "runs/a"), str(tmp_path / "nowhere")]) == 2
    assert "not a run folder" in capsys.readouterr().err


def test_runs_ranked_by_different_metrics_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path, "a")
    make_run(tmp_path, "b", text=SWEEP + "objective: val_loss\n")
    assert main(["compare", str(tmp_path / "runs/a"), str(tmp_path / "runs/b")]) == 2
    assert "different metrics" in capsys.readouterr().err
