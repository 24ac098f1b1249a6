"""RandAugment, by torchvision's own operations on all images of a batch that share one."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, PositiveInt

from raysweep.vision.augment.operation import LazyModule, Operation, to_device, torch

if TYPE_CHECKING:
    from torchvision.transforms.v2 import functional as V
else:
    V = LazyModule("torchvision.transforms.v2.functional")

LEVELS = 31


class RandAugment(Operation):
    """Random operations, one after the other (RandAugment, Cubuk et al. 2019, as torchvision has it)."""

    operations: PositiveInt = 2
    """How many each image undergoes."""
    magnitude: Annotated[int, Field(ge=0, lt=LEVELS)] = 9
    """Their strength, of 31 levels."""

    def draw(self, count: int, image_size: int, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        """Draw which operations each image undergoes, as places in `KINDS`, and the sign of each: `operations` x count.

        They are on the CPU, which has to know which images share an operation, so that no device is waited for. They
        come from a generator of their own, with a seed of what the given one began with.
        """
        from raysweep.vision.randomness import generator as seeded_by  # which imports torch

        drawn_from = seeded_by("cpu", "rand_augment", generator.initial_seed(), self.operations, self.magnitude)
        shape = self.operations, count
        kinds = torch.randint(len(KINDS), shape, generator=drawn_from)
        return kinds, torch.randint(2, shape, generator=drawn_from) * 2 - 1

    def apply(self, images: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        """Apply to each image its operations, in order; uint8 stays uint8."""
        from raysweep.vision.augment.unblocked import Unblocked  # which imports torch

        kinds, signs = parameters
        changes = torch.where(torch.tensor([*KINDS.values()])[kinds], signs, 1) * (kinds + 1)
        order = to_device(changes.argsort(dim=1, stable=True), images.device)
        images = images.clone()
        with Unblocked() if images.device.type != "cpu" else nullcontext():
            for rows, of_each in zip(order, changes, strict=True):
                found, counts = of_each.unique(return_counts=True)  # in ascending order, as the rows are
                for change, same in zip(found.tolist(), rows.split(counts.tolist()), strict=True):
                    level = self.magnitude if change > 0 else -self.magnitude
                    images[same] = apply_kind(images[same], NAMES[abs(change) - 1], level)
        return images


def apply_kind(images: torch.Tensor, name: str, level: int) -> torch.Tensor:
    """Apply one kind of operation at a level, which may be negative, to images of any number."""
    share = level / (LEVELS - 1)
    bound = 255 if images.dtype == torch.uint8 else 1.0
    changes: dict[str, Callable[[], Any]] = {
        "identity": lambda: images,
        "shear_x": lambda: _affine(images, center=[0, 0], shear=[math.degrees(math.atan(0.3 * share)), 0.0]),
        "shear_y": lambda: _affine(images, center=[0, 0], shear=[0.0, math.degrees(math.atan(0.3 * share))]),
        "translate_x": lambda: _affine(images, translate=[int(share * 150 / 331 * images.shape[-1]), 0]),
        "translate_y": lambda: _affine(images, translate=[0, int(share * 150 / 331 * images.shape[-2])]),
        "rotate": lambda: V.rotate(images, 30 * share),
        "brightness": lambda: V.adjust_brightness(images, 1 + 0.9 * share),
        "color": lambda: V.adjust_saturation(images, 1 + 0.9 * share),
        "contrast": lambda: V.adjust_contrast(images, 1 + 0.9 * share),
        "sharpness": lambda: V.adjust_sharpness(images, 1 + 0.9 * share),
        "posterize": lambda: V.posterize(images, 8 - round(4 * share)),
        "solarize": lambda: V.solarize(images, bound * (1 - share)),
        "auto_contrast": lambda: V.autocontrast(images),
        "equalize": lambda: V.equalize(images),
    }
    changed: torch.Tensor = changes[name]()
    return changed


def _affine(images: torch.Tensor, **changes: Any) -> Any:
    whole = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0], **changes}
    return V.affine(images, **whole)


SIGNED = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate", "brightness", "color", "contrast", "sharpness")
KINDS = {name: name in SIGNED for name in ("identity", *SIGNED, "posterize", "solarize", "auto_contrast", "equalize")}
"""Whether an operation's strength has a sign, by name, in torchvision's order."""
NAMES = list(KINDS)
