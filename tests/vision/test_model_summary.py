"""What `raysweep models` lists: receptive fields as the gradient finds them, stage sizes, FLOPs, images too small."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from raysweep.cli import main
from raysweep.vision.config import ModelConfig
from raysweep.vision.layouts import LAYOUTS
from raysweep.vision.models.build import build_model
from raysweep.vision.models.receptive_field import WHOLE_IMAGE, FieldMode
from raysweep.vision.models.resnets import LayoutNet
from raysweep.vision.models.summary import summarize
from raysweep.vision.names import MODELS

DOCUMENT = Path(__file__).parents[2] / "docs" / "models.md"


def listed(capsys, *words):
    assert main(["models", "--json", *words]) == 0
    document = json.loads(capsys.readouterr().out)
    return {row["name"]: row for row in document["models"]}


def followed(model, size=40):
    """The mode after an image has passed the network."""
    images = torch.empty(1, 3, size, size, device="meta")
    with torch.no_grad(), FieldMode(images) as fields:
        model.to("meta").eval()(images)
    return fields


def footprint(model, last, height):
    """Rows of a tall image that the middle row of the last feature map, the output of `last`, has a gradient to.

    All weights are positive and every window averages, so no gradient vanishes by chance; float64 holds the smallest.
    """
    model = model.double().eval()
    for module in list(model.modules()):
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())
        for name, child in list(module.named_children()):
            if isinstance(child, nn.MaxPool2d):
                setattr(module, name, nn.AvgPool2d(child.kernel_size, child.stride, child.padding))
    maps = []
    last.register_forward_hook(lambda module, inputs, output: maps.append(output))
    images = torch.ones(1, 3, height, 32, dtype=torch.float64, requires_grad=True)
    model(images)
    maps[0][:, :, maps[0].shape[2] // 2].sum().backward()
    rows = images.grad.abs().sum(dim=(0, 1, 3)).nonzero().flatten().tolist()
    assert rows[0] > 0, "the image is too small to show the whole field"
    assert rows[-1] < height - 1, "the image is too small to show the whole field"
    return rows[-1] - rows[0] + 1


@pytest.mark.parametrize("name", LAYOUTS)
def test_receptive_field_is_the_gradients_footprint(name):
    computed = summarize(ModelConfig(name=name, width=1), 2, 40).receptive_field
    model = build_model(ModelConfig(name=name, width=1), 2)
    assert footprint(model, model.layer4, 2 * computed + 64) == computed


@pytest.mark.parametrize("name", ["squeezenet1_1", pytest.param("densenet121", marks=pytest.mark.slow)])
def test_receptive_field_of_torchvisions_is_the_gradients_footprint(name):
    computed = summarize(ModelConfig(name=f"torchvision/{name}"), 2, 64).receptive_field
    model = build_model(ModelConfig(name=f"torchvision/{name}"), 2)
    assert footprint(model, model.features, 2 * computed + 64) == computed


def test_all_networks_are_listed_with_their_numbers(capsys):
    rows = listed(capsys)
    assert list(rows) == list(MODELS.builtin)
    assert rows["v4_receptive_resnet50"]["receptive_field"] == 72
    assert rows["v2_receptive_resnet50"]["stage_sizes"] == [20, 20, 10, 5]
    assert rows["v4_receptive_resnet50"]["stage_sizes"] == [40, 40, 20, 10]
    assert rows["baseline_block"]["stage_sizes"] == [20]
    assert all(row["flops"] > 0 and row["params"] > 0 and row["note"] is None for row in rows.values())
    assert rows["resnet50"]["params"] == 23_508_032 + 200 * 2049  # torchvision's, and the classifier of 200


def test_flops_of_a_convolution_and_the_classifier_are_counted_by_hand():
    size, width, classes = 10, 4, 7
    stem = 3 * 9 * width * size**2
    block = 2 * (width * 9 * width * (size // 2) ** 2)
    summary = summarize(ModelConfig(name="baseline_block", width=width), classes, size)
    assert summary.flops == 2 * (stem + block + width * classes)


@pytest.mark.parametrize(("pools", "count"), [((), 39), ((3,), 46), ((2, 3), 72)])
def test_the_source_papers_counts_leave_out_the_stems_stride(pools, count):
    layout = replace(LAYOUTS["receptive_resnet50"], pool_after=pools, stem_stride=1)
    assert followed(LayoutNet(layout, num_classes=2, width=1)).receptive_field == count


def test_images_too_small_are_said_in_the_networks_row_and_the_others_are_listed(capsys):
    rows = listed(capsys, "--image-size", "4", "v2_receptive_resnet50", "resnet18")
    assert "cannot take images of 4x4 pixels" in rows["v2_receptive_resnet50"]["note"]
    assert rows["v2_receptive_resnet50"]["flops"] is None
    assert rows["v2_receptive_resnet50"]["params"] > 0
    assert rows["resnet18"]["stage_sizes"] == [1, 1, 1, 1]


def test_the_table_has_both_counts_and_why_they_differ(capsys):
    assert main(["models", "v2_receptive_resnet50"]) == 0
    out = capsys.readouterr().out
    row = next(line for line in out.splitlines() if line.startswith("v2_receptive_resnet50"))
    assert row.split() == ["v2_receptive_resnet50", "23.9", "M", "3.31", "G", "137", "72", "20,", "20,", "10,", "5"]
    assert "The source paper counted 46, 39 and 72" in out


def test_torchvisions_can_be_asked_for_by_name(capsys):
    rows = listed(capsys, "torchvision/mobilenet_v2", "torchvision/efficientnet_b0", "torchvision/vit_b_16")
    assert rows["torchvision/mobilenet_v2"]["receptive_field"] == 491  # as Araujo et al. 2019 have it
    assert "whole image" in rows["torchvision/efficientnet_b0"]["note"]
    assert "Expected 224" in rows["torchvision/vit_b_16"]["note"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["resnet81"], "unknown network 'resnet81' (did you mean 'resnet"),
        (["torchvision/resnet81"], "did you mean 'resnet18'"),
        (["--image-size", "2"], "--image-size 2: must be 4 to 1024"),
        (["--classes", "1"], "--classes 1: must be at least 2"),
    ],
)
def test_what_cannot_be_listed_ends_with_exit_2(capsys, words, message):
    assert main(["models", *words]) == 2
    assert message in capsys.readouterr().err


def test_a_network_whose_constructor_needs_numbers_is_listed_too():
    @MODELS.register("needs_numbers")
    def needs_numbers(num_classes, width=None):
        widths = [int(width.item()) for width in torch.linspace(4, 8, 2)]
        return nn.Sequential(nn.Conv2d(3, widths[1], 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))

    summary = summarize(ModelConfig(name="needs_numbers"), 2, 10)
    assert (summary.receptive_field, summary.stage_sizes, summary.note) == (3, (8,), None)


class Branches(nn.Module):
    """Two branches of different depth, joined; written as functions, in place."""

    def __init__(self, gate=False):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, stride=2, dilation=2, padding=2)
        self.far = nn.Conv2d(4, 4, 5, padding=2)
        self.near = nn.Conv2d(4, 4, 1)
        self.gate = gate
        self.head = nn.Linear(4, 2)

    def forward(self, images):
        x = F.relu(self.stem(images), inplace=True)
        x = torch.cat([self.far(x)[:, :2], self.near(x)[:, 2:]], dim=1)
        if self.gate:
            x = x * x.mean(dim=(2, 3), keepdim=True).sigmoid()
        return self.head(F.max_pool2d(x, 2).mean(dim=(2, 3)))


def test_the_longest_branch_and_dilation_count():
    assert followed(Branches()).receptive_field == 5 + 4 * 2 + 1 * 2


def test_a_gate_from_global_pooling_sees_the_whole_image():
    assert followed(Branches(gate=True)).receptive_field == WHOLE_IMAGE


def test_what_moves_positions_about_has_no_receptive_field_and_is_named():
    class Turned(Branches):
        def forward(self, images):
            return super().forward(images.permute(0, 1, 3, 2).reshape(1, 3, 20, 80))

    fields = followed(Turned())
    assert fields.receptive_field is None
    assert "aten" in fields.unknown


def test_the_documents_table_is_the_commands(capsys):
    rows = DOCUMENT.read_text().split("```")[1].strip().splitlines()
    assert [row.split()[0] for row in rows[1:]] == list(MODELS.builtin)
    assert main(["models", *MODELS.builtin]) == 0
    assert [line.rstrip() for line in capsys.readouterr().out.partition("\n\n")[0].splitlines()] == rows


def test_the_document_says_what_each_network_is():
    assert [name for name in MODELS.builtin if f"`{name}`" not in DOCUMENT.read_text()] == []
