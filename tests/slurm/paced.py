"""A network whose training takes as long on any machine: `raysweep --import paced`, `model: paced`.

What is done to a sweep has to find it training, on a machine with nothing else to do as well as on a busy one.
"""

from __future__ import annotations

import os
import time

from torch import Tensor, nn

from raysweep import register_model

STEP_S = float(os.environ.get("STEP_S", "0.025"))
"""How long a step takes at least; an epoch of the digits in batches of 64 has 23. It changes no number."""


class Paced(nn.Sequential):
    """A small network that is slow in training alone."""

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            time.sleep(STEP_S)
        return super().forward(images)


@register_model("paced")
def paced(num_classes: int, width: int | None = None) -> nn.Module:
    """Build it, with so many channels."""
    channels = width or 4
    convolution = nn.Conv2d(3, channels, 3, padding=1)
    return Paced(convolution, nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * channels, num_classes))
