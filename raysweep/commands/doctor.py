"""`raysweep doctor`: on a node of the cluster by connecting to it, from elsewhere as a job through the dashboard."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray
from rich.console import Console
from rich.text import Text

from raysweep.cluster.doctor.examine import examine
from raysweep.cluster.jobs import JobServer, is_url
from raysweep.cluster.places import is_relative
from raysweep.cluster.slots import connect
from raysweep.commands.submit import gather
from raysweep.errors import ClusterError
from raysweep.sweepfile import load_sweep, storage_of
from raysweep.terminal import count_of

STYLE = {"ok": "green", "warning": "yellow", "error": "bold red"}


def run_doctor(
    sweep_path: str | None = None,
    overrides: Sequence[str] = (),
    storage: str | None = None,
    address: str | None = None,
    imports: Sequence[str] = (),
    as_json: bool = False,
) -> int:
    """Examine a cluster, print what was found; return 0 if sweeps can run there, 1 if not.

    Args:
        sweep_path: of a sweep file, whose storage and slots are checked as well.
        overrides: `key=value` each, patched into it.
        storage: to check; default: $RAYSWEEP_STORAGE, else the sweep file's, else none.
        address: of Ray on this machine, or the dashboard's URL; default: $RAY_ADDRESS, else a cluster started here.
        imports: modules that the sweep file needs; imported already.
        as_json: print `{"ok", "nodes", "findings"}` instead of lines.

    Raises:
        ClusterError: the cluster cannot be reached.
    """
    sweep = load_sweep(sweep_path, overrides) if sweep_path else None
    given = storage or os.environ.get("RAYSWEEP_STORAGE") or (sweep.storage if sweep else None)
    address = address or os.environ.get("RAY_ADDRESS")
    if address and is_url(address):
        document = _through_dashboard(address, sweep_path, overrides, given, imports)
    else:
        connect(address)
        try:
            place = storage_of(sweep, str(sweep_path), storage) if sweep else given
            facts, findings = examine(
                place, sweep.resources if sweep else None, bool(given) and is_relative(str(given))
            )
        finally:
            ray.shutdown()
        document = {
            "ok": all(finding.level != "error" for finding in findings),
            "nodes": [asdict(each) for each in facts],
            "findings": [asdict(each) for each in findings],
        }
    if as_json:
        print(json.dumps(document))
    else:
        _print(document)
    return 0 if document["ok"] else 1


def _through_dashboard(
    address: str, sweep_path: str | None, overrides: Sequence[str], storage: str | None, imports: Sequence[str]
) -> dict[str, Any]:
    server = JobServer(address)
    words = ["python", "-m", "raysweep", "doctor", "--json"]
    if sweep_path:
        words[4:4] = [Path(sweep_path).name, *overrides]
    words += ["--storage", storage] if storage else []
    words += [word for module in imports for word in ("--import", module)]
    with tempfile.TemporaryDirectory(prefix="raysweep-job-") as staging:
        if sweep_path:
            gather(Path(staging), Path(sweep_path), imports)
        job = server.submit(words, Path(staging), {"raysweep": "doctor"})
    lines: list[str] = []
    server.follow(job, lines.append)
    said = "".join(lines)
    for line in reversed(said.splitlines()):
        if line.startswith('{"ok":'):
            document: dict[str, Any] = json.loads(line)
            return document
    print(said, file=sys.stderr, end="")
    raise ClusterError(f"{address}: job {job} did not end with findings; what it said is above")


def _print(document: Mapping[str, Any]) -> None:
    console = Console()
    for finding in document["findings"]:
        level = finding["level"]
        line = Text.assemble((f"{level:<8}", STYLE[level]), f"{finding['check']}: {finding['message']}")
        console.print(line, soft_wrap=True)
        if finding["remedy"]:
            console.print(Text(f"{'':<8}-> {finding['remedy']}"), soft_wrap=True)
    wrong = sum(finding["level"] == "error" for finding in document["findings"])
    faults = f"fix {count_of(wrong, 'error')} before you run a sweep on this cluster"
    console.print("the cluster can run sweeps" if document["ok"] else faults)
