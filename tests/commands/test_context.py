"""What commands are given: a sweep file or its run folder, and what of the file and of the user's modules they need."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from run_folders import SWEEP, make_run

from raysweep.cli import main
from raysweep.registry import accepting_names_of
from raysweep.store import RunFolder

OWN = {"model": "a_net_of_my_own", "data": "a_source_of_my_own", "augment": "an_augmentation_of_my_own"}
WITH_OWN_NAMES = (
    SWEEP.replace("data: synthetic", f"data: {OWN['data']}")
    .replace("model: baseline_block", f"model: {OWN['model']}")
    .replace("[none, medium]", f"[none, {OWN['augment']}]")
)


def answer(capsys: pytest.CaptureFixture[str], *words: str | Path) -> dict[str, Any]:
    assert main([*map(str, words), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert isinstance(document, dict)
    return document


def refusal(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    assert main([*map(str, words)]) == 2
    return capsys.readouterr().err


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A sweep file whose run used names that a module of `--import` registered, which is not imported any more."""
    with accepting_names_of([OWN]):
        sweep = make_run(tmp_path, epochs=2, scheduler="asha", text=WITH_OWN_NAMES)
    folder = RunFolder(str(tmp_path / "runs"), "made")
    for record in folder.records(folder.trial_ids()).values():
        assert record
        of_input = {"mean": [0.5] * 3, "std": [0.5] * 3, "image_size": 8}
        folder.commit(record.with_(conditions={**record.conditions, **of_input}), {"best": b"its weights"})
    return sweep


@pytest.mark.parametrize(
    "words", [["status"], ["status", "--why", "seed1-"], ["plan"], ["report"], ["clean", "--dry-run", "--removed"]]
)
def test_a_run_folder_stands_for_its_sweep_file(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep, run = make_run(tmp_path, epochs=2, scheduler="asha"), tmp_path / "runs" / "made"
    words = [word.replace("seed1-", sorted(path.name for path in (run / "trials").iterdir())[0]) for word in words]
    of_file = answer(capsys, words[0], sweep, *words[1:])
    assert of_file
    for folder in (run, f"{run}/"):
        of_folder = answer(capsys, words[0], folder, *words[1:])
        if words == ["status"]:  # each names the command to go on with by its own words
            assert of_folder["winner"].pop("sentences") != of_file["winner"].pop("sentences", "")
        if words == ["plan"]:  # paths to data are relative to the file
            assert of_folder.pop("memory") != of_file.pop("memory", {})
        assert of_folder == of_file


def test_the_plan_of_a_run_folder_is_that_of_its_last_run_overrides_and_draws_included(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (
        "name: {name}\nbase: {{epochs: {epochs}, clip_grad_norm: null}}\nscheduler: {scheduler}\n"
        "random: {{samples: 3, lr: {{log_uniform: [0.01, 0.1]}}, augment: {{choice: [none, shift]}}}}\n"
    )
    sweep = make_run(tmp_path, epochs=2, scheduler="{name: asha, rungs: [1/3, 0.5]}", text=text)
    of_file = answer(capsys, "plan", sweep)
    sweep.unlink()
    of_run = answer(capsys, "plan", tmp_path / "runs" / "made")
    assert of_run == {**of_file, "memory": None}
    assert of_run["run"]["finished"] == 3
    assert of_run["rungs"] == ["1/3", "1/2"]


@pytest.mark.parametrize("command", ["status", "plan", "report", "clean", "pull"])
def test_a_folder_that_is_no_run_folder_is_named(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"{tmp_path}: not a run folder" in refusal(capsys, command, tmp_path)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["run"], "paths to data are relative to that file"),
        (["data"], "paths to data are relative to that file"),
        (["rehearse"], "paths to data are relative to that file"),
        (["submit"], "that file is sent to the cluster"),
    ],
)
def test_what_needs_the_sweep_file_itself_refuses_a_run_folder_and_says_why(
    words: list[str], why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path, epochs=2)
    message = refusal(capsys, words[0], tmp_path / "runs" / "made", *words[1:])
    assert message == f"{tmp_path}/runs/made is a run folder; name the sweep file that it was run from, since {why}\n"


@pytest.mark.parametrize("word", ["epochs=3", "--storage=elsewhere"])
def test_a_run_folder_takes_neither_overrides_nor_a_storage(
    word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path, epochs=2)
    assert "only a sweep file takes overrides" in refusal(capsys, "status", tmp_path / "runs" / "made", word)


@pytest.mark.parametrize("given", ["file", "folder"])
def test_after_a_run_with_imports_nobody_needs_the_imports_again(
    given: str, own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = own if given == "file" else tmp_path / "runs" / "made"
    assert len(answer(capsys, "status", run)["trials"]) == 12
    trial = answer(capsys, "status", run)["trials"][0]["id"]
    assert answer(capsys, "status", run, "--why", trial)["id"] == trial
    assert answer(capsys, "report", run)["path"] == f"{tmp_path}/runs/made/report.html"
    assert answer(capsys, "compare", run, run)["runs"][0]["trials"] == 12
    assert answer(capsys, "clean", run, "--removed")["no_longer_planned"] == []
    assert answer(capsys, "pull", run, "--to", tmp_path / "best")["id"] == trial
    assert (tmp_path / "best" / "model.safetensors").read_bytes() == b"its weights"
    assert OWN["model"] in refusal(capsys, "plan", own), "a plan of the file is checked as a run would"


def test_clean_keeps_what_an_edited_file_still_has_without_the_imports(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own.write_text(own.read_text().replace("0.5, 0.1, 0.01", "0.5, 0.1, 0.7"))
    gone = {trial["id"] for trial in answer(capsys, "clean", own, "--dry-run", "--removed")["no_longer_planned"]}
    assert len(gone) == 4
    assert all("lr0.01" in id for id in gone)
    own.write_text(own.read_text().replace(OWN["model"], "a_net_that_no_run_used"))
    assert "a_net_that_no_run_used" in refusal(capsys, "clean", own, "--removed")
    assert len(list((tmp_path / "runs" / "made" / "trials").iterdir())) == 12


def test_a_run_folder_is_found_though_the_sweep_file_has_other_faults_by_now(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = make_run(tmp_path, epochs=2)
    sweep.write_text(sweep.read_text() + "gird: {lr: []}\nlimits: {trials: none}\n")
    for words in (["status"], ["report"], ["compare", sweep]):
        assert answer(capsys, *words, sweep)
    assert "gird: unknown key" in refusal(capsys, "plan", sweep)


@pytest.mark.parametrize("command", ["status", "report", "pull", "clean"])
def test_a_wrong_name_or_storage_is_told_with_its_line(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("base: {modle: x}\nname: a/b\nstorage: 3\n")
    first, second = refusal(capsys, command, path).splitlines()
    assert first.startswith(f"{path}:2: name: must be letters")
    assert first != second
    assert second.startswith(f"{path}:3: storage: got 3")
    path.write_text("base: {epochs: 3}\n")
    assert refusal(capsys, command, path) == f"{path}:1: name: is missing\n"


def test_an_override_that_sets_nothing_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = make_run(tmp_path, epochs=2)
    assert "unknown key 'nmae'" in refusal(capsys, "status", sweep, "nmae=other")
    assert "must be key=value" in refusal(capsys, "status", sweep, "=x")
    assert answer(capsys, "status", sweep, "lr=0.3", "model.options.depth=3", "base={lr: 0.2}")
    assert "other: not a run folder" in refusal(capsys, "status", sweep, "name=other")
