"""Runs a sweep on a cluster from a laptop: `raysweep submit`.

The sweep file and the modules of `--import` become the job's folder; the run folder must lie where every node and the
laptop see it, so `status`, `report` and `pull` work from here as if the sweep had run here.
"""

from __future__ import annotations

import json
import shutil
import socket
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from raysweep.cluster.jobs import JobServer
from raysweep.cluster.places import data_problems, describe_job, storage_problem
from raysweep.errors import UserError
from raysweep.store import RunFolder
from raysweep.sweepfile import Sweep, load_sweep, storage_of
from raysweep.terminal import step


def submit_sweep(
    sweep_path: str,
    overrides: Sequence[str] = (),
    storage: str | None = None,
    address: str | None = None,
    imports: Sequence[str] = (),
    detach: bool = False,
    as_json: bool = False,
) -> int:
    """Hand a sweep to a cluster's job server and follow it; return the run's exit code.

    A sweep that already runs there is followed, not begun a second time.

    Args:
        sweep_path: of the sweep file, here.
        overrides: `key=value` each, patched into it.
        storage: where the run folder lies; default: $RAYSWEEP_STORAGE, else the sweep file's.
        address: the dashboard's URL; default: $RAY_API_SERVER_ADDRESS, else http://127.0.0.1:8265.
        imports: modules that register the user's own networks, data sources and augmentations; imported already.
        detach: return once the job is accepted.
        as_json: print `{"job", "run_folder", "exit_code"}` on stdout, progress on stderr.

    Raises:
        UserError: the sweep, its storage or its data cannot be used on that cluster, or the cluster not be reached.
        Interrupted: the user left; the job goes on.
    """
    sweep = load_sweep(sweep_path, overrides)
    server = JobServer(address)
    nodes = [node["node_ip"] for node in server.nodes()]
    check_places(sweep, sweep_path, storage, nodes)
    chosen = storage_of(sweep, sweep_path, storage)
    folder = RunFolder(chosen, sweep.name)
    metadata = describe_job(sweep.name, folder.path)
    job = server.find_running(metadata)
    if job is not None:
        print(f"{sweep.name} runs already, as job {job}", file=sys.stderr)
    else:
        words = ["python", "-m", "raysweep", "run", Path(sweep_path).name, *overrides, "--storage", chosen]
        words += [word for module in imports for word in ("--import", module)]
        with tempfile.TemporaryDirectory(prefix="raysweep-job-") as staging:
            gather(Path(staging), Path(sweep_path), imports)
            with step(f"uploading {Path(sweep_path).name}{''.join(f', {name}' for name in imports)}"):
                job = server.submit(words, Path(staging), metadata)
        print(f"job {job}: {sweep.name} on {len(nodes)} nodes; run folder: {folder.path}", file=sys.stderr)
    code = None if detach else server.follow(job, lambda text: _write(text, as_json))
    if as_json:
        print(json.dumps({"job": job, "run_folder": folder.path, "exit_code": code}))
    return code or 0


def check_places(sweep: Sweep, sweep_path: str, storage: str | None, nodes: Sequence[str]) -> None:
    """Refuse places that mean another folder on each machine, unless all of the cluster is this machine.

    Args:
        sweep: as loaded.
        sweep_path: of its file.
        storage: of the command line.
        nodes: addresses of the cluster's nodes.

    Raises:
        UserError: `storage` or a `data.path` is relative; one message each.
    """
    if len(nodes) == 1 and _is_here(nodes[0]):
        return
    of_storage = storage_problem(sweep, sweep_path, storage)
    problems = [*([of_storage] if of_storage else []), *data_problems(sweep, sweep_path)]
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
            raise UserError(f"--import {name}: has no file that could be sent to the cluster")


def _is_here(address: str) -> bool:
    """Whether an address is one of this machine's own."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def _write(text: str, to_stderr: bool) -> None:
    print(text, end="", flush=True, file=sys.stderr if to_stderr else sys.stdout)
