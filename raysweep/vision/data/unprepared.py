"""Finds the images that a user wants classified: image files, or those in a folder, zip archive, CSV or Parquet file.

Their labels are optional: an image without one is classified all the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from raysweep.errors import DataError, did_you_mean
from raysweep.terminal import some_of
from raysweep.vision.config import DataConfig
from raysweep.vision.data.raw import Encoded, refuse
from raysweep.vision.data.sources.csv import folder_of_images, read_lines
from raysweep.vision.data.sources.parquet import parquet
from raysweep.vision.data.tree import SUFFIXES, is_image, open_tree


@dataclass(frozen=True)
class Unprepared:
    """Images in some order, not yet decoded."""

    names: Sequence[str]
    """What each image is called: its file, relative to the folder or as the CSV file has it, or its row."""
    labels: Sequence[int | None]
    """Label of each image, as an index into the given classes; None where it is not known."""
    encoded: Iterable[Encoded]
    """The images, each read when it is asked for."""
    where: Path | None
    """The folder or file that they come from; None if each name says that itself."""
    labelled_by: str = "name"
    """How labels were found: `name` if by the classes' names, or else in words."""


def open_unprepared(paths: Sequence[Path], classes: Sequence[str]) -> Unprepared:
    """Find the images at `paths`, in their order, and their labels where these give them.

    An image file has no label. In a folder or archive, folders stand for labels (see `_labels_of_folders`). A CSV file
    may lack a column `class`. A Parquet file's labels number the lines of a `classes.txt` beside it, or else `classes`.
    A CSV file, folder or archive that names a class which is not among `classes` is refused.
    """
    found = [_open(path, classes) for path in paths]
    if len(found) == 1:
        return found[0]
    names = [f"{each.where}/{name}" if each.where else name for each in found for name in each.names]
    ways = dict.fromkeys(each.labelled_by for each in found if any(label is not None for label in each.labels))
    others = [way for way in ways if way != "name"]
    return Unprepared(
        names=names,
        labels=[label for each in found for label in each.labels],
        encoded=chain.from_iterable(each.encoded for each in found),
        where=None,
        labelled_by=", ".join(others) or "name",
    )


def _open(path: Path, classes: Sequence[str]) -> Unprepared:
    if is_image(path.name) and not path.is_dir():
        return _from_file(path)
    readers = {".csv": _from_csv, ".parquet": _from_parquet}
    found = readers.get(path.suffix.lower(), _from_tree)(path, classes)
    if not found.names:
        raise DataError(f"{path}: has no images")
    return found


def _from_file(path: Path) -> Unprepared:
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    return Unprepared([str(path)], [None], [path], where=None)


def _from_tree(path: Path, classes: Sequence[str]) -> Unprepared:
    tree = open_tree(path)
    names = tree.images()
    if not names:
        raise DataError(f"{path}: has no images ({', '.join(SUFFIXES)})")
    tops = [name.partition("/")[0] if "/" in name else None for name in names]
    label_of, labelled_by = _labels_of_folders(path, sorted({top for top in tops if top is not None}), classes)
    labels = [None if top is None else label_of.get(top) for top in tops]
    return Unprepared(names, labels, tree.encoded(names), path, labelled_by)


def _labels_of_folders(path: Path, folders: Sequence[str], classes: Sequence[str]) -> tuple[dict[str, int], str]:
    """Return the label of each folder that stands for one, and how the labels were found.

    If no folder has a class's name, folders named by numbers are labels, and as many folders as classes are the classes
    in sorted order, as torchvision's ImageFolder numbers them.

    Raises:
        DataError: some folders have a class's name, and others do not.
    """
    label_of = {name: label for label, name in enumerate(classes)}
    unknown = [folder for folder in folders if folder not in label_of]
    if len(unknown) < len(folders):
        refuse(
            [f"{path}: folder {name!r} is no class of the checkpoint{did_you_mean(name, classes)}" for name in unknown],
            f"its classes are {some_of(classes)}; rename such folders, or move them away",
        )
        return label_of, "name"
    if folders and all(folder.isascii() and folder.isdigit() and int(folder) < len(classes) for folder in folders):
        return {folder: int(folder) for folder in folders}, "folders' names as numbers of classes"
    if len(folders) == len(classes):
        return {folder: label for label, folder in enumerate(folders)}, "folders in sorted order as the classes"
    return {}, "name"


def _from_csv(path: Path, classes: Sequence[str]) -> Unprepared:
    lines = read_lines(path, labelled=False)
    label_of: dict[str, int | None] = {"": None} | {name: label for label, name in enumerate(classes)}
    unknown = [line for line in lines if line.label not in label_of]
    problems = [f"{line.where}: has no file name" for line in lines if not line.file]
    problems += [f"{line.where}: unknown class {line.label!r}{did_you_mean(line.label, classes)}" for line in unknown]
    refuse(problems)
    base = folder_of_images(path, lines)
    labels = [label_of[line.label] for line in lines]
    return Unprepared([line.file for line in lines], labels, (base / line.file for line in lines), path)


def _from_parquet(path: Path, classes: Sequence[str]) -> Unprepared:
    raw = parquet(DataConfig(name="parquet", train=path.name), path.parent)
    numbers, named = raw.train.labels(), raw.classes()
    label_of = {name: label for label, name in enumerate(classes)}
    by_name = any(name in label_of for name in named)
    known = [label_of.get(name) for name in named] if by_name else [*range(len(classes))]
    labels = [known[number] if number < len(known) else None for number in numbers.tolist()]
    rows = np.arange(len(numbers))
    return Unprepared([f"{path.name}: row {row}" for row in rows], labels, raw.train.images(rows), path)
