"""States that trials leave for others: whole or none, found by key alone, deleted without a trace."""

from __future__ import annotations

from pathlib import Path

import pytest

from raysweep.store import Record, RunFolder
from raysweep.store.record import Origin, Score
from raysweep.store.states import StateStore

KEY = "0" * 32


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(str(tmp_path), "run")


def record_of(folder: RunFolder, epoch: int) -> Record:
    """A committed record of a trial with so many epochs, whose first one was the best."""
    rows = [{"epoch": each, "val_acc": 0.5} for each in range(1, epoch + 1)]
    record = Record("a-1", "a", 0, {}, {"lr": 0.1}, 9, "running", metrics=rows, best=Score(1, 0.5, False, 0.5))
    return folder.commit(record, {"last": b"of before", "best": b"the best weights", "correct": b"right"})


def test_a_state_has_the_record_the_given_files_and_those_that_the_trial_has_committed(folder):
    store, record = StateStore(folder), record_of(folder, 3)
    store.keep(KEY, record, {"last": b"state"})
    found, files = store.find(KEY)
    assert files == {"last": b"state", "best": b"the best weights", "correct": b"right"}
    assert (found.id, found.metrics, found.best) == (record.id, record.metrics, record.best)
    assert store.listed() == [KEY] == list(store.all())


def test_a_state_with_a_best_of_its_own_has_nothing_of_the_committed_one(folder):
    store = StateStore(folder)
    store.keep(KEY, record_of(folder, 3), {"last": b"state", "best": b"better"})
    assert store.find(KEY)[1] == {"last": b"state", "best": b"better"}


def test_a_state_outlives_the_files_of_the_trial_that_left_it(folder):
    store, record = StateStore(folder), record_of(folder, 3)
    store.keep(KEY, record, {"last": b"state"})
    folder.remove(record.id)
    assert store.find(KEY)[1]["best"] == b"the best weights"


@pytest.mark.parametrize("kind", ["last", "best", "correct"])
@pytest.mark.parametrize("what", ["lost", "torn", "another"])
def test_a_state_that_lacks_a_file_or_has_a_damaged_one_is_none_and_the_damage_is_told(folder, kind, what):
    store = StateStore(folder)
    store.keep(KEY, record_of(folder, 3), {"last": b"state"})
    path = Path(folder.path, "states", KEY, store.all()[KEY].weights[kind].file)
    data = path.read_bytes()
    path.unlink()  # it may be a second name of the trial's own file
    if what != "lost":
        path.write_bytes(data[:-1] if what == "torn" else data.upper())
    assert store.find(KEY) is None
    assert "trained again" in folder.damaged[f"states/{KEY}/{path.name}"]


def test_a_state_whose_record_is_not_there_or_damaged_is_none(folder):
    store = StateStore(folder)
    assert store.find(KEY) is None
    store.keep(KEY, record_of(folder, 3), {"last": b"state"})
    path = Path(folder.path, "states", KEY, "record.json")
    path.write_bytes(path.read_bytes().replace(b"0.5", b"0.6"))
    assert (store.find(KEY), store.all()) == (None, {})


def test_dropped_states_leave_nothing(folder):
    store = StateStore(folder)
    for key in (KEY, "1" * 32):
        store.keep(key, record_of(folder, 3), {"last": b"state"})
    store.drop([KEY, "2" * 32])
    assert store.listed() == ["1" * 32]
    assert [path.name for path in Path(folder.path, "states").iterdir()] == ["1" * 32]


def test_a_record_that_goes_back_keeps_the_origins_of_what_is_left_of_its_history(folder):
    record = record_of(folder, 6).with_(origins=[Origin("b", 1, 2), Origin("c", 4, 6)])
    assert [row["epoch"] for row in record.own_metrics] == [3]
    assert record.cut(5).origins == [Origin("b", 1, 2), Origin("c", 4, 5)]
    assert record.cut(3).origins == [Origin("b", 1, 2)]
    assert record.cut(0).origins == []
    assert Record.from_bytes(record.to_bytes(), record.id) == record
