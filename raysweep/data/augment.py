"""Augmentation of whole batches, on their device, with parameters of each image's own.

`build_augment(config, image_size)` gives the function that a training step calls; `Normalize` ends every batch.
Each operation is two functions, so that a test can hand the same parameters to torchvision's v2 functional form:
one draws parameters from a generator, the other applies them and is deterministic. Images are uint8 (0..255) as the
prepared set has them, or float (0..1) from the first operation on that computes new values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from raysweep.config import AUGMENT_PRESETS, AugmentStep, Blur, ColorJitter, Crop, Flip, Rotate
from raysweep.data.dataset import Channels
from raysweep.errors import UserError
from raysweep.registry import AUGMENTATIONS

Operation = Callable[[torch.Tensor, torch.Generator], torch.Tensor]
"""(images N x 3 x H x W, generator on their device) -> images of the same shape; the input stays as it is."""


def build_augment(config: str | list[AugmentStep], image_size: int) -> Operation:
    """Return the augmentation of a preset, of a registered name, or of a list of operations.

    Raises:
        UserError: an operation does not fit images of this size.
    """
    if isinstance(config, str):
        if config not in AUGMENT_PRESETS:
            registered: Operation = AUGMENTATIONS.get(config)
            return registered
        config = [AugmentStep.model_validate(row) for row in AUGMENT_PRESETS[config]]
    operations = _operations(config, image_size)

    def augment(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        for operation in operations:
            images = operation(images, generator)
        return images

    return augment


def _operations(steps: list[AugmentStep], image_size: int) -> list[Operation]:
    """One operation a step, save that a flip right before a rotation shares its resampling."""
    operations: list[Operation] = []
    flip: Flip | None = None
    for step in steps:
        if flip is not None and step.rotate is None:
            operations.append(flip_operation(flip))
        if step.rotate is not None:
            operations.append(rotate_operation(step.rotate, flip))
        elif step.blur is not None:
            operations.append(blur_operation(step.blur, image_size))
        elif step.color_jitter is not None:
            operations.append(color_jitter_operation(step.color_jitter))
        elif step.crop is not None:
            operations.append(crop_operation(step.crop, image_size))
        flip = step.flip
    if flip is not None:
        operations.append(flip_operation(flip))
    return operations


class Normalize:
    """`(images - mean) / std`, mean and std on the scale 0..1, as one multiply-add on the device."""

    def __init__(self, mean: Channels, std: Channels, device: torch.device | str) -> None:
        self._scale = 1 / torch.tensor(std, device=device).view(3, 1, 1)
        self._shift = -torch.tensor(mean, device=device).view(3, 1, 1) * self._scale
        self._scale_of_uint8 = self._scale / 255

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Return float32, channels_last images of uint8 (0..255) or float (0..1) ones."""
        scale = self._scale_of_uint8 if images.dtype == torch.uint8 else self._scale
        floats = images.to(torch.float32, memory_format=torch.channels_last)
        return torch.addcmul(self._shift, floats, scale)


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


