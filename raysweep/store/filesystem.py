"""One interface to the places where a run folder can lie: a local folder, NFS, S3, GCS.

A write leaves the whole file or the old one: locally by a temporary name, fsync and rename; on an object store by one
put of bytes that are complete before it begins (pyarrow's streams commit what they have even when the writer fails).
Passing faults are tried again (`faults`); every other fault is a StorageError that says what to do. Only object stores
import pyarrow.

A run folder may come from elsewhere, so no link inside it is followed: lists leave links out, and every path that leads
through one is refused. The run folder itself and what it lies in may be links, which the user has made.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from posixpath import basename
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from raysweep.config import check_no_credentials
from raysweep.errors import StorageError
from raysweep.store import faults

S = TypeVar("S")
T = TypeVar("T")

AT_ONCE = 24
"""How many files of an object store are read or written at the same time; pyarrow has 25 connections."""
TEMPORARY = ".tmp"
"""Files that are not whole yet have names with this end, and begin with a dot."""
OPTIONS = {"s3": "allow_delayed_open=true", "gs": "retry_limit_seconds=10"}
"""pyarrow's options. S3: a small file takes one request instead of three. GCS: without a limit it retries for ever."""


class Storage:
    """A folder, local or on an object store; all paths are relative to it, with forward slashes.

    What cannot be read or written raises StorageError.

    Args:
        uri: a path, or s3://bucket/folder, gs://bucket/folder; pyarrow's options may follow a `?`.
        has_answered: whether the store has answered before, so that passing faults are waited out for longer.
        patience_s: how long to wait for a store with a passing fault; default: `faults.PATIENCE_S` once it has
            answered, `faults.FIRST_PATIENCE_S` before.
    """

    def __init__(self, uri: str, has_answered: bool = False, patience_s: float | None = None) -> None:
        base, question, query = uri.partition("?") if "://" in uri else (uri, "", "")
        self._base, self._options = base.rstrip("/") or "/", question + query
        self.uri = self._base + self._options
        self._has_answered, self._patience_s = has_answered, patience_s
        self.local: Path | None = None
        self._place: _Disk | _Bucket
        if "://" in uri and not uri.startswith("file:///"):
            self._place = _Bucket(self.uri)
            self._root = self._place.root
        else:
            self._place = _Disk()
            self.local = Path(unquote(urlsplit(uri).path) if "://" in uri else uri).absolute()
            self._root = str(self.local)

    def child(self, name: str) -> Storage:
        """The folder `name` inside this one."""
        _check_inside(name)
        return Storage(f"{self._base.rstrip('/')}/{name}{self._options}", self._has_answered, self._patience_s)

    @property
    def path(self) -> str:
        """The local path, or the URI without its options."""
        return str(self.local or self._base)

    def check_bucket(self) -> None:
        """Refuse an object store's bucket that is not there: to a reader it looks like an empty one."""
        bucket = self._root.partition("/")[0]
        if self.local is None and not self._try(lambda: self._place.look(bucket)):
            raise StorageError(f"{self.path}: there is no bucket {bucket!r}; make it, or name another one")

    def read(self, path: str) -> bytes:
        """The bytes of a file; raise FileNotFoundError if it is not there."""
        return self._do(self._place.read, path)

    def write(self, path: str, data: bytes) -> None:
        """Write a file as a whole, in place of an older one; if that fails, the older one is still there."""
        self._do(lambda full: self._place.write(full, data), path)

    def delete(self, path: str) -> None:
        """Delete a file; it may be gone already."""
        with suppress(FileNotFoundError):
            self._do(self._place.delete, path)

    def delete_folder(self, path: str) -> None:
        """Delete a folder and everything in it; it may be gone already."""
        with suppress(FileNotFoundError):
            self._do(self._place.delete_folder, path)

    def is_file(self, path: str = "") -> bool:
        """Whether a file, not a folder, is there."""
        entry = self._look(path)
        return entry is not None and entry.is_file

    def check_links(self, path: str) -> None:
        """Refuse a folder that is a link, or in which one lies."""
        with suppress(FileNotFoundError):
            for name in self._do(os.listdir, path) if self.local is not None else ():
                _check_no_link(self._root, f"{path}/{name}")

    def list_files(self, path: str = "", recursive: bool = False) -> list[str]:
        """Files below a folder, relative to this one, sorted; none if the folder is not there."""
        return sorted(name for name, entry in self._list(path, recursive).items() if entry.is_file)

    def list_sizes(self) -> dict[str, int]:
        """Bytes of each file in this folder and those below, by its path, sorted."""
        return {name: entry.bytes for name, entry in sorted(self._list("", recursive=True).items()) if entry.is_file}

    def list_times(self, path: str) -> dict[str, float]:
        """When each file in a folder was last written, in seconds since 1970 by the store's clock."""
        return {name: entry.modified for name, entry in self._list(path).items() if entry.is_file}

    def stamps(self, folder: str, files: Mapping[T, Sequence[str]]) -> dict[T, tuple[int, float]]:
        """Bytes and time of writing, for each key, of the first of its files that is there; they lie below `folder`.

        An object store tells of a thousand files in one request of a listing, so there the whole folder is listed.
        """
        find = self._look if self.local is not None else self._list(folder, recursive=True).get
        there = {key: next(filter(None, map(find, paths)), None) for key, paths in files.items()}
        return {key: (entry.bytes, entry.modified) for key, entry in there.items() if entry}

    def list_folders(self, path: str = "", empty_too: bool = False) -> list[str]:
        """Folders directly in a folder, relative to this one, sorted.

        Where objects were deleted, pyarrow leaves empty ones that stand for their folders: such a folder is left out.
        If those may be there, too, it takes fewer requests.
        """
        if self.local is not None or empty_too:
            return sorted(name for name, entry in self._list(path).items() if not entry.is_file)
        start = len(path) + 1 if path else 0
        below = (file[start:].split("/") for file in self.list_files(path, recursive=True))
        return sorted({f"{path}/{parts[0]}".lstrip("/") for parts in below if len(parts) > 1})

    def move(self, name: str, new_name: str) -> None:
        """Rename a folder directly in this one."""
        if (folder := self.local) is not None:  # a link is renamed itself
            return self._try(lambda: os.rename(folder / name, folder / new_name), name)
        paths = self.list_files(name, recursive=True)
        self.for_each(lambda path: self.copy(path, new_name + path.removeprefix(name)), paths)
        self.for_each(self.delete, paths)
        return None

    def for_each(
        self, action: Callable[[S], T], things: Sequence[S], advance: Callable[[], None] = lambda: None
    ) -> list[T]:
        """Return what `action`, which uses files here, returns for each; on an object store several go on at once."""
        answers = []
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="raysweep-files") as pool:
            for answer in map(action, things) if self.local is not None else pool.map(action, things):
                answers.append(answer)
                advance()
        return answers

    def copy(self, path: str, new_path: str) -> None:
        """Copy a file, which nobody will change, to another place here; an object store does it within itself."""
        new = self._full(new_path)
        self._do(lambda full: self._place.copy(full, new), path)

    def _full(self, path: str) -> str:
        if not path:
            return self._root
        _check_inside(path)
        if self.local is not None:
            _check_no_link(self._root, path)
        return f"{self._root}/{path}"

    def _look(self, path: str) -> _Entry | None:
        return self._do(self._place.look, path)

    def _list(self, path: str, recursive: bool = False) -> dict[str, _Entry]:
        entries = self._do(lambda full: list(self._place.list(full, recursive)), path)
        return {entry.path[len(self._root) :].lstrip("/"): entry for entry in entries}

    def _do(self, action: Callable[[str], T], path: str) -> T:
        full = self._full(path)
        return self._try(lambda: action(full), path)

    def _try(self, action: Callable[[], T], path: str = "") -> T:
        where = f"{self.path}/{path}".rstrip("/")
        if self.local is not None:
            try:
                return action()
            except FileNotFoundError:
                raise
            except OSError as error:
                raise faults.on_disk(error, where) from error
        patience_s = faults.PATIENCE_S if self._has_answered else faults.FIRST_PATIENCE_S
        try:
            result = faults.patiently(action, where, patience_s if self._patience_s is None else self._patience_s)
        except FileNotFoundError:  # that is an answer too
            self._has_answered = True
            raise
        self._has_answered = True
        return result


