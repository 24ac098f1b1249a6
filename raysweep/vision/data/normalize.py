"""The mean and std that a trial's input is normalised by: (image / 255 - mean) / std."""

from __future__ import annotations

from typing import Literal

from raysweep.vision.config import MeanStd
from raysweep.vision.data.dataset import Channels, DataSet

HALF: tuple[Channels, Channels] = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
IMAGENET: tuple[Channels, Channels] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
MIN_STD = 1e-3
"""Least std of a channel, so that one that never varies is not divided by 0."""


def mean_std(
    normalize: Literal["half", "imagenet", "dataset"] | MeanStd, dataset: DataSet
) -> tuple[Channels, Channels]:
    """Return the mean and std of each channel, on the scale 0..1, that `normalize` names or gives."""
    if isinstance(normalize, MeanStd):
        return normalize.mean, normalize.std
    if normalize == "half":
        return HALF
    if normalize == "imagenet":
        return IMAGENET
    red, green, blue = (max(value, MIN_STD) for value in dataset.std)
    return dataset.mean, (red, green, blue)
