"""`raysweep predict`: classifies images with a pulled checkpoint, prepared as its trial's validation images were."""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from raysweep.commands.context import add_common_flags
from raysweep.errors import DataError, UserError
from raysweep.terminal import can_redraw, format_acc, say

if TYPE_CHECKING:
    from raysweep.vision.data.unprepared import Unprepared
    from raysweep.vision.inference import Classifier

SUMMARY = "classify images with a pulled checkpoint"
COLUMNS = ("file", "class", "probability")


@dataclass(frozen=True)
class Prediction:
    """What the network says of one image."""

    file: str
    label: int
    probability: float
    """The probability of that class, averaged over the views."""
    known: int | None
    """The true label, where it is known."""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.add_argument("folder", metavar="DIR", help="a folder that `raysweep pull` made")
    parser.add_argument("images", metavar="IMAGES", help="a folder or zip archive, a CSV or a Parquet file")
    parser.add_argument(
        "--tta",
        type=int,
        default=0,
        metavar="N",
        help="average over N views of each image, up to 10 (2: the mirror image too)",
    )
    parser.add_argument("--csv", metavar="FILE", help="write file,class,probability to this file; default: stdout")
    parser.add_argument(
        "--on-corrupt",
        choices=("error", "skip"),
        default="error",
        help="what to do with an image that cannot be decoded: stop, or leave it out; default: error",
    )
    add_common_flags(parser)


def run(arguments: argparse.Namespace) -> int:
    """Write `file,class,probability` and, where labels are known, say the accuracy; return the exit code.

    Raises:
        UserError: the folder, the images or the number of views cannot be used; nothing is written.
    """
    from raysweep.results.checkpoint import open_checkpoint
    from raysweep.vision.data.unprepared import open_unprepared
    from raysweep.vision.inference import Classifier
    from raysweep.vision.tta import MOST_VIEWS

    tta = arguments.tta
    if not 0 <= tta <= MOST_VIEWS:
        raise UserError(f"--tta {tta}: must be 0 to {MOST_VIEWS} views")
    target = Path(arguments.csv) if arguments.csv else None
    if target and not target.parent.is_dir():
        raise UserError(f"--csv {target}: no folder {target.parent}")
    checkpoint = open_checkpoint(arguments.folder)
    classifier = Classifier(checkpoint.model, checkpoint.mean, checkpoint.std, checkpoint.precision)
    given = open_unprepared(Path(arguments.images), checkpoint.classes)
    skip = arguments.on_corrupt == "skip"
    predictions = list(_predictions(classifier, given, checkpoint.image_size, tta, skip))
    rows = [(each.file, checkpoint.classes[each.label], round(each.probability, 6)) for each in predictions]
    labelled = [each for each in predictions if each.known is not None]
    accuracy = sum(each.label == each.known for each in labelled) / len(labelled) if labelled else None
    if target:
        target.write_text(_csv(rows), encoding="utf-8")
    skipped = len(given.names) - len(predictions)
    if arguments.json:
        document = {
            "id": checkpoint.id,
            "images": len(predictions),
            "labelled": len(labelled),
            "labelled_by": given.labelled_by if labelled else None,
            "accuracy": accuracy,
            "tta": tta,
            "skipped": skipped,
        }
        listed = {"predictions": [dict(zip(COLUMNS, row, strict=True)) for row in rows]}
        print(json.dumps({**document, **({"csv": str(target)} if target else listed)}))
        return 0
    if not target:
        sys.stdout.write(_csv(rows))
    known = f"{len(labelled):,} whose label is known" if len(labelled) < len(predictions) else ""
    by = f"taking {given.labelled_by}" if given.labelled_by != "name" else ""
    _say(len(predictions), accuracy, ", ".join(filter(None, [known, by])), skipped, target)
    return 0


def _predictions(
    classifier: Classifier, given: Unprepared, image_size: int, tta: int, skip_corrupt: bool
) -> Iterator[Prediction]:
    import numpy as np
    import torch
    from rich.console import Console
    from rich.progress import track

    from raysweep.vision.data.decode import decode_all

    console = Console(stderr=True)
    decoded = track(
        zip(given.names, given.labels, decode_all(given.encoded, image_size), strict=True),
        "Classifying",
        total=len(given.names),
        console=console,
        transient=True,
        disable=not can_redraw(console),
    )
    whole = ((name, label, image) for name, label, image in decoded if _is_whole(image, name, given, skip_corrupt))
    while batch := list(islice(whole, classifier.batch_size)):
        names, labels, images = zip(*batch, strict=True)
        probabilities = classifier.probabilities(torch.from_numpy(np.stack(images)), tta)
        best = zip(probabilities.argmax(1).tolist(), probabilities.amax(1).tolist(), strict=True)
        for name, label, (predicted, probability) in zip(names, labels, best, strict=True):
            yield Prediction(name, predicted, probability, label)


def _is_whole(image: object, name: str, given: Unprepared, skip_corrupt: bool) -> bool:
    from raysweep.vision.data.decode import Undecodable

    if isinstance(image, Undecodable) and not skip_corrupt:
        advice = "(--on-corrupt skip leaves such images out)"
        raise DataError(f"{given.where}: {name}: cannot decode: {image} {advice}")
    return not isinstance(image, Undecodable)


def _csv(rows: list[tuple[str, str, float]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(rows)
    return text.getvalue()


def _say(images: int, accuracy: float | None, of: str, skipped: int, target: Path | None) -> None:
    parts = [f"{images:,} images" + (f" -> {target}" if target else "")]
    if accuracy is not None:
        parts.append(f"accuracy {format_acc(accuracy)}" + (f" ({of})" if of else ""))
    if skipped:
        parts.append(f"{skipped:,} skipped")
    say(", ".join(parts), stderr=True)
