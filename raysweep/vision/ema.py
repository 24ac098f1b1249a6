"""The exponential average of a network's weights: torch's AveragedModel, updated without a wait for the device.

The batch norms' running mean and variance are averaged like the weights: the average then holds statistics of the
same stretch of training as its weights, where a copy would hold those of the last few steps' weights alone (Polyak
and Juditsky 1992 for the idea; the warm-up of the decay is that of TensorFlow's ExponentialMovingAverage).

AveragedModel lists all tensors anew in each update and copies its count of updates to their device, which waits for the
copy. Here the lists are made once, and the count stays on the CPU; `benchmarks/ema.py` measures both.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from operator import is_
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel


class AveragedWeights(AveragedModel):
    """A copy of `model` whose weights and buffers follow it, looking back over `horizon_steps` updates."""

    def __init__(self, model: nn.Module, horizon_steps: float) -> None:
        super().__init__(model, use_buffers=True)
        self._longest = max(0.0, 1 - 1 / horizon_steps)
        self._pairs = _Pairs(self.module, model)
        self.requires_grad_(False)

    def update_parameters(self, model: nn.Module) -> None:
        """Take in the weights of `model`, which lie on the average's device, after one more step."""
        if not self._pairs.are_of(self.module, model):
            self._pairs = _Pairs(self.module, model)
        t = int(self.n_averaged)
        with torch.no_grad():
            if t == 0:
                self._pairs.copy()
            else:
                self._pairs.blend(min((1 + t) / (10 + t), self._longest))
        self.n_averaged += 1

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> AveragedWeights:
        """Move all but the count of updates, which stays on the CPU, where no device is waited for."""
        count = self.n_averaged
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.n_averaged = count
        return self


class _Pairs:
    """Each tensor of an average beside the network's, in lists of one type and device, as foreach functions take them.

    Tensors that are written in place stay in the lists. A network may come to hold others, as after `.to(...)`:
    `are_of` tells.
    """

    def __init__(self, average: nn.Module, network: nn.Module) -> None:
        self._of = average, network
        self._holders = [held for model in self._of for module in model.modules() for held in _what_holds(module)]
        self._held = self._holdings()
        self._lists: dict[tuple[torch.dtype, torch.device], tuple[list[torch.Tensor], list[torch.Tensor]]] = {}
        averages, currents = (chain(model.parameters(), model.buffers()) for model in self._of)
        for averaged, current in zip(averages, currents, strict=True):
            of_both = self._lists.setdefault((averaged.dtype, averaged.device), ([], []))
            for each, tensor in zip(of_both, (averaged, current), strict=True):
                each.append(tensor)

    def are_of(self, average: nn.Module, network: nn.Module) -> bool:
        """Whether these are all tensors of the two, in a tenth of the time that `parameters()` and `buffers()` take."""
        holdings = self._holdings()
        is_same = average is self._of[0] and network is self._of[1] and len(holdings) == len(self._held)
        return is_same and all(map(is_, holdings, self._held))

    def _holdings(self) -> list[Any]:
        return [each for holder in self._holders for each in holder.values()]

    def copy(self) -> None:
        """Set the average to the network."""
        for averages, currents in self._lists.values():
            torch._foreach_copy_(averages, currents)

    def blend(self, decay: float) -> None:
        """Keep a share of `decay` of the average; whole numbers, as batch norm's counts are, become the network's."""
        for (dtype, _), (averages, currents) in self._lists.items():
            if dtype.is_floating_point:
                torch._foreach_lerp_(averages, currents, 1 - decay)
            else:
                torch._foreach_copy_(averages, currents)


def _what_holds(module: nn.Module) -> tuple[dict[str, Any], ...]:
    return module._parameters, module._buffers, module._modules
