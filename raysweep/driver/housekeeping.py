"""What goes on beside Tune, on threads of its own: repeated actions, some on storage that may be away for a while."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from raysweep.errors import StorageError


@contextmanager
def repeating(name: str, action: Callable[[], None], every_s: float, share: float = 1.0) -> Iterator[None]:
    """Repeat an action on a thread of its own while the block lasts; its end waits for the last one's.

    Args:
        name: of the thread.
        action: must not raise.
        every_s: between the beginnings of two, at least.
        share: of the time that it may take: a slow one is repeated less often.
    """
    over = threading.Event()

    def repeat() -> None:
        pause = every_s
        while not over.wait(pause):
            began = time.monotonic()
            action()
            took = time.monotonic() - began
            pause = max(every_s, took / share) - took

    thread = threading.Thread(target=repeat, name=name)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


class Tolerant:
    """Calls actions that a fault of the storage may stop, since they are made up for later: it is said once.

    Args:
        where: the storage.
        say: prints a line.
    """

    def __init__(self, where: str, say: Callable[[str], None]) -> None:
        self._where, self._say = where, say
        self._faulty: set[Callable[[], None]] = set()

    def __call__(self, action: Callable[[], None]) -> None:
        """Call an action."""
        try:
            action()
        except StorageError as error:
            if not self._faulty:
                self._say(f"{error} (the run goes on meanwhile; what it shows of itself stays as it was)")
            self._faulty.add(action)
        else:
            was_faulty = action in self._faulty
            self._faulty.discard(action)
            if was_faulty and not self._faulty:
                self._say(f"{self._where}: can be written to again")
