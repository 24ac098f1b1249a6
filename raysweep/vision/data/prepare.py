"""A source's files -> a prepared set in the cache, once per content and config; and back from there.

Comes in: a `DataConfig` and the folder of its files. Goes out: a folder of memory-mapped arrays
(`train_images.npy`, `train_labels.npy`, ...) and `data.json`, or the `DataSet` read from it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from raysweep.errors import DataError
from raysweep.registry import DATA_SOURCES
from raysweep.vision.config import DataConfig
from raysweep.vision.data.cache import default_cache, digest_files, locked, made_whole
from raysweep.vision.data.dataset import SPLITS, DataSet
from raysweep.vision.data.decode import Pixels, Undecodable, decode_all
from raysweep.vision.data.raw import Labels, RawData, faults
from raysweep.vision.data.selection import Chosen, check_every_class, choose

FORMAT = 1
"""Of the prepared folder; a change of it, or of how pixels are made, prepares everything anew."""
ROWS_A_CHUNK = 4096


def open_data(config: DataConfig, *, sweep_folder: Path) -> DataSet:
    """Prepare the set if need be, and open it.

    Raises:
        DataError: the source's files are absent, wrong, or hold less than is asked for.
    """
    return load(prepare(config, root=data_root(config, sweep_folder)))


def data_root(config: DataConfig, sweep_folder: Path) -> Path:
    """Return the folder of the source's files: `path`, else $RAYSWEEP_DATA, else `data` beside the sweep file."""
    if config.path is not None:
        return sweep_folder / Path(config.path).expanduser()
    if given := os.environ.get("RAYSWEEP_DATA"):
        return Path(given).expanduser()
    return sweep_folder / "data"


def prepare(
    config: DataConfig, *, root: Path, cache: Path | None = None, progress: bool = True, raw: RawData | None = None
) -> Path:
    """Return the folder of the prepared set, making it if the cache has none of this content and config.

    Safe beside other processes that prepare the same set: one works, the others wait. `cache`: see
    `default_cache`. `progress`: on stderr, a bar on a terminal, else one line. `raw`: what the source found in
    `root`, where it has been asked already.

    Raises:
        DataError: as `open_data`; nothing half-prepared stays behind.
    """
    cache = default_cache() if cache is None else cache
    if config.val is not None and config.val_fraction is not None:
        raise DataError("data.val and data.val_fraction: set one of the two")
    raw = find_raw(config, root) if raw is None else raw
    try:
        target = cache / "sets" / f"{config.name.replace('/', '-')}-{_key(raw, config, cache)}"
        if not (target / "data.json").exists():
            with locked(cache / "locks" / f"{target.name}.lock") as alone:
                if not (target / "data.json").exists():
                    with made_whole(target, alone=alone) as folder:
                        _write(raw, config, folder, progress)
    except OSError as error:
        raise DataError(f"{cache}: cannot write the cache: {error}; set RAYSWEEP_CACHE to another folder") from error
    return target


def find_raw(config: DataConfig, root: Path) -> RawData:
    """Ask the source what it has in `root`.

    Raises:
        DataError: the source's files are absent or wrong.
    """
    raw: RawData = DATA_SOURCES.get(config.name)(config, root)
    return raw


def load(path: Path) -> DataSet:
    """Open a prepared set, memory-mapped: nothing is read before it is indexed.

    Raises:
        DataError: `path` is not a prepared set.
    """
    try:
        arrays = json.loads((path / "data.json").read_text())
        for split in SPLITS:
            if (path / f"{split}_images.npy").exists():
                for part in ("images", "labels"):
                    # Copy on write: an in-place operation by mistake would not reach the file.
                    arrays[f"{split}_{part}"] = np.load(path / f"{split}_{part}.npy", mmap_mode="c")
        return DataSet.from_arrays(arrays)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path}: not a prepared data set: {error}; remove the folder to prepare it again") from error


def _key(raw: RawData, config: DataConfig, cache: Path) -> str:
    place = raw.place
    folder = place if place is None or place.is_dir() else place.parent
    parts = {
        "format": FORMAT,
        "pillow": PIL.__version__,
        "config": config.model_dump(mode="json", exclude={"path"}),
        "content": raw.content,
        "files": digest_files(raw.files, folder, cache) if folder is not None else "",
    }
    return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=12).hexdigest()


def _write(raw: RawData, config: DataConfig, folder: Path, progress: bool) -> None:
    classes = _first_classes(raw.classes(), config)
    writer = _Writer(folder, config)
    with _naming(raw.place or config.name):
        chosen = choose(raw, config, classes)
        with _advance(f"Preparing {config.name}", sum(len(c[1]) for c in chosen.values()), progress) as step:
            kept = {name: writer.write(name, split, step) for name, split in chosen.items()}
        writer.check_corrupt()
        for name, labels in kept.items():
            check_every_class(name, labels, classes)
    mean, std = _mean_std(np.load(folder / "train_images.npy", mmap_mode="r"))
    about = {
        "name": config.name,
        "classes": list(classes),
        "mean": mean,
        "std": std,
        "fingerprint": _fingerprint(folder, classes),
        "skipped": len(writer.corrupt),
        "skipped_rows": writer.corrupt[:1000],
    }
    (folder / "data.json").write_text(json.dumps(about, indent=1))
    if writer.corrupt and progress:
        print(f"{config.name}: {len(writer.corrupt):,} images skipped, first: {writer.corrupt[0]}", file=sys.stderr)


