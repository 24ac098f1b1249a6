"""Tells from Ray's words how a trial's process ended, and whose fault that was."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray._private import state
from ray.tune.experiment import Trial as TuneTrial

NODE_DIED, STORAGE, STALLED = "NodeDied", "StorageError", "Stalled"

# Once they are an actor's (ray.exceptions.ActorDiedError), Ray tells these causes apart in words alone.
STORAGE_TEXT = re.compile(r"^(?:ray\.\S+: )?raysweep\.errors\.StorageError: (.+)$", re.MULTILINE)
UNFIT_TEXT = re.compile(
    r"^(?:ray\.\S+: )?raysweep\.errors\.UnfitNodeError: (?:\[node ([0-9a-f]+)\] )?(.+)$", re.MULTILINE
)
"""The node's id, where it may be another one than the process ran on, and the message."""
NODE_TEXT = re.compile(r"node has died|node is dead|node was terminated|NodeDiedError|temporarily unavailable", re.I)
"""An actor is "unavailable" if its node does not answer; a process that died on a live node is said to have died."""
ACTOR_TEXT = re.compile(r"actor_id[:=] ?([0-9a-f]{32})")
MEMORY_TEXT = re.compile(r"running low on memory|memory pressure|OutOfMemoryError|out of memory \(OOM\)", re.IGNORECASE)


@dataclass(frozen=True)
class Failure:
    """How a trial's process ended."""

    type: str  # as in the record: ProcessDied, OutOfMemory, Stalled, NodeDied, StorageError
    message: str
    detail: str  # Ray's own words
    advice: str = ""
    node: str = ""  # the address of the node that the process ran on, where Ray knows it

    @property
    def summary(self) -> str:
        """What happened, and where."""
        return f"{self.message} (on {self.node})" if self.node else self.message

    @property
    def counts(self) -> bool:
        """Whether it is the trial's own: a node that goes away, or storage that takes no commits, is not."""
        return self.type not in (NODE_DIED, STORAGE)

    def as_error(self) -> dict[str, Any]:
        """Return it as the error of a record."""
        message = f"{self.summary}; {self.advice}" if self.advice else self.summary
        return {"type": self.type, "message": message, "traceback": self.detail, "node": self.node}


def stalled(minutes: float, text: str) -> Failure:
    """Return the failure of a trial that was ended since it did not report for so long; `text`: Ray's words."""
    return Failure(STALLED, f"no report for {minutes:g} minutes (limits.stall_minutes)", text)


def failure_of(text: str, batch_size: int | None) -> Failure:
    """Tell from Ray's words what happened to the process of a trial; `batch_size` is its setting, if it has one."""
    if found := STORAGE_TEXT.findall(text):
        return Failure(STORAGE, found[-1].strip(), text)
    if found := UNFIT_TEXT.findall(text):
        return Failure("UnfitNode", found[-1][1].strip(), text)
    if MEMORY_TEXT.search(text):
        by = "" if batch_size is None else f" with batch_size {batch_size}"
        smaller = "settings that need less memory are" if batch_size is None else "a smaller batch_size or network is"
        message = f"out of memory{by} (Ray ended its process: the node ran low on it)"
        return Failure("OutOfMemory", message, text, f"{smaller} another trial")
    if NODE_TEXT.search(text):
        return Failure(NODE_DIED, "its node went away", text)
    advice = "ended by the kernel for want of memory (then dmesg says so), by a signal, or by a crash of native code"
    return Failure("ProcessDied", "its process died", text, advice)


def went_with_its_node(trial: TuneTrial) -> bool:
    """Whether a trial's process ended for the last time because its node went away."""
    return bool(NODE_TEXT.search(last_words(trial)))


def last_words(trial: TuneTrial) -> str:
    """Return what Ray said when a trial's process ended for the last time."""
    try:
        return Path(trial.error_file).read_text().rpartition("Failure # ")[2]
    except (OSError, TypeError):
        return ""


def find_node(text: str) -> str:
    """Return the id of the node to which Ray's words about the end of a process point, or "" if it is not known.

    That is the node that is said to be unfit, or the one on which the process ran. With several ranks the last actor
    that is named is the one whose death ended the others.
    """
    unfit = UNFIT_TEXT.findall(text)
    if unfit and unfit[-1][0]:
        return str(unfit[-1][0])
    named = ACTOR_TEXT.findall(text)
    actor: dict[str, Any] = state.actors(named[-1]) if named else {}
    node: str = actor.get("Address", {}).get("NodeID", "")
    return node
