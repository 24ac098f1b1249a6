"""The networks: the sizes that their design and torchvision give them, widths, and images too small for them."""

import json
import math
import os
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from raysweep.cli import main
from raysweep.errors import UserError
from raysweep.loops import CLASSIFY, evaluating_loop
from raysweep.vision.config import DataConfig, ModelConfig, TrialConfig
from raysweep.vision.data import open_data
from raysweep.vision.loop import train
from raysweep.vision.models.build import build_model, check_image_size
from raysweep.vision.models.resnets import BottleneckWith3x3
from raysweep.vision.names import MODELS
from raysweep.vision.randomness import seeded

LOOP = evaluating_loop(CLASSIFY)

CONTRIBUTING = Path(__file__).parents[2] / "CONTRIBUTING.md"
NETWORKS = list(MODELS.builtin)


def build(name, num_classes=10, width=None):
    return build_model(ModelConfig(name=name, width=width), num_classes)


def stage_sizes(model, image_size):
    """Height of each stage's last block, before the pool that may follow it."""
    sizes = {}
    for stage in range(1, 5):
        blocks = [m for m in getattr(model, f"layer{stage}") if not isinstance(m, nn.MaxPool2d)]
        if blocks:
            blocks[-1].register_forward_hook(lambda *a, stage=stage: sizes.update({stage: a[2].shape[-1]}))
    model.eval()(torch.zeros(1, 3, image_size, image_size))
    return [sizes[stage] for stage in sorted(sizes)]


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_takes_40x40_images_at_reduced_width(name):
    model = build(name, num_classes=7, width=4)
    assert model(torch.zeros(2, 3, 40, 40)).shape == (2, 7)


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "resnet152"])
def test_standard_networks_have_torchvisions_parameters(name):
    with torch.device("meta"):
        expected = torchvision.models.get_model(name, num_classes=10).state_dict()
        ours = build(name).state_dict()
    assert {key: value.shape for key, value in ours.items()} == {key: value.shape for key, value in expected.items()}


def test_resnet18_computes_what_torchvisions_does():
    ours, reference = build("resnet18"), torchvision.models.resnet18(num_classes=10)
    ours.load_state_dict(reference.state_dict())
    images = torch.rand(2, 3, 40, 40)
    assert torch.equal(ours.eval()(images), reference.eval()(images))


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("baseline_block", [20]),
        ("resnet50", [10, 5, 3, 2]),
        ("my_resnet50", [20, 10, 5, 3]),
        ("receptive_resnet50", [20, 20, 20, 10]),
        ("v2_receptive_resnet50", [20, 20, 10, 5]),
        ("v3_receptive_resnet50", [20, 20, 10, 5]),
        ("v4_receptive_resnet50", [40, 40, 20, 10]),
    ],
)
def test_stage_sizes_at_40x40(name, sizes):
    assert stage_sizes(build(name, width=4), 40) == sizes


def test_v3_has_a_3x3_in_place_of_the_first_1x1_of_every_bottleneck():
    blocks = [module for module in build("v3_receptive_resnet50", width=4).modules() if hasattr(module, "conv3")]
    assert len(blocks) == 16
    assert all(isinstance(block, BottleneckWith3x3) and block.conv1.kernel_size == (3, 3) for block in blocks)


def test_width_scales_every_stage():
    narrow = build("resnet50", width=16)
    assert narrow.conv1.out_channels == 16
    assert narrow.fc.in_features == 2048 // 4


def test_same_seed_gives_the_same_weights_and_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    models = []
    for seed in (1, 1, 2):
        with seeded(torch.device("cpu"), "weights", seed):
            models.append(build("baseline_block", width=4))
    first, same, other = (model.conv1.weight for model in models)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())


def test_image_too_small_names_network_size_and_the_least_that_works():
    model = build("v2_receptive_resnet50", width=4)
    with pytest.raises(UserError, match=r"v2_receptive_resnet50: .*4x4 pixels.*the least that works is 7 "):
        check_image_size(model, "v2_receptive_resnet50", 4, batch_size=2)
    check_image_size(model, "v2_receptive_resnet50", 7, batch_size=2)


def test_batches_of_one_are_refused_where_batch_norm_would_see_one_value():
    model = build("resnet18", width=4)
    with pytest.raises(UserError, match=r"batches of 1 images of 8x8 .*the least that works is 33"):
        check_image_size(model, "resnet18", 8, batch_size=1)


