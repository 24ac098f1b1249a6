"""The source `parquet`: files with the columns `image` (an image file's bytes) and `label` (an integer)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raysweep.errors import DataError
from raysweep.vision.config import DataConfig
from raysweep.vision.data.raw import Encoded, Labels, RawData, RawSplit, Rows, absent, check_labels, split_files
from raysweep.vision.data.tree import read_text

TINY = "tiny-imagenet-200"
ROWS_A_BATCH = 256
BYTES_AT_ONCE = 2**20
"""Read of a file at a time, beside a page, which may have 1,024 images. By default a row group's whole column is read
ahead, and a large file may be one group."""
MAX_CLASSES = 100_000
UNREADABLE = (pa.ArrowException, OSError)


def parquet(config: DataConfig, root: Path) -> RawData:
    """`train.parquet` and `val.parquet`, or the files that `data.train`, `data.val` and `data.test` name.

    They lie in `root`, `root/parquet` or `root/tiny-imagenet-200`, with an optional `classes.txt`.
    """
    train = config.train or "train.parquet"
    folders = [root, root / config.name, root / TINY]
    folder = next((folder for folder in folders if (folder / train).exists()), None)
    if folder is None:
        raise absent(config.name, f"file {train}", [folder / train for folder in folders])
    return parquet_in(folder, config)


def parquet_in(folder: Path, config: DataConfig) -> RawData:
    """Return the Parquet set in `folder`, which has the training file."""
    paths = split_files(config, folder, config.train or "train.parquet", val="val.parquet", test=None)
    names = folder / "classes.txt"
    classes = cache(lambda: read_classes(names) if names.exists() else _numbers(folder, [*paths.values()]))
    splits: dict[str, Any] = {name: _split(path, classes) for name, path in paths.items()}
    return RawData(classes, files=(*paths.values(), *([names] if names.exists() else [])), **splits)


def _numbers(folder: Path, paths: Sequence[Path]) -> list[str]:
    """Return the numbers up to the largest label as the names of the classes."""
    top = max(int(_read_labels(path).max(initial=-1)) for path in paths)
    if top >= MAX_CLASSES:
        raise DataError(f"{folder}: labels up to {top}, at most {MAX_CLASSES - 1} are taken")
    return [str(label) for label in range(top + 1)]


def read_classes(path: Path) -> list[str]:
    """Return the class names of a file whose lines read `name` or `id<TAB>name`; if names repeat, ids join them."""
    return name_classes(read_text(path).splitlines(), str(path))


def name_classes(lines: Sequence[str], where: str) -> list[str]:
    """Return the class names of such lines; raise DataError if there are none, or a name is empty or comes twice."""
    lines = list(lines)
    while lines and not lines[-1].strip():
        lines.pop()
    names = [line.partition("\t")[2].strip() or line.strip() for line in lines]
    if len(set(names)) < len(names):
        names = [line.replace("\t", " ").strip() for line in lines]
    if not names:
        raise DataError(f"{where}: has no class names")
    seen: dict[str, int] = {}
    for number, name in enumerate(names, start=1):
        if not name:
            raise DataError(f"{where}:{number}: the class name is empty")
        if name in seen:
            raise DataError(f"{where}:{number}: class {name!r} is already at line {seen[name]}")
        seen[name] = number
    return names


def _split(path: Path, classes: Callable[[], Sequence[str]]) -> RawSplit:
    def where(row: int) -> str:
        return f"{path}: row {row}"

    return RawSplit(
        labels=lambda: check_labels(_read_labels(path), len(classes()), where),
        images=lambda rows: _read_images(path, rows),
        where=where,
    )


def _open(path: Path) -> pq.ParquetFile:
    try:
        file = pq.ParquetFile(path, buffer_size=BYTES_AT_ONCE, pre_buffer=False)
    except UNREADABLE as error:
        raise DataError(f"{path}: not a readable Parquet file: {_first_line(error)}") from error
    names = file.schema_arrow.names
    for column in ("image", "label"):
        if column not in names:
            file.close()
            raise DataError(f"{path}: no column {column!r}; it has {', '.join(names) or 'none'}")
    return file


def _read_labels(path: Path) -> Labels:
    with _open(path) as file:
        kind = file.schema_arrow.field("label").type
        if not pa.types.is_integer(kind):
            raise DataError(f"{path}: column 'label' is {kind}, must be an integer type")
        try:
            column = file.read(columns=["label"]).column("label")
        except UNREADABLE as error:
            raise DataError(f"{path}: cannot read column 'label': {_first_line(error)}") from error
    if column.null_count:
        row = column.is_null().to_pylist().index(True)
        raise DataError(f"{path}: row {row}: has no label")
    labels = column.to_numpy()
    if len(labels) and int(labels.max()) > np.iinfo(np.int64).max:
        raise DataError(f"{path}: row {int(labels.argmax())}: label {labels.max()} is out of range")
    return np.asarray(labels, dtype=np.int64)


def _read_images(path: Path, rows: Rows) -> Iterator[Encoded]:
    """Yield the image bytes of `rows`, which ascend; row groups without any of them are not read."""
    with _open(path) as file:
        kind = file.schema_arrow.field("image").type
        if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
            raise DataError(f"{path}: column 'image' is {kind}, must be binary: the bytes of an image file")
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        starts = np.cumsum([0, *sizes])
        for group in np.unique(np.searchsorted(starts, rows, side="right") - 1).tolist():
            at = int(starts[group])
            try:
                for batch in file.iter_batches(ROWS_A_BATCH, row_groups=[group], columns=["image"]):
                    first, end = np.searchsorted(rows, [at, at + batch.num_rows])
                    yield from batch.column(0).take(pa.array(rows[first:end] - at)).to_pylist()
                    at += batch.num_rows
            except UNREADABLE as error:
                raise DataError(f"{path}: row {at} or later: cannot read: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
