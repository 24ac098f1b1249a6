"""The ResNets by name, as plain data: each row of `LAYOUTS` is a network, which `resnets` builds.

All but resnet18 are the source paper's; docs/models.md says what each of them is. This module needs no torch, so that a
sweep file can be checked without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True)
class Layout:
    """What sets one ResNet apart from another."""

    block: Literal["basic", "bottleneck", "bottleneck_3x3"]
    """The residual block of every stage; `bottleneck_3x3` has a 3x3 in place of its first 1x1."""
    depths: Sequence[int]
    """Blocks in each stage, for up to four stages."""
    strides: Sequence[int] = (1, 2, 2, 2)
    """Stride of the first block in each stage."""
    stem_kernel: int = 7
    """Kernel of the first convolution."""
    stem_stride: int = 2
    """Stride of the first convolution."""
    stem_pool: int = 3
    """Kernel of the max-pool of stride 2 after the stem; 0: no pool."""
    pool_after: Sequence[int] = ()
    """Stages, counted from 1, that a 2x max-pool follows."""


_18, _34, _152 = (2, 2, 2, 2), (3, 4, 6, 3), (3, 8, 36, 3)  # ResNet-50 has the depths of 34
_RECEPTIVE = Layout("bottleneck", _34, strides=(1, 1, 1, 1), stem_pool=0, pool_after=(3,))
_V2 = replace(_RECEPTIVE, pool_after=(2, 3))

LAYOUTS = {
    "baseline_block": Layout("basic", (1,), stem_kernel=3, stem_stride=1, stem_pool=2),  # its stem is our assumption
    "resnet18": Layout("basic", _18),
    "resnet34": Layout("basic", _34),
    "resnet50": Layout("bottleneck", _34),
    "resnet152": Layout("bottleneck", _152),
    "my_resnet34": Layout("basic", _34, stem_pool=0),
    "my_resnet50": Layout("bottleneck", _34, stem_pool=0),
    "receptive_resnet50": _RECEPTIVE,
    "v2_receptive_resnet50": _V2,
    "v3_receptive_resnet50": replace(_V2, block="bottleneck_3x3"),
    "v4_receptive_resnet50": replace(_V2, stem_stride=1),
}
