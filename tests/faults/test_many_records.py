"""A run folder of many records: what is asked of an object store, what is shown meanwhile, how old the views get."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import noop_loop  # noqa: F401 (registers a loop)
import pytest
from moto.s3.models import s3_backends
from run_folders import CONDITIONS, curve, make_run
from running import wait_for
from s3_server import BUCKET, S3Server, s3_server

from raysweep import terminal
from raysweep.cli import main
from raysweep.driver.before import Run
from raysweep.driver.during import _refresh_exports
from raysweep.driver.housekeeping import repeating
from raysweep.halving.scores import best_epoch
from raysweep.results.rerun import rerun_of, trials_of
from raysweep.results.run import read_results
from raysweep.store import RunFolder, runfolder
from raysweep.store.record import Record, planned_record
from raysweep.store.resolved import write_resolved
from raysweep.sweepfile import load_sweep
from raysweep.sweepfile.named import Named
from raysweep.sweepfile.plan import plan_trials

MANY = """
name: many
loop: noop
random: {{samples: {trials}, lr: {{log_uniform: [0.0001, 1]}}}}
limits: {{trials: 100000}}
resources: {{cpus: 1, gpus: 0}}
"""


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server() as running:
        yield running


class Made:
    """A sweep file of many trials, and its run folder on the server, some of it written."""

    def __init__(self, folder: Path, server: S3Server, trials: int) -> None:
        self.path = folder / "many.yaml"
        self.path.write_text(MANY.format(trials=trials))
        self.sweep, self.server = load_sweep(self.path), server
        self.trials = plan_trials(self.sweep)
        self.storage = f"s3://{BUCKET}/{folder.name}"
        write_resolved(RunFolder(self.storage, "many"), self.sweep, self.path.read_bytes(), self.trials, {"0123abcd"})

    def finish(self, number: int, epochs: int = 3) -> str:
        """Write the record of a trial that has ended into the server's memory, as commits leave it; return its id."""
        planned = planned_record(self.trials[number])
        metrics = curve(epochs, float(planned.config["lr"]), number)
        record = planned.with_(status="finished", epochs=epochs, metrics=metrics, conditions=CONDITIONS)
        data = record.with_(best=best_epoch(metrics, self.sweep.objective)).to_bytes()
        for name in ("record.json", "record.copy.json"):
            key = f"{self.storage.removeprefix(f's3://{BUCKET}/')}/many/trials/{record.id}/{name}"
            s3_backends["123456789012"]["aws"].put_object(BUCKET, key, data)
        return record.id

    def asked(self) -> Counter[str]:
        """What was asked of the server since this was last called: listings, and the trials whose files were read."""
        requests, self.server.requests[:] = list(self.server.requests), []
        listings = sum(request == f"GET /{BUCKET}" for request in requests)
        read = Counter(request.split("/trials/")[1].split("/")[0] for request in requests if "/trials/" in request)
        return Counter({"listings": listings}) + read


@pytest.fixture
def made(server: S3Server, tmp_path: Path) -> Made:
    return Made(tmp_path, server, 60)


@pytest.mark.slow
def test_one_listing_tells_which_trials_have_a_record_and_nothing_else_is_read(made: Made) -> None:
    ids = {made.finish(number) for number in (3, 5, 8)}
    folder = RunFolder(made.storage, "many")
    made.asked()
    trials = trials_of(made.sweep, folder)
    assert made.asked() == {"listings": 1}, "which ids are known"
    rerun = rerun_of(made.sweep, trials, folder)
    assert {id for id, fate in rerun.fates.items() if fate == "finished"} == ids
    asked = made.asked()
    assert asked.pop("listings") == 1
    assert set(asked) == ids
    assert set(asked.values()) == {2}, "pyarrow asks for the size, then for the bytes"


@pytest.mark.slow
def test_a_second_look_reads_what_was_written_since_and_what_may_have_been(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runfolder, "SETTLED_S", 0.5)
    ids = [made.finish(number) for number in range(10)]
    time.sleep(1.1)
    newest = made.finish(10)
    folder = RunFolder(made.storage, "many")
    first = folder.records(trial.id for trial in made.trials)
    made.asked()
    made.finish(4, epochs=4)
    made.finish(11)
    again = folder.records(trial.id for trial in made.trials)
    asked = made.asked()
    assert asked.pop("listings") == 1
    assert set(asked) == {ids[4], newest, made.trials[11].id}
    assert again[ids[4]] != first[ids[4]]
    assert again == RunFolder(made.storage, "many").records(trial.id for trial in made.trials)


