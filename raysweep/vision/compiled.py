"""Networks compiled by torch.compile, whose graphs stay warm for the next trial that computes the same."""

from __future__ import annotations

from collections.abc import Callable, Hashable

import torch
from torch import nn

_graphs_compute: Hashable = None
"""What the graphs that torch.compile keeps in this process compute."""


def compile_network(model: nn.Module, computes: Hashable) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a network compiled; graphs that compute anything but `computes`, a network on images, are forgotten.

    torch.compile keeps 8 graphs of a piece of code, and runs what comes after them uncompiled. A network takes two or
    three, and one piece of code, the forward pass of torchvision's ResNet, is that of nearly all networks here.
    """
    global _graphs_compute
    if computes != _graphs_compute:
        torch.compiler.reset()
        _graphs_compute = computes
    return torch.compile(model)
