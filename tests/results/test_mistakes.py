"""What the winner gets wrong, as it is found at the end of a run and kept in the run folder."""

from __future__ import annotations

import io
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save as save_safetensors

from raysweep.errors import StorageError
from raysweep.loops import CLASSIFY, TrialContext, evaluating_loop
from raysweep.results.checkpoint import build_from_record
from raysweep.results.evidence import pack, read_correct
from raysweep.results.mistakes import (
    FILE,
    Mistakes,
    is_wanted,
    most_confident,
    only_one_is_right,
    read_mistakes,
    rival_of,
    write_mistakes,
)
from raysweep.results.ranking import rank
from raysweep.store import Record, RunFolder, Score
from raysweep.sweepfile.schema import Objective
from raysweep.worker.mistakes import find_mistakes

LOOP = evaluating_loop(CLASSIFY)

CONFIG: dict[str, Any] = {
    "data": {"name": "synthetic", "image_size": 8, "classes": 3, "per_class": 60},
    "model": {"name": "baseline_block", "width": 4},
    "epochs": 1,
    "batch_size": 32,
    "precision": "fp32",
}


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(str(tmp_path), "run")


@pytest.fixture
def arrays(tmp_path: Path) -> dict[str, Any]:
    return LOOP.prepare(LOOP.config.model_validate(CONFIG), tmp_path)


def trained(folder: RunFolder, arrays: dict[str, Any], lr: float, seed: int = 0) -> Record:
    config = {**CONFIG, "lr": lr}
    settings = LOOP.config.model_validate(config)
    conditions = LOOP.conditions(settings, arrays)
    (epoch,) = (
        (
            {"epoch": 1, **epoch.metrics},
            {name: weight.clone(memory_format=torch.contiguous_format) for name, weight in epoch.weights().items()},
            epoch.correct(),
        )
        for epoch in LOOP.train(settings, TrialContext(seed, data=arrays, conditions=conditions))
    )
    metrics, weights, correct = epoch
    assert correct is not None
    best = Score(1, metrics["val_acc"], False, metrics["val_acc"])
    record = Record(f"net-{lr}-{seed}", "net", seed, {}, config, 1, "finished", conditions, [metrics], best)
    return folder.commit(record, {"best": save_safetensors(weights), "correct": pack(correct.numpy())})


def found(folder: RunFolder, winner: Record, rival: Record | None, arrays: Any, images: bool = True) -> Mistakes:
    return find_mistakes(folder, winner, rival, build_from_record(folder, winner), arrays, images, "cpu")


def test_answers_are_right_where_the_evidence_says_so_and_are_read_back_as_written(
    folder: RunFolder, arrays: dict[str, Any]
) -> None:
    winner, rival = (trained(folder, arrays, lr) for lr in (0.05, 0.001))
    write_mistakes(folder, found(folder, winner, rival, arrays))
    mistakes = read_mistakes(folder)
    assert mistakes is not None
    assert mistakes.rival is not None
    assert np.array_equal(mistakes.truth, arrays["val_labels"])
    for record, answers in ((winner, mistakes.winner), (rival, mistakes.rival)):
        assert np.array_equal(answers.correct, read_correct(folder, record))
        assert np.array_equal(answers.correct, answers.labels == mistakes.truth)
        assert answers.probabilities is not None
        assert 1 / 3 <= answers.probabilities.min() <= answers.probabilities.max() <= 1
    assert mistakes.test_correct is None


def test_without_the_runner_ups_weights_it_is_still_known_what_it_got_right(
    folder: RunFolder, arrays: dict[str, Any]
) -> None:
    winner, rival = (trained(folder, arrays, lr) for lr in (0.05, 0.001))
    with_weights = found(folder, winner, rival, arrays)
    rival = folder.commit(rival, {}, keep=("correct",))
    mistakes = found(folder, winner, rival, arrays)
    assert mistakes.rival is not None
    assert mistakes.rival.labels is None
    assert only_one_is_right(mistakes) == only_one_is_right(with_weights)
    assert mistakes.is_of(winner, rival)


