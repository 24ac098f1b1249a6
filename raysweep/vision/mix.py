"""MixUp and CutMix: each image of a batch is mixed with the one before it, and so are their labels.

The weight of an image is drawn from Beta(alpha, alpha) for a whole batch, as torchvision's MixUp and CutMix do.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import torch

from raysweep.vision.augment.operation import as_float
from raysweep.vision.config import MixConfig
from raysweep.vision.randomness import stable_seed


@dataclass(frozen=True)
class Mix:
    """How a batch is mixed."""

    weight: float
    """Of each image's own label; the rest is its partner's."""
    box: tuple[int, int, int, int] | None = None
    """The top, left, bottom and right of what is cut from the partner; None: the images are blended."""

    def images(self, images: torch.Tensor, partners: torch.Tensor) -> torch.Tensor:
        """Return images with part of their partners; both are uint8 or float, N x 3 x H x W."""
        if self.box is None:
            return torch.lerp(as_float(partners), as_float(images), self.weight)
        top, left, bottom, right = self.box
        mixed = images.clone()
        mixed[..., top:bottom, left:right] = partners[..., top:bottom, left:right]
        return mixed

    def labels(self, labels: torch.Tensor, partners: torch.Tensor, num_classes: int) -> torch.Tensor:
        """Return the probability of each class, N x classes, of N labels and those of their partners."""
        own, others = (torch.nn.functional.one_hot(each, num_classes).float() for each in (labels, partners))
        return torch.lerp(others, own, self.weight)


def draw_mix(config: MixConfig, image_size: int, *key: str | int) -> Mix | None:
    """Return how the batch that `key` stands for is mixed; None if it stays as it is."""
    drawn_from = random.Random(stable_seed("mix", *key))
    if drawn_from.random() >= config.p:
        return None
    name, alpha = drawn_from.choice([each for each in (("mixup", config.mixup), ("cutmix", config.cutmix)) if each[1]])
    assert alpha is not None
    weight = drawn_from.betavariate(alpha, alpha)
    if name == "mixup":
        return Mix(weight)
    return cut(weight, drawn_from.randrange(image_size), drawn_from.randrange(image_size), image_size)


def cut(weight: float, y: int, x: int, image_size: int) -> Mix:
    """Return the CutMix of a square around a pixel, with a share of 1 - `weight` of the image, less what is outside."""
    half = int(0.5 * math.sqrt(1 - weight) * image_size)
    top, left = max(y - half, 0), max(x - half, 0)
    bottom, right = min(y + half, image_size), min(x + half, image_size)
    return Mix(1 - (bottom - top) * (right - left) / image_size**2, (top, left, bottom, right))
