"""The run folder's commits: records and weights that always agree, and the lease of the one driver.

A commit writes the weights under fresh names that carry epoch and sha256, then the small record that names them and a
copy of it, last; then deletes what neither this commit nor the one before names. Whoever reads verifies the checksums,
takes the copy of a damaged record, and falls back to the commit before where weights are damaged.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import repeat
from typing import TypeVar

from raysweep.errors import StorageError
from raysweep.store import lease
from raysweep.store.document import DAMAGE, DamagedFileError
from raysweep.store.filesystem import TEMPORARY, Storage, is_temporary, name_of
from raysweep.store.record import COPY, RECORD, NewerRecordError, Record, WeightsFile
from raysweep.store.redact import redact

T = TypeVar("T")

SUFFIX = {"last": "pt", "best": "safetensors"}
READERS = 16
"""Records of an object store that are read at the same time."""
BEGUN = {lease.LEASE, "sweep.yaml", "resolved.yaml", "spent.json", "trials"}
"""What a run that was cut off may have left: all the same a run folder."""


class RunFolder:
    """`<storage>/<name>`, the folder of one sweep.

    Args:
        storage: a local path or a URI.
        name: the sweep's.
        has_answered: whether the storage is known to be there, so that it is waited for if it is not now.
    """

    def __init__(self, storage: str, name: str, has_answered: bool = False) -> None:
        self.name = name
        self.parent = Storage(storage, has_answered)
        self.files = self.parent.child(name)
        self.damaged: dict[str, str] = {}
        """Files that were found damaged, and what became of it, since this object was made."""
        self.newer: set[str] = set()
        """Trials whose records a newer raysweep wrote, which were passed over."""
        self._holds_lease = False

    @property
    def path(self) -> str:
        """Where it is: a local path or a URI without its query."""
        return self.files.path

    def exists(self) -> bool:
        """Whether a run was ever begun here."""
        return self.files.is_file("resolved.yaml")

    def check_place(self) -> None:
        """Refuse a place that is taken by something else, or a bucket that is not there.

        Raises:
            StorageError: a file, or a folder that raysweep did not make, is in the run folder's place.
        """
        self.files.check_bucket()
        what = None
        if self.files.is_file():
            what = "a file"
        elif self.files.exists() and not self.exists() and not _names(self.files) <= BEGUN:
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

    def read(self, path: str, parse: Callable[[bytes], T], if_damaged: str) -> T | None:
        """Read a file of the run folder and parse it; None if there is none, or if it is damaged, which is noted.

        Args:
            path: the file's.
            parse: raises one of `document.DAMAGE` where the file is damaged.
            if_damaged: what follows from that, in words.

        Raises:
            StorageError: the storage cannot be read.
        """
        try:
            data = self.files.read(path)
        except FileNotFoundError:
            return None
        try:
            return parse(data)
        except DAMAGE as error:
            why = str(error) if isinstance(error, DamagedFileError) else f"is not whole ({error})"
            self.damaged[path] = f"{why}; {if_damaged}"
            return None

    # -- records and weights

    def trial_ids(self) -> list[str]:
        """Ids of all trials that have a folder, in the plan or not."""
        return [name_of(path) for path in self.files.list_folders("trials")]

    def record(self, trial_id: str, lenient: bool = False) -> Record | None:
        """The committed record of a trial, or None if there is no whole one.

        Args:
            trial_id: whose.
            lenient: pass over a record that a newer raysweep wrote, and note that.

        Raises:
            StorageError: it cannot be read, or was written by a newer raysweep.
        """
        newer: NewerRecordError | None = None
        for name in (RECORD, COPY):
            try:
                record = self.read(
                    f"trials/{trial_id}/{name}", partial(Record.from_bytes, trial_id=trial_id), "not used"
                )
            except NewerRecordError as error:
                newer = error
            else:
                if record:
                    return record
        if newer and not lenient:
            raise StorageError(f"{self.path}/trials/{trial_id}/{RECORD}: {newer}; upgrade raysweep")
        if newer:
            self.newer.add(trial_id)
            self.damaged[f"trials/{trial_id}/{RECORD}"] = f"{newer}; not read: upgrade raysweep"
        return None

    def records(self, trial_ids: Iterable[str], lenient: bool = False) -> dict[str, Record | None]:
        """The committed records of trials (see `record`), by id; those of an object store are read side by side."""
        trial_ids = list(trial_ids)
        if self.files.local is not None:
            return {trial_id: self.record(trial_id, lenient) for trial_id in trial_ids}
        with ThreadPoolExecutor(READERS, thread_name_prefix="raysweep-reader") as pool:
            return dict(zip(trial_ids, pool.map(self.record, trial_ids, repeat(lenient)), strict=True))

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
            self.files.write(f"{folder}/{file}", data)
            now[kind] = WeightsFile(file, digest, len(data), record.epoch)
        previous = {} if record.is_final else before
        committed = record.with_(weights=now, previous=previous, error=redact(record.error))
        data = committed.to_bytes()
        self.files.write(f"{folder}/{RECORD}", data)
        self.files.write(f"{folder}/{COPY}", data)
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
        path = f"trials/{record.id}/{entry.file}"
        try:
            data = self.files.read(path)
        except FileNotFoundError:
            self.damaged[path] = "is missing"
            return None
        if hashlib.sha256(data).hexdigest() == entry.sha256:
            return data
        self.damaged[path] = "its checksum does not match; not used"
        return None

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
        earlier = record.with_(weights=record.previous, previous=record.weights)  # these, to be deleted
        data = self.read_weights(earlier, "last")
        if data is None:  # the record goes on naming its files, so that the next commits delete them
            return record.with_(metrics=[], best=None), None
        return earlier.with_(metrics=record.metrics[: earlier.weights["last"].epoch], best=None), data

    def strays(self, trial_id: str) -> list[str]:
        """Files in a trial's folder that its record does not name: of a commit that was cut off.

        None where there is a record, but no whole one: then nobody can say.
        """
        return _unnamed(self.files.list_files(f"trials/{trial_id}"), self.record(trial_id))

    def tidy(self, trial_id: str) -> None:
        """Delete what a commit that was cut off has left; only for who writes the trial."""
        for path in self.strays(trial_id):
            self.files.delete(path)

    def rubbish(self, files: Iterable[str]) -> dict[str, str]:
        """Of all of the run folder's files, those that nothing owns, and why, by path; only for who holds the lease."""
        why: dict[str, str] = {}
        of_trials: dict[str, list[str]] = {}
        for path in files:
            kind, _, rest = path.partition("/")
            trial_id, slash, _ = rest.partition("/")
            if kind in ("trials", "tensorboard") and slash:
                of_trials.setdefault(trial_id, []).append(path)
            if is_temporary(path):
                why[path] = "of a write that was cut off"
        for trial_id, record in self.records(of_trials).items():
            paths = of_trials[trial_id]
            own = [path for path in paths if path.startswith("trials/")]
            why |= dict.fromkeys(_unnamed(own, record), "of a commit that was cut off")
            if not own:
                why |= dict.fromkeys(paths, "curves of a trial that is gone")
        tombstones = lease.tombstones(self.files, lease.TOMBSTONE_KEPT_S)
        return why | dict.fromkeys(tombstones, "of a driver that was taken over")

    def remove(self, trial_id: str) -> None:
        """Delete a trial with all it has, first its record: cut off, what is left belongs to nobody."""
        for name in (COPY, RECORD):
            self.files.delete(f"trials/{trial_id}/{name}")
        for folder in ("tensorboard", "trials"):
            self.files.delete_folder(f"{folder}/{trial_id}")

    # -- the one driver

    @contextlib.contextmanager
    def lease(self, on_loss: Callable[[str], None] | None = None) -> Iterator[None]:
        """Hold the run folder for one driver (see `store.lease`).

        Args:
            on_loss: told why the lease is lost to another driver, which object stores allow; default: say so and end
                this process at once.

        Raises:
            StorageError: another driver holds it, and who.
        """
        with lease.hold(self.files, on_loss):
            self._holds_lease = True
            try:
                yield
            finally:
                self._holds_lease = False

    def is_driven(self) -> bool:
        """Whether a driver holds the lease now; on an object store that takes some seconds to see."""
        return self._holds_lease or lease.is_held(self.files)


def _unnamed(files: Iterable[str], record: Record | None) -> list[str]:
    """The files of a trial's folder that its record does not name; none where there is a record, but no whole one."""
    files = list(files)
    if record is None and any(name_of(path) in (RECORD, COPY) for path in files):
        return []
    named = {entry.file for entry in (*record.weights.values(), *record.previous.values())} if record else set()
    return [path for path in files if name_of(path) not in {RECORD, COPY, *named}]


def _names(files: Storage) -> set[str]:
    return {name for name in (*files.list_files(), *files.list_folders()) if not name.endswith(TEMPORARY)}
