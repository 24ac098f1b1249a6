"""Builds a network from its config, and checks that it can take images of a given size."""

from __future__ import annotations

import copy
import itertools
import traceback
from collections.abc import Callable
from functools import partial

import torch
import torchvision
from torch import nn

from raysweep.errors import UserError, did_you_mean
from raysweep.vision.config import ModelConfig
from raysweep.vision.memory import is_out_of_memory
from raysweep.vision.names import MODELS

TORCHVISION_PREFIX = "torchvision/"
_LARGEST_TRIED = 512
_WITH_AUXILIARY_HEADS = {"googlenet", "inception_v3"}
AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")
"""How the names of these heads' parameters begin."""


def build_model(config: ModelConfig, num_classes: int) -> nn.Module:
    """Return the network, with fresh weights from torch's global generator; UserError if it cannot be as asked."""
    arguments = config.options | ({} if config.width is None else {"width": config.width})
    of_torchvision = config.name.startswith(TORCHVISION_PREFIX)
    factory = _torchvision_factory(config) if of_torchvision else MODELS.get(config.name)
    try:
        model: nn.Module = factory(num_classes, **arguments)
    except Exception as error:
        if isinstance(error, UserError) or is_out_of_memory(error):
            raise
        (what,) = traceback.format_exception_only(error)[:1]
        raise UserError(f"model {config.name}: cannot be built with {arguments}: {what.strip()}") from error
    return model


def _torchvision_factory(config: ModelConfig) -> Callable[..., nn.Module]:
    name = config.name.removeprefix(TORCHVISION_PREFIX)
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise UserError(f"unknown network {config.name!r}{did_you_mean(name, known)}; known: {', '.join(known)}")
    if config.width is not None:
        raise UserError(f"model {config.name}: only raysweep's own networks take a width, torchvision's do not")
    # Else these return a tuple of logits in training, and warn of their initialisation.
    fixed = {"aux_logits": False, "init_weights": True} if name in _WITH_AUXILIARY_HEADS else {}
    if fixed and config.weights_of_torchvision:
        fixed["transform_input"] = True  # as torchvision builds them for its weights
    make = partial(torchvision.models.get_model, name, weights=None)
    return lambda num_classes, **options: make(num_classes=num_classes, **{**fixed, **options})


def check_image_size(model: nn.Module, name: str, image_size: int, batch_size: int) -> None:
    """Raise UserError, with the least image size that works, if the smallest training batch cannot pass the network."""
    shadow = copy.deepcopy(model).to("meta").train()
    if (problem := forward_problem(shadow, image_size, batch_size)) is None:
        return
    larger = itertools.chain(range(image_size + 1, 65), range(68, _LARGEST_TRIED + 1, 4))
    least = next((size for size in larger if forward_problem(shadow, size, batch_size) is None), None)
    advice = f"the least that works is {least}" if least else f"no size up to {_LARGEST_TRIED} works"
    raise UserError(
        f"model {name}: cannot take batches of {batch_size} images of {image_size}x{image_size} pixels ({problem}); "
        f"{advice} (data.image_size)"
    )


def forward_problem(model: nn.Module, image_size: int, batch_size: int) -> str | None:
    """Return why such a batch cannot pass a network on the meta device (torch's first line), or None if it can."""
    try:
        with torch.no_grad():
            model(torch.empty(batch_size, 3, image_size, image_size, device="meta"))
    except (RuntimeError, ValueError, AssertionError) as error:
        return str(error).splitlines()[0]
    return None
