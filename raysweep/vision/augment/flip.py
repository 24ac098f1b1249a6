"""Mirror images."""

from __future__ import annotations

from typing import Literal

from raysweep.config import Probability
from raysweep.vision.augment.operation import Operation, chosen, per_image, torch


class Flip(Operation):
    """Mirror images."""

    p: Probability = 0.5
    """For each axis of `direction`, on its own."""
    direction: Literal["horizontal", "vertical", "both"] = "horizontal"

    def draw(self, count: int, image_size: int, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        """Draw who is mirrored left to right and who top to bottom: bool, 2 x count."""
        both = torch.stack([chosen(self.p, count, generator), chosen(self.p, count, generator)])
        axes = torch.tensor([self.direction != "vertical", self.direction != "horizontal"])
        return (both & axes.to(both.device, non_blocking=True).view(2, 1),)

    def apply(self, images: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        """Mirror left to right and top to bottom, exactly; uint8 stays uint8."""
        (flips,) = parameters
        images = torch.where(per_image(flips[0]), images.flip(3), images)
        return torch.where(per_image(flips[1]), images.flip(2), images)
