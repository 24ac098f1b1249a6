"""The run folder on an object store, against a real S3 server on loopback: commits, faults, and the lease."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from run_folders import curve, make_run
from s3_server import BUCKET, S3Server, s3_server, slow

from raysweep.cli import main
from raysweep.errors import StorageError
from raysweep.report.live import Follower
from raysweep.results.run import open_run
from raysweep.store import Record, RunFolder, faults, lease
from raysweep.store.filesystem import Storage
from raysweep.store.newest import Tail, read_newest, write_newest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]
TRIAL = "net-1a2b3c4d"


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server() as running:
        yield running


@pytest.fixture
def root(server: S3Server, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A storage of the test's own; the store is waited for a few seconds only, and takes no fault into the next."""
    monkeypatch.setattr(faults, "PATIENCE_S", 60.0)
    monkeypatch.setattr(faults, "FIRST_PATIENCE_S", 1.0)
    monkeypatch.setattr(lease, "BEAT_S", 0.5)
    monkeypatch.setattr(lease, "STALE_S", 3.0)
    server.requests.clear()
    yield f"s3://{BUCKET}/{abs(hash(request.node.name)):x}"
    server.fault = lambda method, path: None


def commit(folder: RunFolder, epoch: int, before: Record | None = None, status: str = "running") -> Record:
    record = Record(TRIAL, "net", 0, {}, {}, 10, status=status, metrics=[{"epoch": e + 1} for e in range(epoch)])
    if before:
        record = record.with_(weights=before.weights, previous=before.previous)
    keep = ("best",) if record.is_final else ("last", "best")
    weights = {"best": b"best %d" % epoch} | ({} if record.is_final else {"last": b"last %d" % epoch})
    return folder.commit(record, weights, keep)


def names(server: S3Server, root: str) -> set[str]:
    """Last parts of the objects below a storage; folder markers are none."""
    prefix = root.removeprefix(f"s3://{BUCKET}/")
    return {key.rpartition("/")[2] for key in server.keys(prefix) if not key.endswith("/")}


# ---------------------------------------------------------------------------------------------------------
# Commits


def test_a_commit_is_read_back_and_old_files_go(server: S3Server, root: str) -> None:
    folder = RunFolder(root, "run")
    record: Record | None = None
    for epoch in (1, 2, 3):
        record = commit(folder, epoch, record)
    assert record is not None
    again = RunFolder(root, "run")
    assert again.resume_point(TRIAL) == (record, b"last 3")
    assert again.read_weights(record, "best") == b"best 3"
    kept = {name.split(".")[1] for name in names(server, root) if name.startswith("last.")}
    assert kept == {"2", "3"}
    commit(folder, 4, record, status="finished")
    assert not any(name.startswith("last.") for name in names(server, root))


def test_large_weights_go_in_several_parts_and_come_back_whole(root: str) -> None:
    folder = RunFolder(root, "run")
    data = os.urandom(25_000_000)
    record = folder.commit(Record(TRIAL, "net", 0, {}, {}, 10, status="running"), {"last": data})
    assert folder.read_weights(record, "last") == data


@pytest.mark.parametrize("damage", [b"", b"last", b"xast 3"], ids=["empty", "truncated", "flipped"])
def test_torn_weights_fall_back_to_the_commit_before_and_are_deleted_by_the_next(
    server: S3Server, root: str, damage: bytes
) -> None:
    folder = RunFolder(root, "run")
    record = commit(folder, 3, commit(folder, 2))
    torn = f"trials/{TRIAL}/{record.weights['last'].file}"
    folder.files.write(torn, damage)
    found = folder.resume_point(TRIAL)
    assert found is not None
    assert (found[0].epoch, found[1]) == (2, b"last 2")
    assert torn in folder.damaged
    folder.commit(found[0], {"last": b"another"})
    assert record.weights["last"].file not in names(server, root)


