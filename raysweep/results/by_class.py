"""Where a classifier errs: accuracy by class, classes taken for one another, two networks on the same images.

Labels are whole numbers from 0, one for each image; what was right is a bool for each image.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.integer[Any]]
BoolArray = NDArray[np.bool_]
CONFIDENCE = 0.95


@dataclass(frozen=True)
class ClassAccuracy:
    """How many images of one class are answered right."""

    label: int
    images: int
    right: int
    low: float  # the interval of the accuracy, see `wilson`
    high: float

    @property
    def accuracy(self) -> float:
        """The share of the class's images that are right, 0..1."""
        return self.right / self.images

    def as_json(self) -> dict[str, Any]:
        """Return its numbers by name, but for the label."""
        numbers = asdict(self)
        del numbers["label"]
        return {**numbers, "accuracy": self.accuracy}


@dataclass(frozen=True)
class Confusion:
    """How often one class is taken for another."""

    truth: int
    answer: int
    images: int  # that are of the one and answered as the other
    of: int  # images of the one


@dataclass(frozen=True)
class Duel:
    """Two networks on the same images."""

    both: int  # images that both get right
    first: int  # images that only the first gets right
    second: int
    neither: int
    p: float  # of McNemar's exact test: how often two equally good networks differ by as much or more


def accuracy_by_class(truth: Labels, correct: BoolArray) -> list[ClassAccuracy]:
    """Return the accuracy of each class that has images, the worst first, then by label."""
    found = []
    for label, images in zip(*np.unique(truth, return_counts=True), strict=True):
        right = int(correct[truth == label].sum())
        found.append(ClassAccuracy(int(label), int(images), right, *wilson(right, int(images))))
    return sorted(found, key=lambda each: (each.accuracy, each.label))


def wilson(right: int, images: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return Wilson's interval of a proportion, which keeps its level where images are few (Brown et al. 2001)."""
    from scipy.stats import binomtest

    interval = binomtest(right, images).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def confusion_matrix(truth: Labels, answers: Labels, classes: int) -> NDArray[np.int64]:
    """Return how many images of each class (row) got each answer (column)."""
    # scikit-learn's function of this name does no more, and takes a second to import.
    counts = np.bincount(truth.astype(np.int64) * classes + answers, minlength=classes**2)
    return counts.reshape(classes, classes)


def most_confused(matrix: NDArray[np.int64], most: int) -> list[Confusion]:
    """Return at most so many pairs of a class and what it is taken for: those of most images first, then by label."""
    mistakes = matrix * (1 - np.eye(len(matrix), dtype=np.int64))
    order = np.argsort(-mistakes, axis=None, kind="stable")[:most]
    pairs = zip(*np.unravel_index(order, mistakes.shape), strict=True)
    totals = matrix.sum(axis=1)
    return [
        Confusion(int(truth), int(answer), int(mistakes[truth, answer]), int(totals[truth]))
        for truth, answer in pairs
        if mistakes[truth, answer]
    ]


def duel(first: BoolArray, second: BoolArray) -> Duel:
    """Compare which images two networks get right, by McNemar's exact test (a binomial one of those that differ)."""
    from scipy.stats import binomtest

    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    differ = only_first + only_second
    p = float(binomtest(only_first, differ).pvalue) if differ else 1.0
    return Duel(int((first & second).sum()), only_first, only_second, int((~first & ~second).sum()), p)
