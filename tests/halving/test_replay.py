"""Who goes on, from the records alone; why, in words; and what a plan would cost."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from run_folders import make_run

from raysweep.cli import main
from raysweep.halving.cost import cost_of
from raysweep.halving.replay import replay
from raysweep.halving.scores import rung_scores
from raysweep.results.run import read_results
from raysweep.store import Record, RunFolder
from raysweep.sweepfile import load_sweep
from raysweep.sweepfile.plan import StartedFrom, plan_trials
from raysweep.sweepfile.schema import AshaConfig, Objective

SWEEP = """
name: {name}
base: {{data: synthetic, epochs: {epochs}}}
grid: {{lr: [0.6, 0.5, 0.4, 0.3, 0.2, 0.1]}}
scheduler: {scheduler}
"""
ASHA = "{name: asha, eta: 2, rungs: [1/3], min_survivors: 1, rank_by: ema}"
SCHEDULER = AshaConfig.model_validate(
    {"name": "asha", "eta": 2, "rungs": ["1/3"], "min_survivors": 1, "rank_by": "ema"}
)


def scored(*ends: tuple[str, int]) -> Callable[[Record, int], Record]:
    """Trials whose accuracy is their learning rate throughout; each with its status and epochs, the rest planned."""

    def end(record: Record, place: int) -> Record:
        status, epochs = ends[place] if place < len(ends) else ("planned", 0)
        acc = record.config["lr"]
        row = {"val_acc": 0.0, "val_acc_ema": acc, "val_loss": 1.0, "val_loss_ema": 1 - acc, "train_loss": 1.0}
        return record.with_(status=status, metrics=[{"epoch": epoch + 1, **row} for epoch in range(epochs)])

    return end


def records_of(path: Path) -> list[Record]:
    return read_results(RunFolder(str(path.parent / "runs"), path.stem)).trials


def verdicts(records: list[Record], **options: bool) -> list[str]:
    halving = replay(records, SCHEDULER, Objective(), **options)
    return [halving.verdict(record.id).value for record in sorted(records, key=lambda each: -each.config["lr"])]


def made(folder: Path, *ends: tuple[str, int]) -> list[Record]:
    return records_of(make_run(folder, epochs=9, scheduler=ASHA, text=SWEEP, end=scored(*ends)))


# From records to decisions


def test_trials_that_begin_with_the_epochs_of_another_run_are_compared_by_what_follows(tmp_path: Path) -> None:
    records = made(tmp_path, *[("running", 4)] * 6)
    assert set(verdicts(records)) != {"safe"}
    start = StartedFrom("runs/other", "first", 6, "classify", {}, 0)
    assert replay([record.with_(start=start) for record in records], SCHEDULER, Objective()).rules.rung_epochs(9) == (
        7,
    )
    assert verdicts([record.with_(start=start) for record in records]) == ["safe"] * 6  # none has come to a rung


def test_paused_records_are_ranked_at_their_rung(tmp_path: Path) -> None:
    assert verdicts(made(tmp_path, *[("paused", 3)] * 6)) == ["safe"] * 3 + ["undecided"] * 3


def test_a_trial_is_out_once_as_many_better_ones_as_go_on_have_finished(tmp_path: Path) -> None:
    assert verdicts(made(tmp_path, *[("finished", 9)] * 3, *[("stopped", 3)] * 3)) == ["safe"] * 3 + ["out"] * 3


def test_a_trial_that_is_stopped_in_a_small_plan_may_go_on_in_a_larger_one(tmp_path: Path) -> None:
    small = made(tmp_path, ("finished", 9), ("stopped", 3))
    records = [record for record in small if record.status != "planned"]
    assert verdicts(records) == ["safe", "out"]
    assert verdicts(small) == ["undecided", "undecided", "safe", "safe", "safe", "safe"]
    (tmp_path / "b").mkdir()
    assert verdicts(made(tmp_path / "b", ("finished", 9), ("stopped", 3), *[("paused", 3)] * 4))[1] == "safe"


def test_a_diverged_trial_leaves_its_place_to_the_next(tmp_path: Path) -> None:
    assert verdicts(made(tmp_path, ("diverged", 5), *[("paused", 3)] * 5)) == ["out"] + ["safe"] * 3 + ["undecided"] * 2


def test_a_failed_trial_has_its_place_back_when_it_is_tried_again(tmp_path: Path) -> None:
    records = made(tmp_path, ("failed", 3), *[("paused", 3)] * 5)
    assert verdicts(records) == ["out"] + ["safe"] * 3 + ["undecided"] * 2
    assert verdicts(records, retry_failed=True) == ["safe"] * 3 + ["undecided"] * 3


def test_epochs_after_the_rung_change_nothing(tmp_path: Path) -> None:
    assert verdicts(made(tmp_path, *[("paused", 3)] * 3, *[("running", 8)] * 3)) == ["safe"] * 3 + ["undecided"] * 3


HISTORY = [
    {"val_acc": 0.1, "val_acc_ema": 0.3, "val_loss": 3.0, "val_loss_ema": 2.0},
    {"val_acc": 0.6, "val_acc_ema": 0.5, "val_loss": 1.0, "val_loss_ema": 1.5},
    {"val_acc": 0.2, "val_acc_ema": 0.4, "val_loss": 2.0, "val_loss_ema": 1.7},
]


@pytest.mark.parametrize(
    ("rank_by", "metric", "expected"),
    [
        ("ema", "val_acc", (0.5, 1.5)),
        ("best", "val_acc", (0.6, 1.0)),
        ("last", "val_acc", (0.4, 1.7)),
        ("ema", "val_loss", (1.5, 1.5)),
        ("best", "val_acc_ema", (0.5, 1.5)),
    ],
)
def test_the_score_at_a_rung_is_what_rank_by_says(rank_by: str, metric: str, expected: tuple[float, float]) -> None:
    objective = Objective.model_validate({"metric": metric})
    assert rung_scores(HISTORY, [3, 9], objective, rank_by) == [expected]  # type: ignore[arg-type]


def test_a_trial_without_averaged_weights_is_ranked_by_its_plain_ones() -> None:
    plain = [{"val_acc": row["val_acc"], "val_loss": row["val_loss"]} for row in HISTORY]
    assert rung_scores(plain, [1, 3], Objective(), "ema") == [(0.1, 3.0), (0.6, 1.0)]


def test_without_a_finite_score_there_is_none() -> None:
    ((score, loss),) = rung_scores([{"val_acc": math.nan, "val_loss": math.inf}], [1], Objective(), "ema")
    assert math.isnan(score)
    assert math.isnan(loss)


# Why


def why(capsys: pytest.CaptureFixture[str], path: Path, trial: str, *words: str) -> str:
    assert main(["status", str(path), "--why", trial, *words]) == 0
    return capsys.readouterr().out


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Three that finished, one that stopped, one that waits, one not begun."""
    ends = [*[("finished", 9)] * 3, ("stopped", 3), ("paused", 3)]
    return make_run(tmp_path, epochs=9, scheduler=ASHA, text=SWEEP, end=scored(*ends))


