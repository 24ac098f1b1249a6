"""Prepares a source's files into the cache, once for each content and config, and opens what is there.

A `DataConfig` and the folder of its files come in. A folder of memory-mapped arrays (`train_images.npy`,
`train_labels.npy`, ...) and `data.json` comes out, or the `DataSet` read from it.
"""

from __future__ import annotations

import hashlib
import json
import math
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from raysweep.errors import DataError
from raysweep.terminal import can_redraw, format_bytes
from raysweep.vision.config import DataConfig
from raysweep.vision.data.cache import digest_files, locked, made_whole
from raysweep.vision.data.dataset import PARTS, SPLITS, DataSet
from raysweep.vision.data.decode import Pixels, Undecodable, decode_all
from raysweep.vision.data.raw import Labels, RawData, refuse
from raysweep.vision.data.selection import Chosen, check_every_class, choose
from raysweep.vision.names import DATA_SOURCES
from raysweep.vision.prepared import Noted, data_root, default_cache, note

FORMAT = 1
"""Version of the prepared folder's format. Count it up when the format or the way pixels are made changes."""
BYTES_A_CHUNK = 2**23
"""Of a prepared array that is read through: little beside what decoding takes, and enough that it goes as fast."""


def open_data(config: DataConfig, *, sweep_folder: Path) -> DataSet:
    """Prepare the set if need be, and open it; DataError if files are absent, wrong, or hold less than is asked for."""
    return load(prepare(config, root=data_root(config, sweep_folder)))


def prepare(
    config: DataConfig, *, root: Path, cache: Path | None = None, progress: bool = True, raw: RawData | None = None
) -> Path:
    """Return the folder of the prepared set, making it if the cache has none of this content and config.

    Where several processes prepare the same set at once, one does the work and the others wait. Nothing half-prepared
    stays behind. `progress` shows a bar on a terminal, or else prints one line, on stderr; `raw` is what `find_raw`
    returned, if it has been called already.
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
    with suppress(OSError, ValueError, KeyError, EOFError):  # of a damaged set, as `load` will say
        note(_noted(target), config, None if raw.place is None else root, cache)
    return target


def find_raw(config: DataConfig, root: Path) -> RawData:
    """Return what the source finds in `root`; raises DataError if files are absent or wrong."""
    raw: RawData = DATA_SOURCES.get(config.name)(config, root)
    return raw


def load(path: Path) -> DataSet:
    """Open a prepared set, memory-mapped, so that nothing is read before it is indexed."""
    with _damaged(path, "data.json"):
        arrays = json.loads((path / "data.json").read_text())
    for name, file in _array_files(path).items():
        # Read-only: the kernel counts pages that could be written as the process's own, and refuses to map more of
        # them than there is memory.
        with _damaged(path, file.name):
            arrays[name] = np.load(file, mmap_mode="r")
    with _damaged(path, "data.json"):
        return DataSet.from_arrays(arrays)


@contextmanager
def _damaged(folder: Path, name: str) -> Iterator[None]:
    """Tell of a fault in a file of a prepared set, and how to be rid of the set."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise DataError(
            f"{folder / name}: this prepared set is damaged: {why}; "
            f"remove it, and it is prepared again: rm -r {shlex.quote(str(folder))}"
        ) from error


def _array_files(folder: Path) -> dict[str, Path]:
    """Return the array files of a prepared set by name, such as `train_images`, in a fixed order."""
    has_test = (folder / "test_images.npy").exists()
    names = [f"{split}_{part}" for split in SPLITS if split != "test" or has_test for part in PARTS]
    return {name: folder / f"{name}.npy" for name in names}


def _noted(folder: Path) -> Noted:
    sizes = {name: int(np.load(file, mmap_mode="r").nbytes) for name, file in _array_files(folder).items()}
    return Noted(folder.name, sum(sizes.values()), sizes["train_images"] + sizes["val_images"])


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
    with _naming(raw.place or config.name):
        chosen = choose(raw, config, classes)
        writer = _Writer(folder, config.image_size, total=sum(len(rows) for _, rows, _ in chosen.values()))
        _write_splits(writer, chosen, config, classes, progress)
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


def _write_splits(
    writer: _Writer, chosen: dict[str, Chosen], config: DataConfig, classes: Sequence[str], progress: bool
) -> None:
    with _advance(f"Preparing {config.name}", writer.total, progress) as step:
        kept = {name: writer.write(name, split, step) for name, split in chosen.items()}
    if config.on_corrupt == "error":
        refuse(writer.corrupt, "data.on_corrupt: skip leaves such images out")
    for name, labels in kept.items():
        check_every_class(name, labels, classes)


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
    if config.classes is not None and config.classes > len(classes):
        raise DataError(f"data.classes: got {config.classes}, but {config.name} has {len(classes)} classes")
    return tuple(classes[: config.classes])


