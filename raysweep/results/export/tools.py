"""Which tools a run can be exported to, and following a run until it ends."""

from __future__ import annotations

import fcntl
import hashlib
import importlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from raysweep.errors import StorageError, UserError
from raysweep.results.export.exported import ExportedSweep, exported
from raysweep.results.run import read_results
from raysweep.store import RunFolder

TOOLS = ("mlflow", "wandb", "trackio")
"""Each the name of a module here, of the package it needs, and of raysweep's extra that installs that."""
LOOK_EVERY_S = 5.0


def export(folder: RunFolder, tools: Sequence[str]) -> ExportedSweep:
    """Export a run as it is now; what is exported already stays as it is.

    Raises:
        UserError: a tool's package is missing.
        StorageError: the folder is not a run folder.
    """
    return _export_to(folder, [_exporter(tool) for tool in tools])


def follow(folder: RunFolder, tools: Sequence[str], say: Callable[[str], None]) -> ExportedSweep:
    """Export a run until it ends, its last pass included; a fault of its storage is said and tried again.

    Raises:
        UserError: a tool's package is missing.
    """
    exporters = [_exporter(tool) for tool in tools]
    while True:
        try:
            sweep = _export_to(folder, exporters)
            if not sweep.is_driven:
                return sweep
        except StorageError as error:
            say(str(error))
        time.sleep(LOOK_EVERY_S)


def _export_to(folder: RunFolder, exporters: Sequence[Callable[[ExportedSweep], None]]) -> ExportedSweep:
    with _alone(folder):
        sweep = exported(read_results(folder, live=True, lenient=True))
        for exporter in exporters:
            exporter(sweep)
    return sweep


@contextmanager
def _alone(folder: RunFolder) -> Iterator[None]:
    """Wait until no other process on this machine exports this run: two at once would each make its runs.

    They meet where a killed run is gone on with at once, and when a run that exports itself is exported by hand.
    """
    name = hashlib.sha256(folder.path.encode()).hexdigest()[:20]
    path = Path(tempfile.gettempdir(), f"raysweep-export-{os.getuid()}-{name}.lock")
    with open(path, "a", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW, 0o600)) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _exporter(tool: str) -> Callable[[ExportedSweep], None]:
    try:
        importlib.import_module(tool)
    except ImportError as error:
        message = f"export to {tool}: {error}; install it: pip install 'raysweep[{tool}]'"
        raise UserError(message) from None
    exporter: Callable[[ExportedSweep], None] = importlib.import_module(f"raysweep.results.export.{tool}").export
    return exporter
