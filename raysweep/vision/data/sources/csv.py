"""The source `csv`: a folder of images, and CSV files that name the class of each."""

from __future__ import annotations

import csv as csv_module
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from raysweep.errors import DataError, did_you_mean
from raysweep.vision.config import DataConfig
from raysweep.vision.data.raw import RawData, absent, refuse, split_files
from raysweep.vision.data.sources.parquet import read_classes
from raysweep.vision.data.tree import Tree, read_text, split_of

FILE_COLUMNS = ("file", "filename", "file_name", "image", "path")
CLASS_COLUMNS = ("class", "class_name", "label")
DEFAULTS = ("train.csv", "labels.csv")


def csv(config: DataConfig, root: Path) -> RawData:
    """`train.csv` (or `labels.csv`), and optionally `val.csv`, `test.csv` and `classes.txt`; see docs/data.md."""
    paths = _paths(config, root)
    tables = {name: read_lines(path, labelled=True) for name, path in paths.items()}
    trees = {name: Tree(folder_of_images(paths[name], lines)) for name, lines in tables.items()}
    for name, lines in tables.items():
        _check_lines(paths[name], trees[name].place, lines)
    names = paths["train"].parent / "classes.txt"
    classes = read_classes(names) if names.exists() else _sorted_classes({line.label for line in tables["train"]})
    _check_classes(tables, classes, paths["train"], names)
    label_of = {name: label for label, name in enumerate(classes)}
    splits: dict[str, Any] = {
        name: split_of(trees[name], [(line.file, label_of[line.label]) for line in lines])
        for name, lines in tables.items()
    }
    images = [trees[name].place / line.file for name, lines in tables.items() for line in lines]
    files = (*paths.values(), *images, *([names] if names.exists() else []))
    return RawData(classes=lambda: classes, files=files, **splits)


def _paths(config: DataConfig, root: Path) -> dict[str, Path]:
    defaults = [config.train] if config.train is not None else DEFAULTS
    train = next((name for name in defaults if (root / name).exists()), None)
    if train is None:
        raise absent(config.name, f"file {' or '.join(defaults)}", [root / name for name in defaults])
    return split_files(config, root, train, val="val.csv", test="test.csv")


def _check_lines(path: Path, base: Path, lines: Sequence[Line]) -> None:
    if not lines:
        raise DataError(f"{path}: names no images")
    label_of: dict[str, str] = {}
    problems = [f"{line.where}: {problem}" for line in lines if (problem := _problem_with(line, base, label_of))]
    refuse(problems)


def _problem_with(line: Line, base: Path, label_of: dict[str, str]) -> str | None:
    """Return what is wrong with a line, if anything; `label_of` has the classes of the images before it."""
    name = PurePosixPath(line.file)
    if not line.file or not line.label:
        return f"has no {'class' if line.file else 'file name'}"
    if name.is_absolute() or ".." in name.parts:
        return f"{line.file!r} leads out of {base}"
    if not (base / name).is_file():
        return f"no image {base / name}"
    if (earlier := label_of.setdefault(str(name), line.label)) != line.label:
        return f"{base / name} has class {earlier!r} in an earlier line, {line.label!r} here"
    return None


def _check_classes(tables: dict[str, list[Line]], classes: Sequence[str], train: Path, names: Path) -> None:
    known, used = set(classes), {line.label for line in tables["train"]}
    unknown = [line for lines in tables.values() for line in lines if line.label not in known]
    problems = [
        f"{line.where}: class {line.label!r} is not among the classes{did_you_mean(line.label, classes)}"
        for line in unknown
    ]
    problems += [f"{train}: class {name!r} of {names} has no images" for name in classes if name not in used]
    refuse(problems)


def _sorted_classes(names: set[str]) -> list[str]:
    if all(name.isascii() and name.isdigit() for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


@dataclass(frozen=True)
class Line:
    """One line of a CSV file: the file name and the class that it gives, each empty where it gives none."""

    where: str
    file: str
    label: str


def read_lines(path: Path, *, labelled: bool) -> list[Line]:
    """Return the lines of a CSV file that has a column of file names and, at least if `labelled`, one of classes."""
    try:
        rows = csv_module.reader(io.StringIO(read_text(path), newline=""), strict=True, skipinitialspace=True)
        numbered = [(rows.line_num, [cell.strip() for cell in cells]) for cells in rows if any(map(str.strip, cells))]
    except csv_module.Error as error:
        raise DataError(f"{path}: not a CSV file: {error}") from error
    if not numbered:
        raise DataError(f"{path}: is empty")
    head = numbered[0][1]
    file_at, class_at = (_column(head, names) for names in (FILE_COLUMNS, CLASS_COLUMNS))
    if file_at is not None:
        numbered = numbered[1:]
    elif len(head) == 2 and class_at is None:  # two columns without a line that names them
        file_at, class_at = 0, 1
    else:
        columns = "the columns `file` and `class`" if labelled else "a column `file`"
        raise DataError(f"{path}: the first line must name {columns}; it has {', '.join(head)}")
    if labelled and class_at is None:
        raise DataError(f"{path}: has no labels: no column `class`; it has {', '.join(head)}")
    return [Line(f"{path}:{number}", _cell(cells, file_at), _cell(cells, class_at)) for number, cells in numbered]


def _column(head: Sequence[str], names: Sequence[str]) -> int | None:
    columns = [cell.lower() for cell in head]
    return next((columns.index(name) for name in names if name in columns), None)


def _cell(cells: Sequence[str], at: int | None) -> str:
    return "" if at is None or at >= len(cells) else cells[at]


def folder_of_images(path: Path, lines: Sequence[Line]) -> Path:
    """Return the folder that file names are relative to: the CSV file's own, or `images` in it."""
    beside = path.parent / "images"
    in_images = bool(lines) and not (path.parent / lines[0].file).is_file() and beside.is_dir()
    return beside if in_images else path.parent
