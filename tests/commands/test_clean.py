"""`raysweep clean`: deletes leftover files, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from run_folders import make_run

from raysweep.cli import main
from raysweep.store import Record, RunFolder
from raysweep.store.states import StateStore
from raysweep.sweepfile import load_sweep
from raysweep.sweepfile.plan import plan_trials
from raysweep.sweepfile.prefixes import Prefixes


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    return make_run(tmp_path, epochs=2)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def clean(capsys: pytest.CaptureFixture[str], *words: str | Path, code: int = 0) -> tuple[str, str]:
    assert main(["clean", *map(str, words)]) == code
    return capsys.readouterr()


def litter(run: Path) -> dict[str, bytes]:
    """What kills leave: torn commits of a trial with and without a record, a torn view, curves without their trial."""
    trial = sorted(path.name for path in (run / "trials").iterdir())[0]
    left = {
        f"trials/{trial}/last.3.0123456789ab.pt": b"1" * 1000,
        f"trials/{trial}/.best.3.0123456789ab.safetensors.00ff00ff.tmp": b"2" * 500,
        "trials/never-committed-0a1b2c3d/last.1.0123456789ab.pt": b"3" * 300,
        ".results.parquet.0a0a0a0a.tmp": b"4" * 20,
        "tensorboard/gone-0a1b2c3d/events.out.tfevents.1": b"5",
    }
    for path, data in left.items():
        (run / path).parent.mkdir(parents=True, exist_ok=True)
        (run / path).write_bytes(data)
    return left


def test_leftover_files_are_listed_and_deleted_and_all_else_stays(
    sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "runs/made"
    clean(capsys, sweep)
    before = files(run)
    left = litter(run)
    littered = files(run)

    document = json.loads(clean(capsys, sweep, "--dry-run", "--json")[0])
    assert {file["path"]: file["bytes"] for file in document["files"]} == {k: len(v) for k, v in left.items()}
    assert document["bytes"] == 1821
    assert files(run) == littered, "a dry run deletes nothing"

    out, _ = clean(capsys, sweep)
    assert all(path in out for path in left)
    assert "5 leftover files deleted, 1.82 kB" in out
    assert files(run) == before
    assert "0 leftover files deleted" in clean(capsys, sweep)[0]


def test_trials_that_the_file_no_longer_has_are_kept_unless_asked(
    sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "runs/made"
    (run / "tensorboard").mkdir()
    for trial in (run / "trials").iterdir():
        (run / "tensorboard" / trial.name).mkdir()
        (run / "tensorboard" / trial.name / "events").write_bytes(b"1")
    sweep.write_text(sweep.read_text().replace("0.5, 0.1, 0.01", "0.5, 0.1"))
    clean(capsys, sweep)
    before = files(run)
    out, _ = clean(capsys, sweep)
    assert "4 trials that the sweep file no longer has kept" in out
    assert files(run) == before
    document = json.loads(clean(capsys, sweep, "--removed", "--json")[0])
    gone = {trial["id"] for trial in document["no_longer_planned"]}
    assert len(gone) == 4
    assert all("lr0.01" in id for id in gone)
    assert files(run) == {path: data for path, data in before.items() if not any(id in path for id in gone)}
    assert {path.name for path in (run / "trials").iterdir()}.isdisjoint(gone)


def test_a_run_that_is_driven_is_left_alone(sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "runs/made"
    litter(run)
    before = files(run)
    with RunFolder(str(tmp_path / "runs"), "made").lease():
        for words in ([], ["--dry-run"]):
            assert "drives this run" in clean(capsys, sweep, *words, code=2)[1]
    assert {**files(run), ".lease": b""} == {**before, ".lease": b""}


def test_a_trial_whose_records_are_both_damaged_is_not_touched_and_named(
    sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trial = sorted((tmp_path / "runs/made/trials").iterdir())[0]
    (trial / "last.1.0123456789ab.pt").write_bytes(b"its last chance")
    for name in ("record.json", "record.copy.json"):
        (trial / name).write_bytes(b"{")
    out, err = clean(capsys, sweep)
    assert "0 leftover files" in out
    assert f"{trial.name}/record.json: is not whole" in err
    assert (trial / "last.1.0123456789ab.pt").exists()


def test_a_removal_that_is_cut_off_leaves_what_the_next_one_finds(tmp_path: Path, sweep: Path) -> None:
    folder = RunFolder(str(tmp_path / "runs"), "made")
    record = Record("net-0a1b2c3d", "net", 0, {}, {}, 2, metrics=[{"epoch": 1}])
    committed = folder.commit(record, {"last": b"1", "best": b"2"})

    class Killed(Exception):
        pass

    def die(path: str) -> None:
        raise Killed

    cut_off = RunFolder(str(tmp_path / "runs"), "made")
    cut_off.files.delete_folder = die  # type: ignore[method-assign]
    with pytest.raises(Killed):
        cut_off.remove(record.id)
    rubbish = folder.rubbish(folder.files.list_sizes())
    assert set(rubbish) == {f"trials/{record.id}/{entry.file}" for entry in committed.weights.values()}


def test_a_place_without_a_run_folder_is_said(sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "not a run folder" in clean(capsys, sweep, "--storage", tmp_path / "elsewhere", code=2)[1]
    assert not (tmp_path / "elsewhere").exists()


def test_states_that_no_trial_may_want_are_deleted_and_those_of_trials_to_come_stay(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = """
name: {name}
base: {{data: synthetic, epochs: {epochs}, lr: 0.1}}
cases:
  early: {{lr_schedule: {{name: step, milestones: [4]}}}}
  late: {{lr_schedule: {{name: step, milestones: [6]}}}}
