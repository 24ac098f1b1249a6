"""To Weights & Biases: a run for each trial, grouped by sweep, in files on this machine unless WANDB_MODE says online.

An offline run lies in a folder that ends in its id, which is made from the run folder and the trial. An export that
was cut off, or is older than the trial, is replaced as a whole; a file in it, written last, tells what it holds.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import wandb

from raysweep.results.export.exported import ExportedSweep, ExportedTrial

DONE = "raysweep.exported"
"""The file in an offline run's folder that holds the digest of what it holds."""


def export(sweep: ExportedSweep) -> None:
    """Export a run below $WANDB_DIR or the working directory; upload it with `wandb sync`.

    While the run goes on, offline only the trials that have ended: wandb cannot go on with an offline run.
    """
    is_online = os.environ.get("WANDB_MODE") == "online"
    for trial in sweep.trials:
        if is_online:
            _export_trial(sweep, trial, "online")
        elif trial.has_ended or not sweep.is_driven:
            _export_offline(sweep, trial)


def _export_offline(sweep: ExportedSweep, trial: ExportedTrial) -> None:
    there = list(Path(os.environ.get("WANDB_DIR", "."), "wandb").glob(f"offline-run-*-{trial.key}"))
    if len(there) == 1 and (there[0] / DONE).is_file() and (there[0] / DONE).read_text() == trial.digest:
        return
    for folder in there:
        shutil.rmtree(folder)
    folder = Path(_export_trial(sweep, trial, "offline")).parent
    (folder / DONE).write_text(trial.digest)


def _export_trial(sweep: ExportedSweep, trial: ExportedTrial, mode: Any) -> str:
    """Export a trial, online from the first epoch that its run lacks; return the folder of its files."""
    run = wandb.init(
        project=sweep.name,
        group=sweep.name,
        id=trial.key,
        name=trial.id,
        resume="allow" if mode == "online" else None,
        mode=mode,
        dir=os.environ.get("WANDB_DIR", "."),
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
