"""The sources `cifar10` and `cifar100`: 60,000 colour images of 32 x 32 pixels, in pickles that are never trusted.

torchvision's reader unpickles whatever it is given, which can run any code; `read_pickle` knows the few names such a
file needs and makes inert records of them.
"""

from __future__ import annotations

import gzip
import io
import pickle
import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from raysweep.errors import DataError
from raysweep.vision.config import DataConfig
from raysweep.vision.data.raw import (
    MAX_CLASSES,
    RawData,
    absent,
    from_pixels,
    read_file,
    refuse_split_names,
    torchvision_download,
)

SIZE = 32
MAX_FILE_BYTES = 2**28
MAX_ARCHIVE_BYTES = 2**30
"""No more of an archive is unpacked; CIFAR's unpack to 186 MB."""
MAX_MEMBERS = 1000


@dataclass(frozen=True)
class _Layout:
    """Where one of the two keeps what, as its authors and torchvision have it."""

    torchvision: str
    folder: str
    archive: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    meta: str
    labels: str
    names: str

    @property
    def files(self) -> tuple[str, ...]:
        return (*self.train, *self.test, self.meta)


CIFAR10 = _Layout(
    torchvision="CIFAR10",
    folder="cifar-10-batches-py",
    archive="cifar-10-python.tar.gz",
    train=tuple(f"data_batch_{number}" for number in range(1, 6)),
    test=("test_batch",),
    meta="batches.meta",
    labels="labels",
    names="label_names",
)
CIFAR100 = _Layout(
    torchvision="CIFAR100",
    folder="cifar-100-python",
    archive="cifar-100-python.tar.gz",
    train=("train",),
    test=("test",),
    meta="meta",
    labels="fine_labels",
    names="fine_label_names",
)


def cifar10(config: DataConfig, root: Path) -> RawData:
    """CIFAR-10: the folder `cifar-10-batches-py` or `cifar-10-python.tar.gz`, as torchvision downloads them.

    `root` holds either, or is it. `test_batch` is the test split; validation images are held out of the others.

    Raises:
        DataError: neither is there, or it is not whole.
    """
    return _cifar(CIFAR10, config, root)


def cifar100(config: DataConfig, root: Path) -> RawData:
    """CIFAR-100 with its 100 fine classes: `cifar-100-python` or `cifar-100-python.tar.gz`; see `cifar10`.

    Raises:
        DataError: neither is there, or it is not whole.
    """
    return _cifar(CIFAR100, config, root)


def _cifar(layout: _Layout, config: DataConfig, root: Path) -> RawData:
    refuse_split_names(config, "train", "val", "test")
    places = [root / layout.folder, root, root / layout.archive]
    folder = next((place for place in places[:2] if (place / layout.meta).is_file()), None)
    archive = next((place for place in places[1:] if place.is_file()), None)
    command = torchvision_download(layout.torchvision, root)
    if folder is None and archive is None:
        raise absent(config.name, f"folder {layout.folder} or archive {layout.archive}", places, command)
    if folder is not None:
        missing = [str(folder / name) for name in layout.files if not (folder / name).is_file()]
        if missing:
            raise DataError(f"{config.name}: not whole, no {', '.join(missing)}; download it again: {command}")

    @cache
    def contents() -> dict[str, dict[str, Any]]:
        if folder is not None:
            return {name: _read_file(folder / name) for name in layout.files}
        assert archive is not None
        return _read_archive(archive, layout)

    def where(name: str) -> str:
        return str(folder / name) if folder is not None else f"{archive}: {layout.folder}/{name}"

    def classes() -> list[str]:
        names = contents()[layout.meta].get(layout.names)
        if not isinstance(names, list) or not all(isinstance(name, str | bytes) for name in names):
            raise DataError(f"{where(layout.meta)}: has no list {layout.names!r}")
        return [name.decode() if isinstance(name, bytes) else name for name in names]

    def pixels(names: Sequence[str]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[Any]]:
        batches = [_batch(contents()[name], layout.labels, where(name)) for name in names]
        return np.concatenate([images for images, _ in batches]), np.concatenate([labels for _, labels in batches])

    place = str(folder or archive)
    return RawData(
        classes=classes,
        train=from_pixels(lambda: pixels(layout.train), f"{place}: train", classes),
        test=from_pixels(lambda: pixels(layout.test), f"{place}: test", classes),
        files=tuple(folder / name for name in layout.files) if folder is not None else (archive,) if archive else (),
    )


def _batch(entry: dict[str, Any], key: str, where: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[Any]]:
    """Return a file's images, N x 32 x 32 x 3, and its labels."""
    data, labels = entry.get("data"), entry.get(key)
    if not isinstance(data, _Array):
        raise DataError(f"{where}: has no array 'data'")
    images = data.to_numpy(where)
    if images.dtype != np.uint8 or images.ndim != 2 or images.shape[1] != 3 * SIZE * SIZE:
        raise DataError(f"{where}: 'data' is {images.dtype} {images.shape}, must be uint8 (N, {3 * SIZE * SIZE})")
    if not isinstance(labels, list) or len(labels) != len(images) or not all(type(label) is int for label in labels):
        raise DataError(f"{where}: {key!r} must be a list of {len(images):,} whole numbers")
    if labels and max(map(abs, labels)) > MAX_CLASSES:
        raise DataError(f"{where}: {key!r} has labels out of range")
    return images.reshape(-1, 3, SIZE, SIZE).transpose(0, 2, 3, 1), np.asarray(labels, dtype=np.int64)


