"""`raysweep submit`: runs a sweep on a cluster from a laptop.

The sweep file and the modules of `--import` become the job's folder; the run folder must lie where every node and the
laptop see it, so that `status`, `report` and `pull` work from here as if the sweep had run here.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from raysweep.commands.context import Context, add_sweep_flags
from raysweep.errors import UserError
from raysweep.terminal import count_of, step

if TYPE_CHECKING:
    from raysweep.cluster.jobs import JobServer

SUMMARY = "run a sweep on a cluster through its dashboard, and follow it"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    add_sweep_flags(parser, "the sweep file")
    parser.add_argument("--address", metavar="URL", help="the cluster's dashboard; default: http://127.0.0.1:8265")
    parser.add_argument("--detach", action="store_true", help="return once the job is accepted")


def run(arguments: argparse.Namespace) -> int:
    """Hand a sweep to a cluster's job server and follow it; return the run's exit code.

    A sweep that already runs there is followed, not begun a second time.
    """
    context = Context.of(arguments, "that file is sent to the cluster")
    sweep, path, imports = context.sweep, context.file, arguments.imports
    from raysweep.cluster.jobs import JobServer
    from raysweep.cluster.places import describe_job

    server = JobServer(arguments.address)
    nodes = [node["node_ip"] for node in server.nodes()]
    _check_places(context, nodes)
    folder = context.folder
    metadata = describe_job(sweep.name, folder.path)
    job = server.find_running(metadata)
    if job is not None:
        print(f"{sweep.name} is already running, as job {job}", file=sys.stderr)
    else:
        words = ["run", path.name, *context.named.overrides, "--storage", context.place[0]]
        with step(f"uploading {', '.join([path.name, *imports])}"):
            job = send(server, words, path, imports, metadata)
        print(f"job {job}: {sweep.name} on {count_of(len(nodes), 'node')}; run folder: {folder.path}", file=sys.stderr)
    output = sys.stderr if arguments.json else sys.stdout
    code = None if arguments.detach else server.follow(job, lambda text: print(text, end="", flush=True, file=output))
    if arguments.json:
        print(json.dumps({"job": job, "run_folder": folder.path, "exit_code": code}))
    return code or 0


def _check_places(context: Context, nodes: Sequence[str]) -> None:
    """Refuse places that mean a different folder on each machine, unless this machine is the whole cluster."""
    import psutil

    from raysweep.cluster.places import data_problems, storage_problem

    ours = {address.address for addresses in psutil.net_if_addrs().values() for address in addresses}
    if len(nodes) == 1 and nodes[0] in ours:
        return
    named = context.named
    of_storage = storage_problem(context.sweep, named.path, named.storage)
    if problems := [*filter(None, [of_storage]), *data_problems(context.sweep, named.path)]:
        raise UserError(*problems)


def send(
    server: JobServer, words: Sequence[str], file: Path | None, imports: Sequence[str], metadata: Mapping[str, str]
) -> str:
    """Start `raysweep WORDS` as a job, with the sweep file and the modules of `imports` in its folder; return its id.

    Raises:
        UserError: a module has no file.
    """
    words = ["python", "-m", "raysweep", *words, *(word for module in imports for word in ("--import", module))]
    with tempfile.TemporaryDirectory(prefix="raysweep-job-") as staging:
        if file:
            shutil.copyfile(file, Path(staging, file.name))
        for name in dict.fromkeys(module.partition(".")[0] for module in imports):
            _copy_module(name, Path(staging))
        return server.submit(words, Path(staging), metadata)


def _copy_module(name: str, folder: Path) -> None:
    """Copy a module's file, or a whole package, into a folder."""
    module = sys.modules[name]
    if paths := list(getattr(module, "__path__", ())):
        shutil.copytree(paths[0], folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    elif module.__file__:
        shutil.copyfile(module.__file__, folder / Path(module.__file__).name)
    else:
        raise UserError(f"--import {name}: the module has no file that could be sent to the cluster")
