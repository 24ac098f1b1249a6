"""Builds a ResNet from its layout (`layouts.LAYOUTS`), out of torchvision's ResNet, BasicBlock and Bottleneck.

Each layout's name is an attribute of this module: `resnets.my_resnet50(num_classes, width)` builds that network.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet, conv3x3

from raysweep.vision.layouts import LAYOUTS, Layout

STANDARD_WIDTH = 64


def __getattr__(name: str) -> Callable[..., nn.Module]:
    if name not in LAYOUTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return partial(LayoutNet, LAYOUTS[name])


class LayoutNet(ResNet):  # type: ignore[misc]  # torchvision brings no types
    """torchvision's ResNet with another layout: same parameter names, same forward, same initial weights.

    Input: float, N x 3 x H x W; output: logits, N x num_classes. `width` is the channels of the first stage; the
    later stages stay in proportion.
    """

    def __init__(self, layout: Layout, num_classes: int, width: int | None = None) -> None:
        nn.Module.__init__(self)  # ResNet's own constructor would make the layers of the standard layout
        width = width or STANDARD_WIDTH
        self._norm_layer = nn.BatchNorm2d
        self.inplanes, self.dilation, self.groups = width, 1, 1
        self.base_width = 64  # for _make_layer: a bottleneck's inner channels are its planes * base_width / 64
        kernel, pool = layout.stem_kernel, layout.stem_pool
        self.conv1 = nn.Conv2d(3, width, kernel, stride=layout.stem_stride, padding=kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(pool, stride=2, padding=(pool - 1) // 2) if pool else nn.Identity()
        for stage in range(1, 5):
            setattr(self, f"layer{stage}", self._stage(layout, stage, width))
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(self.inplanes, num_classes)
        for module in self.modules():  # as torchvision does it (He et al. 2015); its BatchNorm defaults are 1 and 0
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def _stage(self, layout: Layout, stage: int, width: int) -> nn.Sequential:
        """Blocks of one stage and the pool after it; empty (the identity) where the network has no such stage."""
        if stage > len(layout.depths):
            return nn.Sequential()
        planes, depth, stride = width * 2 ** (stage - 1), layout.depths[stage - 1], layout.strides[stage - 1]
        blocks: nn.Sequential = self._make_layer(BLOCKS[layout.block], planes, depth, stride=stride)
        if stage in layout.pool_after:
            blocks.append(nn.MaxPool2d(2))
        return blocks


class BottleneckWith3x3(Bottleneck):  # type: ignore[misc]  # torchvision brings no types
    """torchvision's bottleneck with its first convolution, the reducing 1x1, made 3x3.

    The source paper does not say which of the two 1x1 it replaced. We assume the reducing one, which sees all channels.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.conv1 = conv3x3(self.conv1.in_channels, self.conv1.out_channels)  # type: ignore[has-type]


BLOCKS = {"basic": BasicBlock, "bottleneck": Bottleneck, "bottleneck_3x3": BottleneckWith3x3}
