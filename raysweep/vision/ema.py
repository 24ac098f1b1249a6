"""The exponential average of a network's weights, on torch's own AveragedModel.

The batch norms' running mean and variance are averaged like the weights: the average then holds statistics of the
same stretch of training as its weights, where a copy would hold those of the last few steps' weights alone (Polyak
and Juditsky 1992 for the idea; the warm-up of the decay is that of TensorFlow's ExponentialMovingAverage).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel


class AveragedWeights(AveragedModel):
    """A copy of `model` whose weights and buffers follow it, looking back over `horizon_steps` updates."""

    def __init__(self, model: nn.Module, horizon_steps: float) -> None:
        super().__init__(model, use_buffers=True)
        self._longest = max(0.0, 1 - 1 / horizon_steps)
        self.requires_grad_(False)

    def update_parameters(self, model: nn.Module) -> None:
        """Take in the weights of `model` after one more step."""
        t = int(self.n_averaged)  # it lies on the CPU: no device has to wait
        self.multi_avg_fn = partial(_blend, decay=min((1 + t) / (10 + t), self._longest))
        with torch.no_grad():
            super().update_parameters(model)


def _blend(average: Sequence[torch.Tensor], current: Sequence[torch.Tensor], _: object, *, decay: float) -> None:
    if average[0].is_floating_point():
        torch._foreach_lerp_(list(average), list(current), 1 - decay)
    else:  # batch norm's count of batches
        torch._foreach_copy_(list(average), list(current))
