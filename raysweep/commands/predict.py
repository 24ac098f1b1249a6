"""`raysweep predict`: classify images with a pulled checkpoint, prepared just as its trial's validation images were."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from raysweep.errors import DataError, UserError
from raysweep.results.checkpoint import open_checkpoint
from raysweep.terminal import format_acc
from raysweep.vision.data.decode import Undecodable, decode_all
from raysweep.vision.data.unprepared import Unprepared, open_unprepared
from raysweep.vision.inference import Classifier
from raysweep.vision.tta import MOST_VIEWS

COLUMNS = ("file", "class", "probability")


@dataclass(frozen=True)
class Prediction:
    """What the network says of one image."""

    file: str
    label: int
    probability: float
    """Of that class, averaged over the views."""
    known: int | None
    """The true label, where it is known."""


def predict(
    folder: str,
    images: str,
    tta: int = 0,
    csv_path: str | None = None,
    as_json_document: bool = False,
    on_corrupt: Literal["error", "skip"] = "error",
) -> int:
    """Classify images; write `file,class,probability` and, where labels are known, say the accuracy.

    Args:
        folder: that `pull` made.
        images: a folder, zip archive, CSV or Parquet file (see `data.unprepared`).
        tta: views of each image whose probabilities are averaged (see `tta`).
        csv_path: of the file to write; default: the same on stdout.
        as_json_document: print one JSON document on stdout instead.
        on_corrupt: what to do with an image that cannot be decoded: end with its name, or leave it out.

    Returns:
        The exit code.

    Raises:
        UserError: the folder, the images or the number of views cannot be used; nothing is written.
    """
    if not 0 <= tta <= MOST_VIEWS:
        raise UserError(f"--tta {tta}: must be 0 to {MOST_VIEWS} views")
    target = Path(csv_path) if csv_path else None
    if target and not target.parent.is_dir():
        raise UserError(f"--csv {target}: no folder {target.parent}")
    checkpoint = open_checkpoint(folder)
    classifier = Classifier(checkpoint.model, checkpoint.mean, checkpoint.std, checkpoint.precision)
    given = open_unprepared(Path(images), checkpoint.classes)
    predictions = list(_predictions(classifier, given, checkpoint.image_size, tta, on_corrupt))
    rows = [(each.file, checkpoint.classes[each.label], round(each.probability, 6)) for each in predictions]
    labelled = [each for each in predictions if each.known is not None]
    accuracy = sum(each.label == each.known for each in labelled) / len(labelled) if labelled else None
    if target:
        target.write_text(_csv(rows), encoding="utf-8")
    skipped = len(given.names) - len(predictions)
    if as_json_document:
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
    classifier: Classifier, given: Unprepared, image_size: int, tta: int, on_corrupt: Literal["error", "skip"]
) -> Iterator[Prediction]:
    console = Console(stderr=True)
    decoded = track(
        zip(given.names, given.labels, decode_all(given.encoded, image_size), strict=True),
        "Classifying",
        total=len(given.names),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    whole = ((name, label, image) for name, label, image in decoded if _is_whole(image, name, given.where, on_corrupt))
    while batch := list(islice(whole, classifier.batch_size)):
        names, labels, images = zip(*batch, strict=True)
        probabilities = classifier.probabilities(torch.from_numpy(np.stack(images)), tta)
        best = zip(probabilities.argmax(1).tolist(), probabilities.amax(1).tolist(), strict=True)
        for name, label, (predicted, probability) in zip(names, labels, best, strict=True):
            yield Prediction(name, predicted, probability, label)


def _is_whole(image: object, name: str, where: Path, on_corrupt: Literal["error", "skip"]) -> bool:
    if isinstance(image, Undecodable) and on_corrupt == "error":
        advice = "(--on-corrupt skip leaves such images out)"
        raise DataError(f"{where}: {name}: cannot decode: {image} {advice}")
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
    Console(stderr=True).print(", ".join(parts), highlight=False, markup=False, soft_wrap=True)
