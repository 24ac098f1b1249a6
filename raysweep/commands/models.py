"""`raysweep models`: what each network costs and sees, beside the source paper's own count of receptive fields."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from raysweep.commands.context import add_common_flags
from raysweep.errors import UserError
from raysweep.terminal import format_large, say, table_console, table_of
from raysweep.vision.names import MODELS

if TYPE_CHECKING:
    from rich.table import Table

    from raysweep.vision.models.summary import ModelSummary

SUMMARY = "list networks: parameters, FLOPs, receptive field, stage sizes"
SMALLEST, LARGEST = 4, 1024
"""The smallest and the largest image size that data can have, in pixels."""
PAPER_RECEPTIVE_FIELDS = {"receptive_resnet50": 46, "v2_receptive_resnet50": 72}
WHY_THEY_DIFFER = (
    "The source paper counted 46, 39 and 72 and does not say for which networks. These are the fields without the "
    "stem's stride of 2: 46 for receptive, 72 for v2, and 39 for either without its max-pools. The stride doubles "
    "every later step, so the networks as built see 85 and 137 pixels. v4's stem has no stride: its 72 is exact."
)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="torchvision/<name> too; default: all")
    parser.add_argument(
        "--image-size", type=int, default=40, metavar="PIXELS", help="height and width of the images; default: 40"
    )
    parser.add_argument("--classes", type=int, default=200, metavar="N", help="outputs of the classifier; default: 200")
    add_common_flags(parser, storage=False)


def run(arguments: argparse.Namespace) -> int:
    """Print one row for each network; return the exit code."""
    from raysweep.vision.config import ModelConfig
    from raysweep.vision.models.summary import summarize

    size, classes = arguments.image_size, arguments.classes
    _check(arguments.names, size, classes)
    summaries = [summarize(ModelConfig(name=name), classes, size) for name in arguments.names or MODELS.names()]
    if arguments.json:
        rows = [{**asdict(each), "report_receptive_field": PAPER_RECEPTIVE_FIELDS.get(each.name)} for each in summaries]
        print(json.dumps({"image_size": size, "num_classes": classes, "models": rows}))
        return 0
    table_console().print(_table(summaries))
    say(f"\nAt {size}x{size} pixels and {classes} classes; FLOPs of one image's forward pass.")
    if any(each.name in PAPER_RECEPTIVE_FIELDS for each in summaries):
        say(WHY_THEY_DIFFER)
    return 0


def _check(names: Sequence[str], size: int, classes: int) -> None:
    from raysweep.vision.models.build import TORCHVISION_PREFIX

    if not SMALLEST <= size <= LARGEST:
        raise UserError(f"--image-size {size}: must be {SMALLEST} to {LARGEST} pixels")
    if classes < 2:
        raise UserError(f"--classes {classes}: must be at least 2")
    for name in names:
        if name not in MODELS and not name.startswith(TORCHVISION_PREFIX):
            raise UserError(f"{MODELS.problem(name)}, {TORCHVISION_PREFIX}<name>")


def _table(summaries: Sequence[ModelSummary]) -> Table:
    right = ("params", "FLOPs", "receptive field", "the paper's")
    notes = ["note"] if any(each.note for each in summaries) else []
    rows = [
        (
            each.name,
            format_large(each.params),
            "-" if each.flops is None else format_large(each.flops),
            each.receptive_field or "-",
            PAPER_RECEPTIVE_FIELDS.get(each.name, "-"),
            ", ".join(map(str, each.stage_sizes)) or "-",
            *(each.note or "" for _ in notes),
        )
        for each in summaries
    ]
    return table_of(["network", *right, "stage sizes", *notes], rows, right)
