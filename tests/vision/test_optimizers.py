"""Optimizers: a step of each is that of torch's own on parameters that are grouped by hand."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import torch
from torch import nn

from raysweep.errors import UserError
from raysweep.vision.config import TrialConfig
from raysweep.vision.optimizers import as_matrix, build_optimizer, fingerprint, load_optimizer

LR = 0.01


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.Flatten(),
        nn.Linear(8 * 36, 16),
        nn.LayerNorm(16),
        nn.Linear(16, 4),
    ]
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


def with_gradients(model: nn.Module, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    model(torch.rand(8, 3, 8, 8)).square().sum().backward()
    return model


def stepped(settings: dict[str, Any], steps: int = 3, **others: Any) -> tuple[nn.Module, Any]:
    model = network()
    optimizer, factors = build_optimizer(TrialConfig(optimizer=settings, lr=LR, **others), model)
    for group, factor in zip(optimizer.param_groups, factors, strict=True):
        group["lr"] = LR * factor
    for step in range(steps):
        with_gradients(model, step)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return model, optimizer


def by_hand(optimizers: Any, steps: int = 3) -> nn.Module:
    model = network()
    made = optimizers(model)
    for step in range(steps):
        with_gradients(model, step)
        for each in made:
            each.step()
            each.zero_grad(set_to_none=True)
    return model


def assert_same_weights(ours: nn.Module, theirs: nn.Module) -> None:
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, msg=lambda why, name=name: f"{name}: {why}")


REFERENCES = {
    "sgd": lambda groups: torch.optim.SGD(groups, LR, momentum=0.9, weight_decay=0.1),
    "adam": lambda groups: torch.optim.Adam(groups, LR, weight_decay=0.1, fused=True),
    "adamw": lambda groups: torch.optim.AdamW(groups, LR, weight_decay=0.1, fused=True),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_a_step_is_that_of_torchs_own(name: str) -> None:
    ours, _ = stepped({"name": name, "weight_decay": 0.1})
    assert_same_weights(ours, by_hand(lambda model: [REFERENCES[name](model.parameters())]))


@pytest.mark.parametrize("name", REFERENCES)
def test_without_decay_of_norms_and_biases_a_step_is_that_of_parameters_grouped_by_hand(name: str) -> None:
    def grouped(model: nn.Module) -> list[torch.optim.Optimizer]:
        decaying = [model[0].weight, model[3].weight, model[5].weight]
        norms = [*model[1].parameters(), *model[4].parameters()]
        biases = [model[0].bias, model[3].bias, model[5].bias]
        return [REFERENCES[name]([{"params": decaying}, {"params": [*norms, *biases], "weight_decay": 0.0}])]

    ours, _ = stepped({"name": name, "weight_decay": 0.1, "decay_norm_and_bias": False})
    assert_same_weights(ours, by_hand(grouped))


def test_factors_of_the_learning_rate_are_those_of_groups_by_hand() -> None:
    def grouped(model: nn.Module) -> list[torch.optim.Optimizer]:
        slow, rest = [*model[0].parameters()], [each for layer in model[1:] for each in layer.parameters()]
        return [torch.optim.SGD([{"params": slow, "lr": 0.1 * LR}, {"params": rest}], LR, momentum=0.9)]

    ours, _ = stepped({"name": "sgd", "weight_decay": 0}, lr_factors={"0": 0.1})
    assert_same_weights(ours, by_hand(grouped))


def test_muon_takes_matrices_and_filters_as_matrices_and_adamw_the_rest() -> None:
    def apart(model: nn.Module) -> list[torch.optim.Optimizer]:
        filters = model[0].weight
        flat = nn.Parameter(filters.detach().permute(0, 2, 3, 1).reshape(8, -1))  # a view: channels are last

        def move_to_the_matrix(filters: torch.Tensor) -> None:
            flat.grad, filters.grad = filters.grad.permute(0, 2, 3, 1).reshape(8, -1), None

        filters.register_post_accumulate_grad_hook(move_to_the_matrix)
        matrices = [flat, model[3].weight, model[5].weight]
        vectors = [each for each in model.parameters() if each.dim() < 2]
        muon = torch.optim.Muon(matrices, LR, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw")
        return [muon, torch.optim.AdamW(vectors, LR, weight_decay=0.1, fused=True)]

    ours, _ = stepped({"name": "muon"})
    assert_same_weights(ours, by_hand(apart))
    assert not torch.equal(ours[0].weight, network()[0].weight)


def test_muon_goes_on_from_its_state() -> None:
    settings = TrialConfig(optimizer={"name": "muon", "decay_norm_and_bias": False}, lr=LR)
    model, before = stepped({"name": "muon", "decay_norm_and_bias": False})
    other = copy.deepcopy(model)
    after, _ = build_optimizer(settings, other)
    after.load_state_dict(copy.deepcopy(before.state_dict()))
    for each, optimizer in ((model, before), (other, after)):
        with_gradients(each, 9)
        optimizer.step()
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 1, 0), (0, 2, 1)])
def test_muon_trains_a_parameter_in_whatever_order_it_lies_in_memory(order: tuple[int, ...]) -> None:
    """`order`: the dimensions of the parameter, counted from the outermost in memory."""
    values = torch.rand(4, 6, 5, generator=torch.Generator().manual_seed(0))
    trained = []
    for in_memory in (values.permute(order), values.permute(order).contiguous()):
        model = nn.ParameterList([nn.Parameter(in_memory.clone())])
        optimizer, _ = build_optimizer(TrialConfig(optimizer="muon", lr=LR), model)
        model[0].grad = values.permute(order).cos()
        optimizer.step()
        trained.append(model[0].detach())
    assert not torch.equal(trained[0], values.permute(order))
    torch.testing.assert_close(*trained)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_filters_as_a_matrix_are_a_view_in_any_layout(layout: torch.memory_format) -> None:
    filters = torch.rand(8, 3, 3, 3).to(memory_format=layout)
    matrix = as_matrix(filters, filters)
    assert matrix.shape == (8, 27)
    assert matrix.data_ptr() == filters.data_ptr()
    assert torch.equal(matrix[5].sort().values, filters[5].flatten().sort().values)


def gone_on_from(settings: dict[str, Any], of: dict[str, Any], **others: Any) -> Any:
    """The optimizer of some settings, loaded with the state that another one's left."""
    _, before = stepped(of)
    config = TrialConfig(optimizer=settings, lr=LR, **others)
    optimizer, _ = build_optimizer(config, network())
    load_optimizer(optimizer, config, before.state_dict(), fingerprint(TrialConfig(optimizer=of)), from_another=True)
    return optimizer