def _check_inside(path: str) -> None:
    # Object stores resolve `..` in names, out of the run folder.
    parts = path.split("/")
    if path.startswith("/") or any(part in ("", ".", "..") for part in parts) or "\\" in path or "\0" in path:
        raise StorageError(f"{path!r} would leave the run folder")


def _check_no_link(root: str, path: str) -> None:
    place = root
    for part in path.split("/"):
        place = f"{place}/{part}"
        if os.path.islink(place):
            raise faults.on_disk(OSError(errno.ELOOP, "is a link"), place)


@dataclass(frozen=True)
class _Entry:
    path: str
    is_file: bool
    bytes: int
    modified: float


class _Disk:
    """A local file system or NFS, by full paths. Every operation may raise an OSError."""

    delete = staticmethod(os.unlink)
    delete_folder = staticmethod(shutil.rmtree)

    def read(self, path: str) -> bytes:
        return Path(path).read_bytes()

    def write(self, path: str, data: bytes) -> None:
        write_whole(Path(path), data)

    def copy(self, path: str, new: str) -> None:
        """Give the file a second name where the file system can: it takes no time and no room."""
        make_folder(Path(new).parent)
        try:
            with suppress(FileExistsError):
                os.link(path, new)
        except FileNotFoundError:
            raise
        except OSError:  # no hard links there, or one too many
            self.write(new, self.read(path))

    def look(self, path: str) -> _Entry | None:
        try:
            found = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return _Entry(path, stat.S_ISREG(found.st_mode), found.st_size, found.st_mtime)

    def list(self, path: str, recursive: bool) -> Iterator[_Entry]:
        """Look below a folder, but pass links over: what is found may be deleted."""
        with suppress(FileNotFoundError), os.scandir(path) as found:
            for each in found:
                if each.is_symlink():
                    continue
                if entry := self.look(each.path):
                    yield entry
                if recursive and each.is_dir(follow_symlinks=False):
                    yield from self.list(each.path, recursive)


