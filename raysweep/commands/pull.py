"""The best checkpoint, as a folder that is enough to load the network: `raysweep pull`.

model.safetensors, config.yaml, classes.txt, metrics.json; `open_checkpoint(folder)` and `load_model(folder)` read it
again and need no Ray.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from raysweep.errors import UserError
from raysweep.results.checkpoint import write_checkpoint
from raysweep.results.ranking import can_win
from raysweep.results.run import read_results
from raysweep.store import RunFolder
from raysweep.sweepfile import load_sweep, storage_of
from raysweep.terminal import format_bytes, step


def pull_best(
    sweep_path: str,
    overrides: Sequence[str] = (),
    to: str | None = None,
    rank: int = 1,
    as_json: bool = False,
    storage: str | None = None,
) -> int:
    """Copy the weights of the trial ranked `rank` (1: the best) into a folder; return the exit code.

    Args:
        sweep_path: of the sweep file.
        overrides: `key=value` each; of them, `name` and `storage` tell which run folder it is.
        to: the folder; default: `pulled/<sweep>/<trial>` below the working directory.
        rank: which of the ranking.
        as_json: print `{"id", "val_acc", "path"}` on stdout.
        storage: where the run folder lies; default: $RAYSWEEP_STORAGE, else the sweep file's.

    Raises:
        UserError: there is no such trial, or the folder holds something else.
    """
    sweep = load_sweep(sweep_path, overrides)
    folder = RunFolder(storage_of(sweep, sweep_path, storage), sweep.name)
    result = read_results(folder)
    ranked = [record for record in result.trials if can_win(record)]
    if not 1 <= rank <= len(ranked):
        raise UserError(f"--rank {rank}: the ranking of {folder.path} has {len(ranked)} trials with a score")
    record = ranked[rank - 1]
    target = Path(to) if to else Path("pulled") / sweep.name / record.id
    size = record.weights["best"].bytes if "best" in record.weights else 0
    with step(f"pulling {record.id}, {format_bytes(size)}"):
        write_checkpoint(target, folder, record, result.evaluation)
    best = record.best
    answer = {"id": record.id, "val_acc": best.val_acc if best else None, "path": str(target.absolute())}
    if as_json:
        print(json.dumps(answer))
    else:
        acc = f", val_acc {best.val_acc:.4f}" if best and best.val_acc is not None else ""
        Console().print(f"{target}: {record.id}{acc}", highlight=False, markup=False, soft_wrap=True)
    return 0
