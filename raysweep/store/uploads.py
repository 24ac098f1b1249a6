"""Commits to an object store beside training, at most one behind."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor

from raysweep.store.record import Record
from raysweep.store.runfolder import RunFolder


class Uploads:
    """Commits a trial's records and weights on a thread, one at a time, in order."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="raysweep-upload")
        self._pending: Future[Record] | None = None

    def begin(self, record: Record, weights: Mapping[str, bytes]) -> None:
        """Begin a commit, as `RunFolder.commit`; first wait for the one before.

        Args:
            record: its `weights` and `previous` need not be up to date: they are those of the last commit here.
            weights: bytes of `last` and `best` that nobody changes any more.

        Raises:
            StorageError: the commit before could not be made.
        """
        record = self.finish(record)
        self._pending = self._thread.submit(self._folder.commit, record, weights)

    def finish(self, record: Record) -> Record:
        """Wait for the last commit; return the record with the names of its weights.

        Raises:
            StorageError: it could not be made.
        """
        pending, self._pending = self._pending, None
        if pending is None:
            return record
        committed = pending.result()
        return record.with_(weights=committed.weights, previous=committed.previous)
