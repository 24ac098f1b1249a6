"""What is known of one trial: its config, status, whole metric history, weights files and error.

A record is one JSON document with a checksum of itself, so that a torn or flipped one is noticed.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any

FORMAT = 1
FINAL = ("finished", "stopped", "diverged")
"""Statuses that a rerun leaves alone."""


class TornRecordError(Exception):
    """A record cannot be read: torn, flipped, or of a newer raysweep."""


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
        document = {"format": FORMAT, "sha256": _digest(body), "record": body}
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
                raise TornRecordError(f"format {document['format']}, this raysweep reads {FORMAT}")
            if document["sha256"] != _digest(body):
                raise TornRecordError("checksum does not match")
            for key in ("weights", "previous"):
                body[key] = {kind: WeightsFile(**entry) for kind, entry in body[key].items()}
            body["best"] = Score(**body["best"]) if body["best"] else None
            return cls(**body)
        except TornRecordError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise TornRecordError(f"not a whole record ({error})") from error


def _digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True, default=str).encode()).hexdigest()
