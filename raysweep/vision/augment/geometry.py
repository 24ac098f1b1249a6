"""Operations that move pixels: shift, mirror, turn; and a mirror and a turn in one resampling."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from raysweep.config import Probability
from raysweep.vision.augment.operation import F, Operation, as_float, chosen, per_image, torch, uniform


class Crop(Operation):
    """Pad with black and crop back to the size at a random place: a shift."""

    padding: PositiveInt | None = None
    """Pixels; default: an eighth of the image, at least 1."""

    def draw(self, count: int, image_size: int, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        """Draw the top and left of each crop inside the padded image: int64, 2 x count, 0 .. 2 * padding."""
        highest = 2 * self._padding(image_size)
        return (torch.randint(highest + 1, (2, count), generator=generator, device=generator.device),)

    def apply(self, images: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        """Cut each image's window out of the zero-padded batch: one gather over a view of all windows."""
        (corners,) = parameters
        height, width = images.shape[-2:]
        padded = F.pad(images, (self._padding(width),) * 4)
        windows = padded.unfold(2, height, 1).unfold(3, width, 1)
        return windows[torch.arange(len(images), device=images.device), :, corners[0], corners[1]]

    def _padding(self, image_size: int) -> int:
        return self.padding or max(1, image_size // 8)


class Flip(Operation):
    """Mirror images."""

    p: Probability = 0.5
    """Probability for each axis of `direction`, which are drawn apart."""
    direction: Literal["horizontal", "vertical", "both"] = "horizontal"

    def draw(self, count: int, image_size: int, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        """Draw who is mirrored left to right and who top to bottom: bool, 2 x count."""
        axes = self.direction != "vertical", self.direction != "horizontal"
        return (torch.stack([chosen(self.p if axis else 0.0, count, generator) for axis in axes]),)

    def apply(self, images: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        """Mirror left to right and top to bottom, exactly; uint8 stays uint8."""
        (flips,) = parameters
        images = torch.where(per_image(flips[0]), images.flip(3), images)
        return torch.where(per_image(flips[1]), images.flip(2), images)


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
