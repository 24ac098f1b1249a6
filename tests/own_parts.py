"""A loss, a metric, an optimizer and a schedule of one's own, as a module named with `--import` brings them.

Each computes what one of raysweep's own does, so that tests know what must come out.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.nn import functional as F

from raysweep import register_loss, register_metric, register_optimizer, register_schedule


@register_loss("own_loss")
def own_loss(logits: torch.Tensor, labels: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
    return scale * F.cross_entropy(logits, labels, reduction="none")


@register_metric("own_metric", mode="min")
def error(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return (logits.argmax(1) != labels).double().mean()


@register_optimizer("own_optimizer")
def own_optimizer(groups: list[dict[str, Any]], lr: float, momentum: float = 0.9) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, lr, momentum, 0, 5e-4, fused=True)


@register_schedule("own_schedule")
def half_a_cosine(epoch: float, epochs: float, least: float = 0.0) -> float:
    return least + (1 - least) * (1 + math.cos(math.pi * epoch / epochs)) / 2
