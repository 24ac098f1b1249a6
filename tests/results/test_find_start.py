"""The trial of another run that a sweep begins from: found in its run folder once, and kept with the sweep's own."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from run_folders import SWEEP, make_run

import raysweep
from raysweep.cli import main
from raysweep.results.start import find_start
from raysweep.store import RunFolder
from raysweep.store.record import planned_record
from raysweep.store.resolved import read_resolved, write_resolved
from raysweep.store.states import StateStore
from raysweep.sweepfile import Sweep, load_sweep, sweep_of
from raysweep.sweepfile.plan import StartedFrom, Trial, plan_trials
from raysweep.sweepfile.prefixes import Prefixes

ID = "baseline_block-lr0.5-seed1"
FILE = """
name: next
base: {data: synthetic, model: baseline_block, epochs: 20}
start: {run: runs/made, trial: TRIAL, epoch: 6}
"""


@raysweep.register_loop("elsewhere", metrics={"loss": "min"})
def elsewhere(config: raysweep.Config, trial: raysweep.TrialContext) -> Iterator[raysweep.Epoch]:
    yield raysweep.Epoch({"loss": 1.0})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of twelve trials of 9 epochs."""
    return make_run(tmp_path_factory.mktemp("made"), epochs=9, text=SWEEP).parent


