"""By which mean and std a trial's input is normalised: (image / 255 - mean) / std."""

from __future__ import annotations

from raysweep.vision.config import MeanStd
from raysweep.vision.data.dataset import Channels, DataSet

HALF: tuple[Channels, Channels] = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
IMAGENET: tuple[Channels, Channels] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
MIN_STD = 1e-3
"""A channel that never varies is divided by this, not by 0."""


def mean_std(normalize: str | MeanStd, dataset: DataSet) -> tuple[Channels, Channels]:
    """Return mean and std per channel, scale 0..1, of `half`, `imagenet`, `dataset` or given numbers.

    Raises:
        ValueError: another name.
    """
    if isinstance(normalize, MeanStd):
        return normalize.mean, normalize.std
    if normalize == "half":
        return HALF
    if normalize == "imagenet":
        return IMAGENET
    if normalize == "dataset":
        red, green, blue = (max(value, MIN_STD) for value in dataset.std)
        return dataset.mean, (red, green, blue)
    raise ValueError(f"normalize: got {normalize!r}, must be half, imagenet, dataset or mean and std")
