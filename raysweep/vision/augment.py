"""Augmentation of whole batches, on their device, with parameters of each image's own.

`build_augment(config, image_size)` gives the function that a training step calls; `Normalize` ends every batch.
Each operation is two functions, so that a test can hand the same parameters to torchvision's v2 functional form:
one draws parameters from a generator, the other applies them and is deterministic. Images are uint8 (0..255) as the
prepared set has them, or float (0..1) from the first operation on that computes new values.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch
from torch.nn import functional as F

from raysweep.errors import UserError
from raysweep.registry import AUGMENTATIONS
from raysweep.vision.config import AUGMENT_PRESETS, AugmentStep, Blur, ColorJitter, Crop, Flip, Rotate
from raysweep.vision.data.dataset import Channels

Operation = Callable[[torch.Tensor, torch.Generator], torch.Tensor]
"""(images N x 3 x H x W, generator on their device) -> images of the same shape; the input stays as it is."""

_ROWS_AT_ONCE = 64
"""On a CPU: images that all operations pass over before the next ones, so that they stay in the core's cache."""


class Step(NamedTuple):
    """One operation: parameters are drawn for the whole batch, and may be applied to any part of it."""

    draw: Callable[[int, torch.Generator], tuple[torch.Tensor, ...]]
    """(number of images, generator) -> parameters, whose last dimension counts the images."""
    apply: Callable[..., torch.Tensor]
    """(images, *parameters) -> images."""


def build_augment(config: str | list[AugmentStep], image_size: int) -> Augmentation:
    """Return the augmentation of a preset, of a registered name, or of a list of operations.

    Raises:
        UserError: an operation does not fit images of this size.
    """
    if isinstance(config, str):
        if config not in AUGMENT_PRESETS:
            return _Registered(AUGMENTATIONS.get(config))
        config = [AugmentStep.model_validate(row) for row in AUGMENT_PRESETS[config]]
    return Augmentation(_steps(config, image_size))


