"""Optimizers: a trial's config and network in; torch's optimizer out, with a group for each kind of parameter."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from pydantic import ValidationError
from torch import nn

from raysweep.errors import UserError
from raysweep.vision.config import AdamConfig, AdamWConfig, MuonConfig, OwnOptimizer, SgdConfig, TrialConfig
from raysweep.vision.models.parts import factor_of
from raysweep.vision.names import OPTIMIZERS

FACTOR = "factor"


class Optimizer(Protocol):
    """What the loop asks of an optimizer: a part of torch.optim.Optimizer."""

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups, in the order of `parameter_groups`, whose `lr` the loop sets before each step."""

    def step(self) -> Any:
        """Update the parameters by their gradients."""

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients."""

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` takes, for torch.load(weights_only=True)."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state."""


def parameter_groups(config: TrialConfig, model: nn.Module) -> list[dict[str, Any]]:
    """Return the trained parameters in groups, each of one `factor` of the learning rate.

    Where `decay_norm_and_bias` is false, parameters with less than two dimensions have groups of their own, without
    weight decay: biases, and the weights and biases of normalisations.
    """
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    decay_all = config.optimizer.decay_norm_and_bias
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            key = factor_of(name, config.lr_factors), decay_all or parameter.dim() > 1
            groups.setdefault(key, []).append(parameter)
    return [
        {"params": parameters, FACTOR: factor, **({} if decays else {"weight_decay": 0.0})}
        for (factor, decays), parameters in groups.items()
    ]


def build_optimizer(config: TrialConfig, model: nn.Module) -> tuple[Optimizer, list[float]]:
    """Return the optimizer of `config`, with one fused kernel for all parameters where the device has it.

    Also returns the factor of the learning rate of each of its groups.
    """
    groups = parameter_groups(config, model)
    if isinstance(config.optimizer, MuonConfig):
        groups = _split_by_dimensions(groups)
    factors = [group.pop(FACTOR) for group in groups]
    device = groups[0]["params"][0].device.type
    return _optimizer(config, groups, fused=device in ("cpu", "cuda")), factors


def load_optimizer(
    optimizer: Optimizer, config: TrialConfig, state: dict[str, Any], of: str | None, from_another: bool
) -> None:
    """Let an optimizer go on from a state; `of` says whose it is (`fingerprint`).

    If it may be `from_another` trial, it need not fit. Where it is of another kind or of other groups, the optimizer
    begins fresh. Where it is of other numbers, and of torch's own kinds, its moments are gone on from with this trial's
    numbers. Older states, which do not say `of` what they are, were the trial's own.

    Raises:
        UserError: it is the trial's own, and does not fit.
    """
    before = config if of is None else _settings(of)
    if before and fingerprint(before) == fingerprint(config):
        optimizer.load_state_dict(state)
    elif not from_another:
        raise UserError(
            f"the last commit is of another optimizer ({of}) than the trial's ({fingerprint(config)}), as another "
            "version of raysweep, or of a module of your own, may leave it; put that back, or start anew with --fresh"
        )
    elif before and _kind(before) == _kind(config):
        groups = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
        optimizer.load_state_dict(state)
        for group, values in zip(optimizer.param_groups, groups, strict=True):  # torch's are those of the state
            group.update(values)


def fingerprint(config: TrialConfig) -> str:
    """Return what decides an optimizer and its groups, as JSON; not the learning rate, which is set in each step.

    It says what differs from the defaults, so that a key added later changes nothing.
    """
    groups = config.model_dump(mode="json", include={"freeze", "lr_factors"}, exclude_defaults=True)
    optimizer = config.optimizer.model_dump(mode="json", exclude_defaults=True)
    return json.dumps({**groups, "optimizer": {**optimizer, "name": config.optimizer.name}}, sort_keys=True)


def _settings(of: str) -> TrialConfig | None:
    """Return a config with the optimizer and groups of a fingerprint; None if they are not known here."""
    try:
        return TrialConfig.model_validate(json.loads(of))
    except ValidationError:
        return None


def _kind(config: TrialConfig) -> tuple[Any, ...]:
    """Return that in which two optimizers must agree for the one to take the other's moments."""
    optimizer = config.optimizer
    if isinstance(optimizer, OwnOptimizer):  # which may keep more in its groups than numbers of the config
        return optimizer, config.freeze, config.lr_factors
    return optimizer.name, optimizer.decay_norm_and_bias, config.freeze, config.lr_factors


