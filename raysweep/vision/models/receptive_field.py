"""The theoretical receptive field: how many pixels, along the height, one position of the last feature map can see.

`FieldMode` watches a forward pass operator by operator (on torch's meta device nothing is computed). For each feature
map it keeps the interval of input rows that the map's first row depends on. A convolution or a pool with kernel k,
dilation d, stride s and padding p turns the interval [a, b] of a map whose rows are j input rows apart into
[a - p j, b + (d (k - 1) - p) j] with rows s j apart. Where branches meet (a residual sum, a concatenation) the union
counts (Araujo, Norris and Sim, Distill 2019). The last feature map is the one that goes into global pooling or the
classifier. Normalisation counts as in evaluation, where it looks at no neighbour.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

WHOLE_IMAGE = math.inf
aten = torch.ops.aten


@dataclass(frozen=True)
class _Field:
    """Input rows `low` to `high` that a feature map's first row depends on; its rows are `jump` input rows apart."""

    low: float
    high: float
    jump: int

    @property
    def size(self) -> float:
        return self.high - self.low + 1

    def through(self, kernel: int, stride: int, padding: int, dilation: int = 1) -> _Field:
        """Return the field after a convolution or a pool."""
        low = self.low - padding * self.jump
        high = self.high + (dilation * (kernel - 1) - padding) * self.jump
        return _Field(low, high, self.jump * stride)


class FieldMode(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch gives its modes no types
    """Follows `images` through all that runs inside it; afterwards read `receptive_field` and `unknown`."""

    def __init__(self, images: torch.Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        # The tensors are kept, so that ids stay unique. Without a field: what global pooling returns, and logits.
        self._followed: dict[int, tuple[torch.Tensor, _Field | None]] = {id(images): (images, _Field(0, 0, 1))}
        self._last: _Field | None = None
        self.unknown: str | None = None
        """The first operator on feature maps that is no convolution, no pool, and not the same at every position."""

    @property
    def receptive_field(self) -> float | None:
        """Pixels; `WHOLE_IMAGE` if a part of the network looks at all of them (as squeeze-and-excitation), or None."""
        return None if self.unknown or self._last is None else self._last.size

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operator, and work out the fields of its results."""
        result = func(*args, **(kwargs or {}))
        inputs = [self._followed[id(leaf)] for leaf in tree_leaves((args, kwargs)) if id(leaf) in self._followed]
        outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        if inputs and outputs and (field := _union([field for _, field in inputs])):
            sizes = {tensor.shape[-2:] for tensor, field in inputs if field}
            new = self._after(func, args, field, sizes, outputs[0])
            self._followed |= {id(tensor): (tensor, new) for tensor in outputs}
        elif inputs:
            self._followed |= {id(tensor): (tensor, None) for tensor in outputs}
        return result

    def _after(
        self, func: Any, args: tuple[Any, ...], field: _Field, sizes: set[torch.Size], output: torch.Tensor
    ) -> _Field | None:
        """Return the field of what an operator makes of maps with that field and of these sizes."""
        if window := _window(func, args):
            return field.through(*window)
        if func not in (aten._adaptive_avg_pool2d.default, aten.adaptive_max_pool2d.default) and output.dim() > 2:
            if output.shape[-2:] in sizes:
                return field  # the operator is the same at every position
            if output.shape[2:] != (1, 1):
                self.unknown = self.unknown or str(func)
                return None
        self._last = field
        return None


def _union(fields: Sequence[_Field | None]) -> _Field | None:
    """Return the field of what depends on all of these; it is the whole image if only some have none."""
    local = [field for field in fields if field]
    if not local:
        return None
    jump = max(field.jump for field in local)
    if len(local) < len(fields):
        return _Field(-WHOLE_IMAGE, WHOLE_IMAGE, jump)
    return _Field(min(field.low for field in local), max(field.high for field in local), jump)


def _window(func: Any, args: tuple[Any, ...]) -> tuple[int, int, int, int] | None:
    """Return kernel, stride, padding and dilation along the height, if the operator slides a window over positions."""
    if func is aten.convolution.default and not args[6] and args[1].dim() == 4:
        return args[1].shape[2], args[3][0], args[4][0], args[5][0]
    if func in (aten.max_pool2d_with_indices.default, aten.avg_pool2d.default):
        kernel = args[1][0]
        stride = args[2][0] if len(args) > 2 and args[2] else kernel
        padding = args[3][0] if len(args) > 3 else 0
        dilated = func is aten.max_pool2d_with_indices.default and len(args) > 4
        return kernel, stride, padding, args[4][0] if dilated else 1
    return None