class Augmentation:
    """A row of operations on a batch; the batch as given stays as it is."""

    def __init__(self, steps: list[Step]) -> None:
        self._steps = steps

    def __call__(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Return the batch, augmented, with parameters from a generator on its device."""
        return self._apply(images, len(images), 0, generator)

    def part(self, images: torch.Tensor, batch: torch.Tensor, rows: slice, generator: torch.Generator) -> torch.Tensor:
        """Return `self(images[batch], generator)[rows]` at the cost of those rows.

        Args:
            images: to take them from.
            batch: indices of the whole batch.
            rows: of the batch, both bounds given.
            generator: on the images' device.
        """
        return self._apply(images[batch[rows]], len(batch), rows.start, generator)

    def _apply(self, images: torch.Tensor, count: int, first: int, generator: torch.Generator) -> torch.Tensor:
        """Augment the images from number `first` on of a batch of `count`."""
        drawn = [(step.apply, step.draw(count, generator)) for step in self._steps]
        size = _ROWS_AT_ONCE if images.device.type == "cpu" else max(1, len(images))
        parts = []
        for start in range(0, len(images) if drawn else 0, size):
            part = images[start : start + size]
            for apply, parameters in drawn:
                part = apply(part, *(each[..., first + start : first + start + len(part)] for each in parameters))
            parts.append(part)
        return torch.cat(parts) if len(parts) > 1 else parts[0] if parts else images


class _Registered(Augmentation):
    """A function of the user's, which may look at any image of the batch, so all of it is augmented for any part."""

    def __init__(self, function: Operation) -> None:
        self._function = function

    def __call__(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return self._function(images, generator)

    def part(self, images: torch.Tensor, batch: torch.Tensor, rows: slice, generator: torch.Generator) -> torch.Tensor:
        return self._function(images[batch], generator)[rows]


def _steps(config: list[AugmentStep], image_size: int) -> list[Step]:
    """One step a row, save that a flip right before a rotation shares its resampling."""
    steps: list[Step] = []
    flip: Flip | None = None
    for row in config:
        if flip is not None and row.rotate is None:
            steps.append(flip_step(flip))
        if row.rotate is not None:
            steps.append(rotate_step(row.rotate, flip))
        elif row.blur is not None:
            steps.append(blur_step(row.blur, image_size))
        elif row.color_jitter is not None:
            steps.append(color_jitter_step(row.color_jitter))
        elif row.crop is not None:
            steps.append(crop_step(row.crop, image_size))
        flip = row.flip
    if flip is not None:
        steps.append(flip_step(flip))
    return steps


class Normalize:
    """`(images - mean) / std`, mean and std on the scale 0..1, as one multiply-add on the device."""

    def __init__(self, mean: Channels, std: Channels, device: torch.device | str) -> None:
        self._scale = 1 / torch.tensor(std, device=device).view(3, 1, 1)
        self._shift = -torch.tensor(mean, device=device).view(3, 1, 1) * self._scale
        self._scale_of_uint8 = self._scale / 255

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Return float32, channels_last images of uint8 (0..255) or float (0..1) ones."""
        scale = self._scale_of_uint8 if images.dtype == torch.uint8 else self._scale
        # In planes first: on a CPU, arithmetic over the short innermost dimension of channels_last is slow.
        normalized = torch.addcmul(self._shift, images.to(torch.float32), scale)
        return normalized.contiguous(memory_format=torch.channels_last)


def as_float(images: torch.Tensor) -> torch.Tensor:
    """Return images as float32 on the scale 0..1."""
    return images / 255 if images.dtype == torch.uint8 else images


def _uniform(low: float, high: float, count: int, generator: torch.Generator) -> torch.Tensor:
    return torch.rand(count, generator=generator, device=generator.device) * (high - low) + low


def _chosen(p: float, count: int, generator: torch.Generator) -> torch.Tensor:
    return torch.rand(count, generator=generator, device=generator.device) < p


def _per_image(values: torch.Tensor) -> torch.Tensor:
    """Reshape N values so that they broadcast over N x C x H x W."""
    return values.view(-1, 1, 1, 1)


# ---------------------------------------------------------------------------------------------------------
# Crop


def crop_step(config: Crop, image_size: int) -> Step:
    """Pad with black and crop back to the size, at a random place."""
    padding = config.padding or max(1, image_size // 8)
    return Step(
        lambda count, generator: (draw_crop(count, padding, generator),),
        lambda images, corners: apply_crop(images, corners, padding),
    )


def draw_crop(count: int, padding: int, generator: torch.Generator) -> torch.Tensor:
    """Draw the top and left of each crop inside the padded image: int64, 2 x count, 0 .. 2 * padding."""
    return torch.randint(2 * padding + 1, (2, count), generator=generator, device=generator.device)


def apply_crop(images: torch.Tensor, corners: torch.Tensor, padding: int) -> torch.Tensor:
    """Cut each image's window out of the zero-padded batch: one gather over a view of all windows."""
    height, width = images.shape[-2:]
    padded = F.pad(images, (padding,) * 4)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    return windows[torch.arange(len(images), device=images.device), :, corners[0], corners[1]]


# ---------------------------------------------------------------------------------------------------------
# Flip and rotation


def flip_step(config: Flip) -> Step:
    """Mirror images, exactly; uint8 stays uint8."""
    return Step(lambda count, generator: (draw_flip(count, config, generator),), apply_flip)


def draw_flip(count: int, config: Flip, generator: torch.Generator) -> torch.Tensor:
    """Draw who is mirrored left to right and who top to bottom: bool, 2 x count."""
    both = torch.stack([_chosen(config.p, count, generator), _chosen(config.p, count, generator)])
    axes = torch.tensor([config.direction != "vertical", config.direction != "horizontal"])
    return both & axes.to(both.device, non_blocking=True).view(2, 1)


def apply_flip(images: torch.Tensor, flips: torch.Tensor) -> torch.Tensor:
    """Mirror left to right where `flips[0]`, top to bottom where `flips[1]`."""
    images = torch.where(_per_image(flips[0]), images.flip(3), images)
    return torch.where(_per_image(flips[1]), images.flip(2), images)


def rotate_step(config: Rotate, flip: Flip | None = None) -> Step:
    """Turn images after mirroring them, in one resampling."""
    if flip is None:
        return Step(
            lambda count, generator: (draw_rotate(count, config, generator),),
            lambda images, degrees: apply_flip_and_rotate(images, None, degrees),
        )
    return Step(
        lambda count, generator: (draw_flip(count, flip, generator), draw_rotate(count, config, generator)),
        apply_flip_and_rotate,
    )


def draw_rotate(count: int, config: Rotate, generator: torch.Generator) -> torch.Tensor:
    """Draw angles in degrees, counter-clockwise; 0 for those not chosen."""
    angles = _uniform(-config.degrees, config.degrees, count, generator)
    return angles * _chosen(config.p, count, generator)


def apply_flip_and_rotate(images: torch.Tensor, flips: torch.Tensor | None, degrees: torch.Tensor) -> torch.Tensor:
    """Mirror (as `apply_flip`), then turn about the centre: bilinear, black outside. Returns floats."""
    height, width = images.shape[-2:]
    radians = torch.deg2rad(degrees)
    cos, sin = radians.cos(), radians.sin()
    # Where each pixel of the result comes from, in coordinates of -1..1 along either side.
    to_input = torch.stack([cos, -sin * height / width, sin * width / height, cos], dim=1).view(-1, 2, 2)
    if flips is not None:
        to_input = to_input * (1 - 2 * flips.T.to(to_input.dtype)).unsqueeze(2)
    centres = _pixel_centres(height, width, images.device).expand(len(images), -1, -1)
    grid = torch.bmm(centres, to_input.transpose(1, 2)).view(-1, height, width, 2)
    return F.grid_sample(as_float(images), grid, mode="bilinear", padding_mode="zeros", align_corners=False)


@lru_cache(maxsize=8)
def _pixel_centres(height: int, width: int, device: torch.device) -> torch.Tensor:
    """Return x and y of every pixel's centre, -1..1 from edge to edge: (height * width) x 2, row by row.

    What torch's affine_grid makes anew in every call.
    """
    y, x = ((2 * torch.arange(n, device=device) + 1) / n - 1 for n in (height, width))
    return torch.cartesian_prod(y, x).flip(1)


# ---------------------------------------------------------------------------------------------------------
# Blur


def blur_step(config: Blur, image_size: int) -> Step:
    """Gaussian blur, each image by a sigma of its own."""
    if config.kernel // 2 >= image_size:
        raise UserError(f"augment: blur: kernel {config.kernel} is too large for images of {image_size} pixels")
    return Step(
        lambda count, generator: (draw_blur(count, config, generator),),
        lambda images, sigmas: apply_blur(images, sigmas, config.kernel),
    )


def draw_blur(count: int, config: Blur, generator: torch.Generator) -> torch.Tensor:
    """Draw sigmas, in pixels; 0 (no blur) for those not chosen."""
    return _uniform(*config.sigma, count, generator) * _chosen(config.p, count, generator)


def apply_blur(images: torch.Tensor, sigmas: torch.Tensor, kernel: int) -> torch.Tensor:
    """Blur along one axis, then the other, with reflected borders. Returns floats."""
    reach = kernel // 2
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
    blurred = images.narrow(dim, reach, size) * _per_image(weights[reach])
    for i in range(reach):
        pair = images.narrow(dim, i, size) + images.narrow(dim, 2 * reach - i, size)
        blurred.addcmul_(pair, _per_image(weights[i]))
    return blurred


# ---------------------------------------------------------------------------------------------------------
# Colour jitter

_GRAY_WEIGHTS = (0.2989, 0.587, 0.114)  # torchvision's, after ITU-R 601-2
_HUGE = 1e30  # lifts any difference of two channels that matters over 1


class Jitter(NamedTuple):
    """Parameters of a batch's colour jitter."""

    factors: torch.Tensor
    """Brightness, contrast, saturation: 3 x N; 1 changes nothing."""
    hue: torch.Tensor
    """Turn of the colour wheel: N, in turns; 0 changes nothing."""
    ranks: torch.Tensor
    """Place (0..3) of brightness, contrast, saturation and hue in each image's order: 4 x N."""


def color_jitter_step(config: ColorJitter) -> Step:
    """Change brightness, contrast, saturation and hue, in an order of each image's own."""
    return Step(
        lambda count, generator: draw_color_jitter(count, config, generator),
        lambda images, *parameters: apply_color_jitter(images, Jitter(*parameters)),
    )


def draw_color_jitter(count: int, config: ColorJitter, generator: torch.Generator) -> Jitter:
    """Draw factors from [max(0, 1 - strength), 1 + strength], hue from [-hue, hue], and the orders."""
    strengths = (config.brightness, config.contrast, config.saturation)
    factors = torch.stack([_uniform(max(0.0, 1 - s), 1 + s, count, generator) for s in strengths])
    hue = _uniform(-config.hue, config.hue, count, generator)
    chosen = _chosen(config.p, count, generator)
    ranks = torch.rand(4, count, generator=generator, device=generator.device).argsort(dim=0)
    return Jitter(torch.where(chosen, factors, 1), torch.where(chosen, hue, 0), ranks)


def apply_color_jitter(images: torch.Tensor, jitter: Jitter) -> torch.Tensor:
    """Apply the four changes to every image in its own order. Returns floats.

    Three of the four are blends with a gray, one pass each for all images whichever it is; so the blends that come
    before the hue, the hue, and the blends after it make seven passes, and a GPU is never asked who is who. A CPU
    can be asked at no cost: there, images that are not changed are left out.
    """
    images = as_float(images)
    if images.device.type != "cpu":
        return _jitter_all(images, jitter)
    rows = ((jitter.factors != 1).any(dim=0) | (jitter.hue != 0)).nonzero().squeeze(1)
    changed = _jitter_all(images[rows], Jitter(*(each[..., rows] for each in jitter)))
    return images.index_copy(0, rows, changed)


def _jitter_all(images: torch.Tensor, jitter: Jitter) -> torch.Tensor:
    matrices, weights = _blends(jitter)
    for blend in range(3):
        images = _blend(images, matrices[blend], weights[blend])
    images = _turn_hue(images, jitter.hue)
    for blend in range(3, 6):
        images = _blend(images, matrices[blend], weights[blend])
    return images


def _blends(jitter: Jitter) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the six passes: each image's matrix of colours, 6 x N x 3 x 3, and weights of its mean colour, 6 x N x 3.

    A pass is for one place in the order. An image takes part with the change that it has there: brightness blends with
    black, contrast with the image's mean gray, saturation with each pixel's gray.
    """
    device = jitter.ranks.device
    places = torch.tensor([0, 1, 2, 1, 2, 3]).to(device, non_blocking=True).view(6, 1)
    hue_rank = jitter.ranks[3]
    active = torch.cat([places[:3] < hue_rank, places[3:] > hue_rank])
    here = (jitter.ranks[:3] == places.unsqueeze(1)) & active.unsqueeze(1)
    factor = torch.where(here, jitter.factors, 1).prod(dim=1)
    _, of_contrast, of_saturation = ((1 - factor).unsqueeze(1) * here).unbind(1)
    gray = torch.tensor(_GRAY_WEIGHTS).to(device, non_blocking=True)
    matrices = factor[..., None, None] * torch.eye(3, device=device) + of_saturation[..., None, None] * gray
    return matrices, of_contrast[..., None] * gray


def _blend(images: torch.Tensor, matrix: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Map every pixel's colour by `matrix`, add `weights` times the image's mean colour, and keep to 0..1."""
    shift = (images.mean(dim=(2, 3)) * weights).sum(dim=1).view(-1, 1, 1)
    return torch.baddbmm(shift, matrix, images.flatten(2)).clamp_(0, 1).view_as(images)


def _turn_hue(images: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    """Turn each image's hue: to hue, chroma and value, and back (Smith 1978), the way back in closed form.

    Which channel is largest is told by factors of exactly 0 and 1: torch's comparisons and `where` are several times
    slower on a CPU than its arithmetic, and so is `remainder`.
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
    # How much of the chroma each channel lacks: red 2 - |h - 3|, green |h - 2| - 1, blue |h - 4| - 1, kept to 0..1.
    centre, slope, offset = (
        torch.tensor(numbers).view(1, 3, 1, 1).to(images.device, non_blocking=True)
        for numbers in ((3.0, 2.0, 4.0), (-1.0, 1.0, 1.0), (2.0, -1.0, -1.0))
    )
    share = (sector.unsqueeze(1) - centre).abs_().mul_(slope).add_(offset).clamp_(0, 1)
    return torch.addcmul(value.unsqueeze(1), chroma.unsqueeze(1), share, value=-1)
