"""Disks that are full, read-only or forbidden, and names that are too long: a clear error, and a rerun works."""

from __future__ import annotations

import json
import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from run_folders import make_run

from raysweep.cli import main
from raysweep.errors import StorageError
from raysweep.results.checkpoint import write_files
from raysweep.store import Record, RunFolder
from raysweep.store.filesystem import Storage

pytestmark = pytest.mark.slow
TRIAL = "net-1a2b3c4d"
AS_NOBODY = 65534


def record(epoch: int) -> Record:
    return Record(TRIAL, "net", 0, {}, {}, 10, status="running", metrics=[{"epoch": e + 1} for e in range(epoch)])


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if (
        os.geteuid()
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=False).returncode
    ):
        pytest.skip("mounting a small file system takes root")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_said_leaves_the_commit_before_and_no_rubbish_and_a_rerun_works(small_disk: Path) -> None:
    folder = RunFolder(str(small_disk), "run")
    before = folder.commit(record(1), {"last": b"1" * 300_000})
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(500_000))
    kept = names(small_disk)
    following = record(2).with_(weights=before.weights)
    for _ in range(2):
        with pytest.raises(StorageError, match=r"last\.2\..*: the disk is full; make room"):
            folder.commit(following, {"last": b"2" * 300_000})
        assert names(small_disk) == kept
        assert RunFolder(str(small_disk), "run").resume_point(TRIAL) == (before, b"1" * 300_000)
    ballast.unlink()
    after = folder.commit(following, {"last": b"2" * 300_000})
    assert folder.resume_point(TRIAL) == (after, b"2" * 300_000)


def test_a_disk_without_room_for_the_record_keeps_the_commit_before(small_disk: Path) -> None:
    folder = RunFolder(str(small_disk), "run")
    before = folder.commit(record(1), {"last": b"1" * 1000})
    free = os.statvfs(small_disk)
    (small_disk / "ballast").write_bytes(bytes((free.f_bavail - 1) * free.f_bsize))
    with pytest.raises(StorageError, match="the disk is full"):
        folder.commit(record(2).with_(weights=before.weights), {"last": b"2" * 1000})
    again = RunFolder(str(small_disk), "run")
    assert again.resume_point(TRIAL) == (before, b"1" * 1000)
    again.tidy(TRIAL)
    assert names(small_disk / "run") == {"record.json", "record.copy.json", before.weights["last"].file}


def test_a_full_disk_leaves_no_half_pulled_folder(small_disk: Path) -> None:
    with pytest.raises(StorageError, match="the disk is full"):
        write_files(small_disk / "best", {"a.json": b"{}", "model.safetensors": bytes(2_000_000)})
    write_files(small_disk / "best", {"a.json": b"{}", "model.safetensors": bytes(200_000)})
    assert names(small_disk) == {"a.json", "model.safetensors"}


def test_a_limit_on_file_sizes_is_said(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(StorageError, match=r"larger than may be written here \(ulimit -f\)"):
            Storage(str(tmp_path)).write("a", bytes(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert names(tmp_path) == set()


def test_a_read_only_disk_can_be_read_and_says_so_when_written_to(
    small_disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = make_run(tmp_path, epochs=2)
    subprocess.run(["cp", "-r", tmp_path / "runs/made", small_disk], check=True)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    assert main(["status", str(path), "--json", "--storage", str(small_disk)]) == 0
    assert len(json.loads(capsys.readouterr().out)["trials"]) == 12
    folder = RunFolder(str(small_disk), "made")
    with pytest.raises(StorageError, match="read-only file system"):
        folder.commit(record(1), {})
    with pytest.raises(StorageError, match="read-only file system"), folder.lease():
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user takes root")
def test_a_folder_without_permission_is_said(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    folder = RunFolder(str(tmp_path), "run")
    os.seteuid(AS_NOBODY)
    try:
        with pytest.raises(StorageError, match="no permission; change it, or choose another place with --storage"):
            folder.files.write("a", b"1")
        with pytest.raises(StorageError, match="no permission"), folder.lease():
            pass
    finally:
        os.seteuid(0)
    assert names(tmp_path) == set()


def test_a_name_that_is_too_long_is_said(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="the name is too long for this file system"):
        Storage(str(tmp_path)).write("n" * 300, b"1")
    with pytest.raises(StorageError, match="the name is too long"):
        RunFolder(str(tmp_path / ("n" * 300)), "run").check_place()
    Storage(str(tmp_path)).write("n" * 250, b"1")


def test_a_file_in_a_folders_place_is_said(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(StorageError, match="a file is in the run folder's place"):
        RunFolder(str(tmp_path), "run").check_place()
    with pytest.raises(StorageError, match="a file is where a folder must be"):
        Storage(str(tmp_path)).write("run/a", b"1")
    with pytest.raises(StorageError, match="a folder is where a file must be"):
        Storage(str(tmp_path.parent)).write(tmp_path.name, b"1")


def test_a_run_cut_off_before_its_plan_was_written_goes_on(tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path), "run")
    with folder.lease():
        folder.files.write("sweep.yaml", b"name: run")
    folder.check_place()
    (tmp_path / "run/holiday.jpg").touch()
    with pytest.raises(StorageError, match="not a run folder"):
        folder.check_place()


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_files_are_made_with_the_users_umask(tmp_path: Path, umask: int) -> None:
    old = os.umask(umask)
    try:
        Storage(str(tmp_path)).write("deep/a", b"1")
        write_files(tmp_path / "pulled", {"b": b"1"})
    finally:
        os.umask(old)
    for name in ("deep/a", "pulled/b"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o666 & ~umask
    assert (tmp_path / "deep").stat().st_mode & 0o777 == 0o777 & ~umask
