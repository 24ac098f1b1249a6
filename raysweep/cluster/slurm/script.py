"""The script of a Slurm job that runs a sweep. In: what the sweep file says of the cluster. Out: text for `sbatch`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from raysweep.errors import UserError
from raysweep.sweepfile.cluster import Cluster, bytes_of, seconds_of

STORE_SHARE = 0.3
"""The share of a node's memory that Ray's object store takes by default; Ray itself sees all memory of the machine."""


def job_script(name: str, run_folder: str, words: Sequence[str], cluster: Cluster, folder: Path, python: str) -> str:
    """Return the script of a job that runs a sweep.

    Args:
        name: the sweep's.
        run_folder: by which another `submit` finds the job.
        words: what raysweep is to be called with: `run`, the sweep file's absolute path and so on.
        cluster: what to ask Slurm for; `why_not` says that it can be asked for.
        folder: the working directory, which every node sees; the job's output goes there.
        python: the interpreter that has raysweep, on every node.
    """
    lines = [f"#SBATCH {option}" for option in _options(name, run_folder, cluster, folder)]
    interpreter = _in_image(cluster, run_folder, folder) if cluster.image else [python]
    store = []
    if cluster.memory_per_node:
        store = ["--object-store-memory", str(int(STORE_SHARE * bytes_of(cluster.memory_per_node)))]
    variables = {
        "nodes": str(cluster.nodes),
        "gpus": str(cluster.gpus_per_node),
        "signal_seconds": str(cluster.slurm.signal_seconds),
        "python": f"({shlex.join(interpreter)})",
        "sweep": f"({shlex.join(words)})",
        "ray_options": f"({shlex.join(store)})",
    }
    head = [
        "#!/bin/bash",
        f"# Made by `raysweep submit --slurm`: runs the sweep {name} under Slurm, or goes on with it.",
        *lines,
        "",
        *cluster.slurm.setup,
        *(f"{key}={value}" for key, value in variables.items()),
    ]
    return "\n".join(head) + "\n\n" + files(__package__).joinpath("job.sh").read_text()


def why_not(cluster: Cluster) -> list[str]:
    """Return why Slurm cannot be asked for these machines: a message a fault."""
    problems = []
    if cluster.gpus_per_node is None:
        problems.append(
            "cluster.gpus_per_node is not set: say how many GPUs of each node the job gets (--gpus-per-node 4), or 0 "
            "to train on CPUs"
        )
    limit, warning = cluster.slurm.time, cluster.slurm.signal_seconds
    if limit and seconds_of(limit) <= warning:
        problems.append(
            f"cluster.slurm.time: {limit} is no longer than signal_seconds, {warning} s before its end at which the "
            "trials are told to commit; give more time"
        )
    return problems


def _options(name: str, run_folder: str, cluster: Cluster, folder: Path) -> list[str]:
    """Return the options of sbatch, those of the user's own last, so that they count."""
    slurm = cluster.slurm
    has_part = cluster.cpus_per_node is not None
    chosen = {
        "job-name": name,
        "comment": comment_of(run_folder),
        "chdir": str(folder),
        "output": f"slurm-{name}-%j.out",
        "nodes": cluster.nodes,
        "ntasks-per-node": 1,
        "cpus-per-task": cluster.cpus_per_node,
        "gres": f"gpu:{cluster.gpus_per_node}" if cluster.gpus_per_node else None,
        "mem": cluster.memory_per_node or (None if has_part else 0),
        "partition": slurm.partition,
        "account": slurm.account,
        "time": slurm.time,
        "signal": f"B:USR1@{slurm.signal_seconds}",
        "open-mode": "append",
    }
    flags = [*([] if has_part else ["--exclusive"]), "--requeue", "--no-kill"]
    return [
        *(f"--{key}={_quoted(value)}" for key, value in chosen.items() if value is not None),
        *flags,
        *slurm.options,
    ]


def comment_of(run_folder: str) -> str:
    """Return the comment of a job that runs a sweep into this run folder."""
    return f"raysweep {run_folder}"


def _in_image(cluster: Cluster, run_folder: str, folder: Path) -> list[str]:
    """Return the words before Python's own where it is in an Apptainer image."""
    seen = dict.fromkeys([str(folder), *([] if "://" in run_folder else [str(Path(run_folder).parent)])])
    gpus = ["--nv"] if cluster.gpus_per_node else []
    return ["apptainer", "exec", *gpus, "--bind", ",".join(seen), str(cluster.image), "python"]


def _quoted(value: object) -> str:
    text = str(value)
    if '"' in text or "\n" in text:
        raise UserError(f"{text!r} has a quotation mark or a line break, which the options of a Slurm job cannot have")
    return f'"{text}"' if any(letter in text for letter in " '\\#;%&()$`") and "%j" not in text else text
