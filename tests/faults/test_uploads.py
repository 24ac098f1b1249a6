"""Commits beside training: at most one behind, in order, and their faults are heard of."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from raysweep.errors import StorageError
from raysweep.store import Record, RunFolder, Score
from raysweep.store.uploads import Uploads

TRIAL = "net-1a2b3c4d"


def record(epoch: int) -> Record:
    metrics = [{"epoch": e + 1} for e in range(epoch)]
    return Record(TRIAL, "net", 0, {}, {}, 10, status="running", metrics=metrics, best=Score(1, 0.1, False, 0.1))


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(str(tmp_path), "run")


def test_training_goes_on_while_a_commit_is_on_its_way_and_waits_before_the_next(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, write = threading.Event(), folder.files.write

    def slowly(path: str, data: bytes) -> None:
        assert gate.wait(30)
        write(path, data)

    monkeypatch.setattr(folder.files, "write", slowly)
    uploads = Uploads(folder)
    uploads.begin(record(1), {"last": b"one", "best": b"first"})
    assert folder.record(TRIAL) is None, "we go on while nothing is written yet"
    second = threading.Thread(target=uploads.begin, args=(record(2), {"last": b"two"}))
    second.start()
    second.join(0.2)
    assert second.is_alive(), "it is one behind, not two"
    gate.set()
    second.join(30)
    now = uploads.finish(record(3))
    assert folder.resume_point(TRIAL) == (now.with_(metrics=now.metrics[:2]), b"two")
    assert {kind: entry.epoch for kind, entry in now.weights.items()} == {"last": 2, "best": 1}
    assert now.previous["last"].epoch == 1
    assert folder.rubbish(folder.files.list_files(recursive=True)) == {}


def test_with_nothing_on_its_way_a_record_stays_as_it_is(folder: RunFolder) -> None:
    assert Uploads(folder).finish(record(3)) == record(3)


def test_a_fault_is_raised_at_the_next_commit_and_the_commit_before_is_there(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploads = Uploads(folder)
    uploads.begin(record(1), {"last": b"one"})
    first = uploads.finish(record(1))

    def away(path: str, data: bytes) -> None:
        raise StorageError("the store does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(folder.files, "write", away)
        uploads.begin(first.with_(metrics=record(2).metrics), {"last": b"two"})
        with pytest.raises(StorageError, match="does not answer"):
            uploads.begin(first.with_(metrics=record(3).metrics), {"last": b"three"})
    assert uploads.finish(first) == first
    assert folder.resume_point(TRIAL) == (first, b"one")
