"""What a run has cost so far, over all its reruns (`spent.json`); it decides about `limits` only."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from raysweep.store.document import checked, seal, to_bytes, unseal
from raysweep.store.runfolder import RunFolder

FILE = "spent.json"


@dataclass
class Spent:
    """The cost of a run, and how its last driver ended."""

    wall_s: float = 0.0
    """Seconds during which trials ran: from the first one's start to the last one's end."""
    gpu_s: float = 0.0
    """Seconds during which trials held GPUs, times their GPUs."""
    cut_short: str | None = None
    """The limit that ended the last run, in words; if there is one, the ranking is of trials that were cut short."""


def read_spent(folder: RunFolder) -> Spent:
    """Return what a run has cost: nothing if it never trained, or if the file is damaged."""
    return folder.read(FILE, _parse, "limits count from zero") or Spent()


def _parse(data: bytes) -> Spent:
    spent: Spent = checked(Spent, unseal(json.loads(data)))
    return spent


def write_spent(folder: RunFolder, spent: Spent) -> None:
    """Write spent.json."""
    folder.files.write(FILE, to_bytes(seal(asdict(spent))))
