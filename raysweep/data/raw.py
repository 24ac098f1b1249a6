"""What a source gives to `prepare`: labels at once, encoded images row by row, and the files both come from.

Nothing is read before it is asked for, so that a set that is prepared already costs a look at its files only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from raysweep.errors import DataError

Labels = npt.NDArray[np.int64]
Rows = npt.NDArray[np.int64]
Encoded = bytes | npt.NDArray[Any] | DataError | None
"""An image file's bytes; or ready pixels, uint8 H x W (grey) or H x W x 3; or why the row cannot be read."""

MAX_CLASSES = 100_000


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


def from_files(paths: Sequence[Path], labels: Sequence[int]) -> RawSplit:
    """Return the split of image files `paths` with `labels`."""

    def images(rows: Rows) -> Iterator[Encoded]:
        for row in rows:
            yield read_file(paths[row])

    return RawSplit(lambda: np.asarray(labels, dtype=np.int64), images, lambda row: str(paths[row]))


def from_pixels(
    read: Callable[[], tuple[npt.NDArray[np.uint8], npt.NDArray[Any]]], where: str, classes: int
) -> RawSplit:
    """Return the split of ready pixels that `read` gives: uint8 N x H x W (x 3), and N labels; read once."""
    kept: list[tuple[npt.NDArray[np.uint8], npt.NDArray[Any]]] = []

    def data() -> tuple[npt.NDArray[np.uint8], npt.NDArray[Any]]:
        if not kept:
            kept.append(read())
        return kept[0]

    def labels() -> Labels:
        return check_labels(data()[1], classes, name)

    def images(rows: Rows) -> Iterator[Encoded]:
        pixels = data()[0]
        for row in rows:
            yield pixels[row]

    def name(row: int) -> str:
        return f"{where}: row {row}"

    return RawSplit(labels, images, name)


def read_file(path: Path) -> Encoded:
    """Return the file's bytes, or the DataError that says why not."""
    try:
        return path.read_bytes()
    except OSError as error:
        return DataError(f"{path}: cannot read: {error.strerror}")


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


def absent(source: str, what: str, looked: Sequence[Path], command: str | None = None) -> DataError:
    """Return the error for files that are not there: what, where it was looked for, how to say where or get it."""
    places = ", ".join(str(path) for path in looked)
    message = f"{source}: no {what}; looked at {places}; set data.path or RAYSWEEP_DATA to the folder that has it"
    if command:
        message += f", or download it: {command}"
    return DataError(message)


def inside(root: Path, name: str, key: str) -> Path:
    """Return `root / name`.

    Raises:
        DataError: that would leave `root`.
    """
    path = root / name
    if not path.resolve().is_relative_to(root.resolve()):
        raise DataError(f"{key}: {name!r} leads out of {root}")
    return path
