"""Which tools a run can be exported to, and following a run until it ends."""

from __future__ import annotations

import fcntl
import functools
import hashlib
import importlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from raysweep.errors import StorageError, UserError
from raysweep.results.export.exported import ExportedSweep, exported
from raysweep.results.run import read_results
from raysweep.store import RunFolder

TOOLS = ("mlflow", "wandb", "trackio")
"""Each the name of a module here, of the package it needs, and of raysweep's extra that installs that."""
LOOK_EVERY_S = 5.0
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "WANDB_MODE": "offline"}
"""Keeps the tools from their makers' servers, unless the user's environment says otherwise. They read it as they are
imported: a run that is made with mode="offline" comes too late for what wandb reports about itself."""


def export(folder: RunFolder, tool: str, say: Callable[[str], None]) -> ExportedSweep:
    """Export a run as it is now; what is exported already stays as it is. `say` that another export is waited for.

    Raises:
        UserError: the tool's package is missing.
        StorageError: the folder is not a run folder.
    """
    return _export_alone(folder, tool, _exporter(tool), say)


def follow(folder: RunFolder, tool: str, say: Callable[[str], None]) -> ExportedSweep:
    """Export a run until it ends, its last pass included; a fault of its storage is said and tried again.

    Raises:
        UserError: the tool's package is missing.
    """
    exporter = _exporter(tool)
    say_once = functools.cache(say)
    while True:
        try:
            sweep = _export_alone(folder, tool, exporter, say_once)
            if not sweep.is_driven:
                return sweep
        except StorageError as error:
            say(str(error))
        time.sleep(LOOK_EVERY_S)


def _export_alone(
    folder: RunFolder, tool: str, exporter: Callable[[ExportedSweep], None], say: Callable[[str], None]
) -> ExportedSweep:
    with _alone(folder, tool, say):
        sweep = exported(read_results(folder, live=True, lenient=True))
        exporter(sweep)
    return sweep


@contextmanager
def _alone(folder: RunFolder, tool: str, say: Callable[[str], None]) -> Iterator[None]:
    """Wait until no other process of this user here exports this run to this tool: two would each make its runs.

    They meet where a killed run is gone on with at once, and when a run that exports itself is exported by hand.
    """
    name = hashlib.sha256(folder.path.encode()).hexdigest()[:20]
    path = Path(tempfile.gettempdir(), f"raysweep-export-{os.getuid()}-{name}-{tool}.lock")
    with _open(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"{folder.name}: waiting for another process that exports it to {tool}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _open(path: Path) -> IO[str]:
    try:
        return open(path, "a", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW, 0o600))
    except OSError as error:
        message = f"{path}: export needs this file, for its lock: {error.strerror}; delete it, or set TMPDIR"
        raise UserError(message) from error


def _exporter(tool: str) -> Callable[[ExportedSweep], None]:
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        importlib.import_module(tool)
    except ImportError as error:
        message = f"export to {tool}: {error}; install it: pip install 'raysweep[{tool}]'"
        raise UserError(message) from None
    exporter: Callable[[ExportedSweep], None] = importlib.import_module(f"raysweep.results.export.{tool}").export
    return exporter
