"""A crop of random size, made as large as the image again."""

from __future__ import annotations

import math

from pydantic import PositiveFloat, model_validator

from raysweep.config import Pair
from raysweep.vision.augment.operation import F, Operation, as_float, torch

_ATTEMPTS = 10  # torchvision's


class ResizedCrop(Operation):
    """Crop a random part and resize it to the image's size, bilinear (torchvision's RandomResizedCrop)."""

    scale: Pair[PositiveFloat] = (0.08, 1.0)
    """The part's share of the image's area."""
    ratio: Pair[PositiveFloat] = (3 / 4, 4 / 3)
    """The part's width over its height."""

    @model_validator(mode="after")
    def _bounds(self) -> ResizedCrop:
        if not self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"scale: got {list(self.scale)}, must ascend, and be at most 1")
        if self.ratio[0] > self.ratio[1]:
            raise ValueError(f"ratio: got {list(self.ratio)}, must ascend")
        return self

    def draw(self, count: int, image_size: int, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        """Draw top, left, height and width of each crop: int64, 4 x count.

        As torchvision does: of ten draws the first that fits into the image counts, or else a crop at the centre.
        """
        device = generator.device
        share, turn = torch.rand(2, _ATTEMPTS, count, generator=generator, device=device).unbind()
        area = image_size**2 * (share * (self.scale[1] - self.scale[0]) + self.scale[0])
        low, high = (math.log(bound) for bound in self.ratio)
        ratio = torch.exp(turn * (high - low) + low)
        sides = torch.stack([(area / ratio).sqrt(), (area * ratio).sqrt()]).round().long()
        fits = ((sides > 0) & (sides <= image_size)).all(dim=0)
        fallback = [sides.new_full((1, count), side) for side in self._fallback(image_size)]
        sides = torch.cat([sides, torch.stack(fallback)], dim=1)
        fits = torch.cat([fits, torch.ones_like(fits[:1])])
        first = fits.to(torch.uint8).argmax(dim=0)
        size = sides.gather(1, first.expand(2, 1, count)).squeeze(1)
        room = image_size - size
        corner = (torch.rand(2, count, generator=generator, device=device) * (room + 1)).long().minimum(room)
        centre = room // 2  # where no draw fits
        return (torch.cat([torch.where(first < _ATTEMPTS, corner, centre), size]),)

    def _fallback(self, image_size: int) -> tuple[int, int]:
        """Return height and width of the largest crop of a square with an allowed ratio."""
        low, high = self.ratio
        height = min(image_size, round(image_size / low)) if low > 1 else image_size
        width = min(image_size, round(image_size * high)) if high < 1 else image_size
        return height, width

    def apply(self, images: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        """Resize each image's crop to the whole, without a look at what is outside of it. Returns floats."""
        (crops,) = parameters
        y, x = (
            _positions(first, length, count)
            for first, length, count in zip(crops[:2], crops[2:], images.shape[-2:], strict=True)
        )
        count, height, width = len(images), *images.shape[-2:]
        grid = torch.stack(
            [x.unsqueeze(1).expand(count, height, width), y.unsqueeze(2).expand(count, height, width)], dim=-1
        )
        return F.grid_sample(as_float(images), grid, mode="bilinear", padding_mode="border", align_corners=False)


def _positions(first: torch.Tensor, length: torch.Tensor, count: int) -> torch.Tensor:
    """Return where the `count` pixels along an axis come from, -1..1 from edge to edge: N x count.

    `first` and `length`, N whole numbers, say which pixels of the axis each crop has.
    """
    step = (length / count).unsqueeze(1)
    pixel = (torch.arange(count, device=first.device) + 0.5) * step - 0.5
    pixel = pixel.clamp(min=0).minimum(length.unsqueeze(1) - 1) + first.unsqueeze(1)
    return (2 * pixel + 1) / count - 1
