"""Configs are ranked by the mean over their seeds, wherever a ranking is shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from run_folders import make_run, scoring

import raysweep
from raysweep.cli import main
from raysweep.results.ranking import rank
from raysweep.store import Record, RunFolder
from raysweep.sweepfile.schema import Objective

LUCKY = """
name: {name}
base: {{data: synthetic, epochs: {epochs}, model: baseline_block}}
grid: {{lr: [0.1, 0.2]}}
seeds: [0, 1, 2]
scheduler: {scheduler}
"""
SCORES = {0.1: (0.262, 0.170, 0.171), 0.2: (0.224, 0.219, 0.220)}
"""Of two learning rates the first has the luckiest seed, the second is better on average."""


def with_weights(record: Record, place: int) -> Record:
    return scoring(record, SCORES[record.config["lr"]][record.seed])


@pytest.fixture
def lucky(tmp_path: Path) -> Path:
    path = make_run(tmp_path, "lucky", epochs=2, text=LUCKY, end=with_weights)
    folder = RunFolder(str(tmp_path / "runs"), "lucky")
    for record in folder.records(folder.trial_ids()).values():
        assert record
        of_input = {"mean": [0.5] * 3, "std": [0.5] * 3, "image_size": 8}
        folder.commit(record.with_(conditions={**record.conditions, **of_input}), {"best": record.id.encode()})
    return path


def test_the_config_that_is_better_on_average_wins_over_the_one_with_the_luckiest_seed(
    lucky: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best, other = raysweep.open(lucky.parent / "runs/lucky").configs
    assert (best.name, best.scores.seeds) == ("baseline_block-lr0.2", 3)
    assert best.scores.mean == pytest.approx(0.221)
    assert best.scores.standard_error == pytest.approx(0.00153, abs=1e-5)
    assert other.scores.mean == pytest.approx(0.201)
    assert main(["status", str(lucky), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [config["name"] for config in document["configs"]] == ["baseline_block-lr0.2", "baseline_block-lr0.1"]
    assert document["configs"][0]["score"] == pytest.approx(0.221)
    assert "lr 0.2" in document["winner"]["sentences"][0]
    assert main(["status", str(lucky)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["1", "0.2", "22.10", "±", "0.15", "%", "3", "seeds"] in lines
    assert ["2", "0.1", "20.10", "±", "3.05", "%", "3", "seeds"] in lines


def test_pull_copies_the_best_seed_of_a_config_and_says_so(lucky: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for rank_, lr, mean in (("1", 0.2, "22.10 ± 0.15 %"), ("2", 0.1, "20.10 ± 3.05 %")):
        target = lucky.parent / f"pulled{rank_}"
        assert main(["pull", str(lucky), "--rank", rank_, "--to", str(target)]) == 0
        trial = f"baseline_block-lr{lr}"
        out = capsys.readouterr().out
        assert out.startswith(f"{target}: {trial}-")
        assert out.endswith(f", the best of 3 seeds; the config reaches {mean} on average\n")
        assert json.loads((target / "metrics.json").read_text())["seed"] == 0
    assert main(["pull", str(lucky), "--rank", "3"]) == 2
    assert "--rank 3: must be from 1 to 2; " in capsys.readouterr().err


def test_pull_of_a_config_without_weights_says_so_before_it_begins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pull", str(make_run(tmp_path)), "--rank", "2"]) == 2
    error = capsys.readouterr().err
    assert "no longer has weights; try another --rank" in error
    assert "pulling" not in error


def test_report_and_results_say_the_same(lucky: Path) -> None:
    assert main(["report", str(lucky)]) == 0
    run = lucky.parent / "runs/lucky"
    text = (run / "report.md").read_text()
    assert text.index("| 1 | 0.2 | 22.10 ± 0.15 % (3 seeds) |") < text.index("| 2 | 0.1 | 20.10 ± 3.05 % (3 seeds) |")
    table = raysweep.open(run).to_pandas()
    assert table["config_rank"].tolist() == [1, 1, 1, 2, 2, 2]
    assert table["config.lr"].tolist() == [0.2] * 3 + [0.1] * 3
    assert table["config_score"].unique() == pytest.approx([0.221, 0.201])
    assert table["seed"].tolist() == [0, 2, 1, 0, 2, 1], "best seed first"


def test_fresh_seeds_decide_once_each_finalist_has_one_and_more_rounds_come_first(lucky: Path) -> None:
    records = raysweep.open(lucky.parent / "runs/lucky").trials
    by_lr = {lr: next(record for record in records if record.config["lr"] == lr) for lr in (0.1, 0.2)}

    def order(*fresh: Record) -> list[float]:
        ids = {record.id for record in fresh}
        return [config.trials[0].config["lr"] for config in rank([*records, *fresh], Objective(), ids)]

    def fresh(lr: float, number: int, score: float, status: str = "finished") -> Record:
        return scoring(by_lr[lr].with_(id=f"{lr}-{number}", seed=1000 + number, status=status), score)

    good, bad = fresh(0.1, 0, 0.24), fresh(0.2, 0, 0.23)
    assert order(good, bad) == [0.1, 0.2]
    assert order(good, bad.with_(status="running")) == [0.2, 0.1], "not all have one"
    assert order(good, bad, fresh(0.2, 1, 0.2)) == [0.2, 0.1], "the other has left the race"
    late = fresh(0.1, 1, 0.5, status="running")
    assert order(good, bad, late, fresh(0.2, 1, 0.25)) == [0.1, 0.2], "the second round is not over"
    assert order(good.with_(status="diverged"), bad) == [0.2, 0.1]
    assert order(good, fresh(0.2, 0, 0.24)) == [0.2, 0.1], "of equals, the one that was better before"


def test_a_seed_that_diverged_does_not_count_and_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def end(record: Record, place: int) -> Record:
        record = with_weights(record, place)
        return record.with_(status="diverged") if (record.config["lr"], record.seed) == (0.2, 1) else record

    path = make_run(tmp_path, "lucky", epochs=2, text=LUCKY, end=end)
    assert raysweep.open(tmp_path / "runs/lucky").configs[0].scores.seeds == 2
    assert main(["status", str(path)]) == 0
    assert "1 of its 3 seeds diverged." in capsys.readouterr().out.splitlines()[0]
