"""Checks that the paths of a sweep mean the same place on every machine of a cluster."""

from __future__ import annotations

import os
from pathlib import Path

from raysweep.sweepfile import Sweep
from raysweep.sweepfile.plan import plan_trials
from raysweep.sweepfile.start import paths_of

OR_FOR = {"data.path": ", or leave it out and set RAYSWEEP_DATA where Ray is started (cluster.yaml)"}
"""What else helps where a path is relative, by key."""


def storage_problem(sweep: Sweep, sweep_path: str, storage: str | None = None) -> str | None:
    """Return why a sweep's storage cannot be used on a cluster of several nodes, or None."""
    given = storage or os.environ.get("RAYSWEEP_STORAGE") or sweep.storage
    if not is_relative(given):
        return None
    return (
        f"{sweep_path}: storage: {given!r} is relative, so it means a different folder on each node; give one that "
        "this machine and all nodes see: --storage s3://BUCKET/PREFIX, or the absolute path of a shared folder"
    )


def data_problems(sweep: Sweep, sweep_path: str) -> list[str]:
    """Return why data cannot be found where only the sweep file is sent, one message for each path."""
    of_start = {("start.run", sweep.start.run)} if sweep.start and sweep.start.run else set()
    paths = sorted({*paths_of(sweep, plan_trials(sweep))} | of_start)
    return [
        f"{sweep_path}: {key}: {path!r} is relative, and this machine's files stay here; give the absolute path "
        f"that the nodes see{OR_FOR.get(key, '')}"
        for key, path in paths
        if is_relative(path)
    ]


def is_relative(place: str) -> bool:
    """Whether a path depends on the working directory."""
    return "://" not in place and not Path(place).expanduser().is_absolute()


def is_url(address: str) -> bool:
    """Whether an address is a dashboard's URL, and not one of Ray's own."""
    return address.startswith(("http://", "https://"))


def describe_job(sweep: str, run_folder: str) -> dict[str, str]:
    """Return the name and metadata that Ray's dashboard shows beside a run's job."""
    return {"job_name": sweep, "raysweep": sweep, "raysweep_run_folder": run_folder}