def _optimizer(config: TrialConfig, groups: list[dict[str, Any]], fused: bool) -> Optimizer:
    lr = config.lr
    match config.optimizer:
        case SgdConfig(momentum=momentum, weight_decay=weight_decay, nesterov=nesterov):
            return torch.optim.SGD(groups, lr, momentum, 0, weight_decay, nesterov, fused=fused)
        case AdamConfig(betas=betas, weight_decay=weight_decay, eps=eps):
            return torch.optim.Adam(groups, lr, betas, eps, weight_decay, fused=fused)
        case AdamWConfig(betas=betas, weight_decay=weight_decay, eps=eps):
            return torch.optim.AdamW(groups, lr, betas, eps, weight_decay, fused=fused)
        case MuonConfig():
            return MuonAndAdamW(config.optimizer, groups, lr, fused)
        case OwnOptimizer(name=name, options=options):
            own: Optimizer = OPTIMIZERS.get(name)(groups, lr, **options)
            return own


# ---------------------------------------------------------------------------------------------------------
# Muon


def _split_by_dimensions(groups: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return groups of parameters with two dimensions or more, then those of the others."""
    split = [
        {**group, "params": [each for each in group["params"] if (each.dim() > 1) == is_matrix]}
        for is_matrix in (True, False)
        for group in groups
    ]
    return [group for group in split if group["params"]]


class MuonAndAdamW:
    """torch.optim.Muon for weights of two dimensions or more, and torch.optim.AdamW for all others.

    A convolution's filters are a matrix for Muon, a filter a row, as in the reference implementation (Jordan et al.
    2024): torch's own takes nothing but matrices. They are views of the network's memory, so nothing is copied back; a
    parameter that has no such view, since its first dimension is not the outermost in memory, is laid out anew.
    """

    def __init__(self, config: MuonConfig, groups: Sequence[dict[str, Any]], lr: float, fused: bool) -> None:
        matrices = [group for group in groups if group["params"][0].dim() > 1]
        others = [group for group in groups if group["params"][0].dim() <= 1]
        self._views: list[tuple[nn.Parameter, nn.Parameter]] = []
        """A convolution's filters, and the same memory as a matrix."""
        self._of_each: list[torch.optim.Optimizer] = []
        if matrices:
            muon: dict[str, Any] = {
                "nesterov": config.nesterov,
                "ns_steps": config.ns_steps,
                "adjust_lr_fn": config.adjust_lr,
            }
            of_muon = [{**group, "params": [*map(self._as_matrix, group["params"])]} for group in matrices]
            self._of_each.append(torch.optim.Muon(of_muon, lr, config.weight_decay, config.momentum, **muon))
        if others:
            adamw = torch.optim.AdamW(others, lr, config.betas, config.eps, config.weight_decay, fused=fused)
            self._of_each.append(adamw)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Muon's groups, then AdamW's."""
        return list(itertools.chain.from_iterable(each.param_groups for each in self._of_each))

    def _as_matrix(self, parameter: nn.Parameter) -> nn.Parameter:
        if parameter.dim() == 2:
            return parameter
        if as_matrix(parameter.detach(), parameter).data_ptr() != parameter.data_ptr():
            parameter.data = parameter.data.contiguous()
        matrix = nn.Parameter(as_matrix(parameter.detach(), parameter))
        self._views.append((parameter, matrix))
        return matrix

    def step(self) -> None:
        """Update all parameters by their gradients."""
        for parameter, matrix in self._views:
            matrix.grad = None if parameter.grad is None else as_matrix(parameter.grad, parameter)
        for optimizer in self._of_each:
            optimizer.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients."""
        for optimizer in self._of_each:
            optimizer.zero_grad(set_to_none)
        for parameter, _ in self._views:
            parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        """Return the states of both."""
        return {"of_each": [optimizer.state_dict() for optimizer in self._of_each]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the states of both."""
        for optimizer, state in zip(self._of_each, state_dict["of_each"], strict=True):
            optimizer.load_state_dict(state)


def as_matrix(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return a tensor as a matrix with the first dimension's rows, in the order in which `like` lies in memory.

    It is a view if both lie alike, be that in torch's usual order or with channels last.
    """
    rest = sorted(range(1, like.dim()), key=like.stride, reverse=True)
    return tensor.permute(0, *rest).reshape(len(tensor), -1)