class _Bucket:
    """An object store, by full paths (bucket/name). Every operation may raise an OSError."""

    def __init__(self, uri: str) -> None:
        from pyarrow import fs

        self._arrow = fs
        self._fs: Any
        self.root: str
        try:
            check_no_credentials(uri)
        except ValueError as error:
            raise StorageError(f"storage: {error}") from None
        option = OPTIONS.get(uri.partition("://")[0], "")
        adds = bool(option) and option.partition("=")[0] not in uri  # else the user sets it
        try:
            self._fs, self.root = fs.FileSystem.from_uri(f"{uri}{'&' if '?' in uri else '?'}{option}" if adds else uri)
        except (ValueError, OSError, NotImplementedError) as error:
            raise StorageError(f"storage {uri!r}: {error}; allowed: a path, s3://..., gs://...") from error
        self.delete, self.delete_folder = self._fs.delete_file, self._fs.delete_dir
        self.copy = self._fs.copy_file

    def read(self, path: str) -> bytes:
        with self._fs.open_input_stream(path) as stream:
            data: bytes = stream.read()
        return data

    def write(self, path: str, data: bytes) -> None:
        # As a context manager the stream would commit what it has if the body raises; left open, it hangs the exit.
        stream = self._fs.open_output_stream(path)
        try:
            stream.write(data)
        finally:
            stream.close()

    def look(self, path: str) -> _Entry | None:
        return self._entry(self._fs.get_file_info(path))

    def list(self, path: str, recursive: bool) -> Iterator[_Entry]:
        selector = self._arrow.FileSelector(path, allow_not_found=True, recursive=recursive)
        for info in self._fs.get_file_info(selector):
            entry = self._entry(info)
            if entry and entry.path.rstrip("/") != path:
                yield entry

    def _entry(self, info: Any) -> _Entry | None:
        if info.type == self._arrow.FileType.NotFound:
            return None
        modified = info.mtime.timestamp() if info.mtime else 0.0
        return _Entry(info.path, bool(info.is_file), info.size or 0, modified)


def write_whole(path: Path, data: bytes) -> None:
    """Write a local file as a whole, in place of an older one, with the user's umask; return once it is on the disk.

    If that raises OSError, the older one is still there.
    """
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name[:200]}.{secrets.token_hex(4)}{TEMPORARY}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def make_folder(folder: Path) -> None:
    """Make a local folder, and those it lies in, where there is none; return once they are on the disk."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    """Put a local folder's names on the disk: without them, a new file or folder is lost with the power."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def is_temporary(path: str) -> bool:
    """Whether `write_whole` began this file and did not finish it."""
    return basename(path).startswith(".") and path.endswith(TEMPORARY)
