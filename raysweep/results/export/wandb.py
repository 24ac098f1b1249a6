"""To Weights & Biases: a run for each trial, grouped by sweep, in files on this machine unless WANDB_MODE says online.

An offline run lies in a folder that ends in its id, which is made from the run folder and the trial; a file in it tells
what it holds, and one that is older than the trial is replaced. It is made elsewhere and moved there when it is whole:
wandb writes in a process of its own, which may go on for seconds after an export was killed.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import wandb

from raysweep.results.export.exported import ExportedSweep, ExportedTrial

UNFINISHED = "raysweep-unfinished-"
DONE = "raysweep.exported"
"""The file in an offline run's folder that holds the digest of what it holds."""


def export(sweep: ExportedSweep) -> None:
    """Export a run below $WANDB_DIR or the working directory; upload it with `wandb sync`.

    While the run goes on, offline only the trials that have ended: wandb cannot go on with an offline run.
    """
    for unfinished in Path(_directory(), "wandb").glob(f"{UNFINISHED}*"):
        shutil.rmtree(unfinished, ignore_errors=True)
    is_online = os.environ.get("WANDB_MODE") == "online"
    for trial in sweep.trials:
        if is_online:
            _export_trial(sweep, trial, "online", _directory())
        elif trial.has_ended or not sweep.is_driven:
            _export_offline(sweep, trial)


def _export_offline(sweep: ExportedSweep, trial: ExportedTrial) -> None:
    place = Path(_directory(), "wandb")
    there = list(place.glob(f"offline-run-*-{trial.key}"))
    if len(there) == 1 and (there[0] / DONE).is_file() and (there[0] / DONE).read_text() == trial.digest:
        return
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=place, ignore_cleanup_errors=True) as elsewhere:
        folder = Path(_export_trial(sweep, trial, "offline", elsewhere)).parent
        (folder / DONE).write_text(trial.digest)
        for former in there:
            shutil.rmtree(former)
        folder.rename(place / folder.name)


def _directory() -> str:
    return os.environ.get("WANDB_DIR", ".")


def _export_trial(sweep: ExportedSweep, trial: ExportedTrial, mode: Any, directory: str) -> str:
    """Export a trial, online from the first epoch that its run lacks; return the folder of its files."""
    run = wandb.init(
        project=sweep.name,
        group=sweep.name,
        id=trial.key,
        name=trial.id,
        resume="allow" if mode == "online" else None,
        mode=mode,
        dir=directory,
        config={**trial.config, "seed": trial.seed},
        tags=[trial.status],
        notes=sweep.description,
        settings=wandb.Settings(silent=True, x_disable_stats=True, console="off", disable_git=True),
    )
    for epoch, row in trial.curves.items():
        if epoch >= run.step:
            run.log(row, step=epoch)
    summary = {"status": trial.status, "rank": trial.rank, "best_weights": trial.weights, "error": trial.error}
    final = {f"final/{tag}": value for tag, value in trial.final.items()}
    run.summary.update({key: value for key, value in {**summary, **final}.items() if value is not None})
    files = run.dir
    run.finish(exit_code=1 if trial.status in ("diverged", "failed") else 0)
    return str(files)