def test_why_names_score_rank_places_and_who_is_ahead(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ids = {record.config["lr"]: record.id for record in records_of(run)}
    said = why(capsys, run, ids[0.3])
    assert f"{ids[0.3]}: stopped after 3 of 9 epochs" in said
    assert "compared among 6 configs" in said
    assert "rung 1 (epoch 3): score 0.3000 is number 4 of 5 so far, at most 1 to come; 3 go on: is out" in said
    assert f"just ahead of it: {ids[0.4]}, {ids[0.5]}, {ids[0.6]}" in said
    assert "stopped at rung 1: all places there (3) are taken by better configs" in said
    assert "its place was sure at every rung" in why(capsys, run, ids[0.6])
    assert "its first rung is after epoch 3" in why(capsys, run, ids[0.1])


def test_why_as_json_has_the_same_numbers(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ids = {record.config["lr"]: record.id for record in records_of(run)}
    document = json.loads(why(capsys, run, ids[0.3][-8:], "--json"))
    (rung,) = document["rungs"]
    assert document["id"] == ids[0.3]
    assert (rung["rung"], rung["share"], rung["epoch"], rung["verdict"]) == (1, "1/3", 3, "out")
    assert (rung["score"], rung["rank"], rung["places"], rung["cutoff"]) == (0.3, 4, 3, 0.4)
    assert rung["beaten_by"] == [ids[0.4], ids[0.5], ids[0.6]]


def test_a_trial_that_is_not_there_or_not_the_only_one_is_a_users_error(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", str(run), "--why", "nothing"]) == 2
    assert "--why nothing: no such trial" in capsys.readouterr().err
    assert main(["status", str(run), "--why", "baseline"]) == 2
    assert "--why baseline: 6 trials match" in capsys.readouterr().err


def test_without_halving_why_says_who_decides(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for scheduler, text in (("none", "every trial runs to its end"), ("ray_asha", "by the order of arrival")):
        path = make_run(tmp_path, name=scheduler, epochs=9, scheduler=scheduler, text=SWEEP)
        assert text in why(capsys, path, records_of(path)[0].id)


# The cost of a plan


def test_a_plan_tells_rungs_who_goes_on_and_the_epochs_expected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(
        "name: s\nbase: {epochs: 70}\ngrid: {lr: [0.5, 0.1], augment: [none, shift, medium]}\nseeds: [0, 1]\n"
        "scheduler: {name: asha, eta: 3, rungs: [1/9, 1/3], group_by: [lr], min_survivors: 1}\n"
    )
    assert main(["plan", str(path)]) == 0
    said = capsys.readouterr().out
    assert said.count("8, 24") == 12
    assert "lr 0.5: 3 configs (6 trials), 1 go on from rung 1 (1/9), 1 go on from rung 2 (1/3)" in said
    assert "12 trials, 840 epochs asked for, 344 (41%) expected" in said  # 12 * 8 + 4 * 62
    assert main(["plan", str(path), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["expected_epochs"] == pytest.approx(344)
    assert document["cohorts"][1] == {"group": {"lr": "0.1"}, "trials": 6, "configs": 3, "goes_on": [1, 1]}
    assert document["trials"][0]["rung_epochs"] == [8, 24]


def test_without_rungs_the_whole_grid_is_expected(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("name: s\ngrid: {lr: [0.1, 0.2]}\n")
    sweep = load_sweep(path)
    cost = cost_of(sweep, plan_trials(sweep))
    assert cost.rungs == ()
    assert cost.expected == cost.unique_epochs == cost.epochs == 40


LENGTHS = "name: s\nbase: {lr_schedule: constant}\ngrid: {epochs: [3, 9]}\n"


def test_epochs_that_trials_share_are_expected_once_and_divided_among_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(f"{LENGTHS}scheduler: {{name: asha, eta: 2, rungs: [1/3], min_survivors: 1}}\n")
    assert main(["plan", str(path)]) == 0
    # The short one is compared after epoch 1 and the long one after epoch 3; half of them go on.
    said = "2 trials, 12 epochs asked for, 9 unique, at most 6 (50%) expected"
    assert said in capsys.readouterr().out
    sweep = load_sweep(path)
    cost = cost_of(sweep, plan_trials(sweep))
    shared = [1 / 2, 0.5 / 1.5, 0.5 / 1.5]
    assert list(cost.expected_epochs.values()) == pytest.approx([sum(shared), 3 - sum(shared) + 6 / 2])


@pytest.mark.parametrize("without", ["share: false", "scheduler: ray_asha"])
def test_a_plan_that_shares_nothing_says_nothing_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], without: str
) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(f"{LENGTHS}{without}\n")
    assert main(["plan", str(path)]) == 0
    assert "2 trials, 12 epochs asked for\n" in capsys.readouterr().out
    assert main(["plan", str(path), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["expected_epochs"] == 12
    assert "unique_epochs" not in document


def test_a_place_that_is_sure_stays_sure_as_more_records_come(tmp_path: Path) -> None:
    sure: set[int] = set()
    for number in range(1, 7):
        (tmp_path / str(number)).mkdir()
        found = verdicts(made(tmp_path / str(number), *[("paused", 3)] * number))[:number]
        now = {place for place, verdict in enumerate(found) if verdict == "safe"}
        assert sure <= now
        sure = now
    assert sure == {0, 1, 2}
