"""The record of one trial: its config, status, whole metric history, weights files and error.

`planned_record` makes one from a trial of the plan; `Record.to_bytes` and `from_bytes` are its form on disk, a JSON
document with a checksum.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator

from raysweep.store.document import DamagedFileError, checked, digest, to_bytes, verify
from raysweep.sweepfile.plan import StartedFrom, Trial

FORMAT = 1
RECORD, COPY = "record.json", "record.copy.json"
"""A trial's record and a copy of it, in the trial's folder."""
COSTS = "costs"
"""The condition that holds what of a trial is known before it trains, where the sweep has several objectives."""
LAST_WORDS = "last_words"
"""The key of an error that the process noted which it then ended."""
FINAL = ("finished", "stopped", "diverged")
"""Statuses that a rerun leaves alone."""


Status = Literal["planned", "running", "interrupted", "paused", "finished", "stopped", "diverged", "failed"]
"""No record is committed as "interrupted": so a trial is shown that was running when its run ended."""


class NewerRecordError(Exception):
    """A record has a format that this raysweep does not know."""


NUMBERS = {int, float, type(None)}
"""The types that a metric may have; there is none for one that is not known."""


def _history(rows: Any) -> list[dict[str, float]]:
    """Check a metric history: numbers, or null where there is none, and each row's epoch. It stays as it is."""
    for place, row in enumerate(rows if isinstance(rows, list) else [rows], 1):
        if not isinstance(row, dict) or row.get("epoch") != place:
            raise ValueError(f"no list of epochs from 1 on: {str(row)[:60]} is not that of epoch {place}")
        if not NUMBERS.issuperset(map(type, row.values())):
            raise ValueError(f"epoch {place} has a value that is no number")
    return rows  # type: ignore[no-any-return]


History = Annotated[list[dict[str, float]], PlainValidator(_history)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")]


@dataclass(frozen=True)
class WeightsFile:
    """A weights file of a commit."""

    file: Name  # its name in the trial's folder
    sha256: str
    bytes: int
    epoch: int  # whose weights they are


@dataclass(frozen=True)
class Score:
    """The best epoch's score, and the weights that reached it."""

    epoch: int
    score: float
    averaged: bool  # whether they are the EMA weights
    val_acc: float | None  # validation accuracy (0..1) of those weights


@dataclass(frozen=True)
class Origin:
    """Epochs of a history that another trial has trained, first and last included."""

    trial: str  # its id
    first: int
    last: int
    run: str = ""  # its run folder, if that is another one

    def in_words(self) -> str:
        """Say whose they are: `epochs 1 to 30 are those of TRIAL`."""
        which = (
            f"epochs {self.first} to {self.last} are those" if self.last > self.first else f"epoch {self.first} is that"
        )
        return f"{which} of {self.trial}" + (f" in {self.run}" if self.run else "")


@dataclass(frozen=True)
class Record:
    """All that is committed about one trial, together with the weights it names."""

    id: str
    name: str
    seed: int
    axes: dict[str, Any]
    config: dict[str, Any]
    epochs: int
    """Epochs that the trial is to train."""
    status: Status = "planned"
    conditions: dict[str, Any] = field(default_factory=dict)
    """Workers, precision, data fingerprint, versions: what a trial's numbers depend on beside its config."""
    metrics: History = field(default_factory=list)
    """One row for each epoch, oldest first; each has `epoch`."""
    best: Score | None = None
    weights: dict[str, WeightsFile] = field(default_factory=dict)
    """This commit's `last` (to go on from), `best` (to use) and `correct` (the images that `best` gets right)."""
    previous: dict[str, WeightsFile] = field(default_factory=dict)
    """The files of the commit before, kept until the next one is whole."""
    attempts: int = 1
    error: dict[str, Any] | None = None
    former_metrics: list[History] = field(default_factory=list)
    """The histories before the trial had to go back, each longer than those before it: its scores at the rungs are
    those by which it was judged there, however the epochs come out when they are trained again."""
    origins: list[Origin] = field(default_factory=list)
    """Who has trained the epochs that the trial took over, in order; it has trained the others itself."""
    start: StartedFrom | None = None
    """The trial whose first epochs are this one's, if the sweep file says so."""
    generation: int | None = None
    """The generation of the search that proposed it, from 0."""

    def __repr__(self) -> str:
        score = f", {self.best.score:.4g}" if self.best else ""
        return f"<Record {self.id}: {self.status}, epoch {self.epoch} of {self.epochs}{score}>"

    @property
    def epoch(self) -> int:
        """Epochs trained and committed."""
        return len(self.metrics)

    @property
    def own_metrics(self) -> History:
        """The rows of the epochs that the trial has trained itself."""
        taken = {epoch for origin in self.origins for epoch in range(origin.first, origin.last + 1)}
        return [row for row in self.metrics if row["epoch"] not in taken] if taken else self.metrics

    @property
    def judged_metrics(self) -> History:
        """The rows by which the trial is judged: not those of a trial that all of its sweep begin with."""
        return self.metrics[self.start.epoch :] if self.start else self.metrics

    @property
    def has_begun(self) -> bool:
        """Whether there is training to go on from or to show; the first epoch need not be whole."""
        return bool(self.metrics or self.weights)

    @property
    def is_final(self) -> bool:
        """Whether a rerun leaves the trial alone."""
        return self.status in FINAL

    def ended_by(self, error: Mapping[str, Any]) -> dict[str, Any]:
        """Return why the trial's process ended: what it could still note itself, or else `error`."""
        noted = dict(self.error or {})
        return noted if noted.pop(LAST_WORDS, False) else dict(error)

    def with_(self, **changes: Any) -> Record:
        """Return a copy with some fields changed."""
        return replace(self, **changes)

    def cut(self, epoch: int) -> Record:
        """Return a copy that has gone back to an epoch."""
        is_longest = self.epoch > max([epoch, *map(len, self.former_metrics)])
        former = [*self.former_metrics, self.metrics] if is_longest else self.former_metrics
        origins = [replace(each, last=min(each.last, epoch)) for each in self.origins if each.first <= epoch]
        return self.with_(metrics=self.metrics[:epoch], best=None, former_metrics=former, origins=origins)

    def to_bytes(self) -> bytes:
        """Serialise, with a checksum."""
        body = asdict(self)
        for key in ("former_metrics", "origins", "start", "generation"):
            if body[key] in ([], None):  # older readers take no key that they do not know
                del body[key]
        return to_bytes({"format": FORMAT, "sha256": digest(body), "record": body})

    @classmethod
    def from_bytes(cls, data: bytes, trial_id: str | None = None) -> Record:
        """Parse and verify the record of a trial; of any, if no id is given.

        Raises:
            NewerRecordError: a newer raysweep wrote it.
            document.DAMAGE: it is not a whole record of that trial.
        """
        document = json.loads(data)
        body = document["record"]
        if document["format"] != FORMAT:
            raise NewerRecordError(f"is of format {document['format']}, this raysweep reads {FORMAT}")
        verify(body, document["sha256"])
        record: Record = checked(cls, body)
        if trial_id not in (None, record.id):
            raise DamagedFileError(f"is the record of {record.id}")
        if record.status == "finished" and record.epoch < record.epochs:
            raise DamagedFileError(f"finished after {record.epoch} of {record.epochs} epochs")
        return record


def planned_record(trial: Trial) -> Record:
    """The record of a trial before anything was trained."""
    config, axes = trial.config.model_dump(mode="json"), dict(trial.axes)
    return Record(
        trial.id, trial.name, trial.seed, axes, config, trial.epochs, start=trial.start, generation=trial.generation
    )