# ---------------------------------------------------------------------------------------------------------
# The archive, read in passing: nothing is written to disk


def _read_archive(path: Path, layout: _Layout) -> dict[str, dict[str, Any]]:
    wanted = {f"{layout.folder}/{name}": name for name in layout.files}
    found: dict[str, dict[str, Any]] = {}
    try:
        with (
            gzip.open(path) as unpacked,
            tarfile.open(fileobj=io.BufferedReader(_Limited(unpacked, MAX_ARCHIVE_BYTES)), mode="r|") as archive,
        ):
            for number, member in enumerate(archive):
                if number >= MAX_MEMBERS:
                    raise DataError(f"{path}: has more than {MAX_MEMBERS} members")
                name = wanted.get(member.name.removeprefix("./"))
                if name is not None:
                    found[name] = read_pickle(_member(path, archive, member), f"{path}: {member.name}")
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        raise DataError(f"{path}: not a readable tar.gz archive: {error}") from error
    if missing := [name for name, short in wanted.items() if short not in found]:
        raise DataError(f"{path}: has no {', '.join(missing)}")
    return found


def _member(path: Path, archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    if not member.isreg() or member.issparse():
        raise DataError(f"{path}: member {member.name!r} is not a plain file")
    if member.size > MAX_FILE_BYTES:
        raise DataError(
            f"{path}: member {member.name!r} has {member.size:,} bytes, at most {MAX_FILE_BYTES:,} are read"
        )
    file = archive.extractfile(member)
    assert file is not None
    return file.read()


class _Limited(io.RawIOBase):
    """A stream that fails after so many bytes, whatever the archive says of itself."""

    def __init__(self, file: gzip.GzipFile, most: int) -> None:
        self.file = file
        self.most = most
        self.left = most

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self.file.read(min(len(buffer), self.left + 1))
        self.left -= len(data)
        if self.left < 0:
            raise OSError(f"it unpacks to more than {self.most:,} bytes")
        buffer[: len(data)] = data
        return len(data)


def _read_file(path: Path) -> dict[str, Any]:
    data = read_file(path, MAX_FILE_BYTES)
    if isinstance(data, DataError):
        raise data
    return read_pickle(data, str(path))


# ---------------------------------------------------------------------------------------------------------
# Pickles


def read_pickle(data: bytes, where: str) -> dict[str, Any]:
    """Return the dict in a pickle, its arrays as `_Array`s; no code that the pickle names is run.

    Raises:
        DataError: not a pickle, not of a dict, or it names anything but numpy's arrays.
    """
    try:
        entry = _Unpickler(io.BytesIO(data), encoding="bytes").load()
    except Exception as error:  # a damaged pickle raises almost anything
        raise DataError(f"{where}: not a CIFAR file: {error or type(error).__name__}") from error
    if not isinstance(entry, dict):
        raise DataError(f"{where}: not a CIFAR file: holds no dict")
    return {key.decode(errors="replace") if isinstance(key, bytes) else str(key): value for key, value in entry.items()}


class _Array:
    """What a pickled numpy array was made with; numpy itself sees the bytes only."""

    def __init__(self, *arguments: Any) -> None:
        self.state: Any = ()
        if len(arguments) == 4:  # _frombuffer(data, dtype, shape, order), of protocol 5
            data, dtype, shape, order = arguments
            self.state = (1, shape, dtype, order == "F", data)

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def to_numpy(self, where: str) -> npt.NDArray[Any]:
        """Return the array of bytes; raises DataError if it is none."""
        match self.state:
            case (_, tuple(shape), _Dtype(code="u1"), fortran, bytes() | bytearray() as data):
                try:
                    return np.frombuffer(data, np.uint8).reshape(shape, order="F" if fortran else "C")
                except (TypeError, ValueError) as error:
                    raise DataError(f"{where}: 'data': {error}") from error
        raise DataError(f"{where}: 'data' is not an array of uint8")


class _Dtype:
    """A pickled numpy dtype: its code, such as `u1`."""

    def __init__(self, code: Any = "", *_: Any) -> None:
        self.code = code.decode(errors="replace") if isinstance(code, bytes) else code

    def __setstate__(self, state: Any) -> None:
        pass


def _encode(text: str, encoding: str) -> bytes:
    """How Python 3 writes bytes into pickles of protocol 2."""
    return text.encode("latin1")


_KNOWN = {
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): _Array,
    ("_codecs", "encode"): _encode,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _Array for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _Array for core in ("core", "_core")},
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is not run")
        return _KNOWN[module, name]