def test_a_torn_record_is_read_from_its_copy(root: str) -> None:
    folder = RunFolder(root, "run")
    record = commit(folder, 2)
    folder.files.write(f"trials/{TRIAL}/record.json", b'{"format": 1, "sha')
    assert folder.record(TRIAL) == record
    folder.files.write(f"trials/{TRIAL}/record.copy.json", b"")
    assert folder.record(TRIAL) is None


def test_a_file_that_is_replaced_while_it_is_read_is_read_again(server: S3Server, root: str) -> None:
    folder = RunFolder(root, "run")
    short, long = ({"id": Tail("running", 1, {"val_acc": [0.5] * epochs})} for epochs in (1, 9))
    write_newest(folder, long)
    newer = folder.files.read("newest.json")
    write_newest(folder, short)

    def replace(method: str, path: str) -> None:
        if method == "GET":  # the size was asked for before
            server.fault = lambda method, path: None
            server.client().put_object(Bucket=BUCKET, Key=path.removeprefix(f"/{BUCKET}/"), Body=newer)

    server.fault = replace
    assert read_newest(folder) == long
    assert folder.damaged == {}


def test_a_commit_that_was_cut_off_before_its_record_changes_nothing_and_is_tidied_away(
    server: S3Server, root: str
) -> None:
    folder = RunFolder(root, "run")
    record = commit(folder, 2)
    server.fault = lambda method, path: (403, "AccessDenied") if method == "PUT" and "record" in path else None
    with pytest.raises(StorageError, match="access is denied"):
        commit(folder, 3, record)
    server.fault = lambda method, path: None
    again = RunFolder(root, "run")
    assert again.resume_point(TRIAL) == (record, b"last 2")
    assert any(name.startswith("last.3") for name in names(server, root))
    again.tidy(TRIAL)
    assert names(server, root) == {"record.json", "record.copy.json"} | {e.file for e in record.weights.values()}
    assert again.resume_point(TRIAL) == (record, b"last 2")


def test_folders_whose_objects_were_deleted_are_none(server: S3Server, root: str) -> None:
    storage = Storage(root)
    storage.write("a/b/c.json", b"1")
    storage.write("a/d.json", b"1")
    assert (storage.list_folders(), storage.list_folders("a")) == (["a"], ["a/b"])
    assert storage.list_files("a", recursive=True) == ["a/b/c.json", "a/d.json"]
    storage.delete("a/b/c.json")
    storage.delete("a/b/c.json")
    assert any(key.endswith("/") for key in server.keys(root.removeprefix(f"s3://{BUCKET}/")))
    assert storage.list_folders("a") == []
    storage.delete("a/d.json")
    assert storage.list_folders() == []
    assert storage.list_files(recursive=True) == []


def test_an_old_run_is_set_aside_whole_and_its_place_is_free(root: str) -> None:
    folder = RunFolder(root, "run")
    record = commit(folder, 2)
    folder.files.write("resolved.yaml", b"{}")
    aside = folder.set_aside()
    assert aside is not None
    assert RunFolder(root, aside).resume_point(TRIAL) == (record, b"last 2")
    assert not folder.exists()
    folder.check_place()


def test_a_small_write_takes_one_request_and_a_read_two(server: S3Server, root: str) -> None:
    storage = Storage(root)
    storage.write("a.json", b"1")
    assert [request.split()[0] for request in server.requests] == ["PUT"]
    server.requests.clear()
    storage.read("a.json")
    assert [request.split()[0] for request in server.requests] == ["HEAD", "GET"]


@pytest.mark.parametrize("name", ["..", "a/../../b", "/etc", "a//b", "a\\b", "a/..", "."])
def test_names_cannot_leave_the_folder(server: S3Server, root: str, name: str) -> None:
    storage = Storage(root)
    for action in (storage.read, storage.delete, storage.is_file, storage.list_files, storage.child):
        with pytest.raises(StorageError, match="would leave"):
            action(name)
    with pytest.raises(StorageError, match="would leave"):
        storage.write(name, b"x")
    assert not server.requests