def crop_operation(config: Crop, image_size: int) -> Operation:
    """Pad with black and crop back to the size, at a random place."""
    padding = config.padding or max(1, image_size // 8)

    def crop(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return apply_crop(images, draw_crop(len(images), padding, generator), padding)

    return crop


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


def flip_operation(config: Flip) -> Operation:
    """Mirror images, exactly; uint8 stays uint8."""
    return lambda images, generator: apply_flip(images, draw_flip(len(images), config, generator))


def draw_flip(count: int, config: Flip, generator: torch.Generator) -> torch.Tensor:
    """Draw who is mirrored left to right and who top to bottom: bool, 2 x count."""
    both = torch.stack([_chosen(config.p, count, generator), _chosen(config.p, count, generator)])
    axes = torch.tensor([config.direction != "vertical", config.direction != "horizontal"])
    return both & axes.to(both.device, non_blocking=True).view(2, 1)


def apply_flip(images: torch.Tensor, flips: torch.Tensor) -> torch.Tensor:
    """Mirror left to right where `flips[0]`, top to bottom where `flips[1]`."""
    images = torch.where(_per_image(flips[0]), images.flip(3), images)
    return torch.where(_per_image(flips[1]), images.flip(2), images)


def rotate_operation(config: Rotate, flip: Flip | None = None) -> Operation:
    """Turn images after mirroring them, in one resampling."""

    def rotate(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        flips = None if flip is None else draw_flip(len(images), flip, generator)
        return apply_flip_and_rotate(images, flips, draw_rotate(len(images), config, generator))

    return rotate


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
    grid = F.affine_grid(F.pad(to_input, (0, 1)), list(images.shape), align_corners=False)
    return F.grid_sample(as_float(images), grid, mode="bilinear", padding_mode="zeros", align_corners=False)


# ---------------------------------------------------------------------------------------------------------
# Blur


def blur_operation(config: Blur, image_size: int) -> Operation:
    """Gaussian blur, each image by a sigma of its own."""
    if config.kernel // 2 >= image_size:
        raise UserError(f"augment: blur: kernel {config.kernel} is too large for images of {image_size} pixels")
    return lambda images, generator: apply_blur(images, draw_blur(len(images), config, generator), config.kernel)


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


@dataclass(frozen=True)
class Jitter:
    """Parameters of a batch's colour jitter."""

    factors: torch.Tensor
    """Brightness, contrast, saturation: 3 x N; 1 changes nothing."""
    hue: torch.Tensor
    """Turn of the colour wheel: N, in turns; 0 changes nothing."""
    ranks: torch.Tensor
    """Place (0..3) of brightness, contrast, saturation and hue in each image's order: 4 x N."""


def color_jitter_operation(config: ColorJitter) -> Operation:
    """Change brightness, contrast, saturation and hue, in an order of each image's own."""
    return lambda images, generator: apply_color_jitter(images, draw_color_jitter(len(images), config, generator))


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
    before the hue, the hue, and the blends after it make seven passes, and the device is never asked who is who.
    """
    images = as_float(images)
    hue_rank = jitter.ranks[3]
    for place in range(3):
        images = _blend_one(images, jitter, place, place < hue_rank)
    images = _turn_hue(images, jitter.hue)
    for place in range(1, 4):
        images = _blend_one(images, jitter, place, place > hue_rank)
    return images


def _blend_one(images: torch.Tensor, jitter: Jitter, place: int, active: torch.Tensor) -> torch.Tensor:
    """Apply to each `active` image the blend that has this place in its order.

    Brightness blends with black, contrast with the image's mean gray, saturation with each pixel's gray.
    """
    here = (jitter.ranks[:3] == place) & active
    factor = _per_image(torch.where(here, jitter.factors, 1).prod(dim=0))
    red, green, blue = images.unbind(1)
    gray = (red * _GRAY_WEIGHTS[0] + green * _GRAY_WEIGHTS[1] + blue * _GRAY_WEIGHTS[2]).unsqueeze(1)
    mean = gray.mean(dim=(1, 2, 3), keepdim=True)
    toward = gray * ((1 - factor) * _per_image(here[2])) + mean * ((1 - factor) * _per_image(here[1]))
    return torch.addcmul(toward, images, factor).clamp_(0, 1)


def _turn_hue(images: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    """Turn each image's hue: to hue, chroma and value, and back (Smith 1978, in the one-formula form for HSV)."""
    red, green, blue = images.unbind(1)
    value, chroma = images.amax(1), images.amax(1) - images.amin(1)
    safe = chroma.clamp(min=1e-12)
    sector = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    sector = sector + 6 * turns.view(-1, 1, 1)
    starts = torch.tensor([5.0, 3.0, 1.0]).view(1, 3, 1, 1).to(images.device, non_blocking=True)
    along = (sector.unsqueeze(1) + starts).remainder(6)
    share = torch.minimum(along, 4 - along).clamp_(0, 1)
    return torch.addcmul(value.unsqueeze(1), chroma.unsqueeze(1), share, value=-1)
