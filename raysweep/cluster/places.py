"""Whether the places that a sweep names are the same for every machine of a cluster."""

from __future__ import annotations

import os
from pathlib import Path

from raysweep.sweepfile import Sweep
from raysweep.sweepfile.plan import plan_trials


def storage_problem(sweep: Sweep, sweep_path: str, storage: str | None = None) -> str | None:
    """Return what is wrong with the storage on a cluster of several nodes, or None.

    Args:
        sweep: as loaded.
        sweep_path: of its file.
        storage: of the command line; it and $RAYSWEEP_STORAGE go before the sweep file's.
    """
    given = storage or os.environ.get("RAYSWEEP_STORAGE") or sweep.storage
    if not is_relative(given):
        return None
    return (
        f"{sweep_path}: storage: {given!r} is relative, another folder on each node of the cluster; give one that all "
        "nodes and this machine see: --storage s3://BUCKET/PREFIX, or the absolute path of a shared folder"
    )


def data_problems(sweep: Sweep, sweep_path: str) -> list[str]:
    """Return what is wrong with the data's places where only the sweep file travels, one message a path."""
    paths = sorted({place for trial in plan_trials(sweep) for place in trial.config.paths().items()})
    return [
        f"{sweep_path}: {key}: {path!r} is relative, and this machine's files stay here; give the absolute path "
        "that the nodes see, or leave it out and set RAYSWEEP_DATA where Ray is started (cluster.yaml)"
        for key, path in paths
        if is_relative(path)
    ]


def is_relative(place: str) -> bool:
    """Whether a path or URI means another place in another folder."""
    return "://" not in place and not Path(place).expanduser().is_absolute()


def describe_job(sweep: str, run_folder: str) -> dict[str, str]:
    """What Ray's dashboard shows beside the job of a run: its name and metadata."""
    return {"job_name": sweep, "raysweep": sweep, "raysweep_run_folder": run_folder}
