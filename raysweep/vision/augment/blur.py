"""Gaussian blur."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, PositiveFloat

from raysweep.config import Pair, Probability
from raysweep.errors import UserError
from raysweep.vision.augment.operation import F, Operation, as_float, chosen, per_image, torch, uniform


def _odd(kernel: int) -> int:
    if kernel % 2 == 0:
        raise ValueError("must be odd")
    return kernel


class Blur(Operation):
    """Gaussian blur, sigma drawn from a range."""

    kernel: Annotated[int, Field(ge=3, le=31), AfterValidator(_odd)]
    """Odd, in pixels."""
    sigma: Pair[PositiveFloat] = (0.1, 2.0)
    p: Probability = 1.0

    def check(self, image_size: int) -> None:
        """Refuse a kernel that reaches over the whole image, whose borders are reflected."""
        if self.kernel // 2 >= image_size:
            raise UserError(f"augment: blur: kernel {self.kernel} is too large for images of {image_size} pixels")

    def draw(self, count: int, image_size: int, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        """Draw sigmas, in pixels; 0 (no blur) for images that are not chosen."""
        return (uniform(*self.sigma, count, generator) * chosen(self.p, count, generator),)

    def apply(self, images: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        """Blur along one axis, then the other, with reflected borders. Returns floats."""
        (sigmas,) = parameters
        reach = self.kernel // 2
        offsets = torch.arange(-reach, reach + 1, device=images.device)
        weights = torch.exp(-0.5 * (offsets / sigmas.clamp(min=1e-6).unsqueeze(1)) ** 2)
        weights = (weights / weights.sum(dim=1, keepdim=True)).T
        padded = F.pad(as_float(images), (reach,) * 4, mode="reflect")
        return _blur_axis(_blur_axis(padded, weights, 3), weights, 2)


def _blur_axis(images: torch.Tensor, weights: torch.Tensor, dim: int) -> torch.Tensor:
    """Convolve N images along `dim`, without padding, with `weights` (kernel x N, symmetric): sums of shifted views.

    On the CPU this is faster than a depthwise convolution with a kernel for every image.
    """
    reach, size = len(weights) // 2, images.shape[dim] - len(weights) + 1
    blurred = images.narrow(dim, reach, size) * per_image(weights[reach])
    for i in range(reach):
        pair = images.narrow(dim, i, size) + images.narrow(dim, 2 * reach - i, size)
        blurred.addcmul_(pair, per_image(weights[i]))
    return blurred
