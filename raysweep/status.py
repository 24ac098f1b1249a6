"""How far a run is, from its run folder alone: `raysweep status`."""

from __future__ import annotations

import json

from rich.console import Console

from raysweep.results import as_json, read_results
from raysweep.store import RunFolder
from raysweep.sweepfile import load_sweep, storage_of
from raysweep.table import print_trials


def print_status(sweep_path: str, storage: str | None = None, as_json_document: bool = False) -> int:
    """Print the trials of the last run, best first; return the exit code.

    Raises:
        StorageError: the sweep was never run here.
    """
    sweep = load_sweep(sweep_path)
    result = read_results(RunFolder(storage_of(sweep, sweep_path, storage), sweep.name))
    if as_json_document:
        print(json.dumps(as_json(result)))
        return 0
    print_trials(result.trials)
    done = sum(record.is_final for record in result.trials)
    state = "running" if result.folder.is_driven() else "not running"
    Console().print(f"{done} of {len(result.trials)} trials done, {state}; run folder: {result.path}", soft_wrap=True)
    return 0
