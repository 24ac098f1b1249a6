"""Turn images, and mirror them in the same resampling."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated

from pydantic import Field

from raysweep.config import Probability
from raysweep.vision.augment.flip import Flip
from raysweep.vision.augment.operation import F, Operation, as_float, chosen, torch, uniform


class Rotate(Operation):
    """Turn images by an angle drawn from [-degrees, degrees]; bilinear, corners black."""

    degrees: Annotated[float, Field(gt=0, le=180)]
    p: Probability = 1.0

    def draw(self, count: int, image_size: int, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        """Draw angles in degrees, counter-clockwise; 0 for images that are not chosen."""
        return (uniform(-self.degrees, self.degrees, count, generator) * chosen(self.p, count, generator),)

    def apply(self, images: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        """Turn about the centre: bilinear, black outside. Returns floats."""
        (degrees,) = parameters
        return _resample(images, _to_input(degrees, *images.shape[-2:]))


class FlipAndRotate(Operation):
    """A flip right before a rotation, in one resampling."""

    flip: Flip
    rotate: Rotate

    def draw(self, count: int, image_size: int, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        """Draw what the flip draws, then what the rotation draws."""
        flips, angles = (each.draw(count, image_size, generator) for each in (self.flip, self.rotate))
        return (*flips, *angles)

    def apply(self, images: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        """Mirror as `Flip` does, then turn as `Rotate` does. Returns floats."""
        flips, degrees = parameters
        to_input = _to_input(degrees, *images.shape[-2:])
        return _resample(images, to_input * (1 - 2 * flips.T.to(to_input.dtype)).unsqueeze(2))


def _to_input(degrees: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Return N x 2 x 2: where each pixel of the result comes from, in coordinates of -1..1 along either side."""
    radians = torch.deg2rad(degrees)
    cos, sin = radians.cos(), radians.sin()
    return torch.stack([cos, -sin * height / width, sin * width / height, cos], dim=1).view(-1, 2, 2)


def _resample(images: torch.Tensor, to_input: torch.Tensor) -> torch.Tensor:
    height, width = images.shape[-2:]
    centres = _pixel_centres(height, width, images.device).expand(len(images), -1, -1)
    grid = torch.bmm(centres, to_input.transpose(1, 2)).view(-1, height, width, 2)
    return F.grid_sample(as_float(images), grid, mode="bilinear", padding_mode="zeros", align_corners=False)


@lru_cache(maxsize=8)
def _pixel_centres(height: int, width: int, device: torch.device) -> torch.Tensor:
    """Return x and y of every pixel's centre, -1..1 from edge to edge; torch's affine_grid computes them every time."""
    y, x = ((2 * torch.arange(n, device=device) + 1) / n - 1 for n in (height, width))
    return torch.cartesian_prod(y, x).flip(1)
