"""One interface to the places a run folder can lie in: a local folder, NFS, S3, GCS.

A write is whole or not there: locally a temporary name, fsync and rename; on an object store one put of bytes that
were all at hand before it began (pyarrow's streams commit what they have even when the writer fails). What fails in
passing is tried again (`faults`); all else is a StorageError that says what to do.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from pyarrow import fs

from raysweep.config import check_no_credentials
from raysweep.errors import StorageError
from raysweep.store import faults

T = TypeVar("T")

TEMPORARY = ".tmp"
"""How the names of files end that are not whole yet; they begin with a dot."""
OPTIONS = {"s3": "allow_delayed_open=true", "gs": "retry_limit_seconds=10"}
"""S3: a small file takes one request, not three. GCS: it would try again for ever by itself."""


class Storage:
    """A folder, local or on an object store; all paths are relative to it, with forward slashes.

    Args:
        uri: a path, or s3://bucket/folder, gs://bucket/folder; pyarrow's options may follow a `?`.
        has_answered: whether the store is known to be there, so that it is waited for if it is not now.
        patience_s: how long to wait for one that fails in passing; default: `faults.PATIENCE_S` once it has answered,
            `faults.FIRST_PATIENCE_S` before.

    Raises:
        StorageError: the URI is of no kind that pyarrow knows, or holds credentials.
    """

    def __init__(self, uri: str, has_answered: bool = False, patience_s: float | None = None) -> None:
        base, question, query = uri.partition("?")
        self.uri = (base.rstrip("/") or "/") + question + query
        self.local: Path | None = None
        self._has_answered, self._patience_s = has_answered, patience_s
        self._fs: Any
        if "://" not in uri:
            self.uri = uri.rstrip("/") or "/"
            self.local = Path(uri).absolute()
            self._fs, self._root = fs.LocalFileSystem(), str(self.local)
            return
        try:
            check_no_credentials(uri)
        except ValueError as error:
            raise StorageError(f"storage: {error}") from None
        try:
            self._fs, self._root = fs.FileSystem.from_uri(_with_options(self.uri))
        except (ValueError, OSError, NotImplementedError) as error:
            raise StorageError(f"storage {uri!r}: {error}; allowed: a path, s3://..., gs://...") from error
        if isinstance(self._fs, fs.LocalFileSystem):
            self.local = Path(self._root)

    def child(self, name: str) -> Storage:
        """The folder `name` inside this one."""
        _check_inside(name)
        base, question, query = self.uri.partition("?") if "://" in self.uri else (self.uri, "", "")
        return Storage(f"{base.rstrip('/')}/{name}{question}{query}", self._has_answered, self._patience_s)

    @property
    def path(self) -> str:
        """Where it is: a local path, or the URI without its options."""
        return str(self.local) if self.local else self.uri.partition("?")[0]

    def check_bucket(self) -> None:
        """Refuse an object store's bucket that is not there: reading, it looks like an empty one.

        Raises:
            StorageError: it is not.
        """
        bucket = self._root.partition("/")[0]
        if self.local is None and self._try(lambda: self._fs.get_file_info(bucket)).type == fs.FileType.NotFound:
            raise StorageError(f"{self.path}: there is no bucket {bucket!r}; make it, or name another one")

    def read(self, path: str) -> bytes:
        """The bytes of a file.

        Raises:
            FileNotFoundError: it is not there.
            StorageError: it cannot be read.
        """
        full = self._full(path)

        def read() -> bytes:
            with self._fs.open_input_stream(full) as stream:
                data: bytes = stream.read()
            return data

        return self._try(read, path)

    def write(self, path: str, data: bytes) -> None:
        """Put `data` there, whole or not at all, over what was there before.

        Raises:
            StorageError: it cannot be; what was there before still is.
        """
        full = self._full(path)
        if self.local is not None:
            return self._try(lambda: write_whole(Path(full), data), path)

        def put() -> None:
            stream = self._fs.open_output_stream(full)
            try:
                stream.write(data)
            finally:
                stream.close()

        return self._try(put, path)

    def delete(self, path: str) -> None:
        """Remove a file; one that is gone already is no error."""
        with suppress(FileNotFoundError):
            self._try(lambda: self._fs.delete_file(self._full(path)), path)

    def delete_folder(self, path: str) -> None:
        """Remove a folder with all that is in it; one that is gone already is no error."""
        with suppress(FileNotFoundError):
            self._try(lambda: self._fs.delete_dir(self._full(path)), path)

    def modified(self, path: str) -> float:
        """When a file was last written, in seconds since 1970 on the clock of the store.

        Raises:
            FileNotFoundError: it is not there.
        """
        info = self._info(path)
        if info.type == fs.FileType.NotFound:
            raise FileNotFoundError(path)
        return float(info.mtime.timestamp())

    def exists(self, path: str = "") -> bool:
        """Whether a file or folder is there; on an object store a folder is there once it has a file."""
        if self.local is None:
            return self.is_file(path) or bool(self.list_files(path, recursive=True))
        return bool(self._info(path).type != fs.FileType.NotFound)

    def is_file(self, path: str = "") -> bool:
        """Whether a file, not a folder, is there."""
        return bool(self._info(path).type == fs.FileType.File)

    def list_files(self, path: str = "", recursive: bool = False) -> list[str]:
        """Files below a folder, relative to this one, sorted; none if the folder is not there."""
        return sorted(self._list(path, fs.FileType.File, recursive))

    def list_sizes(self, path: str = "") -> dict[str, int]:
        """Bytes of each file below a folder, by its path relative to this one, sorted."""
        return dict(sorted(self._list(path, fs.FileType.File, recursive=True).items()))

    def list_folders(self, path: str = "") -> list[str]:
        """Folders directly in a folder, relative to this one, sorted.

        Where objects were deleted, empty ones stand for their folders (pyarrow makes them): such a folder is none.
        """
        if self.local is not None:
            return sorted(self._list(path, fs.FileType.Directory, recursive=False))
        start = len(path) + 1 if path else 0
        below = (file[start:].split("/") for file in self._list(path, fs.FileType.File, recursive=True))
        return sorted({f"{path}/{parts[0]}".lstrip("/") for parts in below if len(parts) > 1})

    def move(self, name: str, new_name: str) -> None:
        """Rename a folder directly in this one."""
        if self.local is not None:
            return self._try(lambda: os.rename(self._full(name), self._full(new_name)), name)
        paths = self.list_files(name, recursive=True)
        for path in paths:
            self.write(new_name + path.removeprefix(name), self.read(path))
        for path in paths:
            self.delete(path)
        return None

    def _full(self, path: str) -> str:
        if not path:
            return str(self._root)
        _check_inside(path)
        return f"{self._root}/{path}"

    def _info(self, path: str) -> Any:
        return self._try(lambda: self._fs.get_file_info(self._full(path)), path)

    def _list(self, path: str, kind: Any, recursive: bool) -> dict[str, int]:
        full = self._full(path)
        selector = fs.FileSelector(full, allow_not_found=True, recursive=recursive)
        infos = self._try(lambda: self._fs.get_file_info(selector), path)
        return {
            info.path[len(self._root) :].lstrip("/"): info.size
            for info in infos
            if info.type == kind and info.path.rstrip("/") != full
        }

    def _try(self, action: Callable[[], T], path: str = "") -> T:
        where = f"{self.path}/{path}".rstrip("/")
        if self.local is not None:
            try:
                return action()
            except FileNotFoundError:
                raise
            except OSError as error:
                raise faults.on_disk(error, where) from error
        patience_s = self._patience_s
        if patience_s is None:
            patience_s = faults.PATIENCE_S if self._has_answered else faults.FIRST_PATIENCE_S
        try:
            result = faults.patiently(action, where, patience_s)
        except FileNotFoundError:
            self._has_answered = True
            raise
        self._has_answered = True
        return result


def _with_options(uri: str) -> str:
    scheme, _, rest = uri.partition("://")
    option = OPTIONS.get(scheme)
    if option is None or option.partition("=")[0] in rest:
        return uri
    return f"{uri}{'&' if '?' in uri else '?'}{option}"


def _check_inside(path: str) -> None:
    parts = path.split("/")
    if path.startswith("/") or any(part in ("", ".", "..") for part in parts) or "\\" in path or "\0" in path:
        raise StorageError(f"{path!r} would leave the run folder")


def write_whole(path: Path, data: bytes) -> None:
    """Write a local file, whole and on the disk, or not at all; with the user's umask.

    Raises:
        OSError: it cannot be; what was there before still is.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
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
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def name_of(path: str) -> str:
    """The last part of a path."""
    return PurePosixPath(path).name


def is_temporary(path: str) -> bool:
    """Whether a file is one that `write_whole` has begun and not ended."""
    name = name_of(path)
    return name.startswith(".") and name.endswith(TEMPORARY)
