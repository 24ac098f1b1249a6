"""`raysweep doctor`: examines a cluster from one of its nodes, or from elsewhere by a job through the dashboard."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from raysweep.commands.context import Context, add_common_flags, add_overrides, add_storage_flag
from raysweep.errors import ClusterError
from raysweep.terminal import count_of, say

SUMMARY = "check whether a cluster can run sweeps"
STYLE = {"ok": "green", "warning": "yellow", "error": "bold red"}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.add_argument("sweep", metavar="SWEEP.yaml", nargs="?", help="check its storage and slots as well")
    add_overrides(parser)
    add_common_flags(parser)
    add_storage_flag(parser)
    parser.add_argument(
        "--address", help="Ray's address, or the dashboard's URL; default: $RAY_ADDRESS, else this machine"
    )


def run(arguments: argparse.Namespace) -> int:
    """Examine a cluster and print what was found; return 0 if sweeps can run there, 1 if not.

    Raises:
        ClusterError: the cluster cannot be reached.
    """
    context = Context.of(arguments, or_run=False) if arguments.sweep else None
    storage = arguments.storage or os.environ.get("RAYSWEEP_STORAGE") or (context.sweep.storage if context else None)
    from raysweep.cluster.jobs import is_url

    address = arguments.address or os.environ.get("RAY_ADDRESS")
    if address and is_url(address):
        document = _through_dashboard(address, context, storage, arguments.imports)
    else:
        document = _from_here(address, context, storage)
    if arguments.json:
        print(json.dumps(document))
    else:
        _print(document)
    return 0 if document["ok"] else 1


def _from_here(address: str | None, context: Context | None, storage: str | None) -> dict[str, Any]:
    import ray

    from raysweep.cluster.doctor.examine import examine
    from raysweep.cluster.places import is_relative
    from raysweep.cluster.slots import connect

    connect(address)
    try:
        resources = context.sweep.resources if context else None
        place = context.place[0] if context else storage
        facts, findings = examine(place, resources, bool(storage) and is_relative(str(storage)))
    finally:
        ray.shutdown()
    return {
        "ok": all(finding.level != "error" for finding in findings),
        "nodes": [asdict(each) for each in facts],
        "findings": [asdict(each) for each in findings],
    }


def _through_dashboard(
    address: str, context: Context | None, storage: str | None, imports: list[str]
) -> dict[str, Any]:
    from raysweep.cluster.jobs import JobServer
    from raysweep.commands.submit import gather

    server = JobServer(address)
    words = ["python", "-m", "raysweep", "doctor", "--json"]
    words += ["--storage", storage] if storage else []
    words += [word for module in imports for word in ("--import", module)]
    with tempfile.TemporaryDirectory(prefix="raysweep-job-") as staging:
        if context:
            words[4:4] = [context.file.name, *context.named.overrides]
            gather(Path(staging), context.file, imports)
        job = server.submit(words, Path(staging), {"raysweep": "doctor"})
    lines: list[str] = []
    server.follow(job, lines.append)
    said = "".join(lines)
    for line in reversed(said.splitlines()):
        if line.startswith('{"ok":'):
            document: dict[str, Any] = json.loads(line)
            return document
    print(said, file=sys.stderr, end="")
    raise ClusterError(f"{address}: job {job} did not end with findings; its output is above")


def _print(document: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console()
    for finding in document["findings"]:
        level = finding["level"]
        line = Text.assemble((f"{level:<8}", STYLE[level]), f"{finding['check']}: {finding['message']}")
        console.print(line, soft_wrap=True)
        if finding["remedy"]:
            say(f"{'':<8}-> {finding['remedy']}")
    wrong = sum(finding["level"] == "error" for finding in document["findings"])
    faults = f"fix {count_of(wrong, 'error')} before you run a sweep on this cluster"
    say("the cluster can run sweeps" if document["ok"] else faults)
