"""Links inside a run folder, which may come from elsewhere: what is behind them stays as it is."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from run_folders import make_run

from raysweep.cli import main
from raysweep.errors import StorageError
from raysweep.results.run import open_run
from raysweep.store import RunFolder
from raysweep.store.filesystem import Storage
from raysweep.store.tensorboard import write_tensorboard

PLACES: dict[str, Callable[[str], str]] = {
    "a trial's folder": lambda trial: f"trials/{trial}",
    "a trial's folder of curves": lambda trial: f"tensorboard/{trial}",
    "the folder of all trials": lambda trial: "trials",
    "the folder of all curves": lambda trial: "tensorboard",
}


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    return make_run(tmp_path, epochs=2)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def link_to_precious(tmp_path: Path, place: Callable[[str], str]) -> tuple[Path, Path]:
    """Put a link in a place of the run folder `runs/made`; return it, and the folder with files behind it."""
    run = tmp_path / "runs/made"
    trial = sorted(path.name for path in (run / "trials").iterdir())[0]
    link, precious = run / place(trial), tmp_path / "precious"
    if link.exists():
        link.rename(precious)
    for path in ("thesis.tex", trial + "/thesis.tex", f"{trial}/events.out.tfevents.1"):
        (precious / path).parent.mkdir(parents=True, exist_ok=True)
        (precious / path).write_bytes(b"precious")
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(precious)
    return link, precious


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES.keys())
def test_a_run_ends_with_a_sentence_at_a_link_in_its_folder_and_deletes_nothing_behind_it(
    sweep: Path, tmp_path: Path, place: Callable[[str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    link, precious = link_to_precious(tmp_path, place)
    before = contents(precious)
    assert main(["run", str(sweep)]) == 2
    assert contents(precious) == before
    said = capsys.readouterr().err
    assert f"{link}: is a link" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES.keys())
def test_whatever_deletes_files_leaves_those_behind_a_link_alone(
    sweep: Path, tmp_path: Path, place: Callable[[str], str]
) -> None:
    link, precious = link_to_precious(tmp_path, place)
    before = contents(precious)
    folder = RunFolder(str(tmp_path / "runs"), "made")
    trial = sorted(path.name for path in precious.iterdir() if path.is_dir())[0]
    with suppress(StorageError):
        folder.tidy(trial)
    with suppress(StorageError):
        write_tensorboard(folder, open_run(str(tmp_path / "runs/made")).trials[0])
    with suppress(StorageError):
        folder.remove(trial)
    for words in (["--removed"], ["--dry-run"], ["--removed", "lr=0.3"]):
        main(["clean", str(sweep), *words])
    assert contents(precious) == before
    assert link.is_symlink()


def test_lists_leave_links_out_and_a_deleted_folder_takes_no_file_behind_them_along(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/precious").write_bytes(b"precious")
    storage = Storage(str(tmp_path / "run"))
    storage.write("trials/net-1a2b3c4d/record.json", b"1")
    (tmp_path / "run/trials/net-1a2b3c4d/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "run/trials/net-1a2b3c4d/file").symlink_to(tmp_path / "elsewhere/precious")
    (tmp_path / "run/trials/other-1a2b3c4d").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "run/loop").symlink_to(tmp_path / "run")
    assert storage.list_files(recursive=True) == ["trials/net-1a2b3c4d/record.json"]
    assert list(storage.list_sizes()) == ["trials/net-1a2b3c4d/record.json"]
    assert storage.list_folders("trials") == ["trials/net-1a2b3c4d"]
    assert storage.list_files("trials/net-1a2b3c4d") == ["trials/net-1a2b3c4d/record.json"]
    storage.delete_folder("trials/net-1a2b3c4d")
    assert (tmp_path / "elsewhere/precious").read_bytes() == b"precious"


@pytest.mark.parametrize("path", ["link/precious", "link", "file"])
def test_a_path_through_a_link_is_neither_read_nor_written_nor_deleted(tmp_path: Path, path: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/precious").write_bytes(b"precious")
    storage = Storage(str(tmp_path / "run"))
    storage.write("own", b"1")
    (tmp_path / "run/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "run/file").symlink_to(tmp_path / "elsewhere/precious")
    for action in (storage.read, storage.delete, storage.delete_folder, storage.is_file, storage.list_files):
        with pytest.raises(StorageError, match="is a link"):
            action(path)
    with pytest.raises(StorageError, match="is a link"):
        storage.write(path, b"2")
    assert contents(tmp_path / "elsewhere") == {"precious": b"precious"}


def test_a_lease_that_is_a_link_does_not_empty_the_file_behind_it(sweep: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    lease = tmp_path / "runs/made/.lease"
    lease.unlink(missing_ok=True)
    lease.symlink_to(precious)
    folder = RunFolder(str(tmp_path / "runs"), "made")
    with pytest.raises(StorageError, match=r"\.lease: is a link"), folder.lease():
        pass
    with pytest.raises(StorageError, match=r"\.lease: is a link"):
        folder.is_driven()
    assert precious.read_bytes() == b"precious"


def test_a_run_folder_that_is_a_link_itself_or_lies_behind_one_works_and_can_be_set_aside(
    sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "runs").rename(tmp_path / "large_disk")
    (tmp_path / "runs").symlink_to(tmp_path / "large_disk")
    (tmp_path / "large_disk/made").rename(tmp_path / "made_here")
    (tmp_path / "large_disk/made").symlink_to(tmp_path / "made_here")
    before = contents(tmp_path / "made_here/trials")
    assert main(["run", str(sweep)]) == 0
    assert main(["clean", str(sweep)]) == 0
    assert main(["status", str(tmp_path / "runs/made")]) == 0
    capsys.readouterr()
    folder = RunFolder(str(tmp_path / "runs"), "made")
    aside = folder.set_aside()
    assert aside
    assert not folder.exists()
    assert contents(tmp_path / "runs" / aside / "trials") == before
