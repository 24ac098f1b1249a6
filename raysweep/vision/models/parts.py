"""Parts of a network by the names of their parameters: what is frozen, and whose learning rate has a factor.

A name such as `layer1` or `layer1.0.conv1` stands for all parameters at or below it; `*` and `?` in it stand for any
text and any character, as in file names (fnmatch).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from fnmatch import fnmatchcase

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from raysweep.errors import UserError
from raysweep.terminal import some_of


def is_below(parameter: str, name: str) -> bool:
    """Whether `name` stands for a parameter."""
    return fnmatchcase(parameter, name) or fnmatchcase(parameter, f"{name}.*")


def freeze(model: nn.Module, names: Collection[str]) -> None:
    """Take the parameters that `names` stand for out of the training.

    Raises:
        UserError: a name stands for none, or nothing is left to train.
    """
    _check_names("freeze", names, [name for name, _ in model.named_parameters()])
    for parameter, value in model.named_parameters():
        if any(is_below(parameter, name) for name in names):
            value.requires_grad_(False)
    if names and not any(value.requires_grad for value in model.parameters()):
        raise UserError(f"freeze: {', '.join(names)} is the whole network: nothing is left to train")


def frozen_norms(model: nn.Module) -> list[nn.Module]:
    """Return the batch norms whose weights are all frozen: they normalise by their running statistics, as they are."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    return [each for each in norms if each.affine and not any(value.requires_grad for value in each.parameters())]


def check_factors(model: nn.Module, factors: Mapping[str, float]) -> None:
    """Refuse a name in `lr_factors` that stands for no parameter which is trained."""
    _check_names("lr_factors", factors, [name for name, value in model.named_parameters() if value.requires_grad])


def factor_of(parameter: str, factors: Mapping[str, float]) -> float:
    """Return the factor of a parameter's learning rate: that of the longest name that stands for it, else 1."""
    names = [name for name in factors if is_below(parameter, name)]
    return factors[max(names, key=lambda name: (len(name), name))] if names else 1.0


def _check_names(key: str, names: Iterable[str], parameters: Collection[str]) -> None:
    idle = [name for name in names if not any(is_below(parameter, name) for parameter in parameters)]
    if idle:
        known = list(dict.fromkeys(parameter.partition(".")[0] for parameter in parameters))
        raise UserError(
            f"{key}: no parameter that is trained is at or below {', '.join(idle)}; there are {some_of(known)}"
        )
