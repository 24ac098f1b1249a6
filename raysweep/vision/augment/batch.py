"""Augmentation and normalisation of whole batches, on their device, with parameters of each image's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch

from raysweep.config import Triple
from raysweep.vision.augment.geometry import Flip, FlipAndRotate, Rotate
from raysweep.vision.augment.operation import Operation
from raysweep.vision.augment.operations import AUGMENT_PRESETS, AugmentStep
from raysweep.vision.names import AUGMENTATIONS
from raysweep.vision.randomness import generator as seeded_by

_Drawn = tuple[Operation, tuple[torch.Tensor, ...]]
_ROWS_AT_ONCE = 64
"""Images that all operations pass over before the next ones on a CPU, so that they stay in the core's cache."""


def build_augment(config: str | list[AugmentStep], image_size: int) -> Augmentation:
    """Return the augmentation of a preset, of a registered name, or of operations; UserError if one does not fit."""
    if isinstance(config, str):
        if config not in AUGMENT_PRESETS:
            return _Registered(AUGMENTATIONS.get(config))
        config = [AugmentStep.model_validate(row) for row in AUGMENT_PRESETS[config]]
    operations = [row.operation for row in config]
    for operation in operations:
        operation.check(image_size)
    return Augmentation(_fused(operations))


def _fused(operations: Sequence[Operation]) -> list[Operation]:
    """Let a flip right before a rotation share its resampling."""
    fused = list(operations[:1])
    for before, operation in pairwise(operations):
        if isinstance(before, Flip) and isinstance(operation, Rotate):
            fused[-1] = FlipAndRotate(flip=before, rotate=operation)
        else:
            fused.append(operation)
    return fused


class Augmentation:
    """Operations in order, on a batch, which itself stays as it is."""

    takes_all = False
    """Whether it looks at all images of a batch, also where some are wanted."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        self._operations = operations
        self._like_it = [operations[:place].count(operation) for place, operation in enumerate(operations)]
        """How many of the operations before each are the same."""

    def __call__(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Return the batch, augmented, with parameters from a generator on its device."""
        return _apply(images, 0, self._draw(len(images), images.shape[-1], generator))

    def parts(
        self, batch: Callable[[slice], torch.Tensor], count: int, image_size: int, generator: torch.Generator
    ) -> Callable[[slice], torch.Tensor]:
        """Return what gives `self(images, generator)[rows]` at the cost of these rows, which have both bounds.

        The `count` images are a batch, of which `batch` gives any rows.
        """
        drawn = self._draw(count, image_size, generator)
        return lambda rows: _apply(batch(rows), rows.start, drawn)

    def _draw(self, count: int, image_size: int, generator: torch.Generator) -> list[_Drawn]:
        """Draw each operation's parameters; one like another before it has a generator of its own.

        RandAugment takes nothing but a generator's seed, so two would draw the same.
        """
        seed, drawn = generator.initial_seed(), []
        for operation, like_it in zip(self._operations, self._like_it, strict=True):
            drawn_from = seeded_by(generator.device, "again", seed, like_it) if like_it else generator
            drawn.append((operation, operation.draw(count, image_size, drawn_from)))
        return drawn


def _apply(images: torch.Tensor, first: int, drawn: Sequence[_Drawn]) -> torch.Tensor:
    """Augment the images of a batch that begin with number `first`, with parameters of the whole batch."""
    at_once = _ROWS_AT_ONCE if images.device.type == "cpu" else max(1, len(images))
    parts = []
    for start in range(0, len(images) if drawn else 0, at_once):
        part = images[start : start + at_once]
        for operation, parameters in drawn:
            rows = slice(first + start, first + start + len(part))
            part = operation.apply(part, *(each[..., rows] for each in parameters))
        parts.append(part)
    return torch.cat(parts) if len(parts) > 1 else parts[0] if parts else images


class _Registered(Augmentation):
    """A function of the user's, which may look at any image of the batch, so all of it is augmented, once."""

    takes_all = True

    def __init__(self, function: Callable[[torch.Tensor, torch.Generator], torch.Tensor]) -> None:
        self._function = function

    def __call__(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return self._function(images, generator)

    def parts(
        self, batch: Callable[[slice], torch.Tensor], count: int, image_size: int, generator: torch.Generator
    ) -> Callable[[slice], torch.Tensor]:
        return self._function(batch(slice(0, count)), generator).__getitem__


class Normalize:
    """`(images - mean) / std`, mean and std on the scale 0..1, as one multiply-add on the device."""

    def __init__(self, mean: Triple[float], std: Triple[float], device: torch.device | str) -> None:
        self._scale = 1 / torch.tensor(std, device=device).view(3, 1, 1)
        self._shift = -torch.tensor(mean, device=device).view(3, 1, 1) * self._scale
        self._scale_of_uint8 = self._scale / 255

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Return float32, channels_last images of uint8 (0..255) or float (0..1) ones."""
        scale = self._scale_of_uint8 if images.dtype == torch.uint8 else self._scale
        # In planes first: on a CPU, arithmetic over the short innermost dimension of channels_last is slow.
        normalized = torch.addcmul(self._shift, images.to(torch.float32), scale)
        return normalized.contiguous(memory_format=torch.channels_last)
