"""Image files below a folder, or in a zip archive that is read in place: nothing is ever extracted.

`open_tree(place)` gives a `Tree`; names in it are POSIX paths from its top. Hidden files and folders (`.git`,
macOS's `._x.jpg` and `__MACOSX`) are not there for it.
"""

from __future__ import annotations

import bisect
import itertools
import os
import stat
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Protocol

import numpy as np

from raysweep.errors import DataError
from raysweep.vision.data.dataset import SPLITS
from raysweep.vision.data.raw import MAX_FILE_BYTES, Encoded, Labels, RawSplit, Rows, read_file

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm")
"""What an image file's name ends with, in either case."""
MAX_MEMBERS = 5_000_000
MAX_TOTAL_BYTES = 2**30
MAX_RATIO = 100
"""A zip may unpack to `MAX_TOTAL_BYTES`, or to this many times its own size if that is more: images hardly compress."""
MAX_TEXT_BYTES = 64 * 2**20
UNREADABLE = (zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError, RuntimeError, ValueError)
"""What `zipfile` raises on archives that are damaged, encrypted, or of a kind it cannot read."""


class Tree(Protocol):
    """Where image files lie, by class folders or however else."""

    place: Path
    """The folder or the archive."""

    def folders(self, below: str = "") -> list[str]:
        """Return the names of the folders directly in the folder `below`, sorted."""

    def images(self, below: str = "") -> list[str]:
        """Return the image files in the folder `below` and its folders, sorted."""

    def has(self, name: str) -> bool:
        """Say whether there is such a file or folder."""

    def text(self, name: str) -> str:
        """Return a text file's content; raises DataError if it is absent, too large or not UTF-8."""

    def encoded(self, names: Sequence[str]) -> Iterator[Encoded]:
        """Yield the images of these names."""

    def where(self, name: str) -> str:
        """Name a file in messages."""

    def files(self, names: Sequence[str]) -> list[Path]:
        """Return the files on disk that hold these names."""


def open_tree(place: Path) -> Tree:
    """Return the tree of a folder or of a zip archive; an archive's single top folder, unless it is a split's, is left
    out of the names.

    Raises:
        DataError: neither, or an archive that cannot be read or is not safe to.
    """
    if place.is_dir():
        return FolderTree(place)
    if place.is_file():
        return ZipTree(place)
    raise DataError(f"{place}: no such folder or zip archive")


def split_of(tree: Tree, listed: Sequence[tuple[str, int]]) -> RawSplit:
    """Return the split of the tree's images and their labels, as listed."""

    def labels() -> Labels:
        return np.asarray([label for _, label in listed], dtype=np.int64)

    def images(rows: Rows) -> Iterator[Encoded]:
        return tree.encoded([listed[row][0] for row in rows])

    return RawSplit(labels, images, lambda row: tree.where(listed[row][0]))


