"""Image files below a folder, or in a zip archive that is read in place: nothing is ever extracted.

`open_tree(place)` gives a `Tree`; names in it are POSIX paths from its top. Hidden files and folders (`.git`,
macOS's `._x.jpg` and `__MACOSX`) are left out.
"""

from __future__ import annotations

import os
import stat
import zipfile
import zlib
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from fsspec.implementations.zip import ZipFileSystem

from raysweep.errors import DataError
from raysweep.vision.data.dataset import SPLITS
from raysweep.vision.data.raw import MAX_FILE_BYTES, Encoded, RawSplit, read_file

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm")
"""What an image file's name ends with, in either case."""
MAX_MEMBERS = 5_000_000
MAX_TOTAL_BYTES = 2**30
MAX_RATIO = 100
"""A zip may unpack to `MAX_TOTAL_BYTES`, or to this many times its own size if that is more: images hardly compress."""
MAX_TEXT_BYTES = 64 * 2**20
UNREADABLE = (zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError, RuntimeError, ValueError)
"""What `zipfile` raises on archives that are damaged, encrypted, or of a kind it cannot read."""


def open_tree(place: Path) -> Tree:
    """Return the tree of a folder or of a zip archive; raises DataError if it is neither, unreadable or not safe.

    Where everything in an archive lies in one folder, names begin below that folder, unless it is a split's.
    """
    if not (place.is_dir() or place.is_file()):
        raise DataError(f"{place}: no such folder or zip archive")
    return Tree(place) if place.is_dir() else _ZipTree(place)


def split_of(tree: Tree, listed: Sequence[tuple[str, int]]) -> RawSplit:
    """Return the split of the tree's images and their labels, as listed."""
    return RawSplit(
        labels=lambda: np.asarray([label for _, label in listed], dtype=np.int64),
        images=lambda rows: tree.encoded([listed[row][0] for row in rows]),
        where=lambda row: tree.where(listed[row][0]),
    )


class Tree:
    """Image files below a folder, whether by class folders or in any other way."""

    def __init__(self, place: Path) -> None:
        self.place = place
        """The folder or the archive."""

    def folders(self, below: str = "") -> list[str]:
        """Return the names of the folders directly in the folder `below`, sorted."""
        return sorted(entry.name for entry in _scan(self.place / below) if entry.is_dir())

    def images(self, below: str = "") -> list[str]:
        """Return the image files in the folder `below`, if there is one, sorted; each linked folder once."""
        found: list[str] = []
        seen: set[str] = set()
        waiting = [PurePosixPath(below)] if self.has(below) else []
        while waiting:
            folder = waiting.pop()
            if (real := os.path.realpath(self.place / folder)) in seen:
                continue
            seen.add(real)
            for entry in _scan(self.place / folder):
                if entry.is_dir():
                    waiting.append(folder / entry.name)
                elif is_image(entry.name) and entry.is_file():
                    found.append(str(folder / entry.name))
        return sorted(found)

    def has(self, name: str) -> bool:
        """Say whether there is such a file or folder."""
        return (self.place / name).exists()

    def text(self, name: str) -> str:
        """Return a text file's content; raises DataError if it is absent, too large or not UTF-8."""
        data = self._read(name, MAX_TEXT_BYTES)
        if isinstance(data, DataError):
            raise data
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(f"{self.where(name)}: not UTF-8 text: {error}") from error

    def encoded(self, names: Sequence[str]) -> Iterator[Encoded]:
        """Yield the images of these names: in a folder their paths, so that the threads that decode also read."""
        return (self.place / name for name in names)

    def where(self, name: str) -> str:
        """Return what messages call this file."""
        return str(self.place / name)

    def files(self, names: Sequence[str]) -> list[Path]:
        """Return the files on disk that hold these names."""
        return [self.place / name for name in names]

    def _read(self, name: str, most: int) -> bytes | DataError:
        return read_file(self.place / name, most)


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not _is_hidden(entry.name)]
    except OSError as error:
        raise DataError(f"{folder}: cannot read the folder: {error.strerror}") from error


