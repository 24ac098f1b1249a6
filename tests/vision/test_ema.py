"""The EMA weights, against the formula and torch's own AveragedModel."""

import copy

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils._python_dispatch import TorchDispatchMode

from raysweep.vision.config import ModelConfig
from raysweep.vision.ema import AveragedWeights
from raysweep.vision.models.build import build_model

HORIZON = 4


def network(name="baseline_block", width=8):
    torch.manual_seed(0)
    return build_model(ModelConfig(name=name, width=width), 4).to(memory_format=torch.channels_last)


def change(model):
    """Give a network other weights, and its batch norms other statistics and counts, in place."""
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.copy_(torch.rand(tensor.shape) * 10)


def decay_after(updates):
    return min((1 + updates) / (10 + updates), 1 - 1 / HORIZON)


def follow(average, model, updates):
    """Update the average so often, each time by another network, and compare it with the formula."""
    for t in range(int(average.n_averaged), int(average.n_averaged) + updates):
        before = copy.deepcopy(average.module.state_dict())
        change(model)
        average.update_parameters(model)
        decay = decay_after(t) if t else 0
        for name, tensor in model.state_dict().items():
            blended = decay * before[name] + (1 - decay) * tensor if tensor.is_floating_point() else tensor
            torch.testing.assert_close(average.module.state_dict()[name], blended)


def test_average_follows_the_formula_for_weights_and_batch_norm_statistics():
    model = network()
    follow(AveragedWeights(model, HORIZON), model, 6)


def test_average_is_that_of_torchs_averaged_model_with_the_same_decay():
    model = network("resnet18")
    ours, torchs = AveragedWeights(model, HORIZON), AveragedModel(model, use_buffers=True)
    for t in range(5):
        change(model)
        torchs.multi_avg_fn = get_ema_multi_avg_fn(decay_after(t))
        for average in (ours, torchs):
            average.update_parameters(model)
    expected = torchs.state_dict()
    for name, tensor in ours.state_dict().items():
        if tensor.is_floating_point() or name == "n_averaged":
            torch.testing.assert_close(tensor, expected[name])
        else:  # a count of batches, which torch's averages
            assert torch.equal(tensor, model.state_dict()[name.removeprefix("module.")])


def test_states_of_torchs_averaged_model_load_and_have_the_same_order():
    model = network()
    torchs, ours = AveragedModel(model, use_buffers=True), AveragedWeights(network(), HORIZON)
    for _ in range(3):
        change(model)
        torchs.update_parameters(model)
    assert list(ours.state_dict()) == list(torchs.state_dict())
    ours.update_parameters(model)
    ours.load_state_dict(torchs.state_dict())
    pairs = zip(ours.buffers(), torchs.buffers(), strict=True)  # which a state inside an epoch holds by their places
    assert all(torch.equal(one, other) for one, other in pairs)
    assert int(ours.n_averaged) == 3
    follow(ours, model, 2)


def as_doubles(average, model):
    average.to(torch.float64)
    model.to(torch.float64)


def as_doubles_once_handed_out(average, model):
    average.module.to(torch.float64)
    model.to(torch.float64)


def loaded(average, model):
    other = network()
    change(other)
    model.load_state_dict(other.state_dict())
    average.load_state_dict({**average.state_dict(), "n_averaged": torch.tensor(7)})


def laid_out_anew(average, model):
    average.module.to(memory_format=torch.contiguous_format)


def with_another_head(average, model):
    model.fc, average.module.fc = nn.Linear(8, 3), nn.Linear(8, 3)


def with_a_buffer_more(average, model):
    for each in (average.module, model):
        each.register_buffer("scale", torch.ones(2))


@pytest.mark.parametrize(
    "change_both",
    [as_doubles, as_doubles_once_handed_out, loaded, laid_out_anew, with_another_head, with_a_buffer_more],
)
def test_average_follows_a_network_whose_tensors_were_replaced(change_both):
    model = network()
    average = AveragedWeights(model, HORIZON)
    follow(average, model, 2)
    change_both(average, model)
    follow(average, model, 2)


def test_average_follows_a_network_whose_batch_norms_became_synchronised():
    model = network()
    average = AveragedWeights(model, HORIZON)
    follow(average, model, 2)
    follow(average, nn.SyncBatchNorm.convert_sync_batchnorm(model), 2)


def test_a_parameter_that_two_layers_share_is_averaged_once():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    follow(AveragedWeights(model, HORIZON), model, 3)


def test_count_of_updates_stays_on_the_cpu():
    model = network()
    average = AveragedWeights(model, HORIZON)
    average.update_parameters(model)
    average.to("meta")
    assert average.n_averaged.device.type == "cpu"
    assert int(average.n_averaged) == 1


@pytest.mark.parametrize("name", ["baseline_block", "resnet50"])
def test_an_update_asks_torch_as_often_for_a_large_network_as_for_a_small_one(name):
    asked = []

    class Count(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            asked.append(str(func))
            return func(*args, **(kwargs or {}))

    model = network(name)
    average = AveragedWeights(model, HORIZON)
    average.update_parameters(model)
    with Count():
        average.update_parameters(model)
    assert [each for each in asked if "foreach" in each] == [
        "aten._foreach_lerp_.Scalar",
        "aten._foreach_copy_.default",
    ]
    assert len(asked) <= 4
