"""Why a run stops before its end.

The first Ctrl-C or SIGTERM, a spent limit and storage that takes no commits make the trials commit and return; the
second signal ends the command at once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class StopRequest:
    """Whether the run is to stop, and why."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.limit: str | None = None
        """Which limit is spent, in words."""
        self.fault: str | None = None
        """Why trials cannot commit, in words."""

    @property
    def requested(self) -> bool:
        """Whether the run is to stop."""
        return self._event.is_set()

    def request(self, limit: str | None = None, fault: str | None = None) -> None:
        """Stop the run, if it is not to stop already; without a limit or a fault, the user asked for it."""
        if not self.requested:
            self.limit, self.fault = limit, fault
            self._event.set()

    @contextlib.contextmanager
    def on_signals(self) -> Iterator[None]:
        """Handle SIGINT and SIGTERM while the block lasts, if this is the main thread."""
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
        self.request()