class _ZipTree(Tree):
    def __init__(self, place: Path) -> None:
        super().__init__(place)
        try:
            self._zip = ZipFileSystem(str(place))
        except UNREADABLE as error:
            raise DataError(f"{place}: not a readable zip archive: {error}") from error
        _check_members(place, self._zip.zip.infolist())
        listed = self._zip.find("", withdirs=True, detail=True)
        is_folder = {name: about["type"] == "directory" for name, about in listed.items() if not _is_hidden(name)}
        tops = [name for name in is_folder if "/" not in name]
        self._top = f"{tops[0]}/" if len(tops) == 1 and is_folder[tops[0]] and tops[0] not in SPLITS else ""
        names = sorted(name.removeprefix(self._top) for name in is_folder if f"{name}/" != self._top)
        self._folders = {name for name in names if is_folder[self._top + name]}
        self._files = [name for name in names if name not in self._folders]

    def folders(self, below: str = "") -> list[str]:
        parts = (name.rpartition("/") for name in self._folders)
        return sorted(name for parent, _, name in parts if parent == below)

    def images(self, below: str = "") -> list[str]:
        first, end = (f"{below}/", f"{below}0") if below else ("", "\U0010ffff")  # 0 comes after / in any sorted list
        return list(filter(is_image, self._files[bisect_left(self._files, first) : bisect_left(self._files, end)]))

    def has(self, name: str) -> bool:
        return bool(self._zip.exists(self._top + name))

    def encoded(self, names: Sequence[str]) -> Iterator[Encoded]:
        return (self._read(name, MAX_FILE_BYTES) for name in names)

    def where(self, name: str) -> str:
        return f"{self.place}: {self._top}{name}"

    def files(self, names: Sequence[str]) -> list[Path]:
        return [self.place]

    def _read(self, name: str, most: int) -> bytes | DataError:
        if not self.has(name):
            return DataError(f"{self.where(name)}: is not in the archive")
        size = self._zip.size(self._top + name)
        if size > most:
            return DataError(f"{self.where(name)}: has {size:,} bytes, at most {most:,} are read")
        try:
            data: bytes = self._zip.cat_file(self._top + name, end=size)  # without an end it may unpack more
        except UNREADABLE as error:
            return DataError(f"{self.where(name)}: cannot read: {error}")
        return data if len(data) == size else DataError(f"{self.where(name)}: cannot read: it ends early")


def _check_members(place: Path, members: Sequence[zipfile.ZipInfo]) -> None:
    """Refuse what no data set needs and an attack does, though nothing here is written to disk."""
    if len(members) > MAX_MEMBERS:
        raise DataError(f"{place}: has {len(members):,} members, at most {MAX_MEMBERS:,} are taken")
    for member in members:
        if problem := _problem_with(member):
            raise DataError(f"{place}: member {member.filename!r} {problem}")
    total = sum(member.file_size for member in members)
    most = max(MAX_TOTAL_BYTES, MAX_RATIO * place.stat().st_size)
    if total > most:
        raise DataError(f"{place}: would unpack to {total:,} bytes, at most {most:,} are taken")


def _problem_with(member: zipfile.ZipInfo) -> str | None:
    if member.filename.startswith("/") or ".." in member.filename.split("/") or "\\" in member.filename:
        return "leads out of the archive's folder"
    if stat.S_ISLNK(member.external_attr >> 16):
        return "is a symbolic link; pack the files themselves"
    if member.flag_bits & 1:
        return "is encrypted; unpack the archive yourself"
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "is packed by another method than deflate"
    return None


def is_image(name: str) -> bool:
    """Say whether the name is an image file's."""
    return name.lower().endswith(SUFFIXES)


def read_text(path: Path) -> str:
    """Return the content of a text file outside any tree; see `Tree.text`."""
    return Tree(path.parent).text(path.name)


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))
