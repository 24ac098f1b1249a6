"""Kills processes where a state is kept or taken over: `raysweep --import fork_killer`, beside a file that says when.

`order.json` in this file's folder: {"at": one of MOMENTS, "nth": how often that has happened before, "what": one of
DEEDS}. It is carried out once, by a trial's process; `driver.pid` says who the driver is.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

from raysweep.store.states import FOLDER as STATES
from raysweep.store.states import StateStore
from raysweep.worker import trial

FOLDER = Path(__file__).parent
MOMENTS = ("keeps", "kept in part", "kept", "found", "taken over")
"""Before a state is kept; when its weights are there, without its record; when it is whole; when another trial has read
it; when that trial has committed it."""
DEEDS = ("worker", "driver", "both", "tear", "delete")
"""Who is killed; or all states, which lie in the local folder runs/, are torn or deleted."""


def at(moment: str) -> None:
    """Carry the order out if it is for now."""
    with open(FOLDER / f"{moment}.times", "ab", buffering=0) as file:
        file.write(b".")
        times = file.tell()
    try:
        order = json.loads((FOLDER / "order.json").read_text())
        if order["at"] != moment or order["nth"] > times:
            return
        (FOLDER / "order.json").unlink()  # of two processes that are at it at once, one finds it gone
    except FileNotFoundError:
        return
    carry_out(order["what"])


def carry_out(deed: str) -> None:
    if deed in ("tear", "delete"):
        for path in FOLDER.glob(f"runs/*/{STATES}/*/*"):
            path.write_bytes(path.read_bytes()[:-9]) if deed == "tear" else shutil.rmtree(path.parent, True)
    if deed in ("driver", "both"):
        os.kill(int((FOLDER / "driver.pid").read_text()), signal.SIGKILL)
    if deed in ("worker", "both"):
        os.kill(os.getpid(), signal.SIGKILL)


keep, write, find, take_over = StateStore.keep, StateStore._write, StateStore.find, trial._Run._take_over


def keep_or_die(self: StateStore, *state: Any) -> None:
    at("keeps")
    keep(self, *state)
    at("kept")


def write_or_die(self: StateStore, *file: Any) -> Any:
    written = write(self, *file)
    at("kept in part")
    return written


def find_or_die(self: StateStore, key: str) -> Any:
    found = find(self, key)
    if found is not None:
        at("found")
    return found


def take_over_or_die(self: Any) -> bool:
    taken = take_over(self)
    if taken:
        at("taken over")
    return taken


if "default_worker" not in sys.argv[0]:
    (FOLDER / "driver.pid").write_text(str(os.getpid()))
elif keep.__module__ != __name__:
    StateStore.keep, StateStore._write, StateStore.find = keep_or_die, write_or_die, find_or_die  # type: ignore[method-assign]
    trial._Run._take_over = take_over_or_die  # type: ignore[method-assign]
