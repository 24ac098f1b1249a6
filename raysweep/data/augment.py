"""Augmentation of whole batches, on their device, with parameters of each image's own.

`build_augment(config, image_size)` gives the function that a training step calls; `normalize_to` ends every batch.
Each operation is two functions, so that a test can hand the same parameters to torchvision's v2 functional form:
one draws parameters from a generator, the other applies them and is deterministic. Images are uint8 (0..255) as the
prepared set has them, or float (0..1) from the first operation on that computes new values.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional as F

from raysweep.config import AUGMENT_PRESETS, AugmentStep, Crop
from raysweep.data.dataset import Channels
from raysweep.registry import AUGMENTATIONS

Operation = Callable[[torch.Tensor, torch.Generator], torch.Tensor]
"""(images N x 3 x H x W, generator on their device) -> images of the same shape; the input stays as it is."""


def build_augment(config: str | list[AugmentStep], image_size: int) -> Operation:
    """Return the augmentation of a preset, of a registered name, or of a list of operations."""
    if isinstance(config, str):
        if config not in AUGMENT_PRESETS:
            registered: Operation = AUGMENTATIONS.get(config)
            return registered
        config = [AugmentStep.model_validate(row) for row in AUGMENT_PRESETS[config]]
    operations = [_operation(step, image_size) for step in config]

    def augment(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        for operation in operations:
            images = operation(images, generator)
        return images

    return augment


def _operation(step: AugmentStep, image_size: int) -> Operation:
    if step.crop is not None:
        return crop_operation(step.crop, image_size)
    raise NotImplementedError


def normalize_to(images: torch.Tensor, mean: Channels, std: Channels) -> torch.Tensor:
    """Return `(images - mean) / std`, float32 and channels_last; uint8 images are scaled to 0..1 by the way."""
    full = 255.0 if images.dtype == torch.uint8 else 1.0
    scale = torch.tensor([1 / (full * s) for s in std], device=images.device).view(3, 1, 1)
    shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=images.device).view(3, 1, 1)
    floats = images.to(torch.float32, memory_format=torch.channels_last)
    return torch.addcmul(shift, floats, scale)


# ---------------------------------------------------------------------------------------------------------
# Crop


def crop_operation(config: Crop, image_size: int) -> Operation:
    """Pad with black and crop back to the size, at a random place."""
    padding = config.padding or max(1, image_size // 8)

    def crop(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return apply_crop(images, draw_crop(len(images), padding, generator), padding)

    return crop


def draw_crop(count: int, padding: int, generator: torch.Generator) -> torch.Tensor:
    """Draw the top and left of each crop inside the padded image: int64, 2 x count, 0 .. 2 * padding."""
    return torch.randint(2 * padding + 1, (2, count), generator=generator, device=generator.device)


def apply_crop(images: torch.Tensor, corners: torch.Tensor, padding: int) -> torch.Tensor:
    """Cut each image's window out of the zero-padded batch: one gather over a view of all windows."""
    height, width = images.shape[-2:]
    padded = F.pad(images, (padding,) * 4)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    return windows[torch.arange(len(images), device=images.device), :, corners[0], corners[1]]
