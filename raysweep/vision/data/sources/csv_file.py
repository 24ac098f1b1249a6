"""The source `csv`: a folder of images and CSV files that say each one's class."""

from __future__ import annotations

import csv as csv_module
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from raysweep.errors import DataError, did_you_mean
from raysweep.vision.config import DataConfig
from raysweep.vision.data.raw import RawData, absent, faults, find, inside
from raysweep.vision.data.sources.parquet import read_classes
from raysweep.vision.data.tree import FolderTree, read_text, split_of

FILE_COLUMNS = ("file", "filename", "file_name", "image", "path")
CLASS_COLUMNS = ("class", "class_name", "label")
DEFAULTS = ("train.csv", "labels.csv")


def csv(config: DataConfig, root: Path) -> RawData:
    """`train.csv` (or `labels.csv`), and `val.csv` and `test.csv` where they are there.

    `train`, `val` and `test` name other files in `root`. A file's first line names its columns, `file` and `class`
    among them; others are not read. A file of two columns may go without. File names are relative to the CSV
    file's folder, or to `images` in it. Classes are those of the training file, sorted (as numbers if all are), or
    those of `classes.txt` in its order. Without a validation file `val_fraction` of the training images is held out.

    Raises:
        DataError: no training file; or, all at once, lines that name a missing image or an unknown class.
    """
    paths = _paths(config, root)
    tables = {name: _read(path, name) for name, path in paths.items()}
    names = paths["train"].parent / "classes.txt"
    classes = read_classes(names) if names.exists() else _sorted_classes([row.label for row in tables["train"]])
    label_of = {name: label for label, name in enumerate(classes)}
    problems = [
        f"{row.where}: class {row.label!r} is not among the classes{did_you_mean(row.label, classes)}"
        for rows in tables.values()
        for row in rows
        if row.label not in label_of
    ]
    given = {row.label for row in tables["train"]}
    problems += [f"{paths['train']}: class {name!r} of {names} has no images" for name in classes if name not in given]
    if problems:
        raise faults(problems)
    images = [row.path for rows in tables.values() for row in rows]
    splits = {
        name: split_of(FolderTree(root), [(str(row.path.relative_to(root)), label_of[row.label]) for row in rows])
        for name, rows in tables.items()
    }
    files = (*paths.values(), *images, *([names] if names.exists() else []))
    return RawData(
        classes=lambda: classes, train=splits["train"], val=splits.get("val"), test=splits.get("test"), files=files
    )


@dataclass(frozen=True)
class _Row:
    where: str
    path: Path
    label: str


def _paths(config: DataConfig, root: Path) -> dict[str, Path]:
    defaults = [config.train] if config.train is not None else DEFAULTS
    train = next((name for name in defaults if find(root, [name]) is not None), None)
    if train is None:
        raise absent(config.name, f"file {' or '.join(defaults)}", [root / name for name in defaults])
    paths = {"train": inside(root, train, "data.train")}
    for name in ("val", "test"):
        given = getattr(config, name)
        path = inside(root, given or f"{name}.csv", f"data.{name}")
        if given is not None and not path.is_file():
            raise DataError(f"data.{name}: no file {path}")
        if path.is_file() and not (name == "val" and config.val_fraction is not None):
            paths[name] = path
    return paths


def _read(path: Path, split: str) -> list[_Row]:
    """Return the rows of one CSV file; raises DataError with all that is wrong in it."""
    try:
        lines = csv_module.reader(io.StringIO(read_text(path), newline=""), strict=True)
        numbered = [(lines.line_num, [cell.strip() for cell in cells]) for cells in lines if any(map(str.strip, cells))]
    except csv_module.Error as error:
        raise DataError(f"{path}: not a CSV file: {error}") from error
    if not numbered:
        raise DataError(f"{path}: is empty")
    file_at, class_at, has_header = _columns(path, split, numbered[0][1])
    numbered = numbered[has_header:]
    base = _base(path, [cells[file_at] for _, cells in numbered[:1] if len(cells) > file_at])
    rows, problems = [], []
    label_of: dict[Path, str] = {}
    for number, cells in numbered:
        where = f"{path}:{number}"
        if len(cells) <= max(file_at, class_at) or not cells[file_at] or not cells[class_at]:
            missing = "file name" if len(cells) <= file_at or not cells[file_at] else "class"
            problems.append(f"{where}: has no {missing}")
            continue
        name, label = PurePosixPath(cells[file_at]), cells[class_at]
        image = base / name
        if name.is_absolute() or ".." in name.parts:
            problems.append(f"{where}: {str(name)!r} leads out of {base}")
        elif not image.is_file():
            problems.append(f"{where}: no image {image}")
        elif label_of.setdefault(image, label) != label:
            problems.append(f"{where}: {image} has class {label_of[image]!r} in an earlier line, {label!r} here")
        else:
            rows.append(_Row(where, image, label))
    if problems:
        raise faults(problems)
    if not rows:
        raise DataError(f"{path}: names no images")
    return rows


def _columns(path: Path, split: str, first: Sequence[str]) -> tuple[int, int, bool]:
    """Return the columns of file name and class, and whether the first line is the one that names them."""
    names = [cell.lower() for cell in first]
    file_at = next((names.index(name) for name in FILE_COLUMNS if name in names), None)
    class_at = next((names.index(name) for name in CLASS_COLUMNS if name in names), None)
    if file_at is not None and class_at is not None:
        return file_at, class_at, True
    if len(first) == 1 or file_at is not None:
        raise DataError(f"{path}: the {split} split has no labels: no column `class`; it has {', '.join(first)}")
    if len(first) == 2 and class_at is None:
        return 0, 1, False
    raise DataError(f"{path}: the first line must name the columns `file` and `class`; it has {', '.join(first)}")


def _base(path: Path, names: Sequence[str]) -> Path:
    """Return the folder that file names are relative to: the CSV file's own, or `images` in it."""
    beside = path.parent / "images"
    if names and not (path.parent / names[0]).is_file() and beside.is_dir():
        return beside
    return path.parent


def _sorted_classes(labels: Sequence[str]) -> list[str]:
    names = set(labels)
    if all(name.isascii() and name.isdigit() for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)
