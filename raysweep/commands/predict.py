"""`raysweep predict`: classifies images with a pulled checkpoint, prepared as its trial's validation images were."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from raysweep.commands.context import add_common_flags
from raysweep.errors import DataError, UserError
from raysweep.terminal import can_redraw, count_of, format_acc, say

if TYPE_CHECKING:
    from raysweep.results.checkpoint import Checkpoint
    from raysweep.vision.data.decode import Pixels
    from raysweep.vision.data.unprepared import Unprepared

Row = dict[str, str | float]
SUMMARY = "classify images with a pulled checkpoint"
COLUMNS = ("file", "class", "probability")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.add_argument("folder", metavar="DIR", help="a folder that `raysweep pull` made")
    parser.add_argument("images", metavar="IMAGES", help="a folder or zip archive, a CSV or a Parquet file")
    views = "average over N views of each image, up to 10 (2: the mirror image too)"
    parser.add_argument("--tta", type=int, default=0, metavar="N", help=views)
    parser.add_argument("--csv", metavar="FILE", help="write file,class,probability to this file; default: stdout")
    corrupt = "what to do with an image that cannot be decoded: stop, or leave it out; default: error"
    parser.add_argument("--on-corrupt", choices=("error", "skip"), default="error", help=corrupt)
    add_common_flags(parser, storage=False)


def run(arguments: argparse.Namespace) -> int:
    """Write `file,class,probability` and, where labels are known, say the accuracy; return the exit code."""
    from raysweep.results.checkpoint import open_checkpoint
    from raysweep.vision.data.unprepared import open_unprepared

    target = _checked_target(arguments.tta, arguments.csv)
    checkpoint = open_checkpoint(arguments.folder)
    given = open_unprepared(Path(arguments.images), checkpoint.classes)
    predictions = list(_predictions(checkpoint, given, arguments.tta, arguments.on_corrupt == "skip"))
    rows = [row for row, _ in predictions]
    right = [is_right for _, is_right in predictions if is_right is not None]
    summary = {
        "id": checkpoint.id,
        "images": len(rows),
        "labelled": len(right),
        "labelled_by": given.labelled_by if right else None,
        "accuracy": sum(right) / len(right) if right else None,
        "tta": arguments.tta,
        "skipped": len(given.names) - len(rows),
    }
    if target:
        with target.open("w", encoding="utf-8") as file:
            _write_csv(file, rows)
    if arguments.json:
        print(json.dumps({**summary, **({"csv": str(target)} if target else {"predictions": rows})}))
        return 0
    if not target:
        _write_csv(sys.stdout, rows)
    say(_in_words(summary, target), stderr=True)
    return 0


def _checked_target(tta: int, csv_file: str | None) -> Path | None:
    """Return the CSV file's path, if one was asked for; refuse what would fail after the images are classified."""
    from raysweep.vision.tta import MOST_VIEWS

    if not 0 <= tta <= MOST_VIEWS:
        raise UserError(f"--tta {tta}: must be 0 to {MOST_VIEWS} views")
    target = Path(csv_file) if csv_file else None
    if target and not target.parent.is_dir():
        raise UserError(f"--csv {target}: no folder {target.parent}")
    return target


def _predictions(
    checkpoint: Checkpoint, given: Unprepared, tta: int, skip_corrupt: bool
) -> Iterator[tuple[Row, bool | None]]:
    """Yield the row of each image, and whether the network is right, or None where the label is not known."""
    import numpy as np
    import torch

    from raysweep.vision.inference import Classifier

    network, size = checkpoint.model, checkpoint.image_size
    classifier = Classifier(network, checkpoint.mean, checkpoint.std, checkpoint.precision, size)
    whole = _whole_images(given, size, skip_corrupt)
    while batch := list(islice(whole, classifier.batches.size)):
        files, known, images = zip(*batch, strict=True)
        best = classifier.probabilities(torch.from_numpy(np.stack(images)), tta).max(1)
        labels, probabilities = best.indices.tolist(), best.values.tolist()
        for file, true, label, probability in zip(files, known, labels, probabilities, strict=True):
            row: Row = {"file": file, "class": checkpoint.classes[label], "probability": round(probability, 6)}
            yield row, None if true is None else label == true


def _whole_images(given: Unprepared, image_size: int, skip_corrupt: bool) -> Iterator[tuple[str, int | None, Pixels]]:
    """Decode the images, and show how far that is; yield those that can be decoded, with their names and labels."""
    from rich.console import Console
    from rich.progress import track

    from raysweep.vision.data.decode import Undecodable, decode_all

    console = Console(stderr=True)
    images = track(
        decode_all(given.encoded, image_size),
        "Classifying",
        total=len(given.names),
        console=console,
        transient=True,
        disable=not can_redraw(console),
    )
    for name, label, image in zip(given.names, given.labels, images, strict=True):
        if not isinstance(image, Undecodable):
            yield name, label, image
        elif not skip_corrupt:
            advice = "(--on-corrupt skip leaves such images out)"
            raise DataError(f"{given.where}: {name}: cannot decode: {image} {advice}")


def _write_csv(file: TextIO, rows: Sequence[Row]) -> None:
    writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


def _in_words(summary: dict[str, Any], target: Path | None) -> str:
    images, labelled, by = summary["images"], summary["labelled"], summary["labelled_by"]
    parts = [count_of(images, "image") + (f" -> {target}" if target else "")]
    if labelled:
        known = f"{labelled:,} whose label is known" if labelled < images else ""
        of = ", ".join(filter(None, [known, f"taking {by}" if by != "name" else ""]))
        parts.append(f"accuracy {format_acc(summary['accuracy'])}" + (f" ({of})" if of else ""))
    if summary["skipped"]:
        parts.append(f"{summary['skipped']:,} skipped")
    return ", ".join(parts)
