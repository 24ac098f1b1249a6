"""`raysweep submit`: runs a sweep on a cluster from a laptop.

The sweep file and the modules of `--import` become the job's folder; the run folder must lie where every node and the
laptop see it, so that `status`, `report` and `pull` work from here as if the sweep had run here.
"""

from __future__ import annotations

import argparse
import json
import shutil
import socket
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from raysweep.commands.context import Context, add_sweep_flags
from raysweep.errors import UserError
from raysweep.terminal import step

SUMMARY = "run a sweep on a cluster through its dashboard, and follow it"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    add_sweep_flags(parser, or_run=False)
    parser.add_argument("--address", metavar="URL", help="the cluster's dashboard; default: http://127.0.0.1:8265")
    parser.add_argument("--detach", action="store_true", help="return once the job is accepted")


def run(arguments: argparse.Namespace) -> int:
    """Hand a sweep to a cluster's job server and follow it; return the run's exit code.

    A sweep that already runs there is followed, not begun a second time.

    Raises:
        UserError: the sweep, its storage or its data cannot be used on that cluster, or the cluster cannot be reached.
        Interrupted: the user left; the job goes on.
    """
    context = Context.of(arguments, or_run=False)
    sweep, path, imports = context.sweep, context.file, arguments.imports
    from raysweep.cluster.jobs import JobServer
    from raysweep.cluster.places import describe_job

    server = JobServer(arguments.address)
    nodes = [node["node_ip"] for node in server.nodes()]
    check_places(context, nodes)
    folder = context.folder
    metadata = describe_job(sweep.name, folder.path)
    job = server.find_running(metadata)
    if job is not None:
        print(f"{sweep.name} runs already, as job {job}", file=sys.stderr)
    else:
        words = ["python", "-m", "raysweep", "run", path.name, *context.named.overrides, "--storage", context.place[0]]
        words += [word for module in imports for word in ("--import", module)]
        with tempfile.TemporaryDirectory(prefix="raysweep-job-") as staging:
            gather(Path(staging), path, imports)
            with step(f"uploading {path.name}{''.join(f', {name}' for name in imports)}"):
                job = server.submit(words, Path(staging), metadata)
        print(f"job {job}: {sweep.name} on {len(nodes)} nodes; run folder: {folder.path}", file=sys.stderr)
    code = None if arguments.detach else server.follow(job, lambda text: _write(text, arguments.json))
    if arguments.json:
        print(json.dumps({"job": job, "run_folder": folder.path, "exit_code": code}))
    return code or 0


def check_places(context: Context, nodes: Sequence[str]) -> None:
    """Refuse places that mean a different folder on each machine, unless this machine is the whole cluster.

    Raises:
        UserError: `storage` or a `data.path` is relative; one message each.
    """
    from raysweep.cluster.places import data_problems, storage_problem

    if len(nodes) == 1 and _is_here(nodes[0]):
        return
    named = context.named
    of_storage = storage_problem(context.sweep, named.path, named.storage)
    problems = [*([of_storage] if of_storage else []), *data_problems(context.sweep, named.path)]
    if problems:
        raise UserError(*problems)


def gather(staging: Path, sweep_path: Path, imports: Sequence[str] = ()) -> None:
    """Copy the sweep file, and the modules or whole packages of `imports`, into the job's folder.

    Raises:
        UserError: a module has no file.
    """
    shutil.copyfile(sweep_path, staging / sweep_path.name)
    for name in dict.fromkeys(module.partition(".")[0] for module in imports):
        module = sys.modules[name]
        if paths := list(getattr(module, "__path__", ())):
            shutil.copytree(paths[0], staging / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif module.__file__:
            shutil.copyfile(module.__file__, staging / Path(module.__file__).name)
        else:
            raise UserError(f"--import {name}: the module has no file that could be sent to the cluster")


def _is_here(address: str) -> bool:
    """Return whether an address belongs to this machine."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def _write(text: str, to_stderr: bool) -> None:
    print(text, end="", flush=True, file=sys.stderr if to_stderr else sys.stdout)
