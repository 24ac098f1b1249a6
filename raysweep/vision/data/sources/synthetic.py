"""The source `synthetic`: made-up images that need no files, for trying things out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from raysweep.vision.config import DataConfig
from raysweep.vision.data.raw import Encoded, RawData, RawSplit, Rows, refuse_split_names

CLASSES = 10
PER_CLASS = 80
"""Training images of each class."""
SIZE = 16


def synthetic(config: DataConfig, root: Path) -> RawData:
    """Images that a small network can learn, drawn from `config.seed`: a coloured pattern for each class, plus noise.

    `classes` (10), `per_class` (80, and a quarter as many for validation) and `image_size` (16) make the set larger.
    """
    refuse_split_names(config)
    classes = config.classes or CLASSES
    per_class = config.per_class or PER_CLASS
    return RawData(
        classes=lambda: [f"synthetic-{label}" for label in range(classes)],
        train=_split(config, "train", 0, classes, per_class),
        val=_split(config, "val", 1, classes, max(1, per_class // 4)),
        content="synthetic 1",
    )


def _split(config: DataConfig, name: str, stream: int, classes: int, per_class: int) -> RawSplit:
    size = config.image_size or SIZE

    def images(rows: Rows) -> Iterator[Encoded]:
        # Blown up for each image anew: whole patterns of many classes would take more memory than anything else here.
        colours = [_colours(config.seed, label) for label in range(classes)]
        index = np.arange(size) * 4 // size
        for row in rows:
            pattern = colours[int(row) % classes][index][:, index]
            noise = np.random.default_rng([config.seed, stream, int(row)]).normal(0, 48, (size, size, 3))
            yield np.clip(pattern + noise, 0, 255).astype(np.uint8)

    return RawSplit(
        labels=lambda: np.arange(classes * per_class, dtype=np.int64) % classes,
        images=images,
        where=lambda row: f"synthetic {name}: row {row}",
    )


def _colours(seed: int, label: int) -> npt.NDArray[np.float64]:
    """Return the pattern of a class: 4 x 4 random colours, 0..255."""
    return np.random.default_rng([seed, 2, label]).uniform(32, 224, (4, 4, 3))
