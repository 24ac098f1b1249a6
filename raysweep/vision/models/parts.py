"""Parts of a network by the names of their parameters: what is frozen, and whose learning rate has a factor.

A name such as `layer1` or `layer1.0.conv1` stands for all parameters at or below it, and where something is frozen for
all batch norms; `*` and `?` in it stand for any text and any character, as in file names (fnmatch).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from fnmatch import fnmatchcase

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from raysweep.errors import UserError
from raysweep.terminal import some_of


def is_below(part: str, name: str) -> bool:
    """Whether `name` stands for a parameter, or a batch norm."""
    return fnmatchcase(part, name) or fnmatchcase(part, f"{name}.*")


def freeze(model: nn.Module, names: Collection[str]) -> None:
    """Take the parameters that `names` stand for out of the training; see `frozen_norms` for batch norms.

    Raises:
        UserError: a name stands for no parameter and no batch norm, or nothing is left to train.
    """
    parts = [*(name for name, _ in model.named_parameters()), *_norms(model)]
    _check_names("freeze", names, parts, "no parameter or batch norm")
    for parameter, value in model.named_parameters():
        if any(is_below(parameter, name) for name in names):
            value.requires_grad_(False)
    if names and not any(value.requires_grad for value in model.parameters()):
        raise UserError(f"freeze: {', '.join(names)} is the whole network: nothing is left to train")


def frozen_norms(model: nn.Module, names: Collection[str]) -> list[nn.Module]:
    """Return the batch norms that normalise by their running statistics, which stay as they are.

    They are those that `names` stand for, which may have no weights, and all others whose weights are frozen.
    """

    def is_frozen(name: str, norm: nn.Module) -> bool:
        weights = list(norm.parameters())
        is_named = any(is_below(name, each) for each in names)
        return is_named or (bool(weights) and not any(weight.requires_grad for weight in weights))

    return [norm for name, norm in _norms(model).items() if is_frozen(name, norm)]


def _norms(model: nn.Module) -> dict[str, nn.Module]:
    """Return the batch norms that have running statistics, by name."""
    norms = {name: module for name, module in model.named_modules() if isinstance(module, _BatchNorm)}
    return {name: norm for name, norm in norms.items() if norm.running_mean is not None}


def check_factors(model: nn.Module, factors: Mapping[str, float]) -> None:
    """Refuse a name in `lr_factors` that stands for no parameter which is trained."""
    trained = [name for name, value in model.named_parameters() if value.requires_grad]
    _check_names("lr_factors", factors, trained, "no parameter that is trained")


def factor_of(parameter: str, factors: Mapping[str, float]) -> float:
    """Return the factor of a parameter's learning rate: that of the longest name that stands for it, else 1."""
    names = [name for name in factors if is_below(parameter, name)]
    return factors[max(names, key=lambda name: (len(name), name))] if names else 1.0


def _check_names(key: str, names: Iterable[str], parts: Collection[str], none: str) -> None:
    idle = [name for name in names if not any(is_below(part, name) for part in parts)]
    if idle:
        known = list(dict.fromkeys(part.partition(".")[0] for part in parts))
        raise UserError(f"{key}: {none} is at or below {', '.join(idle)}; there are {some_of(known)}")
