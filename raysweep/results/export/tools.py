"""Which tools a run can be exported to, and following a run until it ends."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Sequence

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
    sweep = exported(read_results(folder, live=True, lenient=True))
    for exporter in exporters:
        exporter(sweep)
    return sweep


def _exporter(tool: str) -> Callable[[ExportedSweep], None]:
    try:
        importlib.import_module(tool)
    except ImportError as error:
        message = f"export to {tool}: {error}; install it: pip install 'raysweep[{tool}]'"
        raise UserError(message) from None
    exporter: Callable[[ExportedSweep], None] = importlib.import_module(f"raysweep.results.export.{tool}").export
    return exporter
