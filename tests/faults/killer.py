"""Kills its own process in the middle of a write: `raysweep --import killer`, beside a file that says when.

`order.json` in this file's folder: {"victim": "driver" or "trial", "write": its number, from 1, in one process, "step":
one of STEPS}. It is carried out once. On an object store the process only says in `upload.json` who it is and what it
puts, and the server kills it. Beside it the writes of all processes of a kind are counted, one byte each, in
`writes.driver` and `writes.trial`; each trial's process that writes leaves a file in `processes/`, each other rank of a
trial of several workers one in `ranks/`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from torch import distributed

from raysweep.store import filesystem

FOLDER = Path(__file__).parent
STEPS = ("nothing", "half", "unnamed", "done")
"""What there is of the file when the process dies: nothing, half of it or all of it under a temporary name, or all."""
UPLOAD = "upload"
"""The step of an order for an object store."""
KIND = "trial" if "default_worker" in sys.argv[0] else "driver"
write_whole = filesystem.write_whole
put = filesystem.Storage.write
_written = 0


def write_or_die(path: Path, data: bytes) -> None:
    """Write a file, or part of it and die."""
    _count()
    step = _step_to_die_at()
    if step in ("half", "unnamed"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_name(f".{path.name}.00000000.tmp").write_bytes(data if step == "unnamed" else data[: len(data) // 2])
    if step in ("nothing", "half", "unnamed"):
        os.kill(os.getpid(), signal.SIGKILL)
    write_whole(path, data)
    if step == "done":
        os.kill(os.getpid(), signal.SIGKILL)


def put_or_die(storage: filesystem.Storage, path: str, data: bytes) -> None:
    """Put an object; if this is the one to die at, say so to the server."""
    if storage.local is None and ".lease/" not in f"{storage.path}/{path}":
        _count()
        if _step_to_die_at() == UPLOAD:
            told = FOLDER / "upload.json.new"
            told.write_text(json.dumps({"process": os.getpid(), "path": path}))
            told.rename(FOLDER / "upload.json")
    put(storage, path, data)


def _count() -> None:
    global _written
    _written += 1
    if KIND == "trial":
        _leave_name("processes")
    with open(FOLDER / f"writes.{KIND}", "ab", buffering=0) as file:
        file.write(b".")


def _leave_name(folder: str) -> None:
    (FOLDER / folder).mkdir(exist_ok=True)
    (FOLDER / folder / str(os.getpid())).touch()


def _step_to_die_at() -> str | None:
    """The order's step, if it is for this process and this write; nobody else gets it."""
    try:
        order = json.loads((FOLDER / "order.json").read_text())
        if order["victim"] != KIND or order["write"] > _written:
            return None
        (FOLDER / "order.json").unlink()  # of two processes that are at it at once, one finds it gone
    except FileNotFoundError:
        return None
    return str(order["step"])


if filesystem.write_whole.__module__ != __name__:
    filesystem.write_whole = write_or_die
    filesystem.Storage.write = put_or_die  # type: ignore[method-assign]
    if distributed.is_initialized() and distributed.get_rank():  # a rank joins its trial before it imports
        _leave_name("ranks")
