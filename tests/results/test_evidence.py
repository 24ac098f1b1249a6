"""Which validation images each trial got right, read from a run folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from raysweep.driver.endings import drop_weights_of_losers
from raysweep.results.evidence import BoolArray, correct_of, pack, read_correct
from raysweep.results.ranking import rank
from raysweep.store import Record, RunFolder, Score
from raysweep.sweepfile.schema import Objective


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(str(tmp_path), "run")


def right(seed: int, images: int = 101) -> BoolArray:
    return np.random.default_rng(seed).random(images) < 0.7


def finished(folder: RunFolder, name: str, correct: BoolArray | None) -> Record:
    metrics = [{"epoch": 1, "val_acc": 0.5}, {"epoch": 2, "val_acc": 0.4}]
    record = Record(name, name, 0, {}, {}, 2, status="finished", metrics=metrics, best=Score(1, 0.5, False, 0.5))
    evidence = {} if correct is None else {"correct": pack(correct)}
    return folder.commit(record, {"best": b"weights", **evidence})


@pytest.mark.parametrize("images", [1, 7, 8, 10_000])
def test_what_was_right_is_read_back_in_its_order_from_about_a_bit_an_image(folder: RunFolder, images: int) -> None:
    record = finished(folder, "net", right(0, images))
    found = read_correct(folder, record)
    assert found is not None
    assert found.dtype == bool
    assert np.array_equal(found, right(0, images))
    assert record.weights["correct"].bytes < images / 8 + 600


def test_of_many_trials_each_has_its_own_and_those_without_have_none(folder: RunFolder) -> None:
    records = [finished(folder, f"net{seed}", None if seed == 2 else right(seed)) for seed in range(4)]
    found = correct_of(folder, records)
    assert found[2] is None
    assert [np.array_equal(each, right(seed)) for seed, each in enumerate(found) if each is not None] == [True] * 3


def test_what_is_damaged_or_of_another_epoch_than_the_best_is_as_none(folder: RunFolder) -> None:
    record = finished(folder, "net", right(0))
    assert read_correct(folder, record.with_(best=Score(2, 0.4, False, 0.4))) is None
    path = f"trials/{record.id}/{record.weights['correct'].file}"
    folder.files.write(path, folder.files.read(path)[:-1])
    assert read_correct(folder, record) is None
    assert path in folder.damaged


def test_losers_lose_their_weights_and_keep_what_they_got_right(folder: RunFolder) -> None:
    records = [finished(folder, f"net{seed}", right(seed)) for seed in range(2)]
    drop_weights_of_losers(folder, rank(records, Objective()), keep_best=1, objective=Objective())
    winner, loser = (folder.record(record.id) for record in records)
    assert winner is not None
    assert loser is not None
    assert (set(winner.weights), set(loser.weights)) == ({"best", "correct"}, {"correct"})
    correct = read_correct(folder, loser)
    assert correct is not None
    assert np.array_equal(correct, right(1))
