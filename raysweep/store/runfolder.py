"""The run folder of a sweep: commits of records and weights that always agree, and the lease of its one driver.

A commit first writes the weights, under new names that contain epoch and sha256; then the record that names them, and a
copy of it; then it deletes the files that neither this commit nor the one before names. A reader verifies checksums,
uses the copy of a damaged record, and falls back to the commit before if weights are damaged.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from posixpath import basename
from typing import TypeVar

from raysweep.errors import StorageError
from raysweep.store import lease
from raysweep.store.document import DAMAGE, DamagedFileError
from raysweep.store.filesystem import Storage, is_temporary
from raysweep.store.folders import is_folder
from raysweep.store.record import COPY, RECORD, NewerRecordError, Record, WeightsFile
from raysweep.store.redact import redact
from raysweep.terminal import Tell, silently

T = TypeVar("T")

SUFFIX = {"last": "pt", "best": "safetensors", "correct": "npz"}
"""The kinds of a commit's files: the state to go on from, the best epoch's weights, which images these got right. The
first two end in `tar` where a loop commits whole folders (`folders`)."""
OF_THE_BEST = {"best", "correct"}
SETTLED_S = 5.0
"""A file this much older than the newest one has another time once it is written again, however coarse the times."""
BEGUN = {lease.LEASE, "sweep.yaml", "resolved.yaml", "spent.json", "trials", "search"}
"""What a run that was cut off at its start may leave: the folder still counts as a run folder."""


def split_path(path: str) -> tuple[str, str]:
    """Split the path or URI of a run folder into that of its storage and the run's name."""
    base, question, options = path.partition("?") if "://" in path else (path, "", "")
    storage, _, name = base.rstrip("/").rpartition("/")
    return (storage or ".") + question + options, name


