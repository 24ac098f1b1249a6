"""Shifts: pad with black and crop back to the size."""

from __future__ import annotations

from pydantic import PositiveInt

from raysweep.vision.augment.operation import F, Operation, torch


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
