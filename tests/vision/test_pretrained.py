"""Weights to begin with: where they are found, what they do to a network, what is frozen, and what is refused."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from pydantic import ValidationError
from run_folders import write_pulled
from safetensors.torch import save_file
from torch import nn

from raysweep.errors import DataError, UserError
from raysweep.loops import CLASSIFY, TrialContext, loop_named
from raysweep.vision.config import ModelConfig, TrialConfig
from raysweep.vision.models.build import build_model
from raysweep.vision.models.pretrained import Pretrained, begin, find_weights, load_weights, packed, read_weights
from raysweep.vision.optimizers import build_optimizer

LOOP = loop_named(CLASSIFY)
TINY: dict[str, Any] = {"name": "resnet18", "width": 4}


def network(num_classes: int = 4, **model: Any) -> nn.Module:
    return build_model(ModelConfig(**{**TINY, **model}), num_classes)


def config(**changes: Any) -> TrialConfig:
    images = {"name": "synthetic", "image_size": 8, "classes": 4, "per_class": 8}
    return TrialConfig(**{"data": images, "model": TINY, "batch_size": 8, "epochs": 2, "lr": 0.05, **changes})


def pretrained(tensors: dict[str, torch.Tensor]) -> Pretrained:
    return Pretrained(packed(tensors), "0" * 64, "weights.pt")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RAYSWEEP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path


# -------------------------------------------------------------------------- found and read


@pytest.mark.parametrize("place", ["w.pt", "w.pth", "in_a_section.pt", "w.safetensors", "pulled"])
def test_a_trial_begins_with_the_weights_of_a_file(place: str, folder: Path) -> None:
    tensors = {name: each.contiguous() for name, each in network().state_dict().items()}
    if place == "pulled":
        write_pulled(folder / place, tensors)
    elif place.endswith(".safetensors"):
        save_file(tensors, folder / place)
    else:
        torch.save({"state_dict": tensors, "epoch": 7} if place.startswith("in") else tensors, folder / place)
    settings = config(model={**TINY, "weights": place}, lr=1e-30, optimizer={"name": "sgd", "weight_decay": 0})
    arrays = LOOP.prepare(settings, folder)
    model = begin(settings, 4, Pretrained.from_arrays(arrays))
    assert all(torch.equal(value, tensors[name]) for name, value in model.state_dict().items())
    file = folder / place / "model.safetensors" if place == "pulled" else folder / place
    assert LOOP.conditions(settings, arrays)["weights"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert file in LOOP.data_files(settings, folder)


def test_weights_of_torchvision_come_from_torchs_cache_with_their_normalisation(folder: Path) -> None:
    entry = torchvision.models.ResNet18_Weights.IMAGENET1K_V1
    made = torchvision.models.resnet18(weights=None)
    file = folder / "torch" / "hub" / "checkpoints" / entry.url.rpartition("/")[2]
    file.parent.mkdir(parents=True)
    torch.save(made.state_dict(), file)
    settings = config(
        model={"name": "torchvision/resnet18", "weights": "IMAGENET1K_V1"}, normalize="weights", freeze=["layer1"]
    )
    with pytest.raises(DataError, match=r"resnet18-.*pth: is not the file that its name says \(sha256 .*; delete it"):
        read_weights(settings.model, folder)
    made_name = f"resnet18-{hashlib.sha256(file.read_bytes()).hexdigest()[:8]}.pth"
    entry_url = type(entry.value)(url=f"https://host/{made_name}", transforms=entry.transforms, meta=entry.meta)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(entry, "_value_", entry_url)
        file.rename(file.with_name(made_name))
        arrays = LOOP.prepare(settings, folder)
    assert LOOP.conditions(settings, arrays)["mean"] == [0.485, 0.456, 0.406]
    model = begin(settings, 4, Pretrained.from_arrays(arrays))
    assert torch.equal(model.conv1.weight, made.conv1.weight)
    assert model.fc.out_features == 4
    assert not model.layer1[0].conv1.weight.requires_grad


def test_weights_that_are_not_here_are_an_error_with_their_address_and_how_to_fetch_them(folder: Path) -> None:
    wanted = ModelConfig(name="torchvision/resnet50", weights="IMAGENET1K_V2")
    with pytest.raises(DataError) as caught:
        find_weights(wanted, folder)
    message = str(caught.value)
    assert f"no file {folder}/torch/hub/checkpoints/resnet50-11ad3fa6.pth" in message
    assert "98 MB from https://download.pytorch.org/models/resnet50-11ad3fa6.pth" in message
    assert "get_weight('ResNet50_Weights.IMAGENET1K_V2')" in message
    with pytest.raises(DataError, match=r"has no 'IMAGENET_V2'.*known: IMAGENET1K_V1, IMAGENET1K_V2, DEFAULT"):
        find_weights(ModelConfig(name="torchvision/resnet50", weights="IMAGENET_V2"), folder)


@pytest.mark.parametrize("content", [b"torn", b"", None, {"a": 1}, [torch.zeros(1)]], ids=str)
def test_a_file_that_holds_no_weights_is_an_error_that_names_it(content: Any, folder: Path) -> None:
    for name in ("w.pt", "w.safetensors"):
        if isinstance(content, bytes):
            (folder / name).write_bytes(content)
        elif content is not None:
            torch.save(content, folder / name)
        with pytest.raises(DataError, match=rf"model\.weights: .*{name}"):
            read_weights(ModelConfig(weights=name), folder)


# -------------------------------------------------------------------------- into a network


def test_the_head_is_fresh_if_the_number_of_classes_differs_and_loaded_if_not() -> None:
    source, same, other = network(4), network(4), network(7)
    for model, classes in ((same, 4), (other, 7)):
        before = model.fc.weight.clone()
        load_weights(model, pretrained(source.state_dict()), "resnet18", classes)
        assert torch.equal(model.layer4[1].conv2.weight, source.layer4[1].conv2.weight)
        assert torch.equal(model.fc.weight, source.fc.weight if classes == 4 else before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop("conv1.weight"), "missing: conv1.weight"),
        (lambda tensors: tensors.update({"neck.bias": torch.zeros(1)}), "unexpected: neck.bias"),
        (
            lambda tensors: tensors.update(network(width=8).state_dict()),
            "of another shape: conv1.weight 8x3x7x7, not 4x",
        ),
        (lambda tensors: tensors.update({"fc.weight": torch.zeros(4, 3)}), "shape: fc.weight 4x3, not 4x32"),
    ],
)
def test_weights_of_another_network_are_an_error_that_names_them(change: Any, message: str) -> None:
    tensors = dict(network().state_dict())
    change(tensors)
    with pytest.raises(
        UserError, match=rf"model\.weights: weights.pt has other weights than resnet18 takes: .*{message}"
    ):
        load_weights(network(), pretrained(tensors), "resnet18", 4)


@pytest.mark.parametrize("name", ["densenet121", "googlenet", "mobilenet_v3_small"])
def test_torchvisions_files_load_whatever_they_call_their_layers(name: str) -> None:
    """A DenseNet's names of older torch, auxiliary heads that raysweep's networks do not have."""
    auxiliary = {"aux_logits": True, "init_weights": False} if name == "googlenet" else {}
    theirs = torchvision.models.get_model(name, num_classes=5, **auxiliary).state_dict()
    ours = build_model(ModelConfig(name=f"torchvision/{name}"), 3)
    old = {key.replace(".norm1.", ".norm.1.").replace(".conv2.", ".conv.2."): each for key, each in theirs.items()}
    load_weights(ours, pretrained(old if name == "densenet121" else theirs), f"torchvision/{name}", 3)
    other = [key for key, value in ours.state_dict().items() if not torch.equal(value, theirs[key])]
    assert len(other) == 2, "only the head's weight and bias are not torchvision's"


# -------------------------------------------------------------------------- frozen, and slower


def trained(settings: TrialConfig, folder: Path, state: Any = None) -> list[Any]:
    arrays = LOOP.prepare(settings, folder)
    context = TrialContext(1, saved=state, data=arrays, conditions=LOOP.conditions(settings, arrays))
    return [(epoch.state(), epoch.weights(), epoch.ema_weights()) for epoch in LOOP.train(settings, context)]


def test_what_is_frozen_stays_to_the_bit_with_its_batch_norms_statistics_and_resumes(folder: Path) -> None:
    torch.save(network().state_dict(), folder / "w.pt")
    settings = config(model={**TINY, "weights": "w.pt"}, freeze=["conv1", "bn1", "layer[12]"], optimizer="adamw")
    begun = torch.load(folder / "w.pt", weights_only=True)
    first, last = trained(settings, folder)
    for name, value in last[1].items():
        is_frozen = name.startswith(("conv1", "bn1", "layer1", "layer2"))
        assert torch.equal(value, begun[name]) == is_frozen, name
        assert not is_frozen or torch.allclose(last[2][name].float(), begun[name].float(), rtol=1e-6), name
    (again,) = trained(settings, folder, state=first[0])
    assert all(torch.equal(value, last[1][name]) for name, value in again[1].items())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"freeze": ["layer9"]},
            "freeze: no parameter or batch norm is at or below layer9; there are conv1, bn1, la",
        ),
        ({"freeze": ["*"]}, "nothing is left to train"),
        ({"freeze": ["layer1"], "lr_factors": {"layer1.0": 0.1}}, "lr_factors: no parameter that is trained is at"),
    ],
)
def test_parts_that_the_network_does_not_have_are_an_error_before_anything_is_trained(
    changes: Any, message: str, folder: Path
) -> None:
    settings = config(**changes)
    with pytest.raises(UserError) as caught:
        LOOP.check([config(lr=1), settings, config(freeze=["no_such"])], LOOP.prepare(settings, folder))
    first, second = caught.value.problems
    assert message in first
    assert "no_such" in second


def test_the_learning_rate_of_a_part_has_the_factor_of_the_longest_name() -> None:
    settings = config(lr_factors={"layer*": 0.5, "layer1": 0.1, "layer1.0.conv1": 2.0})
    model = network()
    optimizer, factors = build_optimizer(settings, model)
    of = {
        id(each): factor
        for group, factor in zip(optimizer.param_groups, factors, strict=True)
        for each in group["params"]
    }
    assert [of[id(each)] for each in (model.layer3[0].conv1.weight, model.fc.bias)] == [0.5, 1]
    assert of[id(model.layer1[0].conv1.weight)] == 2
    assert of[id(model.layer1[0].bn1.weight)] == 0.1  # of two equally long names, the one without `*`


def test_changed_weights_are_refused_while_a_run_goes_on(folder: Path) -> None:
    settings = config(model={**TINY, "weights": "w.pt"})
    torch.save(network().state_dict(), folder / "w.pt")
    conditions = LOOP.conditions(settings, LOOP.prepare(settings, folder))
    torch.save(network().state_dict(), folder / "w.pt")
    with pytest.raises(UserError, match=r"model\.weights: .*w\.pt changed while the run went on"):
        LOOP.train(settings, TrialContext(data=LOOP.prepare(settings, folder), conditions=conditions))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"name": "resnet18", "weights": "IMAGENET1K_V1"}}, "is a name of torchvision's, which has none for"),
        ({"normalize": "weights"}, r"needs model\.weights"),
    ],
)
def test_weights_that_cannot_be_are_refused_in_the_sweep_file(changes: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        config(**changes)


def test_a_file_that_does_not_say_how_its_input_was_normalised_cannot_be_asked_for_it(folder: Path) -> None:
    torch.save(network().state_dict(), folder / "w.pt")
    settings = config(model={**TINY, "weights": "w.pt"}, normalize="weights")
    with pytest.raises(UserError, match="does not say by what mean and std"):
        LOOP.conditions(settings, LOOP.prepare(settings, folder))