class RunFolder:
    """`<storage>/<name>`, the folder of one sweep; the arguments are those of `Storage`."""

    def __init__(self, storage: str, name: str, has_answered: bool = False) -> None:
        self.name = name
        self.parent = Storage(storage, has_answered)
        self.files = self.parent.child(name)
        self.damaged: dict[str, str] = {}
        """Files that this object found damaged, and what follows from that, in words."""
        self.newer: set[str] = set()
        """Trials that were left out, since a newer raysweep wrote their records."""
        self._whole: set[str] = set()
        self._known: dict[str, Record | None] = {}
        self._stamps: dict[str, tuple[int, float]] = {}  # of the records that are known
        self._holds_lease = False
        self._reading = threading.Lock()

    @property
    def path(self) -> str:
        """The local path, or the URI without its options."""
        return self.files.path

    def exists(self) -> bool:
        """Whether a run has begun here."""
        return self.files.is_file("resolved.yaml")

    def check_place(self) -> None:
        """Refuse a bucket that does not exist, a file or a foreign folder in its place, and links in it."""
        self.files.check_bucket()
        what = None
        if self.files.is_file():
            what = "a file"
        elif not self.exists():
            names = {*self.files.list_files(), *self.files.list_folders()}
            if not {name for name in names if not is_temporary(name)} <= BEGUN:
                what = "a folder that is not a run folder"
        if what:
            raise StorageError(f"{self.path}: {what} is in the run folder's place; rename the sweep, or move it away")
        for path in ("trials", "tensorboard"):  # the latter's would be met only after the training
            self.files.check_links(path)

    def set_aside(self) -> str | None:
        """Rename an old run folder; return its new name, or None if there is none."""
        if not self.exists():
            return None
        new_name = f"{self.name}.{time.strftime('%Y%m%d-%H%M%S')}"
        self.parent.move(self.name, new_name)
        return new_name

    def read(self, path: str, parse: Callable[[bytes], T], if_damaged: str) -> T | None:
        """Read and parse a file of the run folder; None if there is none, or if it is damaged.

        Damage, for which `parse` raises one of `document.DAMAGE`, is noted with what follows from it, `if_damaged`.
        """
        before: bytes | None = None
        while True:
            try:
                data = self.files.read(path)
            except FileNotFoundError:
                return None
            try:
                return parse(data)
            except DAMAGE as error:
                # pyarrow asks an object store for the size, then for so many bytes: a file that was replaced between
                # the two is cut off.
                if self.files.local is None and data != before:
                    before = data
                    continue
                why = str(error) if isinstance(error, DamagedFileError) else f"is not whole ({error})"
                self.damaged[path] = f"{why}; {if_damaged}"
                return None

    # -- records and weights

    def trial_ids(self, deleted_too: bool = False) -> list[str]:
        """The ids of all trials that have a folder, in the plan or not.

        If trials that were deleted may be among them, an object store is asked for less.
        """
        return list(map(basename, self.files.list_folders("trials", empty_too=deleted_too)))

    def record(self, trial_id: str, lenient: bool = False) -> Record | None:
        """The committed record of a trial; None if there is none, or if it and its copy are damaged.

        A record that a newer raysweep wrote is refused; if `lenient`, it is noted and taken as absent.
        """
        parse = partial(Record.from_bytes, trial_id=trial_id)
        newer: NewerRecordError | None = None
        for name in (RECORD, COPY):
            try:
                if record := self.read(f"trials/{trial_id}/{name}", parse, "not used"):
                    return record
            except NewerRecordError as error:
                newer = error
        path = f"trials/{trial_id}/{RECORD}"
        if newer and not lenient:
            raise StorageError(f"{self.path}/{path}: {newer}; upgrade raysweep")
        if newer:
            self.newer.add(trial_id)
            self.damaged[path] = f"{newer}; not read: upgrade raysweep"
        return None

    def records(
        self,
        trial_ids: Iterable[str],
        lenient: bool = False,
        changed: Collection[str] | None = None,
        tell: Tell = silently,
    ) -> dict[str, Record | None]:
        """The committed records of trials by id (see `record`).

        This object remembers what it read: only what was written since is read again. By default the files' sizes and
        times say what that is, and which trials have no record at all. Where the caller knows which trials may have
        `changed`, nothing is looked up. `tell` shows how far the reading has come.
        """
        with self._reading:  # the driver reads on several threads
            return self._records(list(trial_ids), lenient, changed, tell)

    def _records(
        self, trial_ids: list[str], lenient: bool, changed: Collection[str] | None, tell: Tell
    ) -> dict[str, Record | None]:
        known = self._known.copy()
        stamps = self._record_stamps(trial_ids, tell) if changed is None else {}
        if changed is None:
            known |= dict.fromkeys(id for id in trial_ids if id not in stamps)
            outdated = [id for id, stamp in stamps.items() if self._stamps.get(id) != stamp]
        else:
            outdated = [id for id in trial_ids if id in changed or id not in known]
        with tell(f"{self.path}: reading {len(outdated):,} records", len(outdated)) as advance:
            found = self.files.for_each(partial(self.record, lenient=lenient), outdated, advance)
        known |= zip(outdated, found, strict=True)
        self._known = known
        newest = max((written for _, written in stamps.values()), default=0.0)
        settled = (id for id, (_, written) in stamps.items() if written < newest - SETTLED_S and known[id])
        self._stamps |= {id: stamps[id] for id in settled}
        return {id: known[id] for id in trial_ids}

    def _record_stamps(self, trial_ids: Sequence[str], tell: Tell) -> dict[str, tuple[int, float]]:
        """Size and time of each trial's record, or of the copy if that is all there is."""
        files = {id: (f"trials/{id}/{RECORD}", f"trials/{id}/{COPY}") for id in trial_ids}
        with tell(f"{self.path}: looking for records", None):
            return self.files.stamps("trials", files)

    def commit(self, record: Record, weights: Mapping[str, bytes], keep: Collection[str] = tuple(SUFFIX)) -> Record:
        """Commit a record together with its weights; return the record as committed.

        Args:
            record: its `weights` are those of the commit before.
            weights: new bytes by kind (see `SUFFIX`); without new bytes a kind keeps its file, but `correct` is that of
                `best`.
            keep: the kinds that the trial still needs.
        """
        before = record.weights
        # Those of a history that was lost are no one's best.
        kept = set(keep) - ({"correct"} if "best" in weights else set() if record.best else OF_THE_BEST)
        now = {kind: entry for kind, entry in before.items() if kind in kept}
        now |= {kind: self._write_weights(record, kind, data) for kind, data in weights.items()}
        # If only the record changes, the files to fall back to are still those of the commit before.
        previous = {} if record.is_final else record.previous if now == before else before
        committed = record.with_(weights=now, previous=previous, error=redact(record.error))
        data = committed.to_bytes()
        for name in (RECORD, COPY):
            self.files.write(f"trials/{record.id}/{name}", data)
        self._forget(record.id)
        needed = {entry.file for entry in (*now.values(), *previous.values())}
        for entry in (*before.values(), *record.previous.values()):
            if entry.file not in needed:
                self.files.delete(f"trials/{record.id}/{entry.file}")
        return committed

    def _forget(self, trial_id: str) -> None:
        """Forget a record that this object has written or deleted."""
        self._stamps.pop(trial_id, None)
        self._known.pop(trial_id, None)

    def _write_weights(self, record: Record, kind: str, data: bytes) -> WeightsFile:
        digest = hashlib.sha256(data).hexdigest()
        epoch = record.best.epoch if kind in OF_THE_BEST and record.best else record.epoch
        file = f"{kind}.{epoch}.{digest[:12]}.{'tar' if is_folder(data) else SUFFIX[kind]}"
        self.files.write(f"trials/{record.id}/{file}", data)
        return WeightsFile(file, digest, len(data), epoch)

    def weights_path(self, record: Record, kind: str) -> str | None:
        """The path of a record's weights file of a kind; None if it has none."""
        return f"trials/{record.id}/{record.weights[kind].file}" if kind in record.weights else None

    def read_weights(self, record: Record, kind: str) -> bytes | None:
        """The verified bytes of a record's weights file of a kind; None if it has none, or if it is damaged."""
        path = self.weights_path(record, kind)
        return None if path is None else self.read_verified(path, record.weights[kind], "not used")

    def read_verified(self, path: str, entry: WeightsFile, if_damaged: str) -> bytes | None:
        """The verified bytes of a weights file; None if it is missing or damaged, which is noted (see `read`)."""

        def verified(data: bytes) -> bytes:
            # torch.load and safetensors do not notice a flipped bit in a tensor.
            if hashlib.sha256(data).hexdigest() != entry.sha256:
                raise DamagedFileError("its checksum does not match")
            return data

        data = self.read(path, verified, if_damaged)
        if data is None:
            self.damaged.setdefault(path, f"is missing; {if_damaged}")
        return data

    def is_whole(self, record: Record, kind: str, again: bool = False) -> bool:
        """Whether a record's weights are undamaged, if it has any of this kind; read once, unless `again`."""
        path = self.weights_path(record, kind)
        if path is not None and (again or path not in self._whole):
            if self.read_weights(record, kind) is None:
                return False
            self._whole.add(path)
        return True

    def resume_point(self, trial_id: str) -> tuple[Record, bytes | None] | None:
        """The newest commit of a trial whose weights are whole, as (record, bytes of `last`).

        The history is cut to the epoch of `last`, which is an earlier one where a loop gave no state at the end. It
        falls back to the commit before, or else to the trial's beginning. The record still names the files that are not
        whole, so that the next commits delete them.
        """
        record = self.record(trial_id)
        if record is None:
            return None
        for commit in (record, record.with_(weights=record.previous, previous=record.weights)):
            data = self.read_weights(commit, "last")
            if data is not None and ("best" not in commit.weights or self.read_weights(commit, "best") is not None):
                epoch = commit.weights["last"].epoch
                return commit if commit is record and epoch == record.epoch else commit.cut(epoch), data
        return record.cut(0), None

    def tidy(self, trial_id: str) -> None:
        """Delete what a commit that was cut off left; only the trial's writer may call this."""
        for path in _unnamed(self.files.list_files(f"trials/{trial_id}"), self.record(trial_id)):
            self.files.delete(path)

    def rubbish(
        self, files: Collection[str], changed: Collection[str] | None = None, tell: Tell = silently
    ) -> dict[str, str]:
        """The leftovers among all of the run folder's files, each with its origin in words; `changed`: see `records`.

        Only the holder of the lease may ask.
        """
        files = [path for path in files if not path.startswith("probes/")]  # run folders with drivers of their own
        why = dict.fromkeys(filter(is_temporary, files), "of a write that was cut off")
        of_trials: defaultdict[str, list[str]] = defaultdict(list)
        for path in files:
            kind, *rest = path.split("/")
            if kind in ("trials", "tensorboard") and len(rest) > 1:
                of_trials[rest[0]].append(path)
        for trial_id, record in self.records(of_trials, changed=changed, tell=tell).items():
            own = [path for path in of_trials[trial_id] if path.startswith("trials/")]
            why |= dict.fromkeys(_unnamed(own, record), "of a commit that was cut off")
            if not own:
                why |= dict.fromkeys(of_trials[trial_id], "curves of a trial that is gone")
        return why | dict.fromkeys(lease.old_tombstones(self.files), "of a driver that was taken over")

    def remove(self, trial_id: str) -> None:
        """Delete a trial; its record goes first, so that what an interruption leaves is cleaned up later."""
        for name in (COPY, RECORD):
            self.files.delete(f"trials/{trial_id}/{name}")
        self._forget(trial_id)
        for folder in ("tensorboard", "trials"):
            self.files.delete_folder(f"{folder}/{trial_id}")

    # -- the one driver

    @contextlib.contextmanager
    def lease(self, on_loss: Callable[[str], None] | None = None) -> Iterator[None]:
        """Hold the run folder for one driver; refuse if another one holds it (see `store.lease.hold`)."""
        with lease.hold(self.files, on_loss):
            self._holds_lease = True
            try:
                yield
            finally:
                self._holds_lease = False

    def is_driven(self) -> bool:
        """Whether a driver holds the lease now; on an object store it takes some seconds to tell."""
        return self._holds_lease or lease.is_held(self.files)


def _unnamed(files: list[str], record: Record | None) -> list[str]:
    """The files of a trial's folder that its record does not name; none if a damaged record leaves that open."""
    if record is None and any(basename(path) in (RECORD, COPY) for path in files):
        return []
    named = {entry.file for entry in (*record.weights.values(), *record.previous.values())} if record else set()
    return [path for path in files if basename(path) not in {RECORD, COPY, *named}]