@pytest.mark.parametrize(
    ("settings", "of"),
    [
        ({"name": "sgd", "momentum": 0.5, "weight_decay": 0.1}, {"name": "sgd", "momentum": 0.9}),
        ({"name": "adamw", "betas": [0.8, 0.9], "eps": 1e-6}, {"name": "adamw"}),
        ({"name": "muon", "momentum": 0.8, "weight_decay": 0.3}, {"name": "muon"}),
    ],
    ids=lambda settings: str(settings["name"]),
)
def test_an_optimizer_goes_on_from_the_moments_of_one_of_other_numbers_with_its_own(
    settings: dict[str, Any], of: dict[str, Any]
) -> None:
    fresh, _ = build_optimizer(TrialConfig(optimizer=settings, lr=LR), network())
    left, optimizer = stepped(of)[1].state_dict(), gone_on_from(settings, of)
    numbers = [
        [{key: value for key, value in group.items() if key != "params"} for group in each.param_groups]
        for each in (optimizer, fresh)
    ]
    assert numbers[0] == numbers[1]
    states = [each["state"] for each in left.get("of_each", [left])]
    loaded = optimizer.state_dict()
    for before, now in zip(states, [each["state"] for each in loaded.get("of_each", [loaded])], strict=True):
        assert before
        torch.testing.assert_close(now, before, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("settings", "others"),
    [
        ({"name": "adamw"}, {}),
        ({"name": "sgd", "decay_norm_and_bias": False}, {}),
        ({"name": "sgd"}, {"freeze": ["0"]}),
        ({"name": "sgd"}, {"lr_factors": {"0": 0.1}}),
    ],
)
def test_an_optimizer_of_another_kind_or_of_other_groups_begins_fresh(
    settings: dict[str, Any], others: dict[str, Any]
) -> None:
    assert not gone_on_from(settings, {"name": "sgd"}, **others).state_dict()["state"]


ADAMW = {"name": "adamw", "weight_decay": 0.2}


def resumed(of: str) -> Any:
    """An optimizer, loaded with a state of the trial's own that says whose it is."""
    config = TrialConfig(optimizer=ADAMW, freeze=["4"], lr=LR)
    optimizer, _ = build_optimizer(config, network())
    load_optimizer(optimizer, config, stepped(ADAMW)[1].state_dict(), of, from_another=False)
    return optimizer


def test_keys_that_another_version_has_more_or_less_with_their_defaults_make_no_other_optimizer() -> None:
    config = TrialConfig(optimizer=ADAMW, freeze=["4"], lr=LR)
    with_defaults = config.model_dump_json(include={"optimizer", "freeze", "lr_factors"})
    for of in (fingerprint(config), with_defaults):
        assert resumed(of).state_dict()["state"]
    assert json.loads(fingerprint(config)) == {"optimizer": ADAMW, "freeze": ["4"]}


@pytest.mark.parametrize(
    "of",
    [
        '{"optimizer": {"name": "adamw", "weight_decay": 0.2}}',
        '{"optimizer": {"name": "adamw", "weight_decay": 0.1}, "freeze": ["4"]}',
        '{"optimizer": {"name": "gone"}, "freeze": ["4"]}',
    ],
)
def test_an_own_commit_of_another_optimizer_is_refused(of: str) -> None:
    with pytest.raises(UserError, match="the last commit is of another optimizer"):
        resumed(of)
