"""Kills processes where a state is kept or taken over: `raysweep --import fork_killer`, beside a file that says when.

`orders.json` in this file's folder is a list of {"at": a moment, "nth": the how many-th since the order before, "what":
one of DEEDS}, carried out one after the other by trials' processes, each once. `driver.pid` says who the driver is, as
long as it lives; `N.done` that order N, from 0, has been carried out.
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
"""Before a state is kept; when some of its files are there, without its record; when it is whole; when another trial
has read it; when that trial has committed it."""
DEEDS = ("worker", "driver", "both", "tear", "delete")
"""Who is killed; or all states, which lie in the local folder runs/, are torn or deleted."""


def at(moment: str) -> None:
    """Carry the next order out if it is for now."""
    orders = json.loads((FOLDER / "orders.json").read_text()) if (FOLDER / "orders.json").exists() else []
    number = len(list(FOLDER.glob("*.done")))
    if number == len(orders) or orders[number]["at"] != moment or not (FOLDER / "driver.pid").exists():
        return
    with open(FOLDER / f"{number}.times", "ab", buffering=0) as file:
        file.write(b".")
        times = file.tell()
    if times < orders[number]["nth"]:
        return
    try:
        (FOLDER / f"{number}.done").mkdir()
    except FileExistsError:  # of two processes that are at it at once, one is too late
        return
    carry_out(orders[number]["what"])


def carry_out(deed: str) -> None:
    """Kill, tear or delete."""
    if deed in ("tear", "delete"):
        for path in FOLDER.glob(f"runs/*/{STATES}/*/*"):
            tear(path) if deed == "tear" else shutil.rmtree(path.parent, True)
    if deed in ("driver", "both"):
        driver = int((FOLDER / "driver.pid").read_text())
        (FOLDER / "driver.pid").unlink()
        os.kill(driver, signal.SIGKILL)
    if deed in ("worker", "both"):
        os.kill(os.getpid(), signal.SIGKILL)


def tear(path: Path) -> None:
    """Cut a state's file off, which may be a second name of a trial's own: that stays whole."""
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[:-9])


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
    StateStore.keep, StateStore._write = keep_or_die, write_or_die  # type: ignore[assignment, method-assign]
    StateStore.find = find_or_die  # type: ignore[method-assign]
    trial._Run._take_over = take_over_or_die  # type: ignore[method-assign]
