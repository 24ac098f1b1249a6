"""The one driver of a run folder.

Local folders and NFS: a lock of the kernel's on `.lease`, free at once when the process that holds it dies.

Object stores have no locks. A driver puts a claim into `.lease/`, then lists the claims: if there is another one it
withdraws and looks again. Of two that start at once at most one stays, since each puts before it lists. The holder's
claim counts up every few seconds; whoever waits watches it on a clock of its own, so that no two clocks need agree. One
that moves is held, and named; one that has stood still for STALE_S is taken over: first a tombstone beside it, then it
is deleted. A holder that was only cut off finds the tombstone at its next beat, and ends at once.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from raysweep.errors import StorageError
from raysweep.store import faults
from raysweep.store.filesystem import Storage

LEASE = ".lease"
BEAT_S = 5.0
STALE_S = 60.0
TOMBSTONE_KEPT_S = 86_400.0
"""So long a driver may be frozen, and still find on waking that another one took its run over."""
TRIES = 5
"""To take the kernel's lock: a reader that asks who holds it takes it for an instant."""


@contextlib.contextmanager
def hold(files: Storage, on_loss: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold a run folder for one driver.

    Args:
        files: the run folder.
        on_loss: told why the lease is lost to another driver; default: say so and end this process at once.

    Raises:
        StorageError: another driver holds it, and who.
    """
    with _lock(files.local, files.path) if files.local else _claim(files, on_loss or _end):
        yield


def is_held(files: Storage) -> bool:
    """Whether a driver holds the run folder now; an object store's claim is watched for some seconds."""
    if files.local is None:
        return any(_is_alive(files, path) for path in _claims(files))
    try:
        with open(files.local / LEASE) as file:
            return not _try_lock(file, fcntl.LOCK_SH)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise faults.on_disk(error, f"{files.path}/{LEASE}") from error


# -- local folders and NFS


@contextlib.contextmanager
def _lock(folder: Path, where: str) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(open(folder / LEASE, "a+"))
            if not any(_try_lock(file, fcntl.LOCK_EX, wait_s=0.05 * attempt) for attempt in range(TRIES)):
                raise StorageError(f"{where}: another raysweep drives this run: {_named(_read(file))}")
            os.register_at_fork(after_in_child=file.close)
            file.truncate(0)
            json.dump(_me(), file)
            file.flush()
        except OSError as error:
            raise faults.on_disk(error, f"{where}/{LEASE}") from error
        yield
        with contextlib.suppress(OSError):
            file.truncate(0)


def _try_lock(file: IO[str], kind: int, wait_s: float = 0) -> bool:
    time.sleep(wait_s)
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(file: IO[str]) -> Any:
    file.seek(0)
    with contextlib.suppress(ValueError):
        return json.load(file)
    return None


def _me() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid(), "since": time.strftime("%F %T")}


def _named(holder: Any) -> str:
    try:
        return f"process {holder['pid']} on {holder['host']} since {holder['since']}"
    except (KeyError, TypeError):
        return "just starting"


# -- object stores


class _Claim:
    """Our claim: put, counted up, withdrawn."""

    def __init__(self, files: Storage) -> None:
        self.files = files
        self._me = _me()
        self._beats = 0
        self.path = f"{LEASE}/{secrets.token_hex(8)}.claim"

    def put(self) -> None:
        self.files.write(self.path, json.dumps({**self._me, "beats": self._beats}).encode())
        self._beats += 1

    def withdraw(self) -> None:
        self.files.delete(self.path)

    def is_taken_over(self) -> bool:
        return self.files.is_file(_tombstone(self.path))


@contextlib.contextmanager
def _claim(files: Storage, on_loss: Callable[[str], None]) -> Iterator[None]:
    files.check_bucket()
    claim = _acquire(files)
    over = threading.Event()
    claim.files = Storage(files.uri, patience_s=0)  # a beat that fails is made up for by the next
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
    """Claim until no other claim is there; remove those whose holder is dead.

    Raises:
        StorageError: another claim is alive.
    """
    while True:
        claim = _Claim(files)
        claim.put()
        others = [path for path in _claims(files) if path != claim.path]
        if not others and not claim.is_taken_over():
            claim.put()  # a first beat: whoever watches knows that we are alive
            return claim
        claim.withdraw()
        for path in others:
            _outlive(files, path)
        time.sleep(random.uniform(0, BEAT_S / 5))  # two that started at once do not meet again


def _outlive(files: Storage, path: str) -> None:
    """Watch another's claim until it is withdrawn, or stale: then take it over.

    Raises:
        StorageError: it is alive.
    """
    content = _content(files, path)
    if content is None:
        return
    said = False
    end = time.monotonic() + STALE_S
    while time.monotonic() < end:
        time.sleep(BEAT_S / 5)
        now = _content(files, path)
        if now is None:
            return
        if now != content:
            raise StorageError(f"{files.path}: another raysweep drives this run: {_named(_parsed(now))}")
        if not said and time.monotonic() > end - STALE_S + 2 * BEAT_S:
            said = True
            _say(
                f"{files.path}: waiting up to {STALE_S:.0f} s to be sure that the last driver, "
                f"{_named(_parsed(content))}, is gone"
            )
    files.write(_tombstone(path), b"")
    files.delete(path)


def _is_alive(files: Storage, path: str) -> bool:
    content = _content(files, path)
    end = time.monotonic() + 3 * BEAT_S
    while content is not None and time.monotonic() < end:
        time.sleep(BEAT_S / 5)
        now = _content(files, path)
        if now != content:
            return now is not None
    return False


def _beat(claim: _Claim, over: threading.Event, where: str, on_loss: Callable[[str], None]) -> None:
    """Count the claim up until it is over; a store that is away for a while is for others to wait for."""
    while not over.wait(BEAT_S):
        with contextlib.suppress(StorageError):
            claim.put()
            if claim.is_taken_over():
                claim.withdraw()
                on_loss(f"{where}: this driver was cut off so long that another one took the run over; it ends here")
                return


def _claims(files: Storage) -> list[str]:
    """Paths of the claims that were not taken over."""
    paths = files.list_files(LEASE)
    return [path for path in paths if path.endswith(".claim") and _tombstone(path) not in paths]


def _tombstone(path: str) -> str:
    return f"{path}.taken-over"


def tombstones(files: Storage, older_than_s: float = 0.0) -> list[str]:
    """Paths of what is left of leases that were taken over so long ago; none on a local folder."""
    if files.local:
        return []
    paths = files.list_files(LEASE)
    now = max((files.modified(path) for path in paths), default=0.0)  # the holder's claim counts up: the store's clock
    found = [path for path in paths if path.endswith(".taken-over")]
    return [path for path in found if now - files.modified(path) >= older_than_s]


def _content(files: Storage, path: str) -> bytes | None:
    try:
        return files.read(path)
    except FileNotFoundError:
        return None


def _parsed(content: bytes) -> Any:
    with contextlib.suppress(ValueError):
        return json.loads(content)
    return None


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _end(why: str) -> None:
    _say(why)
    os._exit(StorageError.exit_code)  # the local cluster ends with its driver; every commit is whole at any moment
