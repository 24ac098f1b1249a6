"""Commits a trial while it goes on training, at most one commit behind."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

from raysweep.store.record import Record
from raysweep.store.runfolder import SUFFIX, RunFolder


class Uploads:
    """Makes a trial's commits on another thread, one at a time, in order."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="raysweep-upload")
        self._pending: Future[Record] | None = None

    def begin(self, record: Record, weights: Mapping[str, bytes], keep: Collection[str] = tuple(SUFFIX)) -> None:
        """Wait for the commit before, then begin one, as `RunFolder.commit`; its fault is raised by the next call.

        The record's own `weights` and `previous` are ignored: those of the commit before are used.
        """
        self._pending = self._thread.submit(self._folder.commit, self.finish(record), weights, keep)

    def finish(self, record: Record) -> Record:
        """Wait for the last commit; return the record with that commit's weights."""
        pending, self._pending = self._pending, None
        committed = pending.result() if pending else record
        return record.with_(weights=committed.weights, previous=committed.previous)
