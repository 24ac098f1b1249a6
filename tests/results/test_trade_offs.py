"""With several objectives: the front in `status`, the report, `pull --rank` and Python, from the run folder alone."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from run_folders import make_run
from safetensors.torch import save
from torch import ones

import raysweep
from raysweep.cli import main
from raysweep.driver.endings import losers_of
from raysweep.halving.scores import best_epoch
from raysweep.report.content import gather
from raysweep.report.first import top_of
from raysweep.report.markdown import as_markdown
from raysweep.report.pictures import draw
from raysweep.report.table import as_csv, columns
from raysweep.results.run import SweepResult
from raysweep.results.trade_offs import rank_all, trade_offs
from raysweep.store import Record
from raysweep.sweepfile.schema import Objective

SWEEP = """
name: {name}
objective: [val_acc, flops]
base: {{data: synthetic, epochs: {epochs}}}
grid: {{lr: [0.1, 0.2], model.width: [2, 4, 8]}}
scheduler: {scheduler}
"""
ACCURACIES = {(0.1, 2): 0.3, (0.1, 4): 0.6, (0.1, 8): 0.5, (0.2, 2): 0.2, (0.2, 4): 0.6, (0.2, 8): 0.7}
"""By learning rate and width; the FLOPs are a thousand times the width."""


def costing(record: Record, place: int) -> Record:
    width = record.config["model"]["width"]
    accuracy = ACCURACIES[record.config["lr"], width]
    rows = [{**row, "val_acc": accuracy - 1 / row["epoch"] / 100, "val_acc_ema": 0.1} for row in record.metrics]
    conditions = {**record.conditions, "costs": {"params": 7, "flops": 10_000.0 * width}}
    return record.with_(conditions=conditions, metrics=rows)


def made(folder: Path, end: Any = costing, **options: Any) -> SweepResult:
    make_run(folder, epochs=9, text=SWEEP, end=end, **options)
    return raysweep.open(folder / "runs/made")


def settings(result: SweepResult) -> list[tuple[float, int, int]]:
    """Return learning rate, width and number of dominators of each config, in their order."""
    configs = [(each.config.trials[0].config, each.dominated_by) for each in result.trade_offs]
    return [(config["lr"], config["model"]["width"], count) for config, count in configs]


def test_the_front_comes_first_and_equal_configs_share_it(tmp_path: Path) -> None:
    result = made(tmp_path)
    assert sorted(settings(result)[:4]) == [(0.1, 2, 0), (0.1, 4, 0), (0.2, 4, 0), (0.2, 8, 0)]
    assert settings(result)[4:] == [(0.2, 2, 1), (0.1, 8, 3)]
    assert [each.values["val_acc"] for each in result.front] == pytest.approx([0.7, 0.6, 0.6, 0.3], abs=0.01)
    assert result.best is result.front[0].config.best


def test_with_one_objective_there_is_no_front_and_no_such_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = make_run(tmp_path)
    assert raysweep.open(tmp_path / "runs/made").trade_offs == []
    main(["status", str(path), "--json"])
    assert "front" not in json.loads(capsys.readouterr().out)
    main(["status", str(path)])
    assert "dominated" not in capsys.readouterr().out


def test_what_is_not_known_of_a_config_counts_as_the_worst_and_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def end(record: Record, place: int) -> Record:
        known = costing(record, place)
        return known.with_(conditions=record.conditions) if place == 0 else known

    result = made(tmp_path, end)
    assert settings(result)[-1][:2] == (0.1, 2)
    main(["status", str(tmp_path / "made.yaml")])
    assert "flops of 1 config is not known, and counts as the worst" in capsys.readouterr().out


def test_a_config_without_a_score_is_not_among_them(tmp_path: Path) -> None:
    def end(record: Record, place: int) -> Record:
        return costing(record, place) if place else record.with_(status="failed", metrics=[])

    assert len(made(tmp_path, end).trade_offs) == 5


def test_what_the_clock_says_is_the_median_over_the_epochs(tmp_path: Path) -> None:
    def end(record: Record, place: int) -> Record:
        rows = [{**row, "seconds": 100.0 if row["epoch"] == 9 else float(place)} for row in record.metrics]
        return record.with_(metrics=rows)

    make_run(tmp_path, epochs=9, text=SWEEP.replace("flops", "seconds"), end=end)
    result = raysweep.open(tmp_path / "runs/made")
    assert sorted(each.values["seconds"] or 0 for each in result.trade_offs) == [0, 1, 2, 3, 4, 5]


def test_status_numbers_configs_as_pull_takes_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = made(tmp_path)
    for record in result.trials:
        weights = {"best": save({"x": ones(1)})}
        conditions = record.conditions | {"mean": [0.0], "std": [1.0], "image_size": 8}
        result.folder.commit(record.with_(conditions=conditions), weights)
    path = str(tmp_path / "made.yaml")
    main(["status", path])
    lines = capsys.readouterr().out.splitlines()
    ranked = [line.split() for line in lines if line.split()[:1] and line.split()[0].isdigit() and "finished" in line]
    assert [row[0] for row in ranked] == ["1", "2", "3", "4", "5", "6"]
    assert "front: 4 of 6 configs are dominated by no other in val_acc and flops" in lines
    main(["status", path, "--json"])
    front = json.loads(capsys.readouterr().out)["front"]
    assert [each["values"]["flops"] for each in front] == [80_000, 40_000, 40_000, 20_000]
    for entry in front:
        assert main(["pull", path, "--rank", str(entry["rank"]), "--to", str(tmp_path / "p"), "--json"]) == 0
        pulled = json.loads(capsys.readouterr().out)
        assert (pulled["id"], pulled["values"], pulled["dominated_by"]) == (entry["best"], entry["values"], 0)
        for file in (tmp_path / "p").iterdir():
            file.unlink()


def test_status_reads_the_front_without_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = made(tmp_path)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert len(result.front) == 4


def test_the_report_draws_the_front_and_pulls_by_its_numbers(tmp_path: Path) -> None:
    result = made(tmp_path)
    report = gather(result)
    (chart,) = draw(report).front
    dots = [each for each in chart.root.iter("circle") if "went-on" in each.attrib["class"]]
    assert (chart.title, len(dots), len(list(chart.root.iter("polyline")))) == ("val_acc against flops", 4, 1)


def test_one_order_everywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = made(tmp_path)
    report, order = gather(result), [each.config.trials[0].id for each in result.trade_offs]
    cells = {each.name: [each.cell(row)[0] for row in report.rows] for each in columns(report)}
    assert cells["rank"] == ["1", "2", "3", "4", "5", "6"]
    assert cells["flops"] == ["80 k", "40 k", "40 k", "20 k", "20 k", "80 k"]
    assert cells["dominated by"] == ["0", "0", "0", "0", "1", "3"]
    assert [row.split(",")[:2] for row in as_csv(report).splitlines()[1:]] == [
        [str(place), id] for place, id in enumerate(order, 1)
    ]
    top = top_of(report)
    assert (top.others, [each.others for each in top.rows][:2]) == (["flops"], [["80 k"], ["40 k"]])
    ranking = as_markdown(report, draw(report), "pictures")[0].partition("## Ranking")[2]
    places = [ranking.index(id.rpartition("-")[2]) for id in order]
    assert places == sorted(places)
    assert result.to_pandas()["id"].tolist() == order
    assert result.to_pandas()["config_rank"].tolist() == [1, 2, 3, 4, 5, 6]
    assert "dominated by" in result._repr_html_()
    main(["status", str(tmp_path / "made.yaml"), "--json"])
    document = json.loads(capsys.readouterr().out)
    assert [(each["rank"], each["best"]) for each in document["configs"]] == [*enumerate(order, 1)]


def test_a_config_with_fresh_seeds_is_dominated_by_none_that_has_fewer(tmp_path: Path) -> None:
    """Of those without, the score is a lucky one: `confirm` chose among the best, and these came out lower."""
    result = made(tmp_path)
    best = result.configs[0].trials[0]
    worse = [{**row, "val_acc": row["val_acc"] - 0.2} for row in best.metrics]
    fresh = best.with_(id="fresh", seed=1000, metrics=worse, best=best_epoch(worse, result.objective))
    ranked = rank_all([*result.trials, fresh], result.objective, {"fresh"})
    assert ranked[0].fresh == [fresh]
    assert [each.dominated_by for each in trade_offs(ranked, result.objective)] == [0, 0, 0, 0, 1, 3]


def test_weights_of_the_whole_front_stay(tmp_path: Path) -> None:
    result = made(tmp_path)
    lost = {record.id for record in losers_of(result.configs, 1, result.objective)}
    assert lost == {each.config.best.id for each in result.trade_offs if each.dominated_by and each.config.best}
    assert len(losers_of(result.configs, 1, Objective())) == 5


def test_a_value_is_the_mean_over_the_seeds_that_the_score_is_of(tmp_path: Path) -> None:
    def end(record: Record, place: int) -> Record:
        rows = [{**row, "val_loss": float(record.seed), "val_acc": 0.5 + row["epoch"] / 100} for row in record.metrics]
        changed = replace(record, metrics=rows)
        return changed if record.seed < 4 else changed.with_(status="diverged", best=best_epoch(rows, Objective()))

    text = SWEEP.replace("flops", "val_loss") + "seeds: [1, 3, 4]\n"
    make_run(tmp_path, epochs=9, text=text, end=end)
    values = [each.values["val_loss"] for each in raysweep.open(tmp_path / "runs/made").trade_offs]
    assert values == [2.0] * 6
