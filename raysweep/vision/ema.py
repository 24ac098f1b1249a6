"""The exponential average of a network's weights, on torch's own AveragedModel.

The batch norms' running mean and variance are averaged like the weights: the average then holds statistics of the
same stretch of training as its weights, where a copy would hold those of the last few steps' weights alone (Polyak
and Juditsky 1992 for the idea; the warm-up of the decay is that of TensorFlow's ExponentialMovingAverage).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel


class _Blend:
    """average += (1 - decay) * (current - average), decay = min((1 + t) / (10 + t), 1 - 1 / horizon)."""

    def __init__(self, horizon_steps: float) -> None:
        self.longest = max(0.0, 1 - 1 / horizon_steps)
        self.weight = 1.0

    def step(self, t: int) -> None:
        """Set the weight of the current values for update number `t`."""
        self.weight = 1 - min((1 + t) / (10 + t), self.longest)

    def __call__(self, average: Sequence[torch.Tensor], current: Sequence[torch.Tensor], _: object) -> None:
        if average[0].is_floating_point():
            torch._foreach_lerp_(list(average), list(current), self.weight)
        else:  # BatchNorm's count of batches
            torch._foreach_copy_(list(average), list(current))


class AveragedWeights(AveragedModel):
    """A copy of `model` whose weights and buffers follow it, looking back over `horizon_steps` updates."""

    def __init__(self, model: nn.Module, horizon_steps: float) -> None:
        self_blend = _Blend(horizon_steps)
        super().__init__(model, multi_avg_fn=self_blend, use_buffers=True)
        self._blend = self_blend
        self._updates = 0
        for parameter in self.parameters():
            parameter.requires_grad_(False)

    def update_parameters(self, model: nn.Module) -> None:
        """Take in the weights of `model` after one more step."""
        self._blend.step(self._updates)
        self._updates += 1
        with torch.no_grad():
            super().update_parameters(model)

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        """Go on from a `state_dict()`."""
        self.load_state_dict(state)
        self._updates = int(self.n_averaged)
