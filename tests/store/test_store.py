"""The run folder's commits, and what reading makes of damage."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import multiprocessing
import multiprocessing.synchronize
import os
from pathlib import Path
from typing import IO

import pytest

from raysweep.errors import StorageError
from raysweep.results.run import open_run
from raysweep.store import Record, RunFolder, Score
from raysweep.store.filesystem import Storage


def planned(epoch: int = 0) -> Record:
    return Record(
        "net-1a2b3c4d", "net", 0, {}, {}, 10, metrics=[{"epoch": e + 1, "val_acc": 0.1} for e in range(epoch)]
    )


def flip_a_bit(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(bytes([data[0] ^ 1]) + data[1:])


def committed(folder: RunFolder, epoch: int, before: Record | None = None) -> Record:
    best = Score(epoch, 0.1, False, 0.1)
    record = planned(epoch).with_(status="running", best=best, weights=before.weights if before else {})
    record = record.with_(previous=before.previous if before else {})
    return folder.commit(record, {"last": b"last %d" % epoch, "best": b"best %d" % epoch})


def test_a_commit_is_read_back_with_the_weights_it_names(tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path), "run")
    record = committed(folder, 2)
    assert folder.record(record.id) == record
    assert folder.resume_point(record.id) == (record, b"last 2")
    assert folder.read_weights(record, "best") == b"best 2"


def test_the_commit_before_stays_until_the_next_is_whole_and_older_ones_go(tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path), "run")
    record: Record | None = None
    for epoch in (1, 2, 3):
        record = committed(folder, epoch, record)
    names = {path.name.split(".")[1] for path in (tmp_path / "run/trials/net-1a2b3c4d").glob("last.*")}
    assert names == {"2", "3"}


@pytest.mark.parametrize("damage", [b"", b"last", b"xast 3"], ids=["empty", "truncated", "flipped"])
def test_torn_weights_fall_back_to_the_commit_before(tmp_path: Path, damage: bytes) -> None:
    folder = RunFolder(str(tmp_path), "run")
    record = committed(folder, 3, committed(folder, 2))
    (tmp_path / "run/trials" / record.id / record.weights["last"].file).write_bytes(damage)
    found = folder.resume_point(record.id)
    assert found is not None
    assert found[1] == b"last 2"
    assert found[0].epoch == 2


def test_best_weights_that_are_damaged_fall_back_to_the_commit_before_with_its_own_best(tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path), "run")
    before = committed(folder, 2)
    record = committed(folder, 3, before)
    flip_a_bit(tmp_path / "run/trials" / record.id / record.weights["best"].file)
    found = folder.resume_point(record.id)
    assert found is not None
    assert (found[1], found[0].epoch, found[0].weights) == (b"last 2", 2, before.weights)
    assert any("best" in path for path in folder.damaged)


def test_best_weights_that_both_commits_share_and_are_damaged_let_the_trial_begin_anew(tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path), "run")
    before = committed(folder, 2)
    record = folder.commit(before.with_(metrics=planned(3).metrics), {"last": b"last 3"})
    assert record.weights["best"] == record.previous["best"]
    flip_a_bit(tmp_path / "run/trials" / record.id / record.weights["best"].file)
    found = folder.resume_point(record.id)
    assert found is not None
    assert (found[1], found[0].epoch, found[0].best) == (None, 0, None)
    again = folder.commit(found[0].with_(metrics=planned(1).metrics), {"last": b"last 1"})
    assert "best" not in again.weights, "no epoch of the new history is the one whose weights were damaged"


def test_the_commit_of_an_error_alone_leaves_the_commit_before_to_fall_back_to(tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path), "run")
    record = committed(folder, 3, committed(folder, 2))
    for status in ("running", "failed"):
        stored = folder.record(record.id)
        assert stored
        record = folder.commit(stored.with_(status=status, error={"type": "ValueError", "message": status}), {})
    flip_a_bit(tmp_path / "run/trials" / record.id / record.weights["last"].file)
    found = folder.resume_point(record.id)
    assert found is not None
    assert (found[1], found[0].epoch) == (b"last 2", 2)


def test_a_commit_of_the_same_weights_again_leaves_the_commit_before_to_fall_back_to(tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path), "run")
    record = committed(folder, 3, committed(folder, 2))
    record = committed(folder, 3, record)
    flip_a_bit(tmp_path / "run/trials" / record.id / record.weights["last"].file)
    found = folder.resume_point(record.id)
    assert found is not None
    assert found[1] == b"last 2"


def test_the_best_weights_are_named_after_their_own_epoch_whenever_they_are_committed(tmp_path: Path) -> None:
    best = Score(2, 0.5, False, 0.5)
    records = []
    for epoch in (2, 3):
        folder = RunFolder(str(tmp_path / str(epoch)), "run")
        now = folder.commit(planned(epoch).with_(best=best), {"last": b"%d" % epoch, "best": b"best"})
        records.append(folder.commit(now.with_(status="finished", metrics=planned(4).metrics), {}, keep=("best",)))
    assert records[0] == records[1]
    assert records[0].weights["best"].file.startswith("best.2.")


def test_which_images_were_right_stays_and_goes_with_the_best_weights(tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path), "run")
    best = Score(2, 0.5, False, 0.5)
    first = folder.commit(planned(2).with_(best=best), {"last": b"2", "best": b"best", "correct": b"right"})
    second = folder.commit(first.with_(metrics=planned(3).metrics), {"last": b"3"})
    assert folder.read_weights(second, "correct") == b"right"
    assert second.weights["correct"].file.startswith("correct.2.")
    untold = folder.commit(second.with_(best=Score(3, 0.6, False, 0.6)), {"best": b"better"})
    assert set(untold.weights) == {"last", "best"}
    assert untold.previous["correct"] == second.weights["correct"], "it falls back with its commit"
    anew = folder.commit(second.cut(0), {})
    assert set(anew.weights) == {"last"}, "no epoch of the new history got those images right"


def test_a_damaged_file_of_which_images_were_right_costs_no_training(tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path), "run")
    record = folder.commit(
        planned(2).with_(best=Score(2, 0.5, False, 0.5)), {"last": b"2", "best": b"best", "correct": b"right"}
    )
    flip_a_bit(tmp_path / "run/trials" / record.id / record.weights["correct"].file)
    assert folder.resume_point(record.id) == (record, b"2")
    assert folder.read_weights(record, "correct") is None


def test_a_history_that_was_cut_is_kept_if_it_got_further_than_any_before() -> None:
    record = planned(3).cut(1)
    assert (record.epoch, [len(history) for history in record.former_metrics]) == (1, [3])
    record = record.with_(metrics=planned(2).metrics).cut(0)
    assert [len(history) for history in record.former_metrics] == [3]
    record = record.with_(metrics=planned(5).metrics).cut(4)
    assert [len(history) for history in record.former_metrics] == [3, 5]
    assert Record.from_bytes(record.to_bytes(), record.id) == record
    assert b"former_metrics" not in planned(3).to_bytes(), "older readers take no key that they do not know"


def test_a_record_with_any_flipped_byte_is_not_used_but_its_copy_is(tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path), "run")
    record = committed(folder, 2)
    path = tmp_path / "run/trials" / record.id / "record.json"
    copy = path.with_name("record.copy.json")
    assert copy.read_bytes() == path.read_bytes()
    path.write_bytes(b"torn")
    assert folder.record(record.id) == record
    assert folder.damaged
    copy.unlink()
    whole = path.read_bytes()
    for position in range(0, len(whole), 7):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        assert folder.record(record.id) in (None, record)
    path.write_bytes(whole[: len(whole) // 2])
    assert folder.record(record.id) is None


@pytest.mark.parametrize("name", ["..", "a/../../b", "/etc", "", "a//b", "a\\b"])
def test_names_cannot_leave_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(StorageError, match="would leave"):
        Storage(str(tmp_path)).write(name or "a/", b"x")


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage(str(tmp_path))
    storage.write("a.json", b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(StorageError, match="disk is full"):
        storage.write("a.json", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert storage.read("a.json") == b"old"


def _hold(storage: str, holding: multiprocessing.synchronize.Event, over: multiprocessing.synchronize.Event) -> None:
    with RunFolder(storage, "run").lease():
        holding.set()
        over.wait(30)


def test_a_lease_is_refused_while_another_process_holds_it_and_free_once_it_was_killed(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    holding, over = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(str(tmp_path), holding, over))
    process.start()
    assert holding.wait(60)
    folder = RunFolder(str(tmp_path), "run")
    assert folder.is_driven()
    with pytest.raises(StorageError, match=f"process {process.pid} on"), folder.lease():
        pass
    process.kill()
    process.join()
    with folder.lease():
        assert not (tmp_path / "run/resolved.yaml").exists()


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """What NFS, Lustre and others answer where they are mounted without."""

    def flock(file: IO[str], kind: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)
    with (
        pytest.raises(StorageError, match=r"\.lease: this file system has no locks"),
        RunFolder(str(tmp_path), "run").lease(),
    ):
        pytest.fail("it must not be held")


def test_two_drivers_never_hold_a_folder_that_fresh_moved_while_one_of_them_waited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = (RunFolder(str(tmp_path), "run") for _ in range(3))
    first.files.write("resolved.yaml", b"")
    real_flock, held = fcntl.flock, contextlib.ExitStack()

    def flock(file: IO[str], kind: int) -> None:
        """The second driver has opened the lease's file; before it locks it, the first moves the folder away."""
        monkeypatch.setattr(fcntl, "flock", real_flock)
        with first.lease():
            first.set_aside()
        real_flock(file, kind)

    with held:
        monkeypatch.setattr(fcntl, "flock", flock)
        held.enter_context(second.lease())
        with pytest.raises(StorageError, match=f"process {os.getpid()} on"), third.lease():
            pass
    assert len(list(tmp_path.glob("run.*"))) == 1


def test_a_new_folder_is_on_the_disk_before_what_is_written_into_it_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: set[int] = set()
    real_fsync = os.fsync

    def fsync(handle: int) -> None:
        synced.add(os.fstat(handle).st_ino)
        real_fsync(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    folder = RunFolder(str(tmp_path / "disk/runs"), "run")
    with folder.lease():
        committed(folder, 1)
    names = (".", "disk", "disk/runs", "disk/runs/run", "disk/runs/run/trials", "disk/runs/run/trials/net-1a2b3c4d")
    assert {name for name in names if (tmp_path / name).stat().st_ino in synced} == set(names)


def test_opening_what_is_no_run_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="not a run folder"):
        open_run(str(tmp_path))