def test_size_check_leaves_the_network_as_it_was():
    model = build("resnet18", width=4).eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    check_image_size(model, "resnet18", 40, batch_size=2)
    assert not model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_torchvisions_classifiers_go_by_their_name():
    model = build("torchvision/shufflenet_v2_x0_5", num_classes=5)
    assert model.eval()(torch.zeros(1, 3, 40, 40)).shape == (1, 5)


def test_unknown_torchvision_name_has_the_nearest():
    with pytest.raises(UserError, match="did you mean 'resnet18'"):
        build("torchvision/resnet_18")


def test_torchvisions_networks_take_no_width():
    with pytest.raises(UserError, match="width"):
        build("torchvision/resnet18", width=8)


def test_options_a_network_does_not_take_are_named():
    with pytest.raises(UserError, match=r"resnet18.*depth"):
        build_model(ModelConfig(name="resnet18", options={"depth": 3}), 10)


def test_a_network_that_refuses_an_option_is_told_in_a_sentence():
    with pytest.raises(UserError) as caught:
        build_model(ModelConfig(name="torchvision/mobilenet_v2", options={"dropout": 2}), 10)
    assert str(caught.value) == (
        "model torchvision/mobilenet_v2: cannot be built with {'dropout': 2}: "
        "ValueError: dropout probability has to be between 0 and 1, but got 2"
    )


@pytest.fixture(scope="module")
def images():
    """Real 40x40 images of Tiny ImageNet where RAYSWEEP_SHARED names them, else generated ones."""
    config = DataConfig(name="synthetic", image_size=40, classes=5, per_class=20)
    if given := os.environ.get("RAYSWEEP_SHARED"):
        path = str(Path(given) / "data" / "tiny-imagenet-200")
        config = DataConfig(name="parquet", path=path, image_size=40, classes=5, per_class=20)
    return open_data(config, sweep_folder=Path.cwd())


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_trains_an_epoch_at_reduced_width_and_every_parameter_learns(name, images):
    config = TrialConfig(model={"name": name, "width": 4}, epochs=1, batch_size=32, lr=0.05, augment="v2augs")
    epochs = train(config, images, seed=0, device="cpu")
    epoch = next(epochs)
    trained = epoch.weights(averaged=False)
    epochs.close()
    with seeded(torch.device("cpu"), "weights", 0):
        fresh = build(name, num_classes=5, width=4)
    assert all(math.isfinite(value) for value in epoch.metrics.values())
    assert 0 < epoch.metrics["train_loss"] < 10 * math.log(5)
    still = [key for key, parameter in fresh.named_parameters() if torch.equal(parameter, trained[key])]
    assert not still, "parameters that got no gradient"


def test_contributings_own_network_can_be_listed_planned_and_trained(tmp_path, monkeypatch, capsys):
    code = CONTRIBUTING.read_text().partition("```python\n")[2].partition("```")[0]
    (tmp_path / "my_nets.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["models", "one_layer", "--import", "my_nets", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["models"]
    assert (row["name"], row["receptive_field"], row["stage_sizes"]) == ("one_layer", 3, [38])
    (tmp_path / "own.yaml").write_text("name: own\nbase: {data: digits, epochs: 2}\n")
    assert main(["plan", "own.yaml", "model=one_layer", "model.width=8", "--import", "my_nets", "--json"]) == 0
    (trial,) = json.loads(capsys.readouterr().out)["trials"]
    config = TrialConfig.model_validate(trial["config"])
    digits = open_data(config.data, sweep_folder=tmp_path)
    *_, last = train(config, digits, seed=0, device="cpu")
    assert last.metrics["val_acc"] > 1.5 / 10


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("torchvision/resnet_18", "did you mean 'resnet18'"),
        ("torchvision/alexnet", "the least that works is 63"),
        ("torchvision/vit_b_16", "Expected 224"),
    ],
)
def test_a_torchvision_network_that_is_unknown_or_cannot_take_the_images_is_refused(name, message):
    config = TrialConfig.model_validate({"data": {"name": "synthetic", "image_size": 8}, "epochs": 1, "model": name})
    arrays = LOOP.prepare(config, Path())
    with pytest.raises(UserError) as caught:
        LOOP.check([config], arrays, "cpu")
    assert message in str(caught.value)


@pytest.mark.slow
@pytest.mark.ray
def test_networks_are_checked_when_a_run_starts_before_anything_is_trained(command):
    sweep = command.sweep("[0.1]")
    sweep.write_text(sweep.read_text().replace("model.width: [4], ", ""))
    plan = json.loads(command("plan", sweep, "model=torchvision/alexnet", "--json")[0])
    assert len(plan["trials"]) == 1
    _, err = command(sweep, "model=torchvision/alexnet", code=2)
    assert "the least that works is 63" in err
    assert not command.records("small")
