"""The winner's evaluation at the end of a run: test accuracy, and accuracies under test-time augmentation.

The validation accuracy of the chosen trial is too good, since it was chosen by it. So the winner alone, once, is
measured on the test split, if the data has one. `evaluation.json` holds the result and the checksum of the weights.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from raysweep.store import Record, RunFolder
from raysweep.store.document import checked, seal, to_bytes, unseal

FILE = "evaluation.json"


@dataclass(frozen=True)
class Accuracies:
    """Accuracies (0..1) under one number of views."""

    tta: int  # the number of views; 0 is the image alone
    val_acc: float
    test_acc: float | None  # None if the data has no test split


@dataclass(frozen=True)
class Evaluation:
    """The evaluation of one trial's best weights."""

    id: str
    epoch: int
    averaged: bool  # whether they are the EMA weights
    weights: str  # the sha256 of the weights
    accuracies: list[Accuracies]  # sorted by the number of views
    before: list[str] = field(default_factory=list)  # the sha256 of those of the run that were measured before

    @property
    def networks(self) -> int:
        """How many networks of the run were measured so far: each is one more look at the test split."""
        return len({self.weights, *self.before})

    @property
    def test_acc(self) -> float | None:
        """Accuracy on the test split without test-time augmentation."""
        return next((row.test_acc for row in self.accuracies if row.tta == 0), None)

    def is_of(self, record: Record) -> bool:
        """Whether the evaluated weights are now the trial's best."""
        best = record.weights.get("best")
        return record.id == self.id and best is not None and best.sha256 == self.weights

    def as_json(self) -> dict[str, Any]:
        """Return the evaluation as it stands in `status --json` and in a pulled folder's metrics.json."""
        return {**asdict(self), "test_acc": self.test_acc}


def read_evaluation(folder: RunFolder) -> Evaluation | None:
    """Read the run folder's evaluation; None if there is none, or if it is damaged."""
    return folder.read(FILE, _parse, "the next run measures again")


def _parse(data: bytes) -> Evaluation:
    evaluation: Evaluation = checked(Evaluation, unseal(json.loads(data)))
    return evaluation


def write_evaluation(folder: RunFolder, evaluation: Evaluation) -> None:
    """Write evaluation.json."""
    folder.files.write(FILE, to_bytes(seal(evaluation.as_json())))


def views_to_evaluate(record: Record, asked: list[int]) -> list[int]:
    """Return the numbers of views that the sweep file asks for, and 0 if there is a test split."""
    return sorted({*asked, 0} if record.conditions.get("test_images") else {*asked})


def is_wanted(folder: RunFolder, best: Record | None, asked: list[int]) -> bool:
    """Whether the winner has weights, and accuracies are missing from the run folder's evaluation of them."""
    if best is None or "best" not in best.weights:
        return False
    done = read_evaluation(folder)
    known = {row.tta for row in done.accuracies} if done and done.is_of(best) else set()
    return not known.issuperset(views_to_evaluate(best, asked))
