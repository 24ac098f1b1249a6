"""The run folder's commits, and what reading makes of damage."""

from __future__ import annotations

import multiprocessing
import multiprocessing.synchronize
import os
from pathlib import Path

import pytest

from raysweep.errors import StorageError
from raysweep.results.run import open_run
from raysweep.store import Record, RunFolder
from raysweep.store.filesystem import Storage


def planned(epoch: int = 0) -> Record:
    return Record(
        "net-1a2b3c4d", "net", 0, {}, {}, 10, metrics=[{"epoch": e + 1, "val_acc": 0.1} for e in range(epoch)]
    )


def committed(folder: RunFolder, epoch: int, before: Record | None = None) -> Record:
    record = planned(epoch).with_(status="running", weights=before.weights if before else {})
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


def test_listing_does_not_look_behind_links_to_folders(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/precious").touch()
    storage = Storage(str(tmp_path / "run"))
    storage.write("a/b", b"1")
    (tmp_path / "run/a/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "run/loop").symlink_to(tmp_path / "run")
    assert storage.list_files(recursive=True) == ["a/b"]
    assert storage.list_sizes() == {"a/b": 1}
    assert storage.list_folders() == ["a", "loop"]


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


def test_opening_what_is_no_run_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="not a run folder"):
        open_run(str(tmp_path))
