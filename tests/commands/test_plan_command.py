"""`plan` warns of what this machine lacks, and its table tells trials apart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from raysweep.cli import main
from raysweep.cluster.places import data_problems
from raysweep.commands import plan
from raysweep.halving.cost import cost_of
from raysweep.sweepfile import load_sweep, sweep_of
from raysweep.sweepfile.plan import plan_trials
from raysweep.sweepfile.proposals import Generation


def test_a_gpu_that_this_machine_lacks_and_a_missing_folder_are_warnings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(plan, "GPU_DEVICES", (str(tmp_path / "gpu*"),))
    file = tmp_path / "s.yaml"
    file.write_text("name: a\nresources: {gpus: 1}\nbase: {data: {name: folder, path: pets}}\n")
    assert main(["plan", str(file)]) == 0
    out = capsys.readouterr().out
    assert "warning: resources.gpus is 1, and this machine has no GPU" in out
    assert "warning: data.path: pets is not on this machine" in out
    (tmp_path / "gpu0").touch()
    (tmp_path / "pets").mkdir()
    assert main(["plan", str(file)]) == 0
    assert "warning" not in capsys.readouterr().out


def test_weights_to_begin_with_that_are_absent_are_an_error_here_and_a_warning_where_a_cluster_may_have_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    (tmp_path / "best").mkdir()
    file = tmp_path / "s.yaml"
    file.write_text("name: a\nstart: {weights: bst}\n")
    for command in ("plan", "run"):
        assert main([command, str(file)]) == 2
        said = f"s.yaml:2: start.weights: no such folder: {tmp_path}/bst (did you mean 'best'?)"
        assert said in capsys.readouterr().err
    monkeypatch.setenv("RAY_ADDRESS", "ray://far:10001")
    assert main(["plan", str(file)]) == 0
    assert "warning: start.weights: bst is not on this machine" in capsys.readouterr().out
    (problem,) = data_problems(load_sweep(file), "s.yaml")
    assert problem.startswith("s.yaml: start.weights: 'bst' is relative")


def test_settings_that_end_like_a_column_of_the_table_keep_their_section(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "s.yaml"
    file.write_text("name: a\nbase: {data: synthetic}\ngrid: {data.seed: [7, 8]}\nseeds: [0, 1]\n")
    assert main(["plan", str(file)]) == 0
    head, *rows = [line.split() for line in capsys.readouterr().out.splitlines()][:5]
    assert head == ["#", "data.seed", "seed", "epochs", "trial"]
    assert [row[1:3] for row in rows] == [["7", "0"], ["7", "1"], ["8", "0"], ["8", "1"]]


def test_long_values_are_cut_where_they_still_differ(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "s.yaml"
    schedules = [f"{{name: step, milestones: [10, 20, 30, 40, {last}]}}" for last in (51, 52)]
    file.write_text(f"name: a\nbase: {{epochs: 60}}\ngrid: {{lr_schedule: [{', '.join(schedules)}]}}\n")
    assert main(["plan", str(file)]) == 0
    cells = [line.split("  ")[1] for line in capsys.readouterr().out.splitlines()[1:3]]
    assert cells[0] != cells[1]
    assert max(map(len, cells)) <= 24


SEARCH = """name: a
base: {data: synthetic, epochs: 9}
search:
  trials: 60
  space: {lr: {log_uniform: [0.001, 1]}, model.width: {choice: [4, 8]}}