scheduler: {scheduler}
"""
    sweep = make_run(
        tmp_path,
        epochs=10,
        text=steps,
        end=lambda record, place: record if place == 0 else record.with_(status="planned", metrics=[]),
    )
    folder = RunFolder(str(tmp_path / "runs"), "made")
    trials, store = plan_trials(load_sweep(sweep)), StateStore(folder)
    early, late = trials
    record = folder.record(early.id)
    assert record is not None
    prefixes = Prefixes(trials)
    fork = prefixes.key(early.id, 4, record.conditions)
    assert fork == prefixes.key(late.id, 4, record.conditions)
    store.keep(fork, record.cut(4).with_(status="running"), {"last": b"1"})
    store.keep("0" * 32, record.cut(3).with_(status="running"), {"last": b"22"})  # of a trial that is gone
    torn = tmp_path / "runs/made/states" / ("1" * 32) / "last.0123"
    torn.parent.mkdir()
    torn.write_bytes(b"333")

    document = json.loads(clean(capsys, sweep, "--dry-run", "--json")[0])
    assert {state["key"]: state["why"] for state in document["states"]} == {
        "0" * 32: "no trial may want it any more",
        "1" * 32: "it is not whole",
    }
    assert len(store.listed()) == 3, "a dry run deletes nothing"
    assert "2 states deleted" in clean(capsys, sweep)[0]
    assert store.listed() == [fork]
    text = sweep.read_text()
    sweep.write_text(text.replace("[4]", "[3]").replace("[6]", "[2]"))  # two other trials
    assert "1 trial that the sweep file no longer has kept" in clean(capsys, sweep)[0]
    assert store.listed() == [fork], "a trial that is kept keeps its states"
    document = json.loads(clean(capsys, sweep, "--dry-run", "--removed", "--json")[0])
    assert [state["key"] for state in document["states"]] == [fork]
    sweep.write_text(text)
    folder.commit(record.with_(id=late.id, config=late.config.model_dump(mode="json")), {})  # it trained them itself
    assert "1 state deleted" in clean(capsys, sweep)[0]
