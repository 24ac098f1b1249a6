"""The run folder's commits: records and weights that always agree, and the lease of the one driver.

A commit writes the weights under fresh names that carry epoch and sha256, then the small record that names
them, last; then deletes what neither this commit nor the one before names. Whoever reads verifies the checksum
and falls back to the commit before.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from typing import IO

from raysweep.errors import StorageError
from raysweep.store.filesystem import Storage, name_of
from raysweep.store.record import Record, TornRecordError, WeightsFile

SUFFIX = {"last": "pt", "best": "safetensors"}


class RunFolder:
    """`<storage>/<name>`, the folder of one sweep.

    Args:
        storage: a local path or a URI.
        name: the sweep's.
    """

    def __init__(self, storage: str, name: str) -> None:
        self.name = name
        self.parent = Storage(storage)
        self.files = self.parent.child(name)

    @property
    def path(self) -> str:
        """Where it is: a local path or a URI without its query."""
        return str(self.files.local) if self.files.local else self.files.uri.partition("?")[0]

    def exists(self) -> bool:
        """Whether a run was ever begun here."""
        return self.files.is_file("resolved.yaml")

    def check_place(self) -> None:
        """Refuse a place that is taken by something else.

        Raises:
            StorageError: a file, or a folder that raysweep did not make, is in the run folder's place.
        """
        what = None
        if self.files.is_file():
            what = "a file"
        elif self.files.exists() and not self.exists() and _names_but_own(self.files):
            what = "a folder that is not a run folder"
        if what:
            raise StorageError(f"{self.path}: {what} is in the run folder's place; rename the sweep, or move it away")

    def set_aside(self) -> str | None:
        """Rename the old run folder, if there is one; return its new name."""
        if not self.exists():
            return None
        new_name = f"{self.name}.{time.strftime('%Y%m%d-%H%M%S')}"
        self.parent.move(self.name, new_name)
        return new_name

    # -- records and weights

    def trial_ids(self) -> list[str]:
        """Ids of all trials that have a folder, in the plan or not."""
        return [name_of(path) for path in self.files.list_folders("trials")]

    def record(self, trial_id: str) -> Record | None:
        """The committed record of a trial, or None if there is no whole one."""
        try:
            return Record.from_bytes(self.files.read(f"trials/{trial_id}/record.json"))
        except (FileNotFoundError, TornRecordError):
            return None

    def commit(self, record: Record, weights: Mapping[str, bytes], keep: tuple[str, ...] = ("last", "best")) -> Record:
        """Commit a record together with the weights it speaks of; return the record as committed.

        Args:
            record: its `weights` are those of the commit before.
            weights: new bytes of `last` or `best`; a kind that is not given stays as it was.
            keep: kinds whose file the trial still needs.
        """
        folder = f"trials/{record.id}"
        before = record.weights
        now = {kind: entry for kind, entry in before.items() if kind in keep}
        for kind, data in weights.items():
            digest = hashlib.sha256(data).hexdigest()
            file = f"{kind}.{record.epoch}.{digest[:12]}.{SUFFIX[kind]}"
            if not (kind in before and before[kind].sha256 == digest and before[kind].file == file):
                self.files.write(f"{folder}/{file}", data)
            now[kind] = WeightsFile(file, digest, len(data), record.epoch)
        previous = {} if record.is_final else before
        committed = record.with_(weights=now, previous=previous)
        self.files.write(f"{folder}/record.json", committed.to_bytes())
        needed = {entry.file for entry in (*now.values(), *previous.values())}
        for entry in (*before.values(), *record.previous.values()):
            if entry.file not in needed:
                self.files.delete(f"{folder}/{entry.file}")
        return committed

    def read_weights(self, record: Record, kind: str) -> bytes | None:
        """The verified bytes of the `last` or `best` weights that a record names, or None if they are not whole."""
        entry = record.weights.get(kind)
        if entry is None:
            return None
        try:
            data = self.files.read(f"trials/{record.id}/{entry.file}")
        except FileNotFoundError:
            return None
        return data if hashlib.sha256(data).hexdigest() == entry.sha256 else None

    def resume_point(self, trial_id: str) -> tuple[Record, bytes | None] | None:
        """The newest commit of a trial whose weights are whole: (record, bytes of `last`).

        Falls back to the commit before, its history cut to that epoch; else to the trial's beginning.
        """
        record = self.record(trial_id)
        if record is None:
            return None
        data = self.read_weights(record, "last")
        if data is not None or record.epoch == 0:
            return record, data
        earlier = record.with_(weights=record.previous, previous={})
        data = self.read_weights(earlier, "last")
        epoch = earlier.weights["last"].epoch if data is not None else 0
        return earlier.with_(metrics=record.metrics[:epoch], best=None), data

    # -- the one driver

    @contextlib.contextmanager
    def lease(self) -> Iterator[None]:
        """Hold the run folder for one driver; free at once when its process dies.

        On an object store there is no lock to take: two drivers are not noticed there.

        Raises:
            StorageError: another driver holds it, and who.
        """
        if self.files.local is None:
            yield
            return
        self.files.local.mkdir(parents=True, exist_ok=True)
        with open(self.files.local / ".lease", "a+") as file:
            if not _try_lock(file):
                raise StorageError(f"{self.path}: another raysweep drives this run: {_holder(file)}")
            os.register_at_fork(after_in_child=file.close)
            file.truncate(0)
            json.dump({"host": socket.gethostname(), "pid": os.getpid(), "since": time.strftime("%F %T")}, file)
            file.flush()
            yield
            file.truncate(0)

    def is_driven(self) -> bool:
        """Whether a driver holds the lease now."""
        if self.files.local is None or not (self.files.local / ".lease").exists():
            return False
        with open(self.files.local / ".lease", "a+") as file:
            return not _try_lock(file)


def _names_but_own(files: Storage) -> list[str]:
    return [path for path in (*files.list_files(), *files.list_folders()) if path != ".lease"]


def _try_lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(file: IO[str]) -> str:
    file.seek(0)
    try:
        holder = json.load(file)
    except ValueError:
        return "just starting"
    return f"process {holder['pid']} on {holder['host']} since {holder['since']}"