class FolderTree:
    """A folder on disk."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def folders(self, below: str = "") -> list[str]:
        """See Tree."""
        return sorted(entry.name for entry in _scan(self.place / below) if entry.is_dir())

    def images(self, below: str = "") -> list[str]:
        """See Tree; follows links, each folder once."""
        found: list[str] = []
        seen: set[tuple[int, int]] = set()
        waiting = [PurePosixPath(below)]
        while waiting:
            folder = waiting.pop()
            if (identity := _identity(self.place / folder)) in seen:
                continue
            seen.add(identity)
            for entry in _scan(self.place / folder):
                if entry.is_dir():
                    waiting.append(folder / entry.name)
                elif is_image(entry.name) and entry.is_file():
                    found.append(str(folder / entry.name))
        return sorted(found)

    def has(self, name: str) -> bool:
        """See Tree."""
        return (self.place / name).exists()

    def text(self, name: str) -> str:
        """See Tree."""
        return read_text(self.place / name)

    def encoded(self, names: Sequence[str]) -> Iterator[Encoded]:
        """See Tree; gives paths, so that the threads that decode also read."""
        return (self.place / name for name in names)

    def where(self, name: str) -> str:
        """See Tree."""
        return str(self.place / name)

    def files(self, names: Sequence[str]) -> list[Path]:
        """See Tree."""
        return [self.place / name for name in names]


class ZipTree:
    """A zip archive."""

    def __init__(self, place: Path) -> None:
        self.place = place
        try:
            self._file = zipfile.ZipFile(place)
        except UNREADABLE as error:
            raise DataError(f"{place}: not a readable zip archive: {error}") from error
        members = self._file.infolist()
        self._check(members)
        members = [member for member in members if not _is_hidden(member.filename)]
        tops = {member.filename.partition("/")[0] for member in members}
        loose = any("/" not in member.filename for member in members)
        self._top = f"{tops.pop()}/" if len(tops) == 1 and not loose and not tops & set(SPLITS) else ""
        named = {member.filename.removeprefix(self._top): member for member in members if member.filename != self._top}
        self._members = {name: named[name] for name in sorted(named) if not named[name].is_dir()}
        self._names = list(self._members)
        self._folders = set(itertools.chain.from_iterable(map(_folders_of, named)))

    def _check(self, members: Sequence[zipfile.ZipInfo]) -> None:
        """Refuse what no data set needs and an attack does, though nothing here is written to disk."""
        if len(members) > MAX_MEMBERS:
            raise DataError(f"{self.place}: has {len(members):,} members, at most {MAX_MEMBERS:,} are taken")
        for member in members:
            parts = member.filename.split("/")
            if member.filename.startswith("/") or ".." in parts or "\\" in member.filename:
                raise DataError(f"{self.place}: member {member.filename!r} leads out of the archive's folder")
            if stat.S_ISLNK(member.external_attr >> 16):
                raise DataError(
                    f"{self.place}: member {member.filename!r} is a symbolic link; pack the files themselves"
                )
            if member.flag_bits & 1:
                raise DataError(f"{self.place}: member {member.filename!r} is encrypted; unpack the archive yourself")
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise DataError(f"{self.place}: member {member.filename!r} is packed by another method than deflate")
        total = sum(member.file_size for member in members)
        most = max(MAX_TOTAL_BYTES, MAX_RATIO * self.place.stat().st_size)
        if total > most:
            raise DataError(f"{self.place}: would unpack to {total:,} bytes, at most {most:,} are taken")

    def folders(self, below: str = "") -> list[str]:
        """See Tree."""
        parts = (name.rpartition("/") for name in self._folders)
        return sorted(name for parent, _, name in parts if parent == below)

    def images(self, below: str = "") -> list[str]:
        """See Tree."""
        prefix = f"{below}/" if below else ""
        after = itertools.islice(self._names, bisect.bisect_left(self._names, prefix), None)
        return [name for name in itertools.takewhile(lambda name: name.startswith(prefix), after) if is_image(name)]

    def has(self, name: str) -> bool:
        """See Tree."""
        return name in self._members or name in self._folders

    def text(self, name: str) -> str:
        """See Tree."""
        data = self._read(name, MAX_TEXT_BYTES)
        if isinstance(data, DataError):
            raise data
        return _decode_text(data, self.where(name))

    def encoded(self, names: Sequence[str]) -> Iterator[Encoded]:
        """See Tree."""
        return (self._read(name, MAX_FILE_BYTES) for name in names)

    def where(self, name: str) -> str:
        """See Tree."""
        return f"{self.place}: {self._top}{name}"

    def files(self, names: Sequence[str]) -> list[Path]:
        """See Tree."""
        return [self.place]

    def _read(self, name: str, most: int) -> bytes | DataError:
        member = self._members.get(name)
        if member is None:
            return DataError(f"{self.where(name)}: is not in the archive")
        if member.file_size > most:
            return DataError(f"{self.where(name)}: has {member.file_size:,} bytes, at most {most:,} are read")
        try:
            with self._file.open(member) as file:
                data = file.read(member.file_size)  # without a number it may unpack more before it cuts it
        except UNREADABLE as error:
            return DataError(f"{self.where(name)}: cannot read: {error}")
        if len(data) < member.file_size:
            return DataError(f"{self.where(name)}: cannot read: it ends early")
        return data


def is_image(name: str) -> bool:
    """Say whether the name is an image file's."""
    return name.lower().endswith(SUFFIXES)


def read_text(path: Path) -> str:
    """Return a text file's content.

    Raises:
        DataError: absent, too large or not UTF-8.
    """
    data = read_file(path, MAX_TEXT_BYTES)
    if isinstance(data, DataError):
        raise data
    return _decode_text(data, str(path))


def _decode_text(data: bytes, where: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8 text: {error}") from error


def _folders_of(name: str) -> Iterator[str]:
    """Yield `a/b` and `a` of `a/b/c`, and of `a/b/`."""
    while name := name.rpartition("/")[0]:
        yield name


def _identity(folder: Path) -> tuple[int, int]:
    try:
        status = folder.stat()
    except OSError as error:
        raise DataError(f"{folder}: cannot read the folder: {error.strerror}") from error
    return status.st_dev, status.st_ino


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not _is_hidden(entry.name)]
    except OSError as error:
        raise DataError(f"{folder}: cannot read the folder: {error.strerror}") from error


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))