@contextmanager
def _naming(place: Path | str) -> Iterator[None]:
    """Put `place` before a fault that does not name it."""
    try:
        yield
    except DataError as error:
        if any(str(place) in problem for problem in error.problems):
            raise
        raise DataError(*(f"{place}: {problem}" for problem in error.problems)) from None


def _first_classes(classes: Sequence[str], config: DataConfig) -> tuple[str, ...]:
    if config.classes is None:
        return tuple(classes)
    if config.classes > len(classes):
        raise DataError(f"data.classes: got {config.classes}, but {config.name} has {len(classes)} classes")
    return tuple(classes[: config.classes])


class _Writer:
    """Decodes splits into a folder. All splits share the size of the first image, or `image_size`."""

    def __init__(self, folder: Path, config: DataConfig) -> None:
        self.folder = folder
        self.config = config
        self.shape: tuple[int, ...] | None = None
        self.corrupt: list[str] = []
        """What was left out, and why."""

    def check_corrupt(self) -> None:
        """Raise DataError, naming the images that cannot be decoded, if there are any and they may not be skipped."""
        if self.corrupt and self.config.on_corrupt == "error":
            raise faults(self.corrupt, "data.on_corrupt: skip leaves such images out")

    def write(self, name: str, chosen: Chosen, step: Any) -> Labels:
        """Write one split's images and labels, all that can be decoded; return the labels of the rows kept."""
        split, rows, labels = chosen
        kept = np.ones(len(rows), dtype=bool)
        path = self.folder / f"{name}_images.npy"
        images: np.memmap[Any, Any] | None = None
        at = 0
        for index, image in enumerate(decode_all(split.images(rows), self.config.image_size)):
            if isinstance(image, Undecodable):
                where = split.where(int(rows[index]))
                reason = str(image)
                self.corrupt.append(reason if reason.startswith(where) else f"{where}: cannot decode: {reason}")
                kept[index] = False
            else:
                self._check_shape(image, split.where(int(rows[index])))
                if images is None:
                    _check_space(self.folder, len(rows) * image.nbytes)
                    images = np.lib.format.open_memmap(path, "w+", np.uint8, (len(rows), *image.shape))
                images[at] = image
                at += 1
            step()
        if images is None:
            return labels[kept]  # none: told by `check_corrupt` or `check_every_class`
        images.flush()
        if at < len(rows):
            _shorten(path, at)
        np.save(self.folder / f"{name}_labels.npy", labels[kept])
        return labels[kept]

    def _check_shape(self, image: Pixels, where: str) -> None:
        height, width = image.shape[1:]
        if self.shape is None:
            self.shape = image.shape
            if height != width:
                raise DataError(f"{where}: the image is {width} x {height} pixels, not square: set data.image_size")
        elif image.shape != self.shape:
            raise DataError(
                f"{where}: the image is {width} x {height} pixels, the first {self.shape[2]} x {self.shape[1]}: "
                "set data.image_size"
            )


def _check_space(folder: Path, size: int) -> None:
    """See that the disk has room: writing to a memory map on a full one kills the process."""
    free = shutil.disk_usage(folder).free
    if size > free:
        raise DataError(
            f"{folder.parent}: the prepared images take {size:,} bytes, {free:,} are free; "
            "set data.image_size, or RAYSWEEP_CACHE to another folder"
        )


def _shorten(path: Path, rows: int) -> None:
    """Keep the first `rows` of an array file."""
    long = np.load(path, mmap_mode="r")
    short = path.with_suffix(".short")
    kept = np.lib.format.open_memmap(short, "w+", long.dtype, (rows, *long.shape[1:]))
    for start in range(0, rows, ROWS_A_CHUNK):
        kept[start : start + ROWS_A_CHUNK] = long[start : min(rows, start + ROWS_A_CHUNK)]
    kept.flush()
    short.replace(path)


def _mean_std(images: Any) -> tuple[list[float], list[float]]:
    """Mean and std per channel, scale 0..1, of uint8 N x 3 x H x W; from exact counts, so in any order the same."""
    counts = np.zeros((3, 256), dtype=np.int64)
    for start in range(0, len(images), ROWS_A_CHUNK):
        chunk = images[start : start + ROWS_A_CHUNK]
        for channel in range(3):
            counts[channel] += np.bincount(chunk[:, channel].ravel(), minlength=256)
    values = np.arange(256) / 255
    total = counts.sum(axis=1)
    mean = (counts * values).sum(axis=1) / total
    variance = (counts * (values - mean[:, None]) ** 2).sum(axis=1) / total
    return mean.tolist(), np.sqrt(variance).tolist()


def _fingerprint(folder: Path, classes: Sequence[str]) -> str:
    whole = hashlib.blake2b(json.dumps(list(classes)).encode(), digest_size=16)
    for split in SPLITS:
        for part in ("images", "labels"):
            path = folder / f"{split}_{part}.npy"
            if path.exists():
                array = np.load(path, mmap_mode="r")
                whole.update(f"{split} {part} {array.dtype} {array.shape}".encode())
                for start in range(0, len(array), ROWS_A_CHUNK):
                    whole.update(np.ascontiguousarray(array[start : start + ROWS_A_CHUNK]).data)
    return whole.hexdigest()


@contextmanager
def _advance(what: str, total: int, shown: bool) -> Iterator[Any]:
    """Give a function to call after each image: a bar on a terminal, else one line at the start."""
    console = Console(stderr=True)
    if not (shown and console.is_terminal):
        if shown:
            print(f"{what}: {total:,} images", file=sys.stderr)
        yield lambda: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)
