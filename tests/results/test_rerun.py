"""What `raysweep plan` says of an edited sweep whose run was begun before."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from run_folders import CONDITIONS, make_run

from raysweep.cli import main
from raysweep.halving.scores import score_again
from raysweep.results.run import open_run
from raysweep.store import Record, RunFolder, Score
from raysweep.store.record import planned_record
from raysweep.store.states import StateStore
from raysweep.sweepfile import load_sweep
from raysweep.sweepfile.plan import plan_trials
from raysweep.sweepfile.prefixes import Prefixes
from raysweep.sweepfile.schema import Objective

Plan = Callable[..., dict[str, Any]]


def some_of_each(record: Record, place: int) -> Record:
    """Make twelve trials: eight finished, one at its third epoch, one failed, one diverged, one not begun."""
    if place == 8:
        return record.with_(status="running", metrics=record.metrics[:3])
    if place == 9:
        return record.with_(status="failed", metrics=record.metrics[:2], error={"type": "ValueError", "message": "no"})
    if place == 10:
        return record.with_(status="diverged", metrics=record.metrics[:2])
    return record.with_(status="planned", metrics=[]) if place == 11 else record


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    return make_run(tmp_path, epochs=4, end=some_of_each)


@pytest.fixture
def plan(sweep: Path, capsys: pytest.CaptureFixture[str]) -> Plan:
    def of(*overrides: str) -> dict[str, Any]:
        assert main(["plan", str(sweep), "--json", *overrides]) == 0
        run: dict[str, Any] = json.loads(capsys.readouterr().out)["run"]
        return {key: value for key, value in run.items() if value}

    return of


COLLIDING = """
name: {name}
base: {{data: synthetic, epochs: {epochs}, optimizer: {{name: sgd, weight_decay: 0.030891}}}}
scheduler: {scheduler}
"""
"""A weight decay of 0.077067 would give the same former id, by chance."""
BEGUN = {"finished": 8, "to_continue": 1, "failed": 1, "diverged": 1, "new": 1}


def test_an_unchanged_file_goes_on(plan: Plan, sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert plan() == BEGUN
    assert main(["plan", str(sweep)]) == 0
    said = capsys.readouterr().out.splitlines()[-1]
    assert said == "run folder: 1 new, 8 finished, 1 to continue, 1 diverged, 1 failed, to be tried again"


def test_before_the_first_run_there_is_nothing_to_say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = make_run(tmp_path, name="made")
    for words in (["--storage", str(tmp_path / "elsewhere")], ["--storage", "s3://bucket/runs"], ["name=other"]):
        assert main(["plan", str(sweep), "--json", *words]) == 0
        assert json.loads(capsys.readouterr().out)["run"] is None


def test_added_values_are_new_and_removed_ones_are_kept(plan: Plan) -> None:
    assert plan("grid.lr=[0.5, 0.1, 0.01, 0.2]") == {**BEGUN, "new": 5}
    assert plan("grid.lr=[0.5, 0.1]") == {"finished": 8, "removed": 3}
    assert plan("seeds=[0, 2]")["removed"] == 5


def test_other_epochs_are_other_trials(plan: Plan) -> None:
    assert plan("epochs=9") == {"new": 12, "removed": 11}


LENGTHS = """
name: {name}
base:
  data: synthetic
  epochs: {epochs}
  lr_schedule: {{name: step, milestones: [30]}}
