"""The cache of prepared sets, the digests of source files, and the lock that lets one process prepare a set.

A prepared set is one folder, made under a temporary name and renamed when it is whole. A folder with the final name is
therefore complete, and what a crash leaves behind is never used.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from raysweep.errors import DataError

SETTLED_S = 2.0
"""Age in seconds from which a file's digest is remembered: a younger file may change again within the same tick."""
_Entry = list[int | str]
"""A file's size, time of its last change and inode, and its digest."""


def digest_files(files: Iterable[Path], root: Path, cache: Path) -> str:
    """Return one digest of the names (relative to `root`) and contents of the files.

    The cache remembers each file's digest with its size, time and inode. While those stay, the file is not read again.
    """
    sidecar = cache / "digests" / f"{hashlib.blake2b(str(root.resolve()).encode(), digest_size=8).hexdigest()}.json"
    known = _read_sidecar(sidecar)
    fresh: dict[str, _Entry] = {}
    whole = hashlib.blake2b(digest_size=16)
    prefix = os.path.join(os.path.abspath(root), "")
    for path in sorted({os.path.abspath(file) for file in files}):  # as text: 100,000 Paths take seconds
        name = path.removeprefix(prefix)
        entry = _entry(path, known.get(name))
        if time.time_ns() - int(entry[1]) > SETTLED_S * 1e9:
            fresh[name] = entry
        whole.update(f"{name}\0{entry[3]}\0".encode(errors="surrogateescape"))
    if any(known.get(name) != entry for name, entry in fresh.items()):
        _write_sidecar(sidecar, known | fresh)
    return whole.hexdigest()


def _entry(path: str, known: _Entry | None) -> _Entry:
    try:
        stat = os.stat(path)
        state = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
        return known if known and known[:3] == state else [*state, _digest(path)]
    except OSError as error:
        raise DataError(f"{path}: cannot read: {error.strerror}") from error


def _digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_sidecar(path: Path) -> dict[str, _Entry]:
    try:
        known = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _write_sidecar(path: Path, entries: dict[str, _Entry]) -> None:
    """Write it such that a reader sees all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    temporary.write_text(json.dumps(entries))
    temporary.replace(path)


@contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Wait for the lock file `path` and hold it; give False where the file system has no locks."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        alone = False
        with suppress(OSError):  # some network file systems have no locks; the rename in `made_whole` is safe without
            fcntl.flock(file, fcntl.LOCK_EX)
            alone = True
        yield alone


@contextmanager
def made_whole(target: Path, *, alone: bool) -> Iterator[Path]:
    """Give a temporary folder that becomes `target` if the block ends well, and is removed otherwise.

    `alone`: no other process makes the same folder now, so what crashes left behind can be removed.
    """
    prefix = f".{target.name}.tmp-"
    if alone:
        for left in target.parent.glob(f"{prefix}*"):
            shutil.rmtree(left, ignore_errors=True)
    temporary = target.parent / f"{prefix}{uuid4().hex}"
    temporary.mkdir(parents=True)
    try:
        yield temporary
        for file in temporary.iterdir():
            _sync(file)
        try:
            temporary.rename(target)
        except OSError:
            if not target.is_dir():  # else another process has made the same
                raise
        _sync(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