def test_the_driver_refreshes_its_views_by_the_records_that_changed_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half_way(record: Record, place: int) -> Record:
        return record.with_(status="paused", metrics=record.metrics[:2]) if place == 7 else record

    path = make_run(tmp_path, epochs=4, end=half_way)
    folder = RunFolder(str(tmp_path / "runs"), "made")
    run = Run(load_sweep(path), Named(str(path), ()), folder, ())
    read: list[str] = []
    files = type(folder.files)
    of_disk = files.read
    monkeypatch.setattr(files, "read", lambda self, path: [read.append(path), of_disk(self, path)][1])
    _refresh_exports(run)
    assert not [path for path in read if path.endswith(".json")]

    going_on = run.records[7]
    run.board.note_epoch(going_on.id, {**going_on.metrics[-1], "epoch": 3})
    run.board.update(going_on.id, "epoch", status="running", epoch=3)
    _refresh_exports(run)
    assert [path for path in read if path.endswith(".json")] == [f"trials/{going_on.id}/record.json"]
    table = read_results(RunFolder(str(tmp_path / "runs"), "made"), live=True).to_pandas().set_index("id")
    assert list(table.status.loc[[going_on.id]]) == ["paused"], "no driver holds the run folder"
    assert len(list((tmp_path / "runs" / "made" / "tensorboard").iterdir())) == 1

    planned = going_on.with_(status="finished", metrics=curve(4, 0.1, 7))
    RunFolder(str(tmp_path / "runs"), "made").commit(planned, {})
    run.board.update(going_on.id, "ended", status="finished")
    monkeypatch.setattr(files, "write", fail)
    with pytest.raises(OSError, match="told to"):
        _refresh_exports(run)
    monkeypatch.undo()
    _refresh_exports(run)  # what failed is made up for
    table = read_results(RunFolder(str(tmp_path / "runs"), "made")).to_pandas().set_index("id")
    assert table.epoch[going_on.id] == 4
    assert table.status[going_on.id] == "finished"


def fail(self: Any, path: str, data: bytes) -> None:
    raise OSError("told to fail")


def test_views_that_take_long_are_refreshed_often_enough_all_the_same() -> None:
    begun: list[float] = []
    enough = threading.Event()

    def take_long() -> None:
        begun.append(time.monotonic())
        time.sleep(0.05)
        if len(begun) == 3:
            enough.set()

    with repeating("test", take_long, every_s=0.01, share=0.001, at_least_every_s=0.2):
        assert enough.wait(20), "by its share alone, the second would begin after 50 s"
    assert begun[1] - begun[0] > 0.15


def test_reading_that_takes_a_while_says_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with terminal.counting("reading 3 records", 3) as advance:
        advance()
    assert capsys.readouterr().err == "", "short steps are not worth a line"
    monkeypatch.setattr(terminal, "COUNT_AFTER_S", 0.0)
    monkeypatch.setattr(terminal, "COUNT_EVERY_S", 0.05)
    said = ""
    with terminal.counting("reading 2,000 records", 2000) as advance:
        for _ in range(1234):
            advance()
        while "1,234" not in said:
            time.sleep(0.01)
            said += capsys.readouterr().err
    assert said.startswith("reading 2,000 records\nreading 2,000 records: ")
    assert "1,234 of 2,000\n" in said


def test_a_run_says_what_it_is_about_before_it_imports_ray_or_reads_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "many.yaml"
    path.write_text(MANY.format(trials=1200))
    planned = len(plan_trials(load_sweep(path)))
    monkeypatch.setitem(sys.modules, "raysweep.driver", None)
    with pytest.raises(ImportError):
        main([str(path), "--storage", str(tmp_path)])
    assert capsys.readouterr().err.startswith(f"many: {planned:,} trials planned\n")


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.long
@pytest.mark.timeout(2400)
def test_ten_thousand_records_on_s3_start_within_a_minute_and_are_shown_a_minute_old(
    server: S3Server, tmp_path: Path
) -> None:
    # The times are for a machine that is busy with other things; docs/performance.md has what was measured.
    made = Made(tmp_path, server, 10_000)
    there = [made.finish(number, epochs=30) for number in range(9_000)]
    errors = tmp_path / "errors"
    environment = {**os.environ, **server.environment(), "RAYSWEEP_STORAGE": made.storage}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), environment.get("PYTHONPATH", "")])
    environment.pop("RAY_ADDRESS", None)
    words = [sys.executable, "-m", "raysweep", str(made.path), "--import", "noop_loop"]
    began = time.monotonic()
    with errors.open("w") as output:
        process = subprocess.Popen(words, env=environment, stderr=output, stdout=subprocess.DEVNULL)
    try:
        wait_for(lambda: "trials planned" in errors.read_text(), 30)
        print(f"\nfirst line after {time.monotonic() - began:.1f} s")
        wait_for(lambda: " starts\n" in errors.read_text(), 600)
        print(f"started after {time.monotonic() - began:.1f} s")
        said = errors.read_text()
        assert "looking for records" in said
        assert f"reading {len(set(there)):,} records" in said
        written: list[datetime] = []
        wait_for(lambda: len(versions(server, made, written)) == 4, 600)
        gaps = [(later - earlier).total_seconds() for earlier, later in pairwise(written)]
        print(f"results.parquet written anew after {gaps} s")
        assert max(gaps) < 120
        asked_at = time.monotonic()
        done = len(set(there)) + sum(line.count(": finished after ") for line in errors.read_text().splitlines())
        status = subprocess.run(
            [sys.executable, "-m", "raysweep", "status", str(made.path), "--json"],
            env=environment,
            capture_output=True,
            timeout=400,
        )
        assert status.returncode == 0
        print(f"status after {time.monotonic() - asked_at:.1f} s")
        assert status.stdout.count(b'"finished"') >= done
    finally:
        with contextlib.suppress(ProcessLookupError):
            for _ in range(2):  # the second time at once
                process.send_signal(signal.SIGINT)
                time.sleep(1)
        process.wait(60)


def versions(server: S3Server, made: Made, written: list[datetime]) -> list[datetime]:
    """Add to the times at which results.parquet was seen to be written."""
    key = f"{made.storage.removeprefix(f's3://{BUCKET}/')}/many/results.parquet"
    time.sleep(1)
    with contextlib.suppress(server.client().exceptions.ClientError):
        at = server.client().head_object(Bucket=BUCKET, Key=key)["LastModified"]
        if at not in written:
            written.append(at)
    return written
