"""Summarizes a network without training it: parameters, FLOPs, stage sizes, receptive field.

They come from one forward pass of one image on torch's meta device, which works out shapes and computes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from raysweep.errors import UserError
from raysweep.vision.config import ModelConfig
from raysweep.vision.models.build import build_model, forward_problem
from raysweep.vision.models.receptive_field import WHOLE_IMAGE, FieldMode

_POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)


@dataclass(frozen=True)
class ModelSummary:
    """What is known of one network at one image size."""

    name: str
    params: int
    flops: int | None = None
    """FLOPs of one image's forward pass, where a multiply-add counts as two (torch.utils.flop_counter)."""
    receptive_field: int | None = None
    """Pixels, along the height, that a position of the last feature map can see; None for the reason in `note`."""
    stage_sizes: tuple[int, ...] = ()
    """Width in pixels of each stage's last feature map, before the pool that may follow it."""
    note: str | None = None
    """Why there is no receptive field, or why the network cannot take images of this size."""


def summarize(config: ModelConfig, num_classes: int, image_size: int) -> ModelSummary:
    """Describe a network; raises UserError if it cannot be built as asked."""
    model = _build_on_meta(config, num_classes)
    params = sum(parameter.numel() for parameter in model.parameters())
    problem = forward_problem(model.train(), image_size, batch_size=2)
    if problem is not None:
        too_small = f"cannot take images of {image_size}x{image_size} pixels: {problem}"
        return ModelSummary(config.name, params, note=too_small)
    widths = _watch_stages(model)
    images = torch.empty(1, 3, image_size, image_size, device="meta")
    # Not in inference_mode, where a dispatch mode sees composite operators before they are taken apart.
    with torch.no_grad(), FlopCounterMode(display=False) as counter, FieldMode(images) as fields:
        model.eval()(images)
    field, note = _field_or_reason(fields)
    sizes = () if fields.unknown else tuple(widths[stage] for stage in sorted(widths))
    return ModelSummary(config.name, params, counter.get_total_flops(), field, sizes, note)


def _field_or_reason(fields: FieldMode) -> tuple[int | None, str | None]:
    if fields.unknown:
        return None, f"no receptive field: {fields.unknown} moves positions about"
    if fields.receptive_field == WHOLE_IMAGE:
        return None, "a part of the network looks at the whole image"
    return None if fields.receptive_field is None else int(fields.receptive_field), None


def _build_on_meta(config: ModelConfig, num_classes: int) -> nn.Module:
    """Build without allocating weights, or on the CPU first if the constructor needs numbers."""
    try:
        with torch.device("meta"):
            return build_model(config, num_classes)
    except UserError:  # maybe only for want of numbers, which tensors on the meta device do not have
        return build_model(config, num_classes).to("meta")


def _watch_stages(model: nn.Module) -> dict[int, int]:
    """Return the width of each stage's last feature map, to be filled by a forward pass.

    The stages are the network's direct children that are an nn.Sequential with convolutions, or else the network.
    """
    widths: dict[int, int] = {}

    def note(stage: int, module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, torch.Tensor) and output.dim() == 4:
            widths[stage] = output.shape[-1]

    sequences = [child for child in model.children() if isinstance(child, nn.Sequential)]
    stages = [each for each in sequences if any(isinstance(part, nn.Conv2d) for part in each.modules())]
    for number, stage in enumerate(stages or [model]):
        for block in stage.children():
            if not isinstance(block, _POOLS):
                block.register_forward_hook(partial(note, number))
    return widths
