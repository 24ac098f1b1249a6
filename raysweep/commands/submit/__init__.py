"""`raysweep submit`: runs a sweep where the GPUs are: on a Ray cluster, under Slurm or on Kubernetes."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from raysweep.commands.context import add_sweep_flags
from raysweep.commands.submit.environment import FLAGS as OF_ENVIRONMENT
from raysweep.commands.submit.environment import add_environment_flags
from raysweep.commands.submit.written import STDOUT
from raysweep.errors import UserError

SUMMARY = "run a sweep on a cluster, under Slurm or on Kubernetes, and follow it"

ASKED = {
    "nodes": ("N", "cluster.nodes"),
    "gpus_per_node": ("N", "cluster.gpus_per_node"),
    "cpus_per_node": ("N", "cluster.cpus_per_node"),
    "image": ("IMAGE", "cluster.image"),
    "time": ("TIME", "cluster.slurm.time"),
    "partition": ("NAME", "cluster.slurm.partition"),
    "account": ("NAME", "cluster.slurm.account"),
}
"""Flags that stand for a key of the sweep file's section `cluster`, each with what it takes."""
OF_SLURM = ("time", "partition", "account")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    add_sweep_flags(parser, "the sweep file")
    parser.add_argument("--replace", action="store_true", help="stop the sweep's job if one runs, and go on with this")
    parser.add_argument("--detach", action="store_true", help="return once the job is accepted")
    ray = parser.add_argument_group("on a Ray cluster, through its dashboard")
    ray.add_argument("--address", metavar="URL", help="the cluster's dashboard; default: http://127.0.0.1:8265")
    add_environment_flags(ray)
    other = parser.add_argument_group(
        "under Slurm or on Kubernetes; without the flags, the sweep file's `cluster:` counts"
    )
    where = other.add_mutually_exclusive_group()
    where.add_argument("--slurm", action="store_true", help="as a job of Slurm, from the login node")
    where.add_argument("--kuberay", action="store_true", help="as a RayJob of KubeRay's; needs --write")
    other.add_argument(
        "--write", metavar="FILE", type=Path, help="write the job's file (- for stdout), and submit nothing"
    )
    for flag, (value, key) in ASKED.items():
        other.add_argument(f"--{flag.replace('_', '-')}", metavar=value, help=f"stands for {key}={value}")


def run(arguments: argparse.Namespace) -> int:
    """Hand the sweep over to what the flags name; return the run's exit code."""
    _check_flags(arguments)
    arguments.overrides += [
        f"{key}={value if kind == 'N' else json.dumps(value)}"  # an account may be called 12345
        for flag, (kind, key) in ASKED.items()
        if (value := getattr(arguments, flag)) is not None
    ]
    if arguments.slurm:
        from raysweep.commands.submit.slurm import submit
    elif arguments.kuberay:
        from raysweep.commands.submit.kuberay import submit
    else:
        from raysweep.commands.submit.ray_jobs import submit
    return submit(arguments)


def _check_flags(arguments: argparse.Namespace) -> None:
    """Refuse flags that mean nothing where the sweep is to run.

    Raises:
        UserError: there are such flags; all of them at once.
    """
    given = {name: value for name, value in vars(arguments).items() if value not in (None, False)}
    elsewhere = [flag for flag in (*ASKED, "write") if flag in given]
    problems = []
    if not arguments.slurm and not arguments.kuberay and elsewhere:
        problems.append(f"{_flags(elsewhere)}: only with --slurm or --kuberay, which say where the sweep is to run")
    if (arguments.slurm or arguments.kuberay) and (
        of_ray := [flag for flag in ("address", *OF_ENVIRONMENT) if flag in given]
    ):
        problems.append(f"{_flags(of_ray)}: only for a Ray cluster that is up; leave out --slurm or --kuberay")
    if arguments.kuberay and (of_slurm := [flag for flag in OF_SLURM if flag in given]):
        problems.append(f"{_flags(of_slurm)}: only with --slurm")
    if arguments.kuberay and arguments.write is None:
        problems.append(
            "--kuberay: needs --write rayjob.yaml; `kubectl replace --force --filename rayjob.yaml` then submits it"
        )
    if arguments.write and (idle := [flag for flag in ("replace", "detach") if flag in given]):
        problems.append(f"{_flags(idle)}: nothing is submitted with --write")
    if arguments.json and arguments.write == STDOUT:
        problems.append("--json, --write -: stdout can have only one of them; write the job into a file")
    if problems:
        raise UserError(*problems)


def _flags(names: Sequence[str]) -> str:
    return ", ".join(f"--{name.replace('_', '-')}" for name in names)
