"""Chooses the rows of a source that are trained on and those held out, as pure functions of labels and config."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from raysweep.errors import DataError
from raysweep.vision.config import DataConfig
from raysweep.vision.data.raw import Labels, RawData, RawSplit, Rows

DEFAULT_VAL_FRACTION = 0.2

Chosen = tuple[RawSplit, Rows, Labels]
"""A split of the source, the rows taken from it (ascending), and the labels of those rows."""


def choose(raw: RawData, config: DataConfig, classes: Sequence[str]) -> dict[str, Chosen]:
    """Return the chosen rows of `train`, of `val` and, where the source has one, of `test`.

    Which images of a class are held out depends only on the seed and the class, so neither `classes` nor `per_class`
    moves an image from one side to the other.
    """
    labels = raw.train.labels()
    rows = np.flatnonzero(labels < len(classes))
    if raw.val is None or config.val_fraction is not None:
        held_out = hold_out(labels, len(classes), config.val_fraction or DEFAULT_VAL_FRACTION, config.seed)
        val = (raw.train, held_out, labels[held_out])
        rows = np.setdiff1d(rows, held_out)
    else:
        val = _whole(raw.val, len(classes))
    if config.per_class is not None:
        rows = first_of_each(labels, rows, config.per_class)
    chosen = {"train": (raw.train, rows, labels[rows]), "val": val}
    if raw.test is not None:
        chosen["test"] = _whole(raw.test, len(classes))
    for name, (_, _, taken) in chosen.items():
        check_every_class(name, taken, classes)
    return chosen


def check_every_class(split: str, labels: Labels, classes: Sequence[str]) -> None:
    """Refuse a split without images, and training images that lack a class; raises DataError, which names it."""
    if len(labels) == 0:
        raise DataError(f"the {split} split has no images")
    counts = np.bincount(labels, minlength=len(classes))
    empty = [f"{index} ({classes[index]})" for index in np.flatnonzero(counts == 0).tolist()]
    if split == "train" and empty:
        more = f" and {len(empty) - 5} more" if len(empty) > 5 else ""
        raise DataError(f"no training images for class {', '.join(empty[:5])}{more}")


def hold_out(labels: Labels, classes: int, fraction: float, seed: int) -> Rows:
    """Return the rows held out for validation, ascending: `fraction` of each class, and at least one row."""
    held_out = []
    for label in range(classes):
        rows = np.flatnonzero(labels == label)
        number = max(1, round(fraction * len(rows)))
        if len(rows) and number >= len(rows):
            raise DataError(
                f"class {label} has {len(rows)} images: holding out {fraction:g} of them for validation leaves none"
            )
        held_out.append(np.random.default_rng([seed, label]).permutation(rows)[:number])
    return np.sort(np.concatenate(held_out))


def first_of_each(labels: Labels, rows: Rows, number: int) -> Rows:
    """Return the first `number` of `rows` in each class, ascending."""
    taken = [rows[labels[rows] == label][:number] for label in np.unique(labels[rows])]
    return np.sort(np.concatenate(taken)) if taken else rows


def _whole(split: RawSplit, classes: int) -> Chosen:
    labels = split.labels()
    rows = np.flatnonzero(labels < classes)
    return split, rows, labels[rows]
