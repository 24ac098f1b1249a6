"""What a run has cost so far, over all its reruns: `spent.json`, which nothing but `limits` is decided by."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from raysweep.store.runfolder import RunFolder
from raysweep.store.sealed import TornFileError, from_bytes, to_bytes

FILE = "spent.json"


@dataclass
class Spent:
    """Seconds; and, if a limit ended the last run, which one."""

    wall_s: float = 0.0
    """That the run lasted, from the first trial's start to the last one's end."""
    gpu_s: float = 0.0
    """That trials held GPUs, times the GPUs."""
    cut_short: str | None = None
    """The limit that ended the last run, in words: the ranking is that of trials cut short."""


def read_spent(folder: RunFolder) -> Spent:
    """Return what a run has cost; nothing if it never trained, or the file is damaged."""
    try:
        return Spent(**from_bytes(folder.files.read(FILE)))
    except FileNotFoundError:
        return Spent()
    except (TornFileError, TypeError) as error:
        folder.damaged[FILE] = f"{error}; limits count from nothing"
        return Spent()


def write_spent(folder: RunFolder, spent: Spent) -> None:
    """Keep it."""
    folder.files.write(FILE, to_bytes(asdict(spent)))
