"""What a source gives to `prepare`: labels at once, encoded images row by row, and the files that both come from.

A source reads nothing before it is asked to, so that a set that is already prepared costs only a look at its files.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from raysweep.errors import DataError
from raysweep.vision.config import DataConfig
from raysweep.vision.data.dataset import SPLITS

Labels = npt.NDArray[np.int64]
Rows = npt.NDArray[np.int64]
Encoded = bytes | Path | npt.NDArray[Any] | DataError | None
"""An image file's bytes or path; or ready pixels, uint8, H x W (grey) or H x W x 3; or why there is no image."""

MAX_FILE_BYTES = 256 * 2**20
"""Image files larger than this are not read."""
MAX_NAMED = 20
"""Faults of one kind that a message names; it only counts the others."""


@dataclass(frozen=True)
class RawSplit:
    """One split of a source, undecoded."""

    labels: Callable[[], Labels]
    """Reads the label of every row, each from 0 to the number of classes - 1; raises DataError."""
    images: Callable[[Rows], Iterable[Encoded]]
    """Yields the image of each of the given rows, which ascend; raises DataError."""
    where: Callable[[int], str]
    """Names a row in messages: `train.parquet: row 17`."""


@dataclass(frozen=True)
class RawData:
    """What a source returns."""

    classes: Callable[[], Sequence[str]]  # reads the class names, in the order of their labels
    train: RawSplit
    val: RawSplit | None = None
    test: RawSplit | None = None
    files: tuple[Path, ...] = ()  # all files that decide the content; if one changes, the set is prepared again
    content: str = ""  # what else decides the content, such as the version of a generator

    @cached_property
    def place(self) -> Path | None:
        """The only file, or the folder that holds all of `files`; None if there are none."""
        return Path(os.path.commonpath([os.path.abspath(path) for path in self.files])) if self.files else None


def from_pixels(
    read: Callable[[], tuple[npt.NDArray[np.uint8], npt.NDArray[Any]]], where: str, classes: Callable[[], Sequence[str]]
) -> RawSplit:
    """Return the split of ready pixels, uint8 N x H x W (x 3), and N labels; `read` is called once, when needed."""
    data = cache(read)

    def name(row: int) -> str:
        return f"{where}: row {row}"

    return RawSplit(
        labels=lambda: check_labels(data()[1], len(classes()), name),
        images=lambda rows: (data()[0][row] for row in rows),
        where=name,
    )


def read_file(path: Path, most: int = MAX_FILE_BYTES) -> bytes | DataError:
    """Return the file's bytes, or the DataError that says why it cannot be read or that it has more than `most`."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            # Asked for `most` bytes, Python would keep a memory map for each file, and a process may have 65,530.
            return file.read(size) if size <= most else DataError(f"{path}: is larger than {most:,} bytes")
    except OSError as error:
        return DataError(f"{path}: cannot read: {error.strerror}")


def refuse(problems: Sequence[str], advice: str = "") -> None:
    """Raise one DataError for several faults of one kind, if there are any: it names `MAX_NAMED`, counts the others."""
    named = list(problems[:MAX_NAMED])
    if more := len(problems) - len(named):
        named.append(f"... and {more:,} more")
    if named:
        raise DataError(*named, *([advice] if advice else []))


def check_labels(labels: npt.NDArray[Any], classes: int, where: Callable[[int], str]) -> Labels:
    """Return labels as int64; raise DataError, with the first such row, if any is outside 0..classes - 1."""
    checked = labels.astype(np.int64)
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(wrong):
        more = f" ({len(wrong):,} rows have such labels)" if len(wrong) > 1 else ""
        first = int(wrong[0])
        raise DataError(f"{where(first)}: label {labels[first]} is out of range, must be 0..{classes - 1}{more}")
    return checked


def split_files(config: DataConfig, folder: Path, train: str, **others: str | None) -> dict[str, Path]:
    """Return the file of each split that there is; `others` are the default names of `val` and `test`."""
    found = {split: _file_of(config, split, folder, default) for split, default in others.items()}
    return {"train": _inside(folder, train, "data.train"), **{split: path for split, path in found.items() if path}}


def _file_of(config: DataConfig, split: str, folder: Path, default: str | None) -> Path | None:
    """Return the file of `val` or `test`: the one that the config names, which must exist, or `default` if it does."""
    if (given := getattr(config, split)) is not None:
        path = _inside(folder, given, f"data.{split}")
        if not path.is_file():
            raise DataError(f"data.{split}: no file {path}")
        return path
    if default is None or (split == "val" and config.val_fraction is not None):
        return None
    return folder / default if (folder / default).is_file() else None


def refuse_split_names(config: DataConfig, names: Sequence[str] = SPLITS) -> None:
    """Refuse `data.train` and so on, for a source that knows the files of its splits."""
    given = [f"data.{name}" for name in names if getattr(config, name) is not None]
    if given:
        raise DataError(
            f"{', '.join(given)}: {config.name} takes no such key, since it knows its own files; leave it out"
        )


def absent(source: str, what: str, looked: Sequence[Path], command: str | None = None) -> DataError:
    """Return the error for absent files: what is absent, where it was looked for, and how to get it."""
    places = ", ".join(str(path) for path in looked)
    download = f", or download it: {command}" if command else ""
    return DataError(
        f"{source}: no {what}; looked at {places}; set data.path or RAYSWEEP_DATA to the folder that has it{download}"
    )


def torchvision_download(name: str, root: Path) -> str:
    """Return the shell command that downloads torchvision's data set `name` into `root`."""
    folder = json.dumps(str(root), ensure_ascii=False)
    code = f"from torchvision.datasets import {name}; {name}({folder}, download=True)"
    return f"python -c {shlex.quote(code)}"


def _inside(root: Path, name: str, key: str) -> Path:
    """Return `root / name`, where `name` is the value of `key`; raise DataError if it leads out of `root`."""
    path = root / name
    if not path.resolve().is_relative_to(root.resolve()):
        raise DataError(f"{key}: {name!r} leads out of {root}")
    return path
