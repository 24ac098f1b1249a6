"""Ctrl-C and SIGTERM: once, running trials stop and commit; twice, the command ends at once. A spent limit of the sweep
file, and storage that takes no commits, are like the first.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class StopRequest:
    """Whether the run is to stop: the user asked for it, or a limit is spent."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.limit: str | None = None
        """Which limit is spent, in words; None if it was the user or a fault."""
        self.fault: str | None = None
        """What makes going on pointless, in words: trials cannot commit."""

    @property
    def requested(self) -> bool:
        """Whether it is."""
        return self._event.is_set()

    def request(self, limit: str) -> None:
        """Ask for it, since a limit is spent."""
        if not self.requested:
            self.limit = limit
            self._event.set()

    def fail(self, fault: str) -> None:
        """Ask for it, since going on is pointless."""
        if not self.requested:
            self.fault = fault
            self._event.set()

    @contextlib.contextmanager
    def on_signals(self) -> Iterator[None]:
        """Take SIGINT and SIGTERM in this block, if this is the main thread; a second one ends the process."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        old = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            os._exit(130)  # the local cluster ends with its driver; every commit is whole at any moment
        self._event.set()
