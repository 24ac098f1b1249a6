"""newest.json: the epochs that results.parquet does not have yet, so that a reader sees each a second after it ended.

The driver replaces the file about twice a second while there is something new. It removes it at the end of the run,
once results.parquet has all of it, and at the beginning, since a killed run has left its own. The file holds a trial's
epochs from the first one that is new since the results.parquet before the last, so a reader may find either of the two
beside it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from raysweep.errors import StorageError
from raysweep.store.document import checked, seal, unseal
from raysweep.store.runfolder import RunFolder

FILE = "newest.json"
MOST_EPOCHS = 20_000
"""Epochs that the file holds at most, about 4 MB; trials beyond that are seen once results.parquet has them."""


@dataclass(frozen=True)
class Tail:
    """How a trial stands, and the end of its history."""

    status: str
    first: int  # the epoch of the first row
    curves: dict[str, list[float | None]]  # values by metric, a value for each epoch from `first` on

    @classmethod
    def of(cls, status: str, history: Sequence[Mapping[str, float]], first: int) -> Tail:
        """Return the end of a history, from the epoch `first` on."""
        rows = history[first - 1 :]
        tags = dict.fromkeys(tag for row in rows for tag in row)
        return cls(status, first, {tag: [row.get(tag) for row in rows] for tag in tags})

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The metrics of each epoch, oldest first."""
        return [dict(zip(self.curves, values, strict=True)) for values in zip(*self.curves.values(), strict=True)]

    def after(self, history: list[dict[str, float]]) -> list[dict[str, float]]:
        """Return a history with this end; the history itself if epochs between the two are missing."""
        return history if self.first > len(history) + 1 else [*history[: self.first - 1], *self.rows]


def write_newest(folder: RunFolder, tails: Mapping[str, Tail]) -> None:
    """Write the ends of trials' histories, by trial id."""
    body = seal({"trials": {id: asdict(tail) for id, tail in tails.items()}})
    folder.files.write(FILE, json.dumps(body, separators=(",", ":")).encode())


def remove_newest(folder: RunFolder) -> None:
    """Remove the file: results.parquet and the records have all that there is.

    If the storage fails, it stays. That harms nobody: without a driver it is not read, and the next one removes it.
    """
    with suppress(StorageError):
        folder.files.delete(FILE)


def read_newest(folder: RunFolder) -> dict[str, Tail]:
    """Return the ends of trials' histories, by trial id; none if there is no file, or if it is damaged."""

    def parse(data: bytes) -> dict[str, Tail]:
        tails: dict[str, Tail] = checked(dict[str, Tail], unseal(json.loads(data))["trials"])
        return tails

    return folder.read(FILE, parse, "the run writes it anew") or {}