@pytest.fixture
def folder(tmp_path: Path, made: Path) -> Path:
    """That run, and the file of a sweep that begins from one of its trials."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    (tmp_path / "next.yaml").write_text(FILE.replace("TRIAL", ID))
    return tmp_path


def load(folder: Path, *overrides: str) -> Sweep:
    return load_sweep(folder / "next.yaml", overrides, find_start)


def found(folder: Path, *overrides: str) -> StartedFrom:
    start = plan_trials(load(folder, *overrides))[0].start
    assert start is not None
    return start


def begin(folder: Path, *overrides: str, records: bool = True) -> list[Trial]:
    """Leave what a run of the sweep leaves that has begun; return its trials."""
    sweep = load(folder, *overrides)
    run, trials = RunFolder(str(folder / "runs"), "next"), plan_trials(sweep)
    write_resolved(run, sweep, b"", trials, [])
    if records:
        run.commit(planned_record(trials[0]).with_(status="running"), {})
    return trials


def ids(folder: Path, capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    assert main(["plan", *words, "--json"]) == 0
    return [row["id"] for row in json.loads(capsys.readouterr().out)["trials"]]


def refused(folder: Path, capsys: pytest.CaptureFixture[str], *overrides: str) -> str:
    assert main(["plan", str(folder / "next.yaml"), *overrides]) == 2
    return capsys.readouterr().err.replace(f"{folder}/", "")


def test_the_start_is_the_trial_with_its_config_and_seed_as_recorded(folder: Path) -> None:
    start = found(folder)
    assert (start.run, start.epoch, start.loop, start.seed) == (str(folder / "runs" / "made"), 6, "classify", 1)
    assert start.trial.startswith(ID)
    assert start.config["lr"] == 0.5
    assert start.conditions == {"data": "0123abcd", "precision": "fp32", "workers": 1}
    assert found(folder, f"start.trial={start.trial[-12:]}") == start
    assert found(folder, "start.epoch=null").epoch == 9


def test_where_that_trial_began_with_the_same_epochs_of_another_it_is_the_other_one(folder: Path) -> None:
    run = RunFolder(str(folder / "runs"), "made")
    first, (record, *_) = found(folder), map(run.record, run.trial_ids())
    assert record
    run.commit(record.with_(start=first), {})
    assert found(folder, f"start.trial={record.id}", "start.epoch=8").start == first
    own = found(folder, f"start.trial={record.id}", "start.epoch=4")
    assert (own.trial, own.epoch, own.start) == (first.trial, 4, None)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("start.run=runs/mad", "start.run: no run folder is at runs/mad (did you mean 'made'?); a path is relative to"),
        ("start.run=made.yaml", "start.run: no run folder is at made.yaml; name the run folder of that sweep"),
        ("start.run=runs/next", "start.run: runs/next is this sweep's own run folder; give the sweep another name"),
        ("start.trial=baseline_block-lr0.5-sed1", "no such trial (did you mean 'baseline_block-lr0.5-seed1-"),
        ("start.trial=baseline_block-lr0.1-", "start.trial: baseline_block-lr0.1-: 4 trials match: baseline_block-lr0"),
        ("start.epoch=10", f"start.epoch: got 10, must be at most 9: {ID}-"),
        ("loop=elsewhere", "was trained by loop 'classify', this sweep's is 'elsewhere'"),
        ("epochs=6", "start.epoch: begins after epoch 6, and there are trials of 6 epochs"),
        ("model=resnet18", "does not fit 1 of 1 trials: model.name resnet18 here, baseline_block there"),
    ],
)
def test_what_cannot_be_gone_on_from_is_refused_with_its_place(
    override: str, said: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if override.startswith("loop"):  # which knows none of the settings
        file = folder / "next.yaml"
        file.write_text(re.sub("base:.*", "base: {epochs: 20}", file.read_text()))
    error = refused(folder, capsys, override)
    assert said in error
    assert re.match(r"(next\.yaml:\d+|override '.*?'): start\.", error)


def test_a_record_that_is_damaged_newer_or_empty_is_no_start(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = RunFolder(str(folder / "runs"), "made")
    (id,) = (each for each in run.trial_ids() if each.startswith(ID))
    record, files = run.record(id), list((folder / "runs" / "made" / "trials" / id).iterdir())
    assert record
    for file in files:
        file.write_text(file.read_text().replace('"format": 1', '"format": 99'))
    assert "start.run: runs/made/trials/" in (error := refused(folder, capsys))
    assert "is of format 99, this raysweep reads 1; upgrade raysweep" in error
    for file in files:
        file.write_bytes(file.read_bytes()[:-40])
    assert "its record cannot be read: trials/" in refused(folder, capsys)
    run.commit(record.with_(status="failed", metrics=[]), {})
    assert "has trained no epoch yet" in refused(folder, capsys)


def test_trials_keep_their_ids_when_the_other_run_goes_on_or_is_gone(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "next.yaml").write_text((folder / "next.yaml").read_text().replace(", epoch: 6", ""))
    other, run = folder / "runs" / "made", RunFolder(str(folder / "runs"), "made")
    before = [trial.id for trial in begin(folder)]
    (record,) = (run.record(each) for each in run.trial_ids() if each.startswith(ID))
    assert record
    run.commit(record.with_(epochs=10, metrics=[*record.metrics, {**record.metrics[-1], "epoch": 10}]), {})
    assert found(folder).epoch == 9
    assert find_start(load(folder), is_fresh=True).epoch == 10
    shutil.rmtree(other)
    for named in (str(folder / "next.yaml"), str(folder / "runs" / "next")):
        assert ids(folder, capsys, named) == before
    assert found(folder, f"start.run={other}").epoch == 9
    assert "no run folder is at runs/made" in refused(folder, capsys, "start.epoch=3")
    (folder / "runs" / "next" / "resolved.yaml").write_text("torn")
    assert ids(folder, capsys, str(folder / "next.yaml")) == before


def test_the_plan_says_where_trials_begin(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begin(folder)
    assert main(["plan", str(folder / "next.yaml")]) == 0
    assert f"start: all go on after epoch 6 of {ID}-" in capsys.readouterr().out
    resolved = read_resolved(RunFolder(str(folder / "runs"), "next"))
    assert resolved.plan[0].start == resolved.start == found(folder)


@pytest.mark.parametrize(
    ("overrides", "kept", "kept_here", "said", "there"),
    [
        (["lr_schedule=constant"], [2, 6], [], "; its state is kept: 28 epochs are left", 6),
        (["scheduler=asha"], [6, 8], [], "; its state is kept: at most 28 epochs are left", 6),
        ([], [4], [5], "; epoch 6 is trained again, once: 29 epochs are left", 5),
        ([], [2], [1], "; epochs 3 to 6 are trained again, once: 32 epochs are left", 2),
        ([], [], [], "; epochs 1 to 6 are trained again, once: 34 epochs are left", 0),
        (["share=false"], [6], [], "; each trial trains epochs 1 to 6 again", None),
    ],
)
def test_the_plan_says_whether_the_epochs_that_trials_begin_with_are_trained_again(
    overrides: list[str],
    kept: list[int],
    kept_here: list[int],
    said: str,
    there: int | None,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    overrides = ["seeds=[0, 1]", *overrides]
    trials = plan_trials(load(folder, *overrides))
    runs = {name: RunFolder(str(folder / "runs"), name) for name in ("made", "next")}
    record = runs["made"].record(found(folder).trial)
    assert record
    for name, epoch in [*(("made", epoch) for epoch in kept), *(("next", epoch) for epoch in kept_here)]:
        key = Prefixes(trials).key(trials[0].id, epoch, record.conditions)
        kept_there = record.cut(epoch).with_(status="running", former_metrics=[])
        StateStore(runs[name]).keep(key, kept_there, {"last": b"to go on from"})
    for words in ([], ["--json"]):
        assert main(["plan", str(folder / "next.yaml"), *overrides, *words]) == 0
    lines = capsys.readouterr().out.splitlines()
    (line,) = (each for each in lines if each.startswith("start: "))
    assert line.endswith(said)
    assert json.loads(lines[-1])["start"]["epochs_kept"] == there


def test_a_sweep_from_python_is_looked_up_relative_to_the_working_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    values: dict[str, Any] = {"data": "synthetic", "epochs": 20}
    start = {"run": "runs/made", "trial": ID, "epoch": 6}
    sweep, _ = sweep_of({"name": "next", "base": values, "start": start}, find_start=find_start)
    assert plan_trials(sweep)[0].start == found(folder)