def test_thumbnails_are_those_of_the_surest_mistakes_and_none_where_they_are_not_wanted(
    folder: RunFolder, arrays: dict[str, Any]
) -> None:
    winner, rival = (trained(folder, arrays, lr) for lr in (0.05, 0.001))
    mistakes = found(folder, winner, rival, arrays)
    rows, (winners, rivals) = most_confident(mistakes), only_one_is_right(mistakes)
    assert rows
    assert set(mistakes.thumbnails) == {*rows, *winners, *rivals}
    sureness = mistakes.winner.probabilities
    assert sureness is not None
    assert list(sureness[rows]) == sorted(sureness[~mistakes.winner.correct], reverse=True)[: len(rows)]
    write_mistakes(folder, mistakes)
    again = read_mistakes(folder)
    assert again is not None
    assert again.thumbnails == mistakes.thumbnails
    picture = Image.open(io.BytesIO(again.thumbnails[rows[0]]))
    assert (picture.format, picture.size) == ("WEBP", (8, 8))
    assert found(folder, winner, rival, arrays, images=False).thumbnails == {}


def test_thumbnails_of_noisy_images_stay_below_a_hundred_kilobytes(folder: RunFolder, arrays: dict[str, Any]) -> None:
    winner = trained(folder, arrays, 0.0001)
    noise = np.random.default_rng(0).integers(0, 256, (len(arrays["val_labels"]), 3, 80, 80), dtype=np.uint8)
    network = build_from_record(folder, winner)
    mistakes = find_mistakes(folder, winner, None, network, {**arrays, "val_images": noise}, True, "cpu")
    assert 5 < len(mistakes.thumbnails) < len(most_confident(mistakes))
    assert sum(map(len, mistakes.thumbnails.values())) * 4 / 3 < 100_000


def test_mistakes_are_wanted_until_they_are_those_of_the_present_winner_and_runner_up(
    folder: RunFolder, arrays: dict[str, Any]
) -> None:
    first, second, third = (trained(folder, arrays, lr) for lr in (0.05, 0.01, 0.001))
    assert not is_wanted(folder, None, None, images=True)
    assert is_wanted(folder, first, second, images=True)
    write_mistakes(folder, found(folder, first, second, arrays))
    assert not is_wanted(folder, first, second, images=True)
    assert is_wanted(folder, first, second, images=False), "thumbnails are there that are no longer wanted"
    assert is_wanted(folder, first, third, images=True)
    assert is_wanted(folder, second, first, images=True)
    assert is_wanted(folder, first, None, images=True)
    again = folder.commit(first, {"best": b"other weights", "correct": b""})
    assert is_wanted(folder, again, second, images=True)
    assert not is_wanted(folder, folder.commit(again, {"best": b"of an older raysweep"}), second, images=True)


def test_a_damaged_file_is_as_none(folder: RunFolder, arrays: dict[str, Any]) -> None:
    write_mistakes(folder, found(folder, trained(folder, arrays, 0.05), None, arrays))
    whole = folder.files.read(FILE)
    for damaged in (whole[:-20], whole.replace(b"truth", b"truht"), whole.replace(b'"winner"', b'"looser"'), b"{}"):
        folder.files.write(FILE, damaged)
        assert read_mistakes(folder) is None


def test_the_runner_up_is_the_best_seed_of_the_next_config_on_the_same_images(
    folder: RunFolder, arrays: dict[str, Any]
) -> None:
    first, seed, second = (trained(folder, arrays, *of) for of in ((0.05, 0), (0.05, 1), (0.01, 0)))
    ranked = partial(rank, objective=Objective())
    first, second = ranked([first, seed, second])[0].trials[0], ranked([first, seed, second])[1].trials[0]
    assert rival_of(folder, ranked([seed, second, first])) == second
    assert rival_of(folder, ranked([first, seed])) is None
    assert rival_of(folder, []) is None
    elsewhere = replace(second, conditions={**second.conditions, "data": "others"})
    assert rival_of(folder, ranked([first, elsewhere])) is None
    worse = trained(folder, arrays, 0.01, 1)
    better, worse = ranked([second, worse])[0].trials
    without_weights = folder.commit(better, {}, keep=("correct",))
    assert rival_of(folder, ranked([first, without_weights, worse])) == without_weights, "or a rerun would ask again"
    second = folder.record(second.id) or second
    assert rival_of(folder, ranked([first, folder.commit(second, {}, keep=("best",))])) is None, "no evidence"


def test_other_images_than_the_winner_was_trained_on_are_refused(folder: RunFolder, arrays: dict[str, Any]) -> None:
    winner = trained(folder, arrays, 0.05)
    with pytest.raises(StorageError, match="trained on other images or labels"):
        found(folder, winner, None, {**arrays, "fingerprint": "other"})
