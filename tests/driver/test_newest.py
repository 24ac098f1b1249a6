"""The epochs that are not in results.parquet yet: what the driver tells of them, and what readers make of it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from run_folders import curve, make_run

from raysweep.driver import run
from raysweep.driver.board import Board
from raysweep.driver.during import _telling_newest
from raysweep.errors import Interrupted, StorageError
from raysweep.results.ranking import standings
from raysweep.results.run import SweepResult, read_results
from raysweep.store import Record, RunFolder
from raysweep.store.exports import write_results
from raysweep.store.newest import FILE, MOST_EPOCHS, remove_newest, write_newest
from raysweep.sweepfile import Sweep
from raysweep.sweepfile.named import Named


def running_after_three(record: Record, place: int) -> Record:
    return record.with_(status="running", metrics=record.metrics[:3]) if place == 0 else record


class Driver:
    """A run folder with a trial that has committed three epochs, and what its driver does as more epochs come."""

    def __init__(self, tmp_path: Path) -> None:
        make_run(tmp_path, epochs=12, end=running_after_three)
        self.folder = RunFolder(str(tmp_path / "runs"), "made")
        records = read_results(self.folder).trials
        self.id = next(record.id for record in records if record.epoch == 3)
        self.board = Board(records, maximize=True)
        self.board.update(self.id, "started", status="running")
        self.curve = curve(12, 0.5, 0)

    def train(self, *epochs: int, **changes: float) -> None:
        for epoch in epochs:
            self.board.note_epoch(self.id, {**self.curve[epoch - 1], **changes})
            self.board.update(self.id, "epoch", epoch=epoch)

    def tell(self) -> None:
        tails = self.board.newest()
        if tails is not None:
            write_newest(self.folder, tails)

    def export(self) -> None:
        with self.board.changes():
            self.write_parquet()

    def write_parquet(self) -> None:
        result = read_results(self.folder)
        records = [self.board.ahead_of(record, result.objective) for record in result.trials]
        write_results(self.folder, records, standings(result.configs))

    def seen(self) -> Record:
        """The trial as another process sees it."""
        with self.folder.lease():
            result: SweepResult = read_results(self.folder, live=True)
        return next(record for record in result.trials if record.id == self.id)


@pytest.fixture
def driver(tmp_path: Path) -> Driver:
    return Driver(tmp_path)


def test_a_reader_sees_epochs_that_no_commit_and_no_export_has(driver: Driver) -> None:
    driver.train(4, 5)
    driver.tell()
    assert driver.seen().metrics == driver.curve[:5]
    assert driver.seen().status == "running"


def test_epochs_are_there_whichever_export_a_reader_finds_beside_them(driver: Driver) -> None:
    driver.train(4)
    driver.export()
    driver.train(5)
    with driver.board.changes():  # an export has begun, and the one before is still in place
        driver.train(6)
        driver.tell()
        assert driver.seen().epoch == 6
        driver.write_parquet()
    assert driver.seen().epoch == 6


def test_an_export_that_fails_leaves_no_gap(driver: Driver) -> None:
    driver.export()
    driver.train(4)
    with pytest.raises(OSError), driver.board.changes():
        raise OSError
    with pytest.raises(OSError), driver.board.changes():
        raise OSError
    driver.train(5)
    driver.tell()
    assert driver.seen().metrics == driver.curve[:5]


def test_epochs_that_were_lost_with_a_process_give_way_to_those_trained_again(driver: Driver) -> None:
    driver.train(4, 5, 6, 7)
    driver.export()
    driver.train(4, 5, val_acc=0.25)
    driver.tell()
    assert [row["val_acc"] for row in driver.seen().metrics[3:]] == [0.25, 0.25]


def test_nothing_new_is_told_twice_and_a_damaged_or_removed_file_is_no_loss(driver: Driver, tmp_path: Path) -> None:
    driver.train(4)
    driver.tell()
    assert driver.board.newest() is None
    path = tmp_path / "runs/made" / FILE
    path.write_bytes(path.read_bytes().replace(b"val_acc", b"val_ACC"))
    assert driver.seen().epoch == 3
    assert FILE in driver.folder.damaged
    remove_newest(driver.folder)
    assert driver.seen().epoch == 3


def test_five_thousand_trials_are_told_within_a_bound_the_newest_first(driver: Driver, tmp_path: Path) -> None:
    record = driver.board.trials[driver.id].record
    row: dict[str, Any] = driver.curve[0]
    rows = [{**row, "epoch": epoch + 1} for epoch in range(10)]
    trials = [record.with_(id=f"trial-{place}", metrics=[]) for place in range(5000)]
    board = Board(trials, maximize=True)
    for trial in trials:
        for each in rows:
            board.note_epoch(trial.id, each)
    tails = board.newest()
    assert tails is not None
    write_newest(driver.folder, tails)
    assert sum(len(tail.rows) for tail in tails.values()) == MOST_EPOCHS
    assert "trial-4999" in tails  # the newest ones
    assert (tmp_path / "runs/made" / FILE).stat().st_size < 6e6


def test_the_last_epochs_stay_to_be_seen_while_the_winner_is_evaluated(driver: Driver) -> None:
    told: Any = SimpleNamespace(board=driver.board, folder=driver.folder)
    with _telling_newest(told, lambda action: action()):
        driver.train(4, 5)
    assert driver.seen().metrics == driver.curve[:5]


def test_epochs_that_a_killed_run_told_are_gone_once_the_next_run_holds_the_folder(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver.train(4, 5)
    driver.tell()
    assert driver.seen().epoch == 5

    def look(sweep: Sweep, folder: RunFolder, confirm: bool) -> Sweep:
        raise Interrupted(str([record.epoch for record in read_results(folder, live=True).trials]))

    monkeypatch.setattr(run, "keep_confirming", look)  # the first that a run asks for
    with pytest.raises(Interrupted, match=r"\b3\b") as seen:
        run.run_sweep(Sweep(name="made"), driver.folder, Named("made.yaml"))
    assert "5" not in str(seen.value)


def test_a_file_that_cannot_be_removed_ends_nothing(driver: Driver, tmp_path: Path) -> None:
    (tmp_path / "runs/made" / FILE).mkdir()
    with pytest.raises(StorageError):
        driver.folder.files.delete(FILE)
    remove_newest(driver.folder)
