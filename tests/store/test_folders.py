"""Folders as one file."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from raysweep.errors import StorageError
from raysweep.store.folders import files_in, is_folder, pack, unpack


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "empty").mkdir()
    (folder / "b.bin").write_bytes(bytes(range(256)) * 40)
    (folder / "deep" / "er" / ("long" * 40)).write_text("ü")
    (folder / "a link").symlink_to(folder / "b.bin")
    return folder


def test_a_folder_comes_back_with_its_files_empty_folders_and_what_its_links_lead_to(
    folder: Path, tmp_path: Path
) -> None:
    unpack(pack(folder, {"beside": b"it"}), tmp_path / "again")
    assert files_in(tmp_path / "again") == sorted([*files_in(folder), "beside"])
    assert (tmp_path / "again" / "beside").read_bytes() == b"it"
    assert all((tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes() for name in files_in(folder))
    assert (tmp_path / "again" / "empty").is_dir()
    assert not (tmp_path / "again" / "a link").is_symlink()


def test_folders_of_the_same_content_are_the_same_bytes_whenever_and_in_whatever_order_they_were_written(
    folder: Path, tmp_path: Path
) -> None:
    again = tmp_path / "again"
    unpack(pack(folder), again)
    os.utime(again / "b.bin", (1, 1))
    (again / "b.bin").chmod(0o600)
    assert pack(again) == pack(folder)
    (again / "b.bin").write_bytes(b"other")
    assert pack(again) != pack(folder)


def test_only_some_of_the_files_are_packed_where_those_are_named(folder: Path, tmp_path: Path) -> None:
    unpack(pack(folder, only={"b.bin"}), tmp_path / "again")
    assert files_in(tmp_path / "again") == ["b.bin"]


def test_packed_folders_even_empty_ones_are_told_from_other_files(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    assert is_folder(pack(folder))
    assert is_folder(pack(tmp_path / "none"))
    assert not is_folder(b"PK\3\4" + bytes(600))


@pytest.mark.parametrize("kind", ["../outside", "/tmp/outside", "link"])
def test_a_tar_that_would_write_outside_is_refused(kind: str, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo(kind)
        if kind == "link":
            entry.type, entry.linkname = tarfile.SYMTYPE, "../outside"
        archive.addfile(entry)
    if kind.startswith("/"):  # tar takes the slash away, so it lies inside
        unpack(buffer.getvalue(), tmp_path / "in")
        assert files_in(tmp_path / "in") == ["tmp/outside"]
        return
    with pytest.raises(StorageError, match="cannot be unpacked"):
        unpack(buffer.getvalue(), tmp_path / "in")
    assert not (tmp_path / "outside").exists()


def test_what_is_no_tar_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be unpacked"):
        unpack(b"nonsense" * 100, tmp_path)
