"""A data set of 8x8 images of four classes, which differ in brightness; made on the spot."""

from __future__ import annotations

import torch

from raysweep.vision.data.dataset import DataSet, Split
from raysweep.vision.randomness import generator


def dataset(train_images: int = 150, val_images: int = 40) -> DataSet:
    """Return so many images; sets of equal numbers are equal."""
    return DataSet(
        "tiny",
        _split(train_images, 0),
        _split(val_images, 1),
        None,
        tuple("abcd"),
        (0.5,) * 3,
        (0.25,) * 3,
        f"of {train_images} and {val_images}",
    )


def _split(count: int, seed: int) -> Split:
    labels = torch.arange(count) % 4
    noise = torch.randint(0, 120, (count, 3, 8, 8), generator=generator("cpu", "test", seed))
    return Split((noise + labels.view(-1, 1, 1, 1) * 30).to(torch.uint8), labels)
