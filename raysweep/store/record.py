"""What is known of one trial: its config, status, whole metric history, weights files and error.

A record is one JSON document with a checksum of itself, so that a torn or flipped one is noticed.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from raysweep.store.sealed import digest

FORMAT = 1
RECORD, COPY = "record.json", "record.copy.json"
"""The names of a trial's record, and of the same again, in its folder."""
FINAL = ("finished", "stopped", "diverged")
"""Statuses that a rerun leaves alone."""


class TornRecordError(Exception):
    """A record cannot be read: torn or flipped."""


class NewerRecordError(TornRecordError):
    """A record is of a format that this raysweep does not know."""


@dataclass(frozen=True)
class WeightsFile:
    """A weights file of a commit: name in the trial's folder, sha256 and size in bytes, epoch it speaks of."""

    file: str
    sha256: str
    bytes: int
    epoch: int


@dataclass(frozen=True)
class Score:
    """The best epoch's score, and which weights reached it."""

    epoch: int
    score: float
    averaged: bool
    val_acc: float | None
    """Validation accuracy (0..1) of those weights."""


@dataclass(frozen=True)
class Record:
    """All that is committed about one trial, together with the weights it names."""

    id: str
    name: str
    seed: int
    axes: dict[str, Any]
    config: dict[str, Any]
    epochs: int
    """How many the trial is to train."""
    status: str = "planned"
    conditions: dict[str, Any] = field(default_factory=dict)
    """Workers, precision, data fingerprint, versions: what must stay the same for a trial to go on."""
    metrics: list[dict[str, float]] = field(default_factory=list)
    """One row an epoch, oldest first; each has `epoch`."""
    best: Score | None = None
    weights: dict[str, WeightsFile] = field(default_factory=dict)
    """`last` (to go on from) and `best` (to use), of this commit."""
    previous: dict[str, WeightsFile] = field(default_factory=dict)
    """Those of the commit before, kept until the next one is whole."""
    attempts: int = 1
    error: dict[str, Any] | None = None

    @property
    def epoch(self) -> int:
        """Epochs trained and committed."""
        return len(self.metrics)

    @property
    def is_final(self) -> bool:
        """Whether a rerun leaves the trial alone."""
        return self.status in FINAL

    def with_(self, **changes: Any) -> Record:
        """Return a copy with some fields changed."""
        return replace(self, **changes)

    def to_bytes(self) -> bytes:
        """Serialise, with a checksum."""
        body = asdict(self)
        document = {"format": FORMAT, "sha256": digest(body), "record": body}
        return json.dumps(document, indent=1, default=str).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Record:
        """Parse and verify.

        Raises:
            TornRecordError: the bytes are not a whole record of this format.
        """
        try:
            document = json.loads(data)
            body = document["record"]
            if document["format"] != FORMAT:
                raise NewerRecordError(f"is of format {document['format']}, this raysweep reads {FORMAT}")
            if document["sha256"] != digest(body):
                raise TornRecordError("its checksum does not match")
            for key in ("weights", "previous"):
                body[key] = {kind: WeightsFile(**entry) for kind, entry in body[key].items()}
            body["best"] = Score(**body["best"]) if body["best"] else None
            return cls(**body)
        except TornRecordError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise TornRecordError(f"not a whole record ({error})") from error


def read_local_record(folder: Path) -> Record | None:
    """Read the record of a trial's local folder, or its copy; None if neither is whole and of this format."""
    for name in (RECORD, COPY):
        try:
            record = Record.from_bytes((folder / name).read_bytes())
        except (OSError, TornRecordError):
            continue
        if record.id == folder.name:
            return record
    return None
