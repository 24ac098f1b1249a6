"""One interface to the places a run folder can lie in: a local folder, NFS, S3, GCS.

A write is whole or not there: locally a temporary name, fsync and rename; on an object store one put of bytes that
were all at hand before it began (pyarrow's streams commit what they have even when the writer fails).
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path, PurePosixPath
from typing import Any

from pyarrow import fs

from raysweep.errors import StorageError


class Storage:
    """A folder, local or on an object store; all paths are relative to it, with forward slashes.

    Raises:
        StorageError: the URI is of no kind that pyarrow knows.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/") or "/"
        self.local: Path | None = None
        self._fs: Any
        if "://" in uri:
            try:
                self._fs, self._root = fs.FileSystem.from_uri(self.uri)
            except (ValueError, OSError, NotImplementedError) as error:
                raise StorageError(f"storage {uri!r}: {error}; allowed: a path, s3://..., gs://...") from error
            if isinstance(self._fs, fs.LocalFileSystem):
                self.local = Path(self._root)
        else:
            self.local = Path(uri).absolute()
            self._fs, self._root = fs.LocalFileSystem(), str(self.local)

    def child(self, name: str) -> Storage:
        """The folder `name` inside this one."""
        _check_inside(name)
        base, _, query = self.uri.partition("?")
        return Storage(f"{base}/{name}" + (f"?{query}" if query else ""))

    def read(self, path: str) -> bytes:
        """The bytes of a file.

        Raises:
            FileNotFoundError: it is not there.
        """
        with self._fs.open_input_stream(self._full(path)) as stream:
            data: bytes = stream.read()
        return data

    def write(self, path: str, data: bytes) -> None:
        """Put `data` there, whole or not at all, over what was there before."""
        full = self._full(path)
        if self.local is not None:
            _write_local(Path(full), data)
            return
        stream = self._fs.open_output_stream(full)
        try:
            stream.write(data)
        finally:
            stream.close()

    def delete(self, path: str) -> None:
        """Remove a file; one that is gone already is no error."""
        try:
            self._fs.delete_file(self._full(path))
        except FileNotFoundError:
            return

    def exists(self, path: str = "") -> bool:
        """Whether a file or folder is there."""
        return bool(self._fs.get_file_info(self._full(path)).type != fs.FileType.NotFound)

    def is_file(self, path: str = "") -> bool:
        """Whether a file, not a folder, is there."""
        return bool(self._fs.get_file_info(self._full(path)).type == fs.FileType.File)

    def list_files(self, path: str = "", recursive: bool = False) -> list[str]:
        """Files below a folder, relative to this one, sorted; none if the folder is not there."""
        return self._list(path, fs.FileType.File, recursive)

    def list_folders(self, path: str = "") -> list[str]:
        """Folders directly in a folder, relative to this one, sorted."""
        return self._list(path, fs.FileType.Directory, recursive=False)

    def move(self, name: str, new_name: str) -> None:
        """Rename a folder directly in this one."""
        if self.local is not None:
            os.rename(self._full(name), self._full(new_name))
            return
        for path in self.list_files(name, recursive=True):
            self.write(new_name + path.removeprefix(name), self.read(path))
            self.delete(path)

    def _full(self, path: str) -> str:
        if not path:
            return str(self._root)
        _check_inside(path)
        return f"{self._root}/{path}"

    def _list(self, path: str, kind: Any, recursive: bool) -> list[str]:
        full = self._full(path)
        selector = fs.FileSelector(full, allow_not_found=True, recursive=recursive)
        infos = self._fs.get_file_info(selector)
        return sorted(
            info.path[len(self._root) :].lstrip("/")
            for info in infos
            if info.type == kind and info.path.rstrip("/") != full
        )


def _check_inside(path: str) -> None:
    parts = path.split("/")
    if path.startswith("/") or any(part in ("", ".", "..") for part in parts) or "\\" in path or "\0" in path:
        raise StorageError(f"{path!r} would leave the run folder")


def _write_local(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), 0o666 & ~_umask())
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _umask() -> int:
    umask = os.umask(0o022)
    os.umask(umask)
    return umask


def name_of(path: str) -> str:
    """The last part of a path."""
    return PurePosixPath(path).name
