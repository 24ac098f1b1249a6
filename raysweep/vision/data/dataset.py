"""The prepared set: uint8 images and their labels, with all that a trial must know about them.

The images are shared (a memory map, or Ray's object store): index them, which copies; never change them in place.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

Channels = tuple[float, float, float]
"""One number a channel, red, green, blue."""

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Split:
    """Images and labels of one split, in the same order."""

    images: torch.Tensor
    """uint8, N x 3 x H x W; shared: only ever indexed, never changed in place."""
    labels: torch.Tensor
    """int64, N; 0 <= label < number of classes."""

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class DataSet:
    """A prepared set."""

    name: str
    """The source's name."""
    train: Split
    val: Split
    test: Split | None
    classes: tuple[str, ...]
    """Name of each label."""
    mean: Channels
    """Of the training images, scale 0..1."""
    std: Channels
    """Of the training images, scale 0..1."""
    fingerprint: str
    """Hash of images, labels and class names."""
    skipped: int = 0
    """Rows left out because they could not be decoded (`on_corrupt: skip`)."""

    @property
    def num_classes(self) -> int:
        """How many classes."""
        return len(self.classes)

    @property
    def image_size(self) -> int:
        """Height and width, in pixels."""
        return int(self.train.images.shape[-1])

    def to_arrays(self) -> dict[str, Any]:
        """Return numpy arrays (`train_images`, `train_labels`, ...) beside plain metadata.

        Nothing is copied. Ray's object store keeps such arrays zero-copy; `from_arrays` is the way back.
        """
        arrays: dict[str, Any] = {
            "name": self.name,
            "classes": self.classes,
            "mean": self.mean,
            "std": self.std,
            "fingerprint": self.fingerprint,
            "skipped": self.skipped,
        }
        for name in SPLITS:
            split: Split | None = getattr(self, name)
            if split is not None:
                arrays[f"{name}_images"] = split.images.numpy()
                arrays[f"{name}_labels"] = split.labels.numpy()
        return arrays

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any]) -> DataSet:
        """Return the set that `to_arrays` gave, on the same memory; the arrays may be read-only."""
        splits = {
            name: Split(as_tensor(arrays[f"{name}_images"]), as_tensor(arrays[f"{name}_labels"]))
            for name in SPLITS
            if f"{name}_images" in arrays
        }
        return cls(
            name=arrays["name"],
            train=splits["train"],
            val=splits["val"],
            test=splits.get("test"),
            classes=tuple(arrays["classes"]),
            mean=tuple(arrays["mean"]),
            std=tuple(arrays["std"]),
            fingerprint=arrays["fingerprint"],
            skipped=arrays["skipped"],
        )


def as_tensor(array: npt.NDArray[Any]) -> torch.Tensor:
    """Return a tensor on the memory of `array`, which may be read-only.

    torch has no read-only tensors and warns; writing to the result is undefined, so it is only ever indexed.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable", category=UserWarning)
        return torch.from_numpy(np.asarray(array))