# ---------------------------------------------------------------------------------------------------------
# A store that is slow, refuses, or goes away


def test_a_slow_store_is_waited_for(server: S3Server, root: str) -> None:
    server.fault = slow(1.0)
    folder = RunFolder(root, "run")
    record = commit(folder, 1)
    server.fault = lambda method, path: None
    assert folder.resume_point(TRIAL) == (record, b"last 1")


@pytest.mark.parametrize("status", [(503, "SlowDown"), (500, "InternalError")], ids=lambda status: status[1])
def test_a_store_that_fails_in_passing_is_tried_again(server: S3Server, root: str, status: tuple[int, str]) -> None:
    folder = RunFolder(root, "run")
    before = commit(folder, 1)
    failed: list[str] = []

    def first_ones_fail(method: str, path: str) -> tuple[int, str] | None:
        if len(failed) < 5:
            failed.append(path)
            return status
        return None

    server.fault = first_ones_fail
    record = commit(folder, 2, before)
    assert len(failed) == 5
    assert folder.resume_point(TRIAL) == (record, b"last 2")


def test_a_store_that_goes_away_in_the_middle_of_a_commit_is_waited_for(server: S3Server, root: str) -> None:
    folder = RunFolder(root, "run", has_answered=True)
    record = commit(folder, 1)
    start = time.monotonic()
    with server.away(30 if os.environ.get("RAYSWEEP_FAULTS") else 7):
        record = commit(folder, 2, record)
    assert time.monotonic() - start > 5
    assert RunFolder(root, "run").resume_point(TRIAL) == (record, b"last 2")


def test_a_store_that_stays_away_is_a_clear_error_and_what_was_committed_stays(server: S3Server, root: str) -> None:
    folder = RunFolder(root, "run")
    record = commit(folder, 1)
    server.stop()
    try:
        with pytest.raises(StorageError, match=r"run: the store does not answer .* what is committed is safe"):
            RunFolder(root, "run").check_place()
    finally:
        server.start()
    assert folder.resume_point(TRIAL) == (record, b"last 1")


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ((403, "AccessDenied"), "access is denied; check the credentials"),
        ((403, "InvalidAccessKeyId"), "does not know these credentials; check AWS_ACCESS_KEY_ID"),
        ((403, "SignatureDoesNotMatch"), "does not know these credentials"),
        ((400, "ExpiredToken"), "credentials have expired"),
        ((403, "RequestTimeTooSkewed"), "clock is wrong"),
        ((301, "PermanentRedirect"), "region .AWS_REGION. or the endpoint"),
    ],
    ids=lambda value: value[1] if isinstance(value, tuple) else "",
)
def test_what_waiting_does_not_mend_is_said_at_once(
    server: S3Server, root: str, status: tuple[int, str], said: str
) -> None:
    server.fault = lambda method, path: status
    start = time.monotonic()
    with pytest.raises(StorageError, match=said) as raised:
        Storage(root, has_answered=True).write("a.json", b"1")
    assert time.monotonic() - start < 11  # pyarrow itself tries again after a wrong clock
    assert "\n" not in str(raised.value)


