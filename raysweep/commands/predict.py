"""`raysweep predict`: classifies images with a pulled checkpoint, prepared as its trial's validation images were."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from raysweep.commands.context import add_common_flags
from raysweep.errors import DataError, UserError
from raysweep.terminal import can_redraw, count_of, format_acc, say, table_console, table_of

if TYPE_CHECKING:
    from raysweep.results.checkpoint import Checkpoint
    from raysweep.vision.data.decode import Pixels
    from raysweep.vision.data.unprepared import Unprepared

Row = dict[str, Any]
SUMMARY = "classify images with a pulled checkpoint"
MOST_CLASSES = 20
"""The classes whose accuracy is printed, the worst; `--json` has all."""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.add_argument("folder", metavar="DIR", help="a folder that `raysweep pull` made")
    images = (
        "image files, folders or zip archives, CSV or Parquet files; folders that have the classes' names are labels"
    )
    parser.add_argument("images", metavar="IMAGES", nargs="+", help=images)
    views = "average over N views of each image, up to 10 (2: the mirror image too)"
    parser.add_argument("--tta", type=int, default=0, metavar="N", help=views)
    top = "write the K most probable classes, and count how often the label is among them; default: 1"
    parser.add_argument("--top", type=int, default=1, metavar="K", help=top)
    columns = "file,class,probability, truth where labels are known, then class_2,probability_2 and so on"
    parser.add_argument("--csv", metavar="FILE", help=f"write {columns} to this file; default: stdout")
    corrupt = "what to do with an image that cannot be decoded: stop, or leave it out; default: error"
    parser.add_argument("--on-corrupt", choices=("error", "skip"), default="error", help=corrupt)
    add_common_flags(parser, storage=False)


@dataclass(frozen=True)
class Prediction:
    """What the network says of one image."""

    file: str
    truth: int | None  # its label, where that is known
    labels: list[int]  # the most probable ones, in that order
    probabilities: list[float]  # theirs


def run(arguments: argparse.Namespace) -> int:
    """Write what each image is taken for and, where labels are known, say the accuracy; return the exit code."""
    from raysweep.results.checkpoint import open_checkpoint
    from raysweep.vision.data.unprepared import open_unprepared

    target = _checked_target(arguments.tta, arguments.csv)
    checkpoint = open_checkpoint(arguments.folder)
    if not 1 <= arguments.top <= len(checkpoint.classes):
        raise UserError(f"--top {arguments.top}: must be 1 to {len(checkpoint.classes)}, as many as there are classes")
    given = open_unprepared([Path(path) for path in arguments.images], checkpoint.classes)
    found = list(_predictions(checkpoint, given, arguments))
    skipped = len(given.names) - len(found)
    summary = {"id": checkpoint.id, **_summary(found, checkpoint.classes, given, arguments), "skipped": skipped}
    rows = _rows(found, checkpoint.classes, is_labelled=bool(summary["labelled"]))
    if target:
        with target.open("w", encoding="utf-8") as file:
            _write_csv(file, rows)
    if arguments.json:
        print(json.dumps({**summary, **({"csv": str(target)} if target else {"predictions": rows})}))
        return 0
    if not target:
        _write_csv(sys.stdout, rows)
    _print_classes(summary["classes"])
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


def _predictions(checkpoint: Checkpoint, given: Unprepared, arguments: argparse.Namespace) -> Iterator[Prediction]:
    """Classify the images that can be decoded, a batch at a time."""
    import numpy as np
    import torch

    from raysweep.vision.inference import Classifier

    network, size = checkpoint.model, checkpoint.image_size
    classifier = Classifier(network, checkpoint.mean, checkpoint.std, checkpoint.precision, size)
    whole = _whole_images(given, size, arguments.on_corrupt == "skip")
    while batch := list(islice(whole, classifier.batches.size)):
        files, known, images = zip(*batch, strict=True)
        best = classifier.top(torch.from_numpy(np.stack(images)), arguments.top, arguments.tta)
        yield from map(Prediction, files, known, best[1].tolist(), best[0].tolist())


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
            where = f"{given.where}: {name}" if given.where else name
            raise DataError(f"{where}: cannot decode: {image} (--on-corrupt skip leaves such images out)")


def _rows(found: Sequence[Prediction], classes: Sequence[str], is_labelled: bool) -> list[Row]:
    """Return a row for each image; `truth` is left out if it is known of none, and None where it is not known."""

    def row(of: Prediction) -> Row:
        answers = [(classes[label], round(value, 6)) for label, value in zip(of.labels, of.probabilities, strict=True)]
        (name, probability), *others = answers
        truth = {"truth": None if of.truth is None else classes[of.truth]} if is_labelled else {}
        more = {
            f"{column}_{place}": value
            for place, answer in enumerate(others, 2)
            for column, value in zip(("class", "probability"), answer, strict=True)
        }
        return {"file": of.file, "class": name, "probability": probability, **truth, **more}

    return [row(each) for each in found]


def _summary(
    found: Sequence[Prediction], classes: Sequence[str], given: Unprepared, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Return how many images there are, and what is right where labels are known."""
    import numpy as np

    from raysweep.results.by_class import accuracy_by_class

    known = [each for each in found if each.truth is not None]
    truth = np.array([each.truth for each in known], dtype=np.int64)
    answers = np.array([each.labels for each in known], dtype=np.int64).reshape(len(known), arguments.top)
    hits = answers == truth[:, None]
    of_classes = accuracy_by_class(truth, hits[:, 0])
    return {
        "images": len(found),
        "labelled": len(known),
        "labelled_by": given.labelled_by if known else None,
        "accuracy": hits[:, 0].sum() / len(known) if known else None,
        "top": arguments.top,
        "top_accuracy": hits.sum() / len(known) if known else None,
        "classes": [{"class": classes[each.label], **each.as_json()} for each in of_classes],
        "tta": arguments.tta,
    }


def _write_csv(file: TextIO, rows: Sequence[Row]) -> None:
    writer = csv.DictWriter(file, list(rows[0]) if rows else ["file", "class", "probability"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


def _print_classes(classes: Sequence[Mapping[str, Any]]) -> None:
    """Print the accuracy of the worst classes, with its interval."""
    if not classes:
        return
    head = ("class", "images", "accuracy", "95 % interval")
    rows = [
        (
            each["class"],
            f"{each['images']:,}",
            format_acc(each["accuracy"]),
            f"{100 * each['low']:.1f} to {100 * each['high']:.1f} %",
        )
        for each in classes[:MOST_CLASSES]
    ]
    table_console(stderr=True).print(table_of(head, rows, head[1:]))
    if len(classes) > MOST_CLASSES:
        say(f"and {len(classes) - MOST_CLASSES} better classes; --json has all", stderr=True)


def _in_words(summary: dict[str, Any], target: Path | None) -> str:
    images, labelled, by, top = (summary[key] for key in ("images", "labelled", "labelled_by", "top"))
    parts = [count_of(images, "image") + (f" -> {target}" if target else "")]
    if labelled:
        known = f"{labelled:,} whose label is known" if labelled < images else ""
        of = ", ".join(filter(None, [known, f"taking {by}" if by != "name" else ""]))
        parts.append(f"accuracy {format_acc(summary['accuracy'])}" + (f" ({of})" if of else ""))
        parts += [f"top-{top} accuracy {format_acc(summary['top_accuracy'])}"] if top > 1 else []
    if summary["skipped"]:
        parts.append(f"{summary['skipped']:,} skipped")
    return ", ".join(parts)
