"""Prepares a source's files into the cache, once for each content and config, and opens what is there.

A `DataConfig` and the folder of its files come in. A folder of memory-mapped arrays (`train_images.npy`,
`train_labels.npy`, ...) and `data.json` comes out, or the `DataSet` read from it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
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
"""Version of the prepared folder's format. Count it up when the format or the way pixels are made changes."""
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

    Where several processes prepare the same set at once, one does the work and the others wait.

    Args:
        config: what is asked for.
        root: the folder of the source's files.
        cache: the cache's folder; see `default_cache`.
        progress: show a bar on a terminal, or print one line, on stderr.
        raw: what `find_raw` returned, if it has been called already.

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
    """Return what the source finds in `root`.

    Raises:
        DataError: the source's files are absent or wrong.
    """
    raw: RawData = DATA_SOURCES.get(config.name)(config, root)
    return raw


def load(path: Path) -> DataSet:
    """Open a prepared set, memory-mapped, so that nothing is read before it is indexed.

    Raises:
        DataError: `path` is not a prepared set.
    """
    try:
        arrays = json.loads((path / "data.json").read_text())
        for split in SPLITS:
            if (path / f"{split}_images.npy").exists():
                for part in ("images", "labels"):
                    # Copy on write, so that an in-place operation by mistake does not reach the file.
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
        if writer.corrupt and config.on_corrupt == "error":
            raise faults(writer.corrupt, "data.on_corrupt: skip leaves such images out")
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
    """Put `place` before faults that do not name it."""
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
    """Decodes splits into a folder. All images have the size of the first one, or `image_size`."""

    def __init__(self, folder: Path, config: DataConfig) -> None:
        self.folder = folder
        self.config = config
        self.shape: tuple[int, ...] | None = None
        self.corrupt: list[str] = []
        """Each image left out, and why."""

    def write(self, name: str, chosen: Chosen, step: Callable[[], None]) -> Labels:
        """Write the images of one split that can be decoded, and their labels; return those labels."""
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
            return labels[kept]  # no image at all, which `_write` refuses
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
    """Check that the disk has room, because writing to a memory map on a full disk kills the process."""
    free = shutil.disk_usage(folder).free
    if size > free:
        raise DataError(
            f"{folder.parent}: the prepared images take {size:,} bytes, {free:,} are free; "
            "set data.image_size, or RAYSWEEP_CACHE to another folder"
        )


def _shorten(path: Path, rows: int) -> None:
    """Keep the first `rows` of an array file, without reading it into memory."""
    short = path.with_suffix(".short")
    with short.open("wb") as file:
        np.save(file, np.load(path, mmap_mode="r")[:rows])
    short.replace(path)


def _mean_std(images: Any) -> tuple[list[float], list[float]]:
    """Return mean and std of each channel, on the scale 0..1, of uint8 N x 3 x H x W.

    They come from exact counts of the 256 values, so the order of the images does not change them.
    """
    counts = np.zeros((3, 256), dtype=np.int64)
    for chunk in _chunks(images):
        for channel in range(3):
            counts[channel] += np.bincount(chunk[:, channel].ravel(), minlength=256)
    values = np.arange(256) / 255
    total = counts.sum(axis=1)
    mean = (counts * values).sum(axis=1) / total
    variance = (counts * (values - mean[:, None]) ** 2).sum(axis=1) / total
    return mean.tolist(), np.sqrt(variance).tolist()


def _chunks(array: Any) -> Iterator[Any]:
    return (array[start : start + ROWS_A_CHUNK] for start in range(0, len(array), ROWS_A_CHUNK))


def _fingerprint(folder: Path, classes: Sequence[str]) -> str:
    whole = hashlib.blake2b(json.dumps(list(classes)).encode(), digest_size=16)
    for split in SPLITS:
        for part in ("images", "labels"):
            path = folder / f"{split}_{part}.npy"
            if path.exists():
                array = np.load(path, mmap_mode="r")
                whole.update(f"{split} {part} {array.dtype} {array.shape}".encode())
                for chunk in _chunks(array):
                    whole.update(np.ascontiguousarray(chunk).data)
    return whole.hexdigest()


@contextmanager
def _advance(what: str, total: int, shown: bool) -> Iterator[Callable[[], None]]:
    """Give a function to call after each image; show a bar on a terminal, or else print one line."""
    console = Console(stderr=True)
    if shown and not console.is_terminal:
        print(f"{what}: {total:,} images", file=sys.stderr)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not (shown and console.is_terminal)) as bar:
        yield partial(bar.advance, bar.add_task(what, total=total))