def test_a_bucket_that_is_not_there_is_said_for_reading_and_writing(
    server: S3Server, root: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = make_run(tmp_path)
    for words in (["status"], ["pull"]):
        assert main([*words, str(path), "--storage", "s3://no-such-bucket/runs"]) == 2
        assert "there is no bucket 'no-such-bucket'" in capsys.readouterr().err
    with pytest.raises(StorageError, match="no such bucket"):
        Storage("s3://no-such-bucket/runs").write("a", b"1")
    with pytest.raises(StorageError, match="no bucket"):
        RunFolder("s3://no-such-bucket/runs", "run").check_place()


@pytest.mark.parametrize("uri", ["s3://key:secret@bucket/runs", "s3://bucket/runs?secret_key=abcdefgh1"])
def test_credentials_in_a_url_are_refused_and_not_repeated(uri: str) -> None:
    with pytest.raises(StorageError, match="must not hold credentials") as raised:
        Storage(uri)
    with pytest.raises(StorageError):
        open_run(uri)
    assert "secret@" not in str(raised.value)
    assert "abcdefgh1" not in str(raised.value)


def test_options_of_the_url_reach_pyarrow_and_stay_out_of_what_is_shown(server: S3Server, root: str) -> None:
    uri = f"{root}/?endpoint_override=127.0.0.1:{server.port}&scheme=http"
    folder = RunFolder(uri, "run")
    record = commit(folder, 1)
    assert folder.path == f"{root}/run"
    folder.files.write("resolved.yaml", b'{"sweep": {"objective": {}}, "trials": []}')
    assert open_run(f"{root}/run?endpoint_override=127.0.0.1:{server.port}&scheme=http").name == "run"
    assert RunFolder(root, "run").record(TRIAL) == record


# ---------------------------------------------------------------------------------------------------------
# The lease

HOLD = """
import sys, time
from raysweep.store import RunFolder, lease
lease.BEAT_S, lease.STALE_S = 0.5, 3.0
with RunFolder({root!r}, "run").lease():
    print("held", flush=True)
    sys.stdin.read()
"""


def hold_elsewhere(root: str) -> subprocess.Popen[str]:
    """Another process that holds the lease until its stdin ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD.format(root=root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_driver_is_refused_and_the_first_named_and_it_is_free_after_the_end(root: str) -> None:
    holder = hold_elsewhere(root)
    folder = RunFolder(root, "run")
    assert folder.is_driven()
    with (
        pytest.raises(StorageError, match=f"another raysweep drives this run: process {holder.pid} on"),
        folder.lease(),
    ):
        pass
    holder.communicate(timeout=30)
    assert not folder.is_driven()
    with folder.lease():
        assert folder.is_driven()


def test_a_killed_driver_is_waited_out(server: S3Server, root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    holder = hold_elsewhere(root)
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    folder = RunFolder(root, "run")
    assert not folder.is_driven()
    start = time.monotonic()
    with folder.lease():
        assert lease.STALE_S <= time.monotonic() - start < 30
    tombstones = [path for path in folder.files.list_files(lease.LEASE) if path.endswith(lease.TAKEN_OVER)]
    assert len(tombstones) == 1
    start = time.monotonic()
    with folder.lease():
        assert time.monotonic() - start < lease.STALE_S
        sizes = folder.files.list_sizes()
        assert folder.rubbish(sizes) == {}, "a driver that was only cut off must find its tombstone"
        monkeypatch.setattr(lease, "TOMBSTONE_KEPT_S", 0)
        assert set(folder.rubbish(sizes)) == set(tombstones)


def test_a_driver_that_was_cut_off_ends_when_it_finds_another_in_its_place(root: str) -> None:
    holder = hold_elsewhere(root)
    holder.send_signal(signal.SIGSTOP)
    with RunFolder(root, "run").lease():
        holder.send_signal(signal.SIGCONT)
        assert holder.wait(timeout=30) == 2, "by itself: its stdin, whose end would release the lease, is open"
        _, err = holder.communicate()
        assert "another one took the run over" in err
    assert not RunFolder(root, "run").is_driven()


def test_a_store_that_is_away_for_some_beats_does_not_cost_the_lease(server: S3Server, root: str) -> None:
    lost: list[str] = []
    folder = RunFolder(root, "run")
    with folder.lease(on_loss=lost.append):
        with server.away(2.0):
            pass
        time.sleep(1.0)
        with pytest.raises(StorageError, match="another raysweep"), RunFolder(root, "run").lease():
            pass
    assert not lost


def test_of_drivers_that_start_at_once_one_gets_the_lease(root: str) -> None:
    barrier, winners, refused = threading.Barrier(4), [], []
    over = threading.Event()

    def start(number: int) -> None:
        folder = RunFolder(root, "run")
        barrier.wait()
        try:
            with folder.lease():
                winners.append(number)
                over.wait(60)
        except StorageError as error:
            refused.append(str(error))
        if len(refused) == 3:
            over.set()

    threads = [threading.Thread(target=start, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(winners) == 1
    assert all("another raysweep drives this run" in text for text in refused)


@pytest.mark.filterwarnings("ignore")
def test_a_run_on_it_is_exported_and_the_uris_of_its_weights_are_told(
    root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow", reason="mlflow is not installed")
    from mlflow.tracking import MlflowClient

    make_run(tmp_path, epochs=2, text="name: {name}\nbase: {{epochs: {epochs}}}\nscheduler: {scheduler}\n")
    folder, local = RunFolder(root, "made"), tmp_path / "runs/made"
    for path in filter(Path.is_file, local.rglob("*")):
        folder.files.write(str(path.relative_to(local)), path.read_bytes())
    (record,) = open_run(folder.path).trials
    record = folder.commit(record, {"best": b"weights"})
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    for _ in range(2):
        assert main(["export", folder.path, "--to", "mlflow"]) == 0
    client = MlflowClient()
    experiment = client.get_experiment_by_name("made")
    assert experiment
    runs = client.search_runs([experiment.experiment_id])
    (trial,) = (run for run in runs if run.info.run_name == record.id)
    assert len(runs) == 2  # the run folder's, and the trial's
    assert trial.data.tags["best weights"] == f"{root}/made/{folder.weights_path(record, 'best')}"
    assert len(client.get_metric_history(trial.info.run_id, "val_acc")) == 2


# ---------------------------------------------------------------------------------------------------------
# Followed


def test_a_followed_run_shows_epochs_soon_and_its_records_are_left_alone(
    server: S3Server, root: str, tmp_path: Path
) -> None:
    def running_after_three(record: Record, place: int) -> Record:
        return record.with_(status="running", metrics=record.metrics[:3]) if place == 0 else record

    def wait_for(condition: Callable[[dict[str, Any]], Any], seconds: float) -> None:
        end = time.monotonic() + seconds
        while not condition(now := json.loads(follower.answer(after=0) or b"{}")):
            assert time.monotonic() < end, now
            time.sleep(0.02)

    make_run(tmp_path, epochs=12, end=running_after_three)
    for path in filter(Path.is_file, (tmp_path / "runs").rglob("*")):
        Storage(root).write(str(path.relative_to(tmp_path / "runs")), path.read_bytes())
    folder = RunFolder(root, "made")
    running = next(record for record in open_run(f"{root}/made").trials if record.epoch == 3)
    with Follower(RunFolder(root, "made")) as follower:
        wait_for(lambda now: now["state"] == "not running", 1)
        with folder.lease():
            wait_for(lambda now: now["state"] == "running" and follower.reports, 10)
            before = -1
            while before != len(of_trials := [path for path in server.requests if "/trials/" in path]):
                before = len(of_trials)  # all records are read, and once more since there is a driver now
                time.sleep(1)
            server.requests.clear()
            for epoch in (5, 6):
                write_newest(folder, {running.id: Tail.of("running", curve(12, 0.5, 0)[:epoch], 1)})
                wait_for(lambda now, so_far=[epoch]: [row["epoch"] for row in now["running"]] == so_far, 2)
            time.sleep(1.5)  # in which the report is made anew
            of_others = [path for path in server.requests if "/trials/" in path and running.id not in path]
            assert of_others == []
            assert (
                len(server.requests) < 60
            )  # with a quarter of them the driver's, whose claim counts up twice a second
        wait_for(lambda now: now["state"] == "not running", 5)