"""


def said_of(text: str, file: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    file.write_text(text)
    assert main(["plan", str(file)]) == 0
    return capsys.readouterr().out.splitlines()


def test_of_a_search_two_generations_are_shown_and_the_rest_is_said_to_depend_on_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    head, *lines = said_of(f"{SEARCH}scheduler: asha\n", tmp_path / "s.yaml", capsys)
    assert head.split() == ["#", "generation", "lr", "width", "seed", "epochs", "rungs", "trial"]
    assert [line.split()[1] for line in lines[:16]] == ["0"] * 8 + ["1"] * 8
    assert lines[16].startswith("generations 0 and 1, each: 8 configs, 3 go on from rung 1 (1/9)")
    assert lines[17] == "16 trials, 144 epochs asked for, 50 (35%) expected"
    assert lines[18] == (
        "search: tpe, 60 trials in generations of 8; the 44 others depend on results, at most 540 epochs in all, "
        "about 147 (27%) expected"
    )


@pytest.mark.parametrize(
    ("change", "end"),
    [
        ("trials: 16", "16 trials in generations of 8; all of them are above"),
        ("trials: 17", "17 trials in generations of 8; the last one depends on results, at most 153 epochs in all"),
        ("trials: 60\n  name: qmc", "60 trials; all of them are above"),
        ("trials: 60\n  generation: 20", "60 trials in generations of 20; the 20 others depend on results, at most 540 "
         "epochs in all"),
    ],
)  # fmt: skip
def test_how_much_of_a_search_is_left_is_said_in_words(
    change: str, end: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = said_of(SEARCH.replace("trials: 60", change), tmp_path / "s.yaml", capsys)
    assert any(line.startswith("search: ") and line.endswith(end) for line in lines)


def test_epochs_that_the_space_varies_count_at_most_and_seeds_of_a_config_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = f"{SEARCH}seeds: [0, 1]\n".replace("model.width: {choice: [4, 8]}", "epochs: {int: [5, 5]}")
    lines = said_of(text.replace("trials: 60", "trials: 20"), tmp_path / "s.yaml", capsys)
    assert "32 trials, 160 epochs asked for" in lines
    line = "search: tpe, 20 configs with 2 seeds each in generations of 8; the 4 others depend on results, at most 200 "
    assert any(each.startswith(line) for each in lines)


def test_a_space_of_few_configs_has_no_others_and_is_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = SEARCH.replace("lr: {log_uniform: [0.001, 1]}", "augment: {choice: [none, shift]}")
    lines = said_of(text, tmp_path / "s.yaml", capsys)
    assert "search: tpe, 60 trials in generations of 8; the space has only 4 configs" in lines
    assert any(line.startswith("warning: search.trials: the space has 4 configs") for line in lines)


def test_the_document_of_a_plan_has_the_search_and_each_trials_generation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(f"{SEARCH}scheduler: asha\n")
    assert main(["plan", str(file), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [row["generation"] for row in document["trials"]] == [0] * 8 + [1] * 8
    assert [(cohort["generation"], cohort["rivals"]) for cohort in document["cohorts"]] == [(0, 0), (1, 0)]
    space = {"lr": {"log_uniform": [0.001, 1.0]}, "model.width": {"choice": [4, 8]}}
    section = {"name": "tpe", "trials": 60, "generation": 8, "space": space, "enqueue": []}
    cost = {"proposed": 16, "left": 44, "epochs_at_most": 540, "expected_epochs": pytest.approx(147.5, abs=0.1)}
    assert document["search"] == {**section, **cost}
    file.write_text("name: a\n")
    assert main(["plan", str(file), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["search"] is None
    assert "generation" not in document["trials"][0]


def test_a_later_generation_is_expected_to_be_stopped_beside_the_settled_configs_of_earlier_ones() -> None:
    search = {"trials": 32, "space": {"lr": {"log_uniform": [0.001, 1]}}}
    sweep, _ = sweep_of({"name": "s", "base": {"epochs": 9}, "search": search, "scheduler": "asha"})
    lrs = iter(range(1, 33))
    sweep._generations = [Generation(number, [{"lr": next(lrs) / 64} for _ in range(8)]) for number in range(4)]
    sweep._plan = None
    cohorts = cost_of(sweep, plan_trials(sweep)).cohorts
    assert [(cohort.rivals, cohort.goes_on) for cohort in cohorts] == [
        (0, (3, 2)),
        (0, (3, 2)),
        (8, (6, 2)),
        (16, (8, 3)),
    ]
