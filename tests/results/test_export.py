"""A run exported to the real packages, where they are installed: whole and once, whatever was exported before."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from types import ModuleType, SimpleNamespace
from typing import cast

import pytest
from run_folders import make_run, mixed
from running import wait_for

from raysweep.cli import main
from raysweep.results.export import tools
from raysweep.store import Record, RunFolder

EPOCHS = 6


def mlflow_rows(folder: Path) -> list[tuple[str, str, int]]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name("made")
    assert experiment
    runs = client.search_runs([experiment.experiment_id])
    rows = []
    for run in runs:
        if "mlflow.parentRunId" in run.data.tags:
            history = client.get_metric_history(run.info.run_id, "val_acc_ema")
            rows += [(run.info.run_name, "val_acc_ema", metric.step) for metric in history]
            rows += [
                (run.info.run_name, "seed", int(run.data.tags["seed"])),
                (run.info.run_name, run.data.params["lr"], 0),
            ]
    return rows


def trackio_rows(folder: Path) -> list[tuple[str, str, int]]:
    from trackio import SQLiteStorage

    runs = SQLiteStorage.get_runs("made")
    assert len(set(runs)) == len(runs)
    logs = {run: SQLiteStorage.get_logs("made", run) for run in runs}
    return [(run, "val_acc_ema", row["step"]) for run, rows in logs.items() for row in rows if "val_acc_ema" in row]


def wandb_rows(folder: Path) -> list[tuple[str, str, int]]:
    from wandb.proto import wandb_internal_pb2

    rows = []
    for path in (folder / "wandb").glob("offline-run-*/*.wandb"):
        run, steps = "", []
        for data in records_of(path.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            run = record.run.display_name or run
            steps += [record.history.step.num] if record.HasField("history") else []
        rows += [(run, "val_acc_ema", step) for step in steps]
    return rows


def records_of(data: bytes) -> Iterator[bytes]:
    """The records of wandb's file, a LevelDB log: in blocks of 32 kB, each part with checksum, length and kind."""
    place, whole = 7, b""
    while place < len(data):
        if (room := 32768 - place % 32768) < 7:
            place += room
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + 7])
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield whole
            whole = b""


READ: dict[str, Callable[[Path], list[tuple[str, str, int]]]] = {
    "mlflow": mlflow_rows,
    "wandb": wandb_rows,
    "trackio": trackio_rows,
}
BEGUN = {
    "mlflow": "mlflow.db",
    "wandb": "wandb/raysweep-unfinished-*/wandb/offline-run-*/files",
    "trackio": "trackio/made.db",
}
"""What is there once an export has begun to write."""


@pytest.fixture
def run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    for name in ("MLFLOW_TRACKING_URI", "WANDB_MODE", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path, epochs=EPOCHS, end=mixed)
    return str(tmp_path / "runs/made")


def export(run_folder: str, tool: str) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-W", "ignore", "-m", "raysweep", "export", run_folder, "--to", tool]
    return subprocess.Popen(words, env=dict(os.environ), start_new_session=True)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("tool", READ)
def test_a_run_that_is_exported_again_and_again_is_there_once(run_folder: str, tool: str, tmp_path: Path) -> None:
    """After an export that was killed, once more, and after the run went on and trained some epochs again."""
    pytest.importorskip(tool, reason=f"{tool} is not installed")
    killed = export(run_folder, tool)
    wait_for(lambda: list(tmp_path.glob(BEGUN[tool])), 60)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    for _ in range(2):
        assert main(["export", run_folder, "--to", tool]) == 0
    assert epochs_of_runs(READ[tool](tmp_path)) == [4, *[EPOCHS] * 9]
    make_run(tmp_path, epochs=EPOCHS, end=slower)
    assert main(["export", os.path.relpath(run_folder), "--to", tool]) == 0
    assert epochs_of_runs(READ[tool](tmp_path)) == [EPOCHS] * 12


def slower(record: Record, place: int) -> Record:
    """The same trial, whose epochs from the third on took longer."""
    return record.with_(metrics=[{**row, "seconds": row["seconds"] + (row["epoch"] > 2)} for row in record.metrics])


def epochs_of_runs(rows: list[tuple[str, str, int]]) -> list[int]:
    """How many epochs each run has, the shortest first; nothing may be there twice."""
    assert set(Counter(rows).values()) == {1}, Counter(rows).most_common(5)
    return sorted(Counter(run for run, what, _ in rows if what == "val_acc_ema").values())


def test_a_missing_package_is_one_line_that_says_how_to_install_it(
    run_folder: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "trackio", None)
    assert main(["export", run_folder, "--to", "trackio"]) == 2
    assert "pip install 'raysweep[trackio]'" in capsys.readouterr().err


class Fake:
    """Takes the place of a tool and of the module that exports to it; its first export hangs until it may go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tool: str) -> None:
        self.begun, self.may_go_on, self.count = Event(), Event(), 0
        for name in (tool, f"raysweep.results.export.{tool}"):
            monkeypatch.setitem(sys.modules, name, cast(ModuleType, SimpleNamespace(export=self.export)))

    def export(self, sweep: object) -> None:
        self.count += 1
        self.begun.set()
        assert self.may_go_on.wait(30)


def test_an_export_that_hangs_holds_up_those_to_its_own_tool_alone_and_they_say_so(
    run_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(str(tmp_path / "runs"), "made")
    hangs, works = Fake(monkeypatch, "wandb"), Fake(monkeypatch, "mlflow")
    works.may_go_on.set()
    waits, said = Event(), []

    def say(line: str) -> None:
        said.append(line)
        waits.set()

    with ThreadPoolExecutor(2) as pool:
        try:
            first = pool.submit(tools.export, folder, "wandb", say)
            assert hangs.begun.wait(30)
            tools.export(folder, "mlflow", say)
            assert (works.count, said) == (1, [])
            second = pool.submit(tools.export, folder, "wandb", say)
            assert waits.wait(30)
            assert (said, hangs.count) == (["made: waiting for another process that exports it to wandb"], 1)
        finally:
            hangs.may_go_on.set()
        assert first.result() == second.result()
    assert hangs.count == 2


def test_a_lock_that_cannot_be_opened_is_one_sentence(
    run_folder: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    Fake(monkeypatch, "trackio")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "locks"))
    (tmp_path / "locks").write_text("a file where a folder must be")
    assert main(["export", run_folder, "--to", "trackio"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("export needs this file, for its lock: Not a directory; delete it, or set TMPDIR")
