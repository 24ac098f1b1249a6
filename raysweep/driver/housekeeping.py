"""What goes on beside Tune, on threads of its own: repeated actions, some on storage that may be away for a while."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from raysweep.errors import StorageError


@contextmanager
def repeating(
    name: str, action: Callable[[], None], every_s: float, share: float = 1.0, at_least_every_s: float = math.inf
) -> Iterator[None]:
    """Repeat an action, which must not raise, on a thread while the block lasts; wait at the end for the last one.

    It begins every `every_s` seconds, or less often so that it takes no more than its `share` of the time, but
    `at_least_every_s` while it takes no more than half of it.
    """
    over = threading.Event()

    def repeat() -> None:
        pause = every_s
        while not over.wait(pause):
            began = time.monotonic()
            action()
            took = time.monotonic() - began
            pause = max(took, min(max(every_s, took / share), at_least_every_s) - took)

    thread = threading.Thread(target=repeat, name=name)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


class Tolerant:
    """Calls actions that a later call makes up for: a fault of the storage at `where` is said once and ends nothing."""

    def __init__(self, where: str, say: Callable[[str], None]) -> None:
        self._where, self._say = where, say
        self._faulty: set[Callable[[], None]] = set()

    def __call__(self, action: Callable[[], None]) -> None:
        """Call an action."""
        were_faulty = bool(self._faulty)
        try:
            action()
            self._faulty.discard(action)
        except StorageError as error:
            self._faulty.add(action)
            if not were_faulty:
                self._say(f"{error} (the run goes on meanwhile; what it shows of itself stays as it was)")
        if were_faulty and not self._faulty:
            self._say(f"{self._where}: can be written to again")
