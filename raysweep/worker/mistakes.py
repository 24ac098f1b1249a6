"""What the winner and the runner-up answer on the validation images: records and arrays in, `Mistakes` out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from torch import nn

from raysweep.errors import StorageError
from raysweep.loops import EvaluatingLoop, evaluating_loop, loop_of
from raysweep.results.checkpoint import build_from_record
from raysweep.results.evidence import read_correct
from raysweep.results.mistakes import Answers, Mistakes, most_confident, only_one_is_right
from raysweep.store import Record, RunFolder

MOST_BYTES = 70_000
"""The size of all thumbnails together at most; as text in a page they take a third more."""


def find_mistakes(
    folder: RunFolder,
    winner: Record,
    rival: Record | None,
    network: nn.Module,
    arrays: dict[str, Any],
    images: bool,
    device: str,
) -> Mistakes:
    """Return what a network of the winner's best weights gets wrong, and with `images` the thumbnails to show.

    Raises:
        StorageError: the images or labels are others than those that the winner was trained on.
    """
    loop = evaluating_loop(loop_of(winner.conditions))
    found = loop.answers(winner.conditions, network, arrays, "val", device)
    assert found is not None  # every data set has validation images
    truth, labels, probabilities = found
    test = loop.answers(winner.conditions, network, arrays, "test", device)
    mistakes = Mistakes(
        truth=_small(truth),
        winner=_answers(winner, "best", truth, labels, probabilities),
        rival=None if rival is None else _rivals(loop, folder, rival, arrays, device),
        test_correct=None if test is None else test[0] == test[1],
        wants_images=images,
        thumbnails={},
    )
    return replace(mistakes, thumbnails=_thumbnails(loop, mistakes, arrays)) if images else mistakes


def _rivals(
    loop: EvaluatingLoop, folder: RunFolder, rival: Record, arrays: dict[str, Any], device: str
) -> Answers | None:
    """Return what the runner-up answers; only which images it gets right where its weights are no longer whole."""
    try:
        found = loop.answers(rival.conditions, build_from_record(folder, rival), arrays, "val", device)
    except StorageError:
        correct = read_correct(folder, rival)
        made_from = rival.weights["correct"].sha256
        return None if correct is None else Answers(rival.id, made_from, correct, None, None)
    assert found is not None
    return _answers(rival, "correct", *found)


def _answers(record: Record, kind: str, truth: Any, labels: Any, probabilities: Any) -> Answers:
    made_from = record.weights[kind].sha256
    return Answers(record.id, made_from, truth == labels, _small(labels), probabilities.astype(np.float32))


def _small(labels: Any) -> Any:
    """Return labels in the smallest type that holds them."""
    return labels.astype(np.min_scalar_type(labels.max(initial=0)))


def _thumbnails(loop: EvaluatingLoop, mistakes: Mistakes, arrays: dict[str, Any]) -> dict[int, bytes]:
    """Return the pictures of what is shown, as many as may be, the most confident mistakes first."""
    winners, rivals = only_one_is_right(mistakes)
    rows = list(dict.fromkeys([*most_confident(mistakes), *rivals, *winners]))
    pictures = loop.thumbnails(arrays, rows)
    ends = np.cumsum([len(picture) for picture in pictures])
    return {row: picture for row, picture, end in zip(rows, pictures, ends, strict=True) if end <= MOST_BYTES}
