"""The script of a Slurm job that runs a sweep. In: what the sweep file says of the cluster. Out: text for `sbatch`."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path

from raysweep.errors import UserError
from raysweep.sweepfile import Sweep
from raysweep.sweepfile.cluster import Cluster, seconds_of

OWN = {
    "--nodes": "cluster.nodes",
    "-N": "cluster.nodes",
    "--signal": "cluster.slurm.signal_seconds",
    "--comment": "",
    "--chdir": "",
    "-D": "",
    "--output": "",
    "-o": "",
    "--job-name": "",
    "-J": "",
    "--ntasks": "",
    "-n": "",
    "--ntasks-per-node": "",
    "--open-mode": "",
    "--no-requeue": "",
    "--array": "",
    "-a": "",
}
"""Options of sbatch that a job depends on, each with the key that stands for it, if there is one."""


def job_script(
    name: str,
    run_folder: str,
    words: Sequence[str],
    cluster: Cluster,
    folder: Path,
    python: str,
    places: Iterable[str] = (),
) -> str:
    """Return the script of a job that runs a sweep.

    Args:
        name: the sweep's.
        run_folder: by which another `submit` finds the job.
        words: what raysweep is to be called with: `run`, the sweep file's absolute path and so on.
        cluster: what to ask Slurm for; `why_not` says that it can be asked for.
        folder: the working directory, which every node sees; the job's output goes there.
        python: the interpreter that has raysweep, on every node.
        places: folders and files that the sweep names; an image has to see them.
    """
    interpreter = _in_image(cluster, [str(folder), run_folder, *places]) if cluster.image else [python]
    variables = {
        "nodes": str(cluster.nodes),
        "gpus": str(cluster.gpus_per_node),
        "signal_seconds": str(cluster.slurm.signal_seconds),
        "run_folder": shlex.quote("" if "://" in run_folder else run_folder),
        "python": f"({shlex.join(interpreter)})",
        "sweep": f"({shlex.join(words)})",
    }
    lines = [
        "#!/bin/bash",
        f"# Made by `raysweep submit --slurm`: runs the sweep {name} under Slurm, or goes on with it.",
        *(f"#SBATCH {option}" for option in _options(name, run_folder, cluster, folder)),
        "",
        *(f"{key}={value}" for key, value in variables.items()),
        "setup() {",
        *(f"    {line}" for line in cluster.slurm.setup or [":"]),
        "}",
        "",
    ]
    return "\n".join(lines) + "\n" + files(__package__).joinpath("job.sh").read_text()


def why_not(sweep: Sweep) -> list[str]:
    """Return why Slurm cannot be asked for the machines of a sweep: a message a fault, with its place."""
    cluster, problems = sweep.cluster, []

    def add(key: str, message: str) -> None:
        problems.append(sweep.source.problem(("cluster", *key.split(".")), message))

    if cluster.gpus_per_node is None:
        add("gpus_per_node", "must be given: how many GPUs of each node the job gets (--gpus-per-node 4); 0: no GPU")
    limit, warning = cluster.slurm.time, cluster.slurm.signal_seconds
    if limit and 0 < seconds_of(limit) <= warning:
        add(
            "slurm.time",
            f"{limit} ({seconds_of(limit)} s) must exceed signal_seconds ({warning}): trials commit so long before",
        )
    for option in cluster.slurm.options:
        word = re.split(r"[=\s]", option)[0]
        own = word if word in OWN or word.startswith("--") else word[:2]
        if own in OWN:
            instead = f"set {OWN[own]}" if OWN[own] else "leave it out"
            add("slurm.options", f"{option}: the job sets {own} itself; {instead}")
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
    given = [f"--{key}={_quoted(value)}" for key, value in chosen.items() if value is not None]
    return [*given, *flags, *slurm.options]


def comment_of(run_folder: str) -> str:
    """Return the comment of a job that runs a sweep into this run folder."""
    return f"raysweep {run_folder}"


def _in_image(cluster: Cluster, places: Iterable[str]) -> list[str]:
    """Return the words before Python's own where it is in an Apptainer image that is to see these places."""
    seen = dict.fromkeys(str(_existing(Path(place))) for place in places if "://" not in place)
    gpus = ["--nv"] if cluster.gpus_per_node else []
    return ["apptainer", "exec", *gpus, "--bind", ",".join(seen), str(cluster.image), "python"]


def _existing(place: Path) -> Path:
    """Return a place, or the folder above it that exists: what does not exist cannot be brought into an image."""
    return next(each for each in (place, *place.parents) if each.exists())


def _quoted(value: object) -> str:
    text = str(value)
    if '"' in text or "\n" in text:
        raise UserError(f"{text!r} has a quotation mark or a line break, which the options of a Slurm job cannot have")
    return f'"{text}"' if any(letter in text for letter in " '\\#;&()$`") else text
