"""States that trials left where others may go on: `<run>/states/<key>/`, a record cut there and its weights files.

The key (`sweepfile.prefixes`) is a hash of all that decides the epochs up to there, so whoever looks for a state need
know no trial by name, and two trials that keep the same one keep the same bits. The record is written last: a state is
whole, or there is none. One that is lost or damaged costs training, and never changes a number.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from posixpath import basename

from raysweep.store.document import DamagedFileError
from raysweep.store.record import RECORD, NewerRecordError, Record, WeightsFile
from raysweep.store.runfolder import RunFolder

FOLDER = "states"
Files = dict[str, bytes]
"""The bytes of a state's weights files, by kind."""


class StateStore:
    """The states of a run folder, by key."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder, self._files = folder, folder.files

    def has(self, key: str) -> bool:
        """Whether a state is there; it may be damaged."""
        return self._files.is_file(f"{FOLDER}/{key}/{RECORD}")

    def keep(self, key: str, record: Record, weights: Mapping[str, bytes]) -> None:
        """Keep a trial's state: `weights` by kind, with those of its commit's files that are not among them.

        It has a `last`, to go on from. Without one a trial that diverged is kept, for those that would do the same.
        """
        committed = {kind: entry for kind, entry in record.weights.items() if kind not in {*weights, "last"}}
        if "best" in weights:
            committed.pop("correct", None)  # that of another best
        for entry in committed.values():
            self._files.copy(f"trials/{record.id}/{entry.file}", f"{FOLDER}/{key}/{entry.file}")
        named = {kind: self._write(key, kind, record.epoch, data) for kind, data in weights.items()}
        kept = replace(record, weights={**committed, **named}, previous={}, former_metrics=[], error=None)
        self._files.write(f"{FOLDER}/{key}/{RECORD}", kept.to_bytes())

    def _write(self, key: str, kind: str, epoch: int, data: bytes) -> WeightsFile:
        digest = hashlib.sha256(data).hexdigest()
        file = f"{kind}.{digest[:12]}"
        self._files.write(f"{FOLDER}/{key}/{file}", data)
        return WeightsFile(file, digest, len(data), epoch)

    def find(self, key: str) -> tuple[Record, Files] | None:
        """Return the record and the files of a state; None if there is none, or if it is damaged, which is noted."""
        record = self.record(key)
        if record is None or not (record.status == "diverged" or "last" in record.weights):
            return None
        files = {}
        for kind, entry in record.weights.items():
            data = self._folder.read_verified(f"{FOLDER}/{key}/{entry.file}", entry, "the epochs are trained again")
            if data is None:
                return None
            files[kind] = data
        return record, files

    def find_or_drop(self, key: str) -> tuple[Record, Files] | None:
        """Return the same; a damaged state is deleted, so that the next trial which comes there keeps it anew."""
        found = self.find(key)
        if found is None and self.has(key):
            self.drop([key])
        return found

    def all(self) -> dict[str, Record]:
        """Return the records of all states, by key; those that are damaged are left out."""
        keys = [basename(path) for path in self._files.list_folders(FOLDER)]
        records = self._files.for_each(self.record, keys)
        return {key: record for key, record in zip(keys, records, strict=True) if record is not None}

    def listed(self) -> list[str]:
        """Return the keys of all states, whole or not."""
        return [basename(path) for path in self._files.list_folders(FOLDER, empty_too=True)]

    def drop(self, keys: Iterable[str]) -> None:
        """Delete states; a record goes before its files, so that no state is ever found in part."""

        def drop(key: str) -> None:
            self._files.delete(f"{FOLDER}/{key}/{RECORD}")
            self._files.delete_folder(f"{FOLDER}/{key}")

        self._files.for_each(drop, list(keys))

    def record(self, key: str) -> Record | None:
        """Return the record of a state; None if there is none, or if it is damaged, which is noted."""

        def parse(data: bytes) -> Record:
            try:
                return Record.from_bytes(data)
            except NewerRecordError as error:
                raise DamagedFileError(str(error)) from error

        return self._folder.read(f"{FOLDER}/{key}/{RECORD}", parse, "the epochs are trained again")
