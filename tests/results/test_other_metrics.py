"""What commands say of runs whose loops report other metrics than the built-in one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from run_folders import OTHER_SWEEP, make_run

from raysweep.cli import main
from raysweep.results.comparison import compare
from raysweep.results.run import SweepResult, open_run
from raysweep.results.verdict import judgement_of


def made(folder: Path, loop: str, epochs: int = 30) -> SweepResult:
    folder.mkdir(exist_ok=True)
    make_run(folder, name=loop, text=OTHER_SWEEP.replace("LOOP", loop), epochs=epochs)
    return open_run(str(folder / "runs" / loop))


def test_a_status_of_another_loop_has_no_accuracy_no_averaged_weights_and_ranks_the_least_error_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = made(tmp_path, "regression")
    assert main(["status", result.path]) == 0
    lines = capsys.readouterr().out.splitlines()
    (head,) = [line.split() for line in lines if line.startswith("rank")]
    assert head == ["rank", "augment", "lr", "val_mse", "epoch", "status", "best", "at", "trial"]
    assert not any("%" in line for line in lines if "30/30" in line)
    scores = [config.scores.mean or 0.0 for config in result.configs]
    assert scores == sorted(scores)
    assert main(["status", result.path, "--json"]) == 0
    best = json.loads(capsys.readouterr().out)["trials"][0]
    assert best["val_acc"] is None
    assert best["score"] == min(row["val_mse"] for row in result.trials[0].metrics)


@pytest.mark.parametrize("loop", ["regression", "wandb_style"])
def test_a_verdict_on_another_metric_speaks_of_neither_images_nor_points(loop: str, tmp_path: Path) -> None:
    result = made(tmp_path, loop)
    judgement = judgement_of(result, None)
    assert judgement
    assert judgement.verdict
    text = " ".join([*judgement.sentences, *judgement.brief])
    assert f"chosen by the same {result.objective.metric}" in text
    assert not {"images", "points", "-1"}.intersection(text.replace(".", "").split())
    numbers = judgement.as_json()
    assert numbers["low"] < numbers["score"] < numbers["high"]
    worse = 1 if loop == "regression" else -1
    assert worse * (numbers["score"] - numbers["chosen_by"]) > 0, "the best of several was lucky"


def test_runs_are_compared_by_the_curves_of_their_objective(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short, long = (made(tmp_path / str(epochs), "regression", epochs) for epochs in (20, 30))
    comparison = compare([short, long])
    curve = comparison.common[0].curves[1][0]
    assert (curve.epochs, curve.identical) == (20, False)
    assert curve.largest > 0
    assert main(["compare", short.path, long.path]) == 0
    told = capsys.readouterr().out
    assert "val_mse -" in told.splitlines()[-1]
    assert "%" not in told
    assert "points" not in told


def test_results_parquet_has_a_curve_for_each_metric_with_gaps_where_it_was_not_reported(tmp_path: Path) -> None:
    table = made(tmp_path, "wandb_style").to_pandas()
    assert {"curve.train/loss", "curve.val/acc", "score"} <= set(table.columns)
    assert np.isnan(table["curve.train/loss"][0][:6]).tolist() == [False, True, False, False, True, False]
    assert table["val_acc"].isna().all()
