"""`raysweep models`: what each network costs and sees, beside the source report's own count of receptive fields."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from raysweep.errors import UserError
from raysweep.registry import MODELS
from raysweep.results.table import WIDTH_IN_A_PIPE
from raysweep.vision.config import ModelConfig
from raysweep.vision.models.build import TORCHVISION_PREFIX
from raysweep.vision.models.summary import ModelSummary, summarize

SMALLEST, LARGEST = 4, 1024
"""Of the image sizes that data can have, in pixels."""
REPORT_RECEPTIVE_FIELDS = {"receptive_resnet50": 46, "v2_receptive_resnet50": 72}
WHY_THEY_DIFFER = (
    "The report counted 46, 39 and 72 and does not say for which networks. Counted without the stem's stride of 2, "
    "the networks come to just that: 46 for receptive, 72 for v2, 39 for either without its max-pools. The stride "
    "doubles every later step, so what was built sees 85 and 137. v4's stem has no stride: its 72 is exact."
)


def print_models(
    names: Sequence[str] = (), image_size: int = 40, num_classes: int = 200, as_json_document: bool = False
) -> int:
    """Print one row a network; return the exit code.

    Args:
        names: of the networks, `torchvision/<name>` among them; default: all built-in and registered ones.
        image_size: height and width, in pixels.
        num_classes: outputs of the classifier.
        as_json_document: print one JSON document.

    Raises:
        UserError: no such network, or no such image size.
    """
    if not SMALLEST <= image_size <= LARGEST:
        raise UserError(f"--image-size {image_size}: must be {SMALLEST} to {LARGEST} pixels")
    if num_classes < 2:
        raise UserError(f"--classes {num_classes}: must be at least 2")
    for name in names:
        if name not in MODELS and not name.startswith(TORCHVISION_PREFIX):
            raise UserError(f"{MODELS.problem(name)}, {TORCHVISION_PREFIX}<name>")
    summaries = [summarize(ModelConfig(name=name), num_classes, image_size) for name in names or MODELS.names()]
    if as_json_document:
        rows = [
            {**asdict(each), "report_receptive_field": REPORT_RECEPTIVE_FIELDS.get(each.name)} for each in summaries
        ]
        print(json.dumps({"image_size": image_size, "num_classes": num_classes, "models": rows}))
        return 0
    console = Console()
    if not console.is_terminal:
        console.width = WIDTH_IN_A_PIPE
    console.print(_table(summaries))
    console.print(
        f"\nAt {image_size}x{image_size} pixels and {num_classes} classes; FLOPs of one image's forward pass."
    )
    if any(each.name in REPORT_RECEPTIVE_FIELDS for each in summaries):
        console.print(WHY_THEY_DIFFER)
    return 0


def _table(summaries: Sequence[ModelSummary]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("network", no_wrap=True)
    for name in ("params", "FLOPs", "receptive field", "the report's"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("stage sizes", no_wrap=True)
    if any(each.note for each in summaries):
        table.add_column("note")
    for each in summaries:
        table.add_row(
            each.name,
            _short(each.params),
            _short(each.flops),
            str(each.receptive_field or "-"),
            str(REPORT_RECEPTIVE_FIELDS.get(each.name, "-")),
            ", ".join(map(str, each.stage_sizes)) or "-",
            each.note,
        )
    return table


def _short(count: int | None) -> str:
    """A count with three digits that mean something, as 23.9 M."""
    if count is None:
        return "-"
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return str(count)
