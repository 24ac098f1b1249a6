"""`raysweep doctor`: examines a cluster from one of its nodes, or from elsewhere by a job through the dashboard."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from raysweep.commands.context import Context, add_sweep_flags
from raysweep.commands.submit.environment import FLAGS, add_environment_flags, environment_of
from raysweep.commands.submit.ray_jobs import MAKING_IT, send, staged
from raysweep.errors import ClusterError, UserError
from raysweep.terminal import count_of, say, step

SUMMARY = "check whether a cluster can run sweeps"
STYLE = {"ok": "green", "warning": "yellow", "error": "bold red"}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    add_sweep_flags(parser, "a sweep file or a run folder; its storage and slots are checked as well", optional=True)
    parser.add_argument(
        "--address", help="Ray's address, or the dashboard's URL; default: $RAY_ADDRESS, else this machine"
    )
    parser.add_argument(
        "--expect",
        metavar="PACKAGE",
        type=package,
        action="append",
        default=[],
        help="what every node must have, as pip names it: 'timm>=1'",
    )
    group = parser.add_argument_group("in the environment that `submit` makes with the same flags; needs the URL")
    add_environment_flags(group)


def package(text: str) -> str:
    """Return what names a package, as pip does it; raise ValueError for anything else."""
    return str(Requirement(text))


def run(arguments: argparse.Namespace) -> int:
    """Examine a cluster and print what was found; return 0 if sweeps can run there, 1 if not."""
    context = Context.of(arguments) if arguments.sweep else None
    sweep = context.sweep if context else None  # reports a wrong file at once: importing Ray takes seconds
    from raysweep.cluster.places import is_url

    storage = arguments.storage or os.environ.get("RAYSWEEP_STORAGE") or (sweep.storage if sweep else None)
    address = arguments.address or os.environ.get("RAY_ADDRESS")
    if address and is_url(address):
        document = _through_dashboard(address, context, storage, arguments)
    elif given := [f"--{flag}" for flag in FLAGS if getattr(arguments, flag)]:
        raise UserError(f"{', '.join(given)}: needs --address URL, the cluster's dashboard, which takes jobs")
    else:
        document = _from_here(address, context, storage, arguments.imports, arguments.expect)
    if arguments.json:
        print(json.dumps(document))
    else:
        _print(document)
    return 0 if document["ok"] else 1


def _from_here(
    address: str | None, context: Context | None, storage: str | None, imports: Sequence[str], expected: Sequence[str]
) -> dict[str, Any]:
    import ray

    from raysweep.cluster.doctor.examine import examine
    from raysweep.cluster.places import is_relative
    from raysweep.cluster.slots import connect
    from raysweep.loops import CLASSIFY
    from raysweep.worker.tasks import TaskSetting

    connect(address)
    try:
        given = context.named.path if context and context.is_run_folder else storage
        place, sweep = (context.place[0], context.sweep) if context else (storage, None)
        folder = context.file.absolute().parent if context else Path.cwd()
        loop = sweep.loop if sweep else CLASSIFY
        setting = TaskSetting(str(folder), tuple(imports), threads=1, device="cpu", loop=loop)
        facts, findings = examine(place, sweep, setting, given is not None and is_relative(given), expected)
    finally:
        ray.shutdown()
    document = {"nodes": list(map(asdict, facts)), "findings": list(map(asdict, findings))}
    return {"ok": all(finding.level != "error" for finding in findings), **document}


def _through_dashboard(
    address: str, context: Context | None, storage: str | None, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Run the same command as a job on the head, and return the document that it prints."""
    environment = environment_of(arguments)
    from raysweep.cluster.jobs import JobServer

    server = JobServer(address)
    file = context.file if context and not context.is_run_folder else None
    with staged(file, arguments.imports, environment) as (folder, expected):
        words = _words(context, storage)
        for requirement in [*arguments.expect, *expected]:
            words += ["--expect", requirement]
        job = send(server, words, folder, arguments.imports, {"raysweep": "doctor"}, environment)
    said: list[str] = []
    with step(f"{MAKING_IT} and then answers") if environment.is_made else nullcontext():
        server.follow(job, said.append)
    found = [line for line in "".join(said).splitlines() if line.startswith('{"ok":')]
    if not found:
        print(*said, sep="", end="", file=sys.stderr)
        raise ClusterError(f"{address}: job {job} ended without findings; its output is above")
    document: dict[str, Any] = json.loads(found[-1])
    return document


def _words(context: Context | None, storage: str | None) -> list[str]:
    """Return this command in the words that mean the same on the head."""
    if context and context.is_run_folder:
        return ["doctor", "--json", context.run_path]
    sweep = [context.file.name, *context.named.overrides] if context else []
    return ["doctor", "--json", *sweep, *(["--storage", storage] if storage else [])]


def _print(document: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.text import Text

    for finding in document["findings"]:
        level = finding["level"]
        line = Text.assemble((f"{level:<8}", STYLE[level]), f"{finding['check']}: {finding['message']}")
        Console().print(line, soft_wrap=True)
        if finding["remedy"]:
            say(f"{'':<8}-> {finding['remedy']}")
    wrong = sum(finding["level"] == "error" for finding in document["findings"])
    faults = f"fix {count_of(wrong, 'error')} before you run a sweep on this cluster"
    say("the cluster can run sweeps" if document["ok"] else faults)
