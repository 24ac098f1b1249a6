"""The prepared set, which is what trials read: uint8 images, their labels, and what a trial must know about them.

The images are shared (a memory map, or Ray's object store). Index them, which copies; never change them in place.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from raysweep.errors import UserError
from raysweep.vision.config import MeanStd

Channels = tuple[float, float, float]
"""One number for each channel: red, green, blue."""

FIXED: dict[str, tuple[Channels, Channels]] = {
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
"""Mean and std of each channel, by name."""
MIN_STD = 1e-3
"""Least std of a channel, so that one that never varies is not divided by 0."""

SPLITS = ("train", "val", "test")
PARTS = ("images", "labels")
ABOUT = ("name", "classes", "mean", "std", "fingerprint", "skipped")
"""The fields of a `DataSet` beside its splits."""


@dataclass(frozen=True)
class Split:
    """Images and labels of one split, in the same order."""

    images: torch.Tensor  # uint8, N x 3 x H x W
    labels: torch.Tensor  # int64, N; 0 <= label < number of classes

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: slice) -> Split:
        return Split(self.images[rows], self.labels[rows])


@dataclass(frozen=True)
class DataSet:
    """A prepared set: its splits and what is known about them."""

    name: str  # name of the source
    train: Split
    val: Split
    test: Split | None
    classes: tuple[str, ...]  # name of each label
    mean: Channels  # mean of each channel over the training images, on the scale 0..1
    std: Channels  # their standard deviation
    fingerprint: str  # hash of images, labels and class names
    skipped: int = 0  # number of images left out because they cannot be decoded (`on_corrupt: skip`)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def image_size(self) -> int:
        """Height and width of the images, in pixels."""
        return int(self.train.images.shape[-1])

    def to_arrays(self) -> dict[str, Any]:
        """Return arrays (`train_images`, ...), which Ray's object store shares without a copy, and plain metadata."""
        arrays: dict[str, Any] = {name: getattr(self, name) for name in ABOUT}
        for name in SPLITS:
            if (split := getattr(self, name)) is not None:
                arrays[f"{name}_images"] = split.images.numpy()
                arrays[f"{name}_labels"] = split.labels.numpy()
        return arrays

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any]) -> DataSet:
        """Return the set that `to_arrays` gave, on the same memory; the arrays may be read-only."""
        parts: dict[str, Any] = {name: arrays[name] for name in ABOUT}
        for name in ("classes", "mean", "std"):
            parts[name] = tuple(parts[name])
        for name in SPLITS:
            there = name != "test" or "test_images" in arrays
            parts[name] = Split(*(as_tensor(arrays[f"{name}_{part}"]) for part in PARTS)) if there else None
        return cls(**parts)


def mean_std(
    normalize: Literal["half", "imagenet", "dataset", "weights"] | MeanStd,
    dataset: DataSet,
    of_weights: tuple[Channels, Channels] | None = None,
) -> tuple[Channels, Channels]:
    """Return the mean and std of each channel, on the scale 0..1, that `normalize` names or gives.

    `of_weights` are those that the weights to begin with were trained with, if that is known.
    """
    if isinstance(normalize, MeanStd):
        return normalize.mean, normalize.std
    if normalize == "weights":
        if of_weights is None:
            raise UserError(
                "normalize: weights: the file of model.weights does not say by what mean and std its input was "
                "normalised; give the numbers, {mean: [...], std: [...]}, or a name (half, imagenet, dataset)"
            )
        return of_weights
    if normalize in FIXED:
        return FIXED[normalize]
    red, green, blue = (max(value, MIN_STD) for value in dataset.std)
    return dataset.mean, (red, green, blue)


def as_tensor(array: npt.NDArray[Any]) -> torch.Tensor:
    """Return a tensor on the memory of `array`, which may be read-only; torch warns of that."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable", category=UserWarning)
        return torch.from_numpy(np.asarray(array))