grid: {{lr: [0.2, 0.1]}}
scheduler: {scheduler}
"""


@pytest.fixture
def short_ones(tmp_path: Path) -> tuple[Path, dict[float, str]]:
    """A finished run of two trials of 35 epochs that have left their states; its sweep file, and the ids by `lr`."""
    sweep = make_run(tmp_path, name="short", epochs=35, text=LENGTHS)
    trials, folder = plan_trials(load_sweep(sweep)), RunFolder(str(tmp_path / "runs"), "short")
    for id, record in folder.records([trial.id for trial in trials]).items():
        assert record
        StateStore(folder).keep(Prefixes(trials).key(id, 35, record.conditions), record, {"last": b"a state"})
    return sweep, {trial.config.model_dump()["lr"]: trial.id for trial in trials}


def test_longer_trials_go_on_from_what_shorter_ones_left_and_train_the_difference(
    short_ones: tuple[Path, dict[float, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    sweep, ids = short_ones
    assert main(["plan", str(sweep), "epochs=70"]) == 0
    said = capsys.readouterr().out
    assert "2 trials, 140 epochs asked for\n" in said
    assert "run folder: 2 new, 2 no longer in the file, kept\n" in said
    assert "2 trials go on from epochs that others have trained; 70 epochs are left to train\n" in said
    assert main(["plan", str(sweep), "epochs=70", "scheduler=asha"]) == 0
    assert "trained; at most 70 epochs are left to train\n" in capsys.readouterr().out
    assert main(["plan", str(sweep), "--json", "epochs=70", "grid.lr=[0.2, 0.1, 0.05]"]) == 0
    document = json.loads(capsys.readouterr().out)
    lrs = {trial["id"]: trial["config"]["lr"] for trial in document["trials"]}
    kept = document["run"]["kept"]
    assert {lrs[id]: each for id, each in kept["going_on"].items()} == {
        lr: {"epoch": 35, "of": id} for lr, id in ids.items()
    }
    assert kept["epochs_left"] == 2 * 35 + 70


@pytest.mark.parametrize(
    "edit", ["lr_schedule=cosine", "lr_schedule.milestones=[20]", "batch_size=64", "epochs=34", "share=false"]
)
def test_trials_that_another_course_decides_do_not_go_on_from_what_was_left(
    short_ones: tuple[Path, dict[float, str]], capsys: pytest.CaptureFixture[str], edit: str
) -> None:
    assert main(["plan", str(short_ones[0]), "--json", "epochs=70", edit]) == 0
    assert json.loads(capsys.readouterr().out)["run"]["kept"] is None


def test_epochs_that_trials_share_beyond_what_is_kept_are_left_once(
    short_ones: tuple[Path, dict[float, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", str(short_ones[0]), "--json", "grid={lr: [0.2], epochs: [50, 70]}"]) == 0
    assert json.loads(capsys.readouterr().out)["run"]["kept"]["epochs_left"] == 35


def test_epochs_of_an_interrupted_twin_are_not_left_to_those_that_will_wait_for_it(
    short_ones: tuple[Path, dict[float, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    grid = "grid={lr: [0.2], epochs: [50, 70]}"
    first, _ = plan_trials(load_sweep(short_ones[0], [grid]))
    metrics = [{"epoch": epoch, "val_acc": 0.5} for epoch in range(1, 41)]
    record = planned_record(first).with_(status="running", metrics=metrics, conditions=CONDITIONS)
    RunFolder(str(short_ones[0].parent / "runs"), "short").commit(record, {"last": b"a state"})
    assert main(["plan", str(short_ones[0]), "--json", grid]) == 0
    assert json.loads(capsys.readouterr().out)["run"]["kept"]["epochs_left"] == 70 - 40


def test_another_scheduler_stops_what_has_no_chance_and_lets_go_on_what_has(plan: Plan) -> None:
    asha = "scheduler={name: asha, eta: 2, rungs: [0.5], min_survivors: 1}"
    found = plan(asha)
    assert found["finished"] == 8
    assert found.get("stopped", 0) + found.get("to_continue", 0) + found.get("failed", 0) == 2


def test_another_objective_ranks_anew_by_the_kept_epochs(plan: Plan, sweep: Path) -> None:
    (note,) = plan("objective=val_loss")["notes"]
    assert note.startswith("objective was val_acc: trials are ranked anew, by val_loss")
    assert "notes" not in plan("objective=val_acc")


def test_another_number_of_workers_is_refused_where_trials_are_to_continue(plan: Plan) -> None:
    (note,) = plan("resources.workers=2")["notes"]
    assert "trials to continue began with 1: refused" in note
    assert "notes" not in plan("resources.cpus=2")


def test_a_damaged_record_is_read_from_its_copy_and_without_one_the_trial_is_new(plan: Plan, tmp_path: Path) -> None:
    trial = sorted((tmp_path / "runs/made/trials").glob("*lr0.5*"))[0]
    (trial / "record.json").write_bytes(b"{")
    assert plan() == BEGUN
    (trial / "record.copy.json").write_bytes(b"{")
    assert plan() == {**BEGUN, "finished": 7, "new": 2}


def test_scores_under_another_objective_are_those_of_the_epoch_whose_weights_are_kept() -> None:
    history = [{"val_acc": 0.5, "val_loss": 1.0, "val_loss_ema": 0.9}, {"val_acc": 0.4, "val_loss": 0.8}]
    best = Score(epoch=1, score=0.5, averaged=False, val_acc=0.5)
    assert score_again(best, history, Objective()) == best
    assert score_again(best, history, Objective(metric="val_loss")) == Score(1, 1.0, False, 0.5)
    averaged = Score(epoch=1, score=0.5, averaged=True, val_acc=0.5)
    assert score_again(averaged, history, Objective(metric="val_loss")) == Score(1, 0.9, True, 0.5)
    assert score_again(averaged, history, Objective()) is None, "there is no averaged accuracy"
    assert score_again(None, history, Objective()) is None


def test_a_run_is_ranked_by_the_objective_of_its_last_plan(tmp_path: Path) -> None:
    make_run(tmp_path, epochs=12)
    run = str(tmp_path / "runs/made")
    by_acc = [record.id for record in open_run(run).trials]
    folder = RunFolder(str(tmp_path / "runs"), "made")
    document = json.loads(folder.files.read("resolved.yaml"))
    document["sweep"] = load_sweep(tmp_path / "made.yaml", ["objective=val_loss"]).model_dump(mode="json")
    folder.files.write("resolved.yaml", json.dumps(document).encode())
    result = open_run(run)
    trials = result.trials
    assert {record.id for record in trials} == set(by_acc)
    for record in trials:
        assert record.best
        row = record.metrics[record.best.epoch - 1]
        assert record.best.score == row["val_loss_ema" if record.best.averaged else "val_loss"]
    means = [config.scores.mean for config in result.configs]
    assert means == sorted(mean for mean in means if mean is not None)


def test_the_trials_of_an_older_raysweep_keep_their_ids_and_new_ones_get_longer_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = make_run(tmp_path, epochs=4, end=some_of_each, former_ids=True)
    assert main(["plan", str(sweep), "grid.lr=[0.5, 0.1, 0.01, 0.001]", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["run"] == {**dict.fromkeys(document["run"], 0), **BEGUN, "new": 5, "kept": None, "notes": []}
    lengths = [len(trial["id"].rpartition("-")[2]) for trial in document["trials"]]
    assert sorted(lengths) == [8] * 11 + [12] * 5, "one of the twelve was never begun"
    assert main(["clean", str(sweep), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["no_longer_planned"] == []


def test_an_axis_of_a_setting_that_an_id_tells_only_if_it_varies_is_not_taken_for_a_collision(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = make_run(
        tmp_path, epochs=1, text=COLLIDING.replace("epochs: {epochs},", "epochs: {epochs}, compile: true,")
    )
    assert main(["plan", str(sweep), "grid.compile=[false, true]"]) == 2
    said = capsys.readouterr().err
    assert "compile False and True" in said
    assert "before the sweep varied it" in said
    assert "chance" not in said


@pytest.mark.parametrize("command", ["plan", "run"])
def test_a_record_of_another_config_with_the_same_id_is_refused_and_not_taken_for_the_trials(
    tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = make_run(tmp_path, epochs=1, text=COLLIDING, former_ids=True)
    (trial,) = open_run(str(tmp_path / "runs/made")).trials
    assert trial.id == "baseline_block-lr0.1-92abd7d1"
    sweep.write_text(sweep.read_text().replace("0.030891", "0.077067"))
    assert main([command, str(sweep)]) == 2
    said = capsys.readouterr().err
    assert f"{tmp_path}/runs/made/trials/{trial.id}: " in said
    assert "optimizer.weight_decay 0.077067 and 0.030891" in said
    assert said.count("\n") == 1
    sweep.write_text(sweep.read_text().replace("0.077067", "0.030891"))
    assert main(["plan", str(sweep), "precision=fp32"]) == 0, "precision is in no id"
