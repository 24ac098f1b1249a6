"""What an augmentation operation is: settings of a sweep file, and arithmetic on whole batches, in one class.

Sweep files are checked without torch, so the operations' modules get it as `torch`, a module that is imported when a
function first uses it.
"""

from __future__ import annotations

import importlib
import types
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from raysweep.config import Config


class LazyModule(types.ModuleType):
    """Stands for a module of that name, which it imports when one of its attributes is asked for."""

    def __getattr__(self, name: str) -> Any:
        """Return the attribute of the real module."""
        return getattr(importlib.import_module(self.__name__), name)


if TYPE_CHECKING:
    import torch
    from torch.nn import functional as F
else:
    torch, F = LazyModule("torch"), LazyModule("torch.nn.functional")

__all__ = [
    "F",
    "LazyModule",
    "Operation",
    "as_float",
    "chosen",
    "constant",
    "per_image",
    "to_device",
    "torch",
    "uniform",
]


class Operation(Config):
    """An operation on images, N x 3 x H x W: uint8 (0..255) as in the data set, or float (0..1) once computed.

    Parameters are drawn for a whole batch, of which a rank may change its part alone. `apply` is deterministic, so a
    test can give the same parameters to torchvision's functional form.
    """

    def check(self, image_size: int) -> None:
        """Raise UserError if the operation does not fit images of this height and width."""

    def draw(self, count: int, image_size: int, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        """Draw the parameters of `count` images, on the generator's device; their last dimension counts the images."""
        raise NotImplementedError

    def apply(self, images: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        """Return the images changed by their parameters; the input stays as it is."""
        raise NotImplementedError


def as_float(images: torch.Tensor) -> torch.Tensor:
    """Return images as float32 on the scale 0..1."""
    return images / 255 if images.dtype == torch.uint8 else images


def uniform(low: float, high: float, count: int, generator: torch.Generator) -> torch.Tensor:
    """Draw `count` numbers from [low, high)."""
    return torch.rand(count, generator=generator, device=generator.device) * (high - low) + low


def chosen(p: float, count: int, generator: torch.Generator) -> torch.Tensor:
    """Draw for `count` images whether each is changed, with probability p."""
    return torch.rand(count, generator=generator, device=generator.device) < p


@lru_cache(maxsize=64)
def constant(numbers: tuple[Any, ...], device: torch.device) -> torch.Tensor:
    """Return numbers, nested in tuples, as float32 on a device; they are copied there once."""
    return to_device(torch.tensor(numbers, dtype=torch.float32), device)


def to_device(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy values from the CPU, by memory that a GPU reads without being waited for."""
    values = values.pin_memory() if device.type == "cuda" else values
    return values.to(device, non_blocking=True)


def per_image(values: torch.Tensor) -> torch.Tensor:
    """Reshape N values so that they broadcast over N x C x H x W."""
    return values.view(-1, 1, 1, 1)
