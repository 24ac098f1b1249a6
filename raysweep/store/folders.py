"""A folder as one file, and back: an uncompressed tar, the same for the same content.

Names are sorted, and nothing but names and content is kept, so that the checksum speaks of these alone. The bytes are
in memory once: what `pack` returns is the buffer that the tar was written to, and `unpack` reads from what it is given.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from raysweep.errors import StorageError


def files_in(folder: Path) -> list[str]:
    """Return the files in a folder and those below, relative to it, with forward slashes, sorted."""
    return sorted(name for name, path in _walk(folder) if path.is_file())


def pack(folder: Path, beside: Mapping[str, bytes] | None = None, only: Collection[str] | None = None) -> bytes:
    """Return a folder's files as a tar.

    Args:
        folder: what to pack. Links are packed as what they lead to, and empty folders are kept.
        beside: further files by name.
        only: pack these of its files alone (see `files_in`).
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(_entry(".", 0, tarfile.DIRTYPE))  # an empty tar could not be told from other files
        for name, path in sorted(_walk(folder)):
            if only is not None and name not in only:
                continue
            if path.is_dir():
                archive.addfile(_entry(name, 0, tarfile.DIRTYPE))
                continue
            with path.open("rb") as file:
                archive.addfile(_entry(name, path.stat().st_size), file)
        for name, data in sorted((beside or {}).items()):
            archive.addfile(_entry(name, len(data)), io.BytesIO(data))
    return buffer.getvalue()


def _walk(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield a folder's files and its empty folders, at any depth, with their names below it."""
    for place, folders, files in os.walk(folder, followlinks=True):
        found = map(Path(place).joinpath, files if files or folders else [""])
        yield from ((path.relative_to(folder).as_posix(), path) for path in found if path != folder)


def _entry(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size, entry.type, entry.mode = size, kind, 0o755 if kind == tarfile.DIRTYPE else 0o644
    return entry


def is_folder(data: bytes) -> bool:
    """Whether these are the bytes of a packed folder, by the mark that POSIX gives to a tar."""
    return data[257:262] == b"ustar"


def unpack(data: bytes, folder: Path) -> None:
    """Write a tar's files into a folder.

    Raises:
        StorageError: it is not a tar, or one of its files would lie outside of the folder. Nothing is outside then.
    """
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            archive.extractall(folder, filter="data")
    except tarfile.TarError as error:
        raise StorageError(f"{folder}: a committed checkpoint cannot be unpacked: {error}") from error
