"""The source report's networks, put together from torchvision's ResNet, BasicBlock and Bottleneck.

* baseline_block             a 3x3 stem and one residual block
* resnet18, 34, 50, 152      as published
* my_resnet34, 50            no max-pool after the stem
  + receptive_resnet50       and no stride in the stages, a 2x max-pool after stage 3
    + v2_receptive_resnet50  and another after stage 2
      x v3                   and the first 1x1 of each bottleneck made 3x3
      x v4                   and the 7x7 stem without its stride

Each takes the number of classes and `width`, the channels of the first stage (64 by default); the later stages stay
in proportion. Input: float, N x 3 x H x W; output: logits, N x num_classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet, conv3x3

STANDARD_WIDTH = 64


class BottleneckWith3x3(Bottleneck):  # type: ignore[misc]  # torchvision brings no types
    """torchvision's bottleneck with its first convolution, the reducing 1x1, made 3x3.

    The report says one of the two 1x1 but not which; the reducing one sees all the channels, and is our assumption.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.conv1 = conv3x3(self.conv1.in_channels, self.conv1.out_channels)  # type: ignore[has-type]


@dataclass(frozen=True)
class Layout:
    """What sets one of the report's networks apart from another."""

    block: type[nn.Module]
    """Of which every stage is made."""
    depths: Sequence[int]
    """Blocks in each stage, up to four."""
    strides: Sequence[int] = (1, 2, 2, 2)
    """Of the first block in each stage."""
    stem_kernel: int = 7
    """Of the first convolution, in pixels."""
    stem_stride: int = 2
    stem_pool: nn.Module | None = None
    """After the stem; default: the published 3x3 max-pool of stride 2."""
    pool_after: Sequence[int] = ()
    """Stages, counted from 1, that a 2x max-pool follows."""


class ReportNet(ResNet):  # type: ignore[misc]  # torchvision brings no types
    """torchvision's ResNet with another layout: same parameter names, same forward, same initial weights."""

    def __init__(self, layout: Layout, num_classes: int, width: int | None) -> None:
        nn.Module.__init__(self)  # the layers of ResNet's own constructor are those of the standard layout
        width = width or STANDARD_WIDTH
        self._norm_layer = nn.BatchNorm2d
        self.inplanes, self.dilation, self.groups = width, 1, 1
        self.base_width = 64  # of _make_layer: a bottleneck's inner channels are its planes * base_width / 64
        self.conv1 = nn.Conv2d(
            3, width, layout.stem_kernel, stride=layout.stem_stride, padding=layout.stem_kernel // 2, bias=False
        )
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = layout.stem_pool or nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        for stage in range(1, 5):
            setattr(self, f"layer{stage}", self._stage(layout, stage, width))
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(self.inplanes, num_classes)
        self._initialise()

    def _stage(self, layout: Layout, stage: int, width: int) -> nn.Sequential:
        """Blocks of one stage and the pool after it; empty (the identity) where the network has no such stage."""
        if stage > len(layout.depths):
            return nn.Sequential()
        planes = width * 2 ** (stage - 1)
        blocks: nn.Sequential = self._make_layer(
            layout.block, planes, layout.depths[stage - 1], stride=layout.strides[stage - 1]
        )
        if stage in layout.pool_after:
            blocks.append(nn.MaxPool2d(2))
        return blocks

    def _initialise(self) -> None:
        """As torchvision's ResNet does (He et al. 2015, fan out); its BatchNorm defaults are already 1 and 0."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


_DEPTHS_18, _DEPTHS_34, _DEPTHS_152 = (2, 2, 2, 2), (3, 4, 6, 3), (3, 8, 36, 3)  # 50 has 34's

_RECEPTIVE = Layout(Bottleneck, _DEPTHS_34, strides=(1, 1, 1, 1), stem_pool=nn.Identity(), pool_after=(3,))
_V2 = replace(_RECEPTIVE, pool_after=(2, 3))


def baseline_block(num_classes: int, width: int | None = None) -> nn.Module:
    """One residual block after a 3x3 stem and a 2x max-pool (the stem is our assumption: the report is silent)."""
    layout = Layout(BasicBlock, (1,), stem_kernel=3, stem_stride=1, stem_pool=nn.MaxPool2d(2))
    return ReportNet(layout, num_classes, width)


def resnet18(num_classes: int, width: int | None = None) -> nn.Module:
    """ResNet-18 (He et al. 2016), as torchvision has it."""
    return ReportNet(Layout(BasicBlock, _DEPTHS_18), num_classes, width)


def resnet34(num_classes: int, width: int | None = None) -> nn.Module:
    """ResNet-34 (He et al. 2016), as torchvision has it."""
    return ReportNet(Layout(BasicBlock, _DEPTHS_34), num_classes, width)


def resnet50(num_classes: int, width: int | None = None) -> nn.Module:
    """ResNet-50 v1.5 (stride in the 3x3), as torchvision has it."""
    return ReportNet(Layout(Bottleneck, _DEPTHS_34), num_classes, width)


def resnet152(num_classes: int, width: int | None = None) -> nn.Module:
    """ResNet-152 v1.5, as torchvision has it."""
    return ReportNet(Layout(Bottleneck, _DEPTHS_152), num_classes, width)


def my_resnet34(num_classes: int, width: int | None = None) -> nn.Module:
    """ResNet-34 without the max-pool after the stem."""
    return ReportNet(Layout(BasicBlock, _DEPTHS_34, stem_pool=nn.Identity()), num_classes, width)


def my_resnet50(num_classes: int, width: int | None = None) -> nn.Module:
    """ResNet-50 without the max-pool after the stem."""
    return ReportNet(Layout(Bottleneck, _DEPTHS_34, stem_pool=nn.Identity()), num_classes, width)


def receptive_resnet50(num_classes: int, width: int | None = None) -> nn.Module:
    """my_resnet50 with the stages' strides removed and a 2x max-pool after stage 3."""
    return ReportNet(_RECEPTIVE, num_classes, width)


def v2_receptive_resnet50(num_classes: int, width: int | None = None) -> nn.Module:
    """receptive_resnet50 with another 2x max-pool after stage 2."""
    return ReportNet(_V2, num_classes, width)


def v3_receptive_resnet50(num_classes: int, width: int | None = None) -> nn.Module:
    """v2_receptive_resnet50 with the first 1x1 of each bottleneck made 3x3."""
    return ReportNet(replace(_V2, block=BottleneckWith3x3), num_classes, width)


def v4_receptive_resnet50(num_classes: int, width: int | None = None) -> nn.Module:
    """v2_receptive_resnet50 with a stride-1 7x7 stem."""
    return ReportNet(replace(_V2, stem_stride=1), num_classes, width)