class _Writer:
    """Decodes splits into a folder, `total` images. All have the size of the first one, or `image_size`."""

    def __init__(self, folder: Path, image_size: int | None, total: int) -> None:
        self.folder, self.image_size, self.total = folder, image_size, total
        self.shape: tuple[int, ...] | None = None
        self.corrupt: list[str] = []
        """Each image left out, and why."""
        if image_size is not None:
            _check_space(folder, total * 3 * image_size**2)

    def write(self, name: str, chosen: Chosen, step: Callable[[], None]) -> Labels:
        """Write the images of one split that can be decoded, and their labels; return those labels."""
        split, rows, labels = chosen
        path = self.folder / f"{name}_images.npy"
        images: np.memmap[Any, Any] | None = None
        whole = np.zeros(len(rows), dtype=bool)
        count = 0
        for index, image in enumerate(decode_all(split.images(rows), self.image_size)):
            where = split.where(int(rows[index]))
            if isinstance(image, Undecodable):
                reason = str(image)
                self.corrupt.append(reason if reason.startswith(where) else f"{where}: cannot decode: {reason}")
            else:
                self._check_shape(image, where)
                if images is None:
                    images = np.lib.format.open_memmap(path, "w+", np.uint8, (len(rows), *image.shape))
                images[count] = image
                whole[index] = True
                count += 1
            step()
        if images is not None:  # else there is no image at all, which `_write_splits` refuses
            images.flush()
            del images
            if count < len(rows):
                _shorten(path, count)
            np.save(self.folder / f"{name}_labels.npy", labels[whole])
        return labels[whole]

    def _check_shape(self, image: Pixels, where: str) -> None:
        height, width = image.shape[1:]
        first, self.shape = self.shape, self.shape or image.shape
        if first is None and height != width:
            raise DataError(f"{where}: the image is {width} x {height} pixels, not square: set data.image_size")
        if first is None:
            _check_space(self.folder, self.total * image.nbytes)
        if first is not None and image.shape != first:
            raise DataError(
                f"{where}: the image is {width} x {height} pixels, the first {first[2]} x {first[1]}: "
                "set data.image_size"
            )


def _check_space(folder: Path, size: int) -> None:
    """Check that the disk has room, because writing to a memory map on a full disk kills the process."""
    free = shutil.disk_usage(folder).free
    if size > free:
        raise DataError(
            f"{folder.parent}: the prepared images take {format_bytes(size)}, {format_bytes(free)} are free; "
            "set a smaller data.image_size, data.per_class or data.classes, or RAYSWEEP_CACHE=FOLDER on a larger disk"
        )


def _shorten(path: Path, rows: int) -> None:
    """Keep the first `rows` of an array file, in place, since there may be no room for another.

    NumPy pads the head for the largest number of rows that there can be, so it keeps its length.
    """
    with path.open("r+b") as file:
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        start = file.tell()
        file.seek(0)
        head = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (rows, *shape[1:])}
        np.lib.format.write_array_header_1_0(file, head)
        assert file.tell() == start
        file.truncate(start + rows * math.prod(shape[1:]) * dtype.itemsize)


def _mean_std(images: Any) -> tuple[list[float], list[float]]:
    """Return mean and std of each channel, on the scale 0..1, of uint8 N x 3 x H x W.

    They come from exact counts of the 256 values, so the order of the images does not change them.
    """
    counts = np.zeros((3, 256), dtype=np.int64)
    for chunk in _chunks(images):
        counts += [np.bincount(chunk[:, channel].ravel(), minlength=256) for channel in range(3)]
    values = np.arange(256) / 255
    total = counts.sum(axis=1)
    mean = (counts * values).sum(axis=1) / total
    variance = (counts * (values - mean[:, None]) ** 2).sum(axis=1) / total
    return mean.tolist(), np.sqrt(variance).tolist()


def _chunks(array: Any) -> Iterator[Any]:
    """Yield a memory-mapped array in parts, which are few rows where rows are large."""
    rows = max(1, BYTES_A_CHUNK // max(1, math.prod(array.shape[1:]) * array.itemsize))
    return (array[start : start + rows] for start in range(0, len(array), rows))


def _fingerprint(folder: Path, classes: Sequence[str]) -> str:
    whole = hashlib.blake2b(json.dumps(list(classes)).encode(), digest_size=16)
    for name, path in _array_files(folder).items():
        array = np.load(path, mmap_mode="r")
        whole.update(f"{name.replace('_', ' ')} {array.dtype} {array.shape}".encode())
        for chunk in _chunks(array):
            whole.update(np.ascontiguousarray(chunk).data)
    return whole.hexdigest()


@contextmanager
def _advance(what: str, total: int, shown: bool) -> Iterator[Callable[[], None]]:
    """Give a function to call after each image; show a bar on a terminal, or else print one line."""
    console = Console(stderr=True)
    moving = shown and can_redraw(console)
    if shown and not moving:
        print(f"{what}: {total:,} images", file=sys.stderr)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not moving) as bar:
        yield partial(bar.advance, bar.add_task(what, total=total))
