"""A network from its config: built on the CPU, with a check that it can take images of a given size."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import torch
import torchvision
from torch import nn

from raysweep.errors import UserError, did_you_mean
from raysweep.registry import MODELS
from raysweep.vision.config import ModelConfig

TORCHVISION_PREFIX = "torchvision/"
_LARGEST_TRIED = 512
_WITH_AUXILIARY_HEADS = {"googlenet", "inception_v3"}


def build_model(config: ModelConfig, num_classes: int) -> nn.Module:
    """Return the network, with fresh weights from torch's global generator (see `randomness.seeded`).

    Raises:
        UserError: no such network, or it does not take the width or options asked for.
    """
    if config.name.startswith(TORCHVISION_PREFIX):
        return _torchvision_model(config, num_classes)
    arguments = dict(config.options)
    if config.width is not None:
        arguments["width"] = config.width
    factory = MODELS.get(config.name)
    try:
        model: nn.Module = factory(num_classes, **arguments)
    except TypeError as error:
        raise UserError(f"model {config.name}: cannot be built with {arguments}: {error}") from error
    return model


def _torchvision_model(config: ModelConfig, num_classes: int) -> nn.Module:
    name = config.name.removeprefix(TORCHVISION_PREFIX)
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise UserError(f"unknown network {config.name!r}{did_you_mean(name, known)}; known: {', '.join(known)}")
    if config.width is not None:
        raise UserError(f"model {config.name}: width is of raysweep's own networks; torchvision's take none")
    arguments: dict[str, Any] = {"num_classes": num_classes, **config.options}
    if name in _WITH_AUXILIARY_HEADS:  # their training output is a tuple of logits, and their old initialisation warns
        arguments = {"aux_logits": False, "init_weights": True, **arguments}
    try:
        model: nn.Module = torchvision.models.get_model(name, weights=None, **arguments)
    except TypeError as error:
        raise UserError(f"model {config.name}: cannot be built with {config.options}: {error}") from error
    return model


def check_image_size(model: nn.Module, name: str, image_size: int, batch_size: int) -> None:
    """Check that a training batch of such images can pass; costs shapes only, no arithmetic (torch's meta device).

    Args:
        model: left as it is.
        name: for the message.
        image_size: height and width, in pixels.
        batch_size: the smallest batch that will be trained on.

    Raises:
        UserError: it cannot; names the least size that works.
    """
    shadow = copy.deepcopy(model).to("meta").train()
    problem = forward_problem(shadow, image_size, batch_size)
    if problem is None:
        return
    larger = itertools.chain(range(image_size + 1, 65), range(68, _LARGEST_TRIED + 1, 4))
    least = next((size for size in larger if forward_problem(shadow, size, batch_size) is None), None)
    advice = f"the least that works is {least}" if least else f"no size up to {_LARGEST_TRIED} works"
    raise UserError(
        f"model {name}: cannot take batches of {batch_size} images of {image_size}x{image_size} pixels ({problem}); "
        f"{advice} (data.image_size)"
    )


def forward_problem(model: nn.Module, image_size: int, batch_size: int) -> str | None:
    """The first line of what torch says when such a batch passes a network on the meta device, or None if it passes."""
    try:
        with torch.no_grad():
            model(torch.empty(batch_size, 3, image_size, image_size, device="meta"))
    except (RuntimeError, ValueError, AssertionError) as error:
        return str(error).splitlines()[0]
    return None
