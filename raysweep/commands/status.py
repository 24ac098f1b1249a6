"""How far a run is, from its run folder alone: `raysweep status`."""

from __future__ import annotations

import json
from collections.abc import Sequence

from rich.console import Console

from raysweep.results.run import as_json, read_results
from raysweep.results.table import print_evaluation, print_trials
from raysweep.store import RunFolder
from raysweep.sweepfile import load_sweep, storage_of


def print_status(
    sweep_path: str, overrides: Sequence[str] = (), storage: str | None = None, as_json_document: bool = False
) -> int:
    """Print the trials of the last run, best first; return the exit code.

    Args:
        sweep_path: of the sweep file.
        overrides: `key=value` each; of them, `name` and `storage` tell which run folder it is.
        storage: where the run folder lies; default: $RAYSWEEP_STORAGE, else the sweep file's.
        as_json_document: print one JSON document.

    Raises:
        StorageError: the sweep was never run here.
    """
    sweep = load_sweep(sweep_path, overrides)
    result = read_results(RunFolder(storage_of(sweep, sweep_path, storage), sweep.name), live=True, lenient=True)
    for path, why in result.folder.damaged.items():
        Console(stderr=True).print(f"{path}: {why}", highlight=False, markup=False, soft_wrap=True)
    if as_json_document:
        print(json.dumps(as_json(result)))
        return 0
    print_trials(result.trials)
    print_evaluation(result.evaluation)
    done = sum(record.is_final for record in result.trials)
    state = "running" if result.folder.is_driven() else "not running"
    if result.cut_short:
        Console().print(f"{result.cut_short}: the ranking is that of trials cut short", soft_wrap=True)
    Console().print(f"{done} of {len(result.trials)} trials done, {state}; run folder: {result.path}", soft_wrap=True)
    return 0
