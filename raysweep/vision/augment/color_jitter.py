"""Colour jitter."""

from __future__ import annotations

from typing import Annotated, NamedTuple

from pydantic import Field

from raysweep.config import Probability
from raysweep.vision.augment.operation import Operation, as_float, chosen, constant, torch, uniform

_GRAY_WEIGHTS = (0.2989, 0.587, 0.114)  # torchvision's, after ITU-R 601-2
_SHARES = (3.0, 2.0, 4.0), (-1.0, 1.0, 1.0), (2.0, -1.0, -1.0)
"""Centre, slope and offset of the share of the chroma that a channel lacks at hue h: red 2 - |h - 3|,
green |h - 2| - 1, blue |h - 4| - 1, kept to 0..1."""
_HUGE = 1e30  # lifts any difference of two channels that matters over 1


class Jitter(NamedTuple):
    """Parameters of a batch's colour jitter."""

    factors: torch.Tensor
    """Brightness, contrast, saturation: 3 x N; 1 changes nothing."""
    hue: torch.Tensor
    """Turn of the colour wheel: N, in turns; 0 changes nothing."""
    ranks: torch.Tensor
    """Place (0..3) of brightness, contrast, saturation and hue in each image's order: 4 x N."""


class ColorJitter(Operation):
    """Brightness, contrast, saturation and hue by random factors, in random order."""

    brightness: Probability = 0.0
    contrast: Probability = 0.0
    saturation: Probability = 0.0
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    p: Probability = 1.0

    def draw(self, count: int, image_size: int, generator: torch.Generator) -> Jitter:
        """Draw factors from [max(0, 1 - strength), 1 + strength], hue from [-hue, hue], and each image's order."""
        strengths = (self.brightness, self.contrast, self.saturation)
        factors = torch.stack([uniform(max(0.0, 1 - s), 1 + s, count, generator) for s in strengths])
        hue = uniform(-self.hue, self.hue, count, generator)
        who = chosen(self.p, count, generator)
        ranks = torch.rand(4, count, generator=generator, device=generator.device).argsort(dim=0)
        return Jitter(torch.where(who, factors, 1), torch.where(who, hue, 0), ranks)

    def apply(self, images: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        """Apply the four changes to every image in its own order. Returns floats.

        Three of the four are blends with a gray. A pass does one blend for every image, whichever that is: three passes
        before the hue, the hue, and three after it, so a GPU never has to say which images changed. A CPU can say it at
        no cost, and leaves out images that do not change.
        """
        jitter = Jitter(*parameters)
        images = as_float(images)
        if images.device.type != "cpu":
            return _jitter_all(images, jitter)
        rows = ((jitter.factors != 1).any(dim=0) | (jitter.hue != 0)).nonzero().squeeze(1)
        changed = _jitter_all(images[rows], Jitter(*(each[..., rows] for each in jitter)))
        return images.index_copy(0, rows, changed)


def _jitter_all(images: torch.Tensor, jitter: Jitter) -> torch.Tensor:
    for number, (matrix, weights) in enumerate(zip(*_blends(jitter), strict=True)):
        if number == 3:
            images = _turn_hue(images, jitter.hue)
        images = _blend(images, matrix, weights)
    return images


def _blends(jitter: Jitter) -> tuple[torch.Tensor, torch.Tensor]:
    """Return each image's matrix of colours (6 x N x 3 x 3) and weights of its mean colour (6 x N x 3) in six passes.

    A pass is for one place in the order. An image takes part with the change that it has there: brightness blends with
    black, contrast with the image's mean gray, saturation with each pixel's gray.
    """
    device = jitter.ranks.device
    places = constant((0, 1, 2, 1, 2, 3), device).view(6, 1)
    hue_rank = jitter.ranks[3]
    active = torch.cat([places[:3] < hue_rank, places[3:] > hue_rank])
    here = (jitter.ranks[:3] == places.unsqueeze(1)) & active.unsqueeze(1)
    factor = torch.where(here, jitter.factors, 1).prod(dim=1)
    _, of_contrast, of_saturation = ((1 - factor).unsqueeze(1) * here).unbind(1)
    gray = constant(_GRAY_WEIGHTS, device)
    matrices = factor[..., None, None] * torch.eye(3, device=device) + of_saturation[..., None, None] * gray
    return matrices, of_contrast[..., None] * gray


def _blend(images: torch.Tensor, matrix: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Map every pixel's colour by `matrix`, add `weights` times the image's mean colour, and keep to 0..1."""
    shift = (images.mean(dim=(2, 3)) * weights).sum(dim=1).view(-1, 1, 1)
    return torch.baddbmm(shift, matrix, images.flatten(2)).clamp_(0, 1).view_as(images)


def _turn_hue(images: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    """Turn each image's hue: to hue, chroma and value, and back (Smith 1978), the way back in closed form.

    Factors of exactly 0 and 1 pick the largest channel: on a CPU, torch's comparisons, `where` and `remainder` are
    several times slower than its arithmetic.
    """
    red, green, blue = images.unbind(1)
    value = torch.maximum(torch.maximum(red, green), blue)
    chroma = value - torch.minimum(torch.minimum(red, green), blue)
    red_below, green_below = ((value - channel).mul_(_HUGE).clamp_(max=1) for channel in (red, green))
    from_green = torch.add(blue - red, chroma, alpha=2)
    from_blue = torch.add(red - green, chroma, alpha=4)
    sector = torch.lerp(green - blue, torch.lerp(from_green, from_blue, green_below), red_below)
    sector = sector.div_(chroma.clamp(min=1e-12)).add_(6 * turns.view(-1, 1, 1))
    sector = torch.add(sector, (sector / 6).floor_(), alpha=-6)
    centre, slope, offset = constant(_SHARES, images.device).view(3, 1, 3, 1, 1).unbind()
    share = (sector.unsqueeze(1) - centre).abs_().mul_(slope).add_(offset).clamp_(0, 1)
    return torch.addcmul(value.unsqueeze(1), chroma.unsqueeze(1), share, value=-1)
