"""The lease of a run folder, which lets one driver at a time in.

On local folders and NFS it is a kernel lock on `.lease`, which is free as soon as the process that holds it dies.

Object stores have no locks. There a driver puts a claim into `.lease/` and then lists the claims: if it sees another
one, it withdraws its own and tries again. Since each puts before it lists, at most one of several drivers that start at
once stays. The holder's claim counts up every few seconds. Whoever waits watches it by its own clock, so that no two
clocks need to agree. A claim that moves is alive. One that has not moved for STALE_S is taken over: a tombstone is put
beside it, and it is deleted. A holder that was only cut off finds the tombstone at its next beat and ends at once.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import random
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Literal

from raysweep.errors import StorageError
from raysweep.store import faults
from raysweep.store.filesystem import Storage, make_folder

LEASE = ".lease"
BEAT_S = 5.0
STALE_S = 60.0
TAKEN_OVER = ".taken-over"
TOMBSTONE_KEPT_S = 86_400.0
"""How long a driver may be frozen and still find its tombstone when it wakes."""
TRIES = 5
"""How often to try the kernel's lock: a reader that checks it holds it for an instant."""


@contextlib.contextmanager
def hold(files: Storage, on_loss: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold a run folder for one driver; if another one holds it, raise StorageError, which names that one.

    `on_loss` is called with the reason if another driver takes the lease over, which can happen on object stores. By
    default the reason is printed and this process ends at once.
    """
    with _lock(files.local, files.path) if files.local else _claim(files, on_loss or _end):
        yield


def is_held(files: Storage) -> bool:
    """Whether a driver holds the run folder now; on an object store its claim is watched for some seconds."""
    if files.local is None:
        return any(_watch(files, path, 3 * BEAT_S)[0] == "alive" for path in _claims(files))
    try:
        with open(files.local / LEASE, opener=_open_no_link) as file:
            return not _try_lock(file, fcntl.LOCK_SH)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise faults.on_disk(error, f"{files.path}/{LEASE}") from error


class Pulse:
    """Tells whether a driver holds a run folder, to one who asks again and again, and makes nobody wait.

    On an object store a driver counts as alive while its claim moves between the calls, and at first if it has one.
    """

    def __init__(self, files: Storage) -> None:
        self._files = files
        self._claims: dict[str, float] = {}
        self._looked_at = self._moved_at = -math.inf

    def is_felt(self) -> bool:
        """Whether a driver holds the run folder; an object store is asked once in BEAT_S."""
        if self._files.local is not None:
            return is_held(self._files)
        now = time.monotonic()
        if now - self._looked_at >= BEAT_S:
            self._looked_at = now
            claims = {path: at for path, at in self._files.list_times(LEASE).items() if path.endswith(".claim")}
            if claims != self._claims:
                self._claims, self._moved_at = claims, now
        return bool(self._claims) and now - self._moved_at < 4 * BEAT_S


# -- local folders and NFS


@contextlib.contextmanager
def _lock(folder: Path, where: str) -> Iterator[None]:
    try:
        file = _open_locked(folder / LEASE, where)
        os.register_at_fork(after_in_child=file.close)  # a forked child would hold the lock on
        file.truncate(0)
        json.dump(_me(), file)
        file.flush()
    except OSError as error:
        raise faults.on_disk(error, f"{where}/{LEASE}") from error
    with file:
        yield
        with contextlib.suppress(OSError):
            file.truncate(0)


def _open_locked(path: Path, where: str) -> IO[str]:
    """Return the lease's file, locked.

    Another driver may have moved the file with its folder (`--fresh`) before it was locked here: then it is not the
    lease any more, and the one that is now at the path is opened.
    """
    holder = ""
    for attempt in range(TRIES):
        time.sleep(0.05 * attempt)
        make_folder(path.parent)
        with contextlib.suppress(FileNotFoundError), contextlib.ExitStack() as stack:
            file = stack.enter_context(open(path, "a+", errors="replace", opener=_open_no_link))
            if _try_lock(file, fcntl.LOCK_EX) and os.path.samestat(os.fstat(file.fileno()), os.lstat(path)):
                stack.pop_all()
                return file
            file.seek(0)
            holder = file.read()
    raise StorageError(f"{where}: another raysweep drives this run: {_named(holder)}")


def _open_no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def _try_lock(file: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _me() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid(), "since": time.strftime("%F %T")}


def _named(content: str | bytes) -> str:
    try:
        holder = json.loads(content)
        return f"process {holder['pid']} on {holder['host']} since {holder['since']}"
    except (ValueError, KeyError, TypeError):
        return "just starting"


# -- object stores


class _Claim:
    """A driver's own claim on an object store."""

    def __init__(self, files: Storage) -> None:
        self.files = files
        self.path = f"{LEASE}/{secrets.token_hex(8)}.claim"
        self._content = {**_me(), "beats": 0}

    def put(self) -> None:
        self.files.write(self.path, json.dumps(self._content).encode())
        self._content["beats"] += 1

    def withdraw(self) -> None:
        self.files.delete(self.path)

    def is_taken_over(self) -> bool:
        return self.files.is_file(self.path + TAKEN_OVER)


@contextlib.contextmanager
def _claim(files: Storage, on_loss: Callable[[str], None]) -> Iterator[None]:
    files.check_bucket()
    claim = _acquire(files)
    over = threading.Event()
    claim.files = Storage(files.uri, patience_s=0)  # after a failed beat comes the next
    thread = threading.Thread(target=_beat, args=(claim, over, files.path, on_loss), name="raysweep-lease")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        with contextlib.suppress(StorageError):  # it is stale in a minute anyway
            claim.withdraw()


def _acquire(files: Storage) -> _Claim:
    """Put claims until one stands alone; take over those of dead holders, and refuse if another claim is alive."""
    while True:
        claim = _Claim(files)
        claim.put()
        others = [path for path in _claims(files) if path != claim.path]
        if not others and not claim.is_taken_over():
            claim.put()  # a first beat shows watchers that this driver is alive
            return claim
        claim.withdraw()
        for path in others:
            _outlive(files, path)
        time.sleep(random.uniform(0, BEAT_S / 5))  # so that two drivers do not meet again


def _outlive(files: Storage, path: str) -> None:
    """Watch another driver's claim until it is withdrawn, or stale and taken over; refuse if it is alive."""
    state, content = _watch(files, path, 2 * BEAT_S)
    if state == "still":
        wait = f"waiting up to {STALE_S:.0f} s to be sure that the last driver, {_named(content)}, is gone"
        print(f"{files.path}: {wait}", file=sys.stderr, flush=True)
        state, content = _watch(files, path, STALE_S - 2 * BEAT_S)
    if state == "alive":
        raise StorageError(f"{files.path}: another raysweep drives this run: {_named(content)}")
    if state == "still":
        files.write(path + TAKEN_OVER, b"")
        files.delete(path)


def _watch(files: Storage, path: str, for_s: float) -> tuple[Literal["gone", "alive", "still"], bytes]:
    """Watch a claim until it moves, or for some seconds; return what it does, and its content."""
    first: bytes | None = None
    end = time.monotonic() + for_s
    while first is None or time.monotonic() < end:
        try:
            content = files.read(path)
        except FileNotFoundError:
            return "gone", b""
        if first not in (None, content):
            return "alive", content
        first = content
        time.sleep(BEAT_S / 5)
    return "still", first


def _beat(claim: _Claim, over: threading.Event, where: str, on_loss: Callable[[str], None]) -> None:
    """Count the claim up until the run is over; failed beats do not matter, since the next ones catch up."""
    while not over.wait(BEAT_S):
        with contextlib.suppress(StorageError):
            claim.put()
            if claim.is_taken_over():
                claim.withdraw()
                on_loss(f"{where}: this driver was cut off so long that another one took the run over; it ends here")
                return


def _claims(files: Storage) -> list[str]:
    """Paths of the claims that nobody has taken over."""
    paths = files.list_files(LEASE)
    return [path for path in paths if path.endswith(".claim") and path + TAKEN_OVER not in paths]


def old_tombstones(files: Storage) -> list[str]:
    """Paths of the tombstones that no frozen driver will look for any more; none on a local folder."""
    if files.local:
        return []
    written = files.list_times(LEASE)
    now = max(written.values(), default=0.0)  # the store's clock: the holder's claim has just been written
    return [path for path in written if path.endswith(TAKEN_OVER) and now - written[path] >= TOMBSTONE_KEPT_S]


def _end(why: str) -> None:
    print(why, file=sys.stderr, flush=True)
    os._exit(StorageError.exit_code)  # the local cluster ends with its driver; commits are whole at any moment
