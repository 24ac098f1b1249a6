"""Networks compiled by torch.compile, whose code stays warm for the next trial that computes the same.

* compile_network    a network and what it computes in, the network compiled out
* begin_step         what CUDA graphs returned in the step before may be overwritten from now on
* release            a trial's end: what its CUDA graphs hold of the device is free again

torch.compile keeps what it compiles with a piece of code, at most 8 graphs of it, and runs what comes after them
uncompiled. One piece of code, the forward pass of torchvision's ResNet, is that of nearly all networks here. So each
computation gets a piece of its own. It takes two to five graphs: for a whole batch, for other sizes of batches, and for
both again where nothing is trained.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable
from types import FunctionType

import torch
from torch import nn

Network = Callable[[torch.Tensor], torch.Tensor]
Run = Callable[[nn.Module, torch.Tensor], torch.Tensor]

MOST_KEPT = 8
"""Computations whose code is kept. When another one comes, all are forgotten: torch forgets all or nothing."""

_kept: dict[Hashable, Run] = {}
_numbers = itertools.count()


class CompiledNetwork(nn.Module):
    """A network that runs compiled; its parameters and its mode are the network's."""

    def __init__(self, network: nn.Module, run: Run, has_graphs: bool) -> None:
        super().__init__()
        self.network, self.has_graphs = network, has_graphs
        self._run = run

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits, N x classes, of N x 3 x H x W images; see `begin_step`."""
        return self._run(self.network, images)


def compile_network(model: nn.Module, computes: Hashable, with_graphs: bool = False) -> CompiledNetwork:
    """Return a network compiled, by the code of an earlier one if that computed the same.

    `computes` is all that decides what is computed of the images, but for the weights' values and how many images there
    are.

    `with_graphs`: a GPU replays what it did, as CUDA graphs, rather than being told kernel by kernel. Then nothing is
    kept: graphs read one network's weights by their addresses, and belong to the thread that recorded them, while Tune
    runs each trial in a thread of its own. What torch compiled it finds on the disk.
    """
    if with_graphs:
        return CompiledNetwork(model, _compiled("reduce-overhead"), has_graphs=True)
    if computes not in _kept:
        if len(_kept) == MOST_KEPT:
            _forget()
        _kept[computes] = _compiled("default")
    return CompiledNetwork(model, _kept[computes], has_graphs=False)


def begin_step(forward: Network) -> None:
    """Say that a step begins, of training or of an evaluation: nobody needs what `forward` returned before.

    A step of training may take several forward and backward passes; gradients that they add up stay until the next.
    """
    if isinstance(forward, CompiledNetwork) and forward.has_graphs:
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]


def release(forward: Network) -> None:
    """Free the memory that CUDA graphs hold, if `forward` has any; it is not called again."""
    if isinstance(forward, CompiledNetwork) and forward.has_graphs:
        _forget()


def _forget() -> None:
    torch.compiler.reset()
    _kept.clear()


def _compiled(mode: str) -> Run:
    """Return a function that torch compiles apart from all others.

    Its name is its own too, since torch notes by file, line and name in which dimensions sizes were seen to change.
    """
    code = _run_network.__code__.replace(co_name=f"run_network_{next(_numbers)}")
    run: Run = torch.compile(FunctionType(code, globals()), mode=mode)
    return run


def _run_network(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    logits: torch.Tensor = network(images)
    return logits
