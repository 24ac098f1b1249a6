"""What a source gives to `prepare`: labels at once, encoded images row by row, and the files both come from.

Nothing is read before it is asked for, so that a set that is prepared already costs a look at its files only.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
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
"""An image file's bytes, or its path; or ready pixels, uint8 H x W (grey) or H x W x 3; or why it cannot be read."""

MAX_CLASSES = 100_000
MAX_FILE_BYTES = 256 * 2**20
"""Larger image files are refused unread."""
MAX_NAMED = 20
"""Of many faults of one kind, the first this many are named and the others counted."""


@dataclass(frozen=True)
class RawSplit:
    """One split of a source, undecoded."""

    labels: Callable[[], Labels]
    """Reads the label of every row, each in 0..number of classes - 1; raises DataError."""
    images: Callable[[Rows], Iterable[Encoded]]
    """Yields the images of the given rows (ascending), one each; raises DataError."""
    where: Callable[[int], str]
    """Names a row in messages: `train.parquet: row 17`."""


@dataclass(frozen=True)
class RawData:
    """What a source function returns."""

    classes: Callable[[], Sequence[str]]
    """Reads the class names; the index is the label."""
    train: RawSplit
    val: RawSplit | None = None
    test: RawSplit | None = None
    files: tuple[Path, ...] = ()
    """All files that decide the content; they are hashed."""
    content: str = ""
    """Whatever else decides the content, such as a generator's version."""

    @cached_property
    def place(self) -> Path | None:
        """The file, or the folder that has all `files`; None without files."""
        return Path(os.path.commonpath([os.path.abspath(path) for path in self.files])) if self.files else None


def from_pixels(
    read: Callable[[], tuple[npt.NDArray[np.uint8], npt.NDArray[Any]]], where: str, classes: Callable[[], Sequence[str]]
) -> RawSplit:
    """Return the split of ready pixels that `read` gives: uint8 N x H x W (x 3), and N labels; read once."""
    kept: list[tuple[npt.NDArray[np.uint8], npt.NDArray[Any]]] = []

    def data() -> tuple[npt.NDArray[np.uint8], npt.NDArray[Any]]:
        if not kept:
            kept.append(read())
        return kept[0]

    def labels() -> Labels:
        return check_labels(data()[1], len(classes()), name)

    def images(rows: Rows) -> Iterator[Encoded]:
        pixels = data()[0]
        for row in rows:
            yield pixels[row]

    def name(row: int) -> str:
        return f"{where}: row {row}"

    return RawSplit(labels, images, name)


def read_file(path: Path, most: int = MAX_FILE_BYTES) -> bytes | DataError:
    """Return the file's bytes, or the DataError that says why not: one is that it has more than `most`."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            # Asked for no more than it has: a buffer of `most` would stay a memory map of its own when cut to size.
            return file.read(size) if size <= most else DataError(f"{path}: is larger than {most:,} bytes")
    except OSError as error:
        return DataError(f"{path}: cannot read: {error.strerror}")


def faults(problems: Sequence[str], advice: str = "") -> DataError:
    """Return the error of several faults of one kind: the first `MAX_NAMED`, how many more, and what to do."""
    named = list(problems[:MAX_NAMED])
    if more := len(problems) - len(named):
        named.append(f"... and {more:,} more")
    return DataError(*named, *([advice] if advice else []))


def check_labels(labels: npt.NDArray[Any], classes: int, where: Callable[[int], str]) -> Labels:
    """Return `labels` as int64.

    Raises:
        DataError: one is outside 0..classes - 1; names the first such row and counts them.
    """
    checked = labels.astype(np.int64)
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(wrong):
        more = f" ({len(wrong):,} rows have such labels)" if len(wrong) > 1 else ""
        first = int(wrong[0])
        raise DataError(f"{where(first)}: label {labels[first]} is out of range, must be 0..{classes - 1}{more}")
    return checked


def find(root: Path, names: Sequence[str], folders: Sequence[str] = ()) -> Path | None:
    """Return the folder, `root` or one of `folders` in it, that has all of `names`; None if there is none."""
    for folder in (root, *(root / name for name in folders)):
        if all((folder / name).exists() for name in names):
            return folder
    return None


def refuse_split_names(config: DataConfig, names: Sequence[str] = SPLITS) -> None:
    """See that none of `names` is set, for a source that knows the files of its splits.

    Raises:
        DataError: one is.
    """
    given = [f"data.{name}" for name in names if getattr(config, name) is not None]
    if given:
        raise DataError(
            f"{', '.join(given)}: {config.name} takes no such key, since it knows its own files; leave it out"
        )


def absent(source: str, what: str, looked: Sequence[Path], command: str | None = None) -> DataError:
    """Return the error for files that are not there: what, where it was looked for, how to say where or get it."""
    places = ", ".join(str(path) for path in looked)
    message = f"{source}: no {what}; looked at {places}; set data.path or RAYSWEEP_DATA to the folder that has it"
    if command:
        message += f", or download it: {command}"
    return DataError(message)


def torchvision_download(name: str, root: Path) -> str:
    """Return the shell command that downloads torchvision's data set `name` into `root`."""
    folder = json.dumps(str(root), ensure_ascii=False)
    code = f"from torchvision.datasets import {name}; {name}({folder}, download=True)"
    return f"python -c {shlex.quote(code)}"


def inside(root: Path, name: str, key: str) -> Path:
    """Return `root / name`.

    Raises:
        DataError: that would leave `root`.
    """
    path = root / name
    if not path.resolve().is_relative_to(root.resolve()):
        raise DataError(f"{key}: {name!r} leads out of {root}")
    return path
