"""`raysweep submit`: runs a sweep on a Ray cluster from a laptop, through its dashboard.

The sweep file, the packages of `--package`, the modules of `--import` and what these import from beside them become the
job's folder; the run folder must lie where every node and the laptop see it, so that `status`, `report` and `pull` work
from here as if the sweep had run here.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raysweep.cluster.environment import Environment
from raysweep.commands.context import Context
from raysweep.commands.submit.environment import environment_of
from raysweep.errors import UserError
from raysweep.terminal import count_of, step

if TYPE_CHECKING:
    from raysweep.cluster.jobs import JobServer

MOST_DIFFERENCES = 8
"""Settings that a message names; it only counts the others."""
MAKING_IT = "each node makes the job's environment, in minutes where it has not made the same one already,"


def submit(arguments: argparse.Namespace) -> int:
    """Hand a sweep to a cluster's job server and follow it; return the run's exit code.

    A sweep that already runs there is followed, not begun a second time; with other settings, it must be replaced.
    """
    context = Context.of(arguments, "that file is sent to the cluster")
    sweep, path, imports = context.sweep, context.file, arguments.imports
    environment = environment_of(arguments)
    from raysweep.cluster.jobs import JobServer
    from raysweep.cluster.places import describe_job

    server = JobServer(arguments.address)
    nodes = [node["node_ip"] for node in server.nodes()]
    _check_places(context, nodes)
    folder = context.folder
    metadata = describe_job(sweep.name, folder.path)
    with staged(path, imports, environment) as (files, _):
        settings = _settings(context, files, environment)
        job = _find_or_stop(server, metadata, settings, arguments.replace)
        if job is not None:
            print(f"{sweep.name} is already running, as job {job}", file=sys.stderr)
        else:
            words = job_words(context)
            with step(f"uploading {', '.join([path.name, *imports])}"):
                job = send(server, words, files, imports, {**metadata, **settings}, environment)
            on = count_of(len(nodes), "node")
            print(f"job {job}: {sweep.name} on {on}; run folder: {folder.path}", file=sys.stderr)
            if environment.is_made:
                print(f"{MAKING_IT} before it begins", file=sys.stderr)
    output = sys.stderr if arguments.json else sys.stdout
    code = None if arguments.detach else server.follow(job, lambda text: print(text, end="", flush=True, file=output))
    if arguments.json:
        print(json.dumps({"job": job, "run_folder": folder.path, "exit_code": code}))
    return code or 0


def job_words(context: Context) -> list[str]:
    """Return the command line of a job, whose folder has a copy of the sweep file: other places are absolute."""
    start, file = context.sweep.start, context.file
    words = ["run", file.name, *context.named.without_cluster.overrides]
    if start is not None and start.run:
        from raysweep.results.start import place_of

        words.append(f"start.run={json.dumps(place_of(start, context.named.path))}")
    return [*words, "--storage", context.place[0]]


def _settings(context: Context, files: Path, environment: Environment) -> dict[str, str]:
    """Return what a job is submitted with, as its metadata keeps it, to compare with a later submit."""
    sweep = context.sweep.model_dump(mode="json", exclude_defaults=True, exclude={"storage", "cluster"})
    code = {place.name: _checksum(place) for place in sorted(files.iterdir()) if place.name != context.file.name}
    return {
        "raysweep_sweep": json.dumps(sweep),
        "raysweep_modules": json.dumps({name: sum for name, sum in code.items() if not name.endswith(".dist-info")}),
        "raysweep_environment": json.dumps(environment.checksums()),
    }


def _checksum(place: Path) -> str:
    """Return a checksum of a file, or of all files of a folder."""
    found = hashlib.sha256()
    for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
        if path.is_file():
            found.update(f"{path.relative_to(place)}\0".encode() + path.read_bytes() + b"\0")
    return found.hexdigest()


def _find_or_stop(
    server: JobServer, metadata: Mapping[str, str], settings: Mapping[str, str], replace: bool
) -> str | None:
    """Return the job that runs the sweep already, if there is one and it is not to be replaced.

    Raises:
        UserError: it was submitted with other settings.
    """
    running = server.find_running(metadata)
    if running is None:
        return None
    job, theirs = running
    if replace:
        with step(f"stopping job {job}: its trials commit what is whole"):
            server.stop(job)
        return None
    if others := differences(theirs, settings):
        raise UserError(
            f"{metadata['raysweep']} is running as job {job}, submitted with other settings: {'; '.join(others)}. "
            "Submit those to follow it; or add --replace, which stops it, has its trials commit, and goes on with these"
        )
    return job


def differences(theirs: Mapping[str, str], ours: Mapping[str, str]) -> list[str]:
    """Say what a job was submitted with (`_settings`) that is other now; nothing if it does not say."""
    if not ours.keys() <= theirs.keys():
        return []
    there, here = (_flat(json.loads(each["raysweep_sweep"])) for each in (theirs, ours))
    found = [
        f"{key}: {there.get(key, 'not set')} there, {here.get(key, 'not set')} here" for key in _other(there, here)
    ]
    more = [f"{len(found) - MOST_DIFFERENCES} more"] if len(found) > MOST_DIFFERENCES else []
    code, flags = (
        _other(json.loads(theirs[key]), json.loads(ours[key])) for key in ("raysweep_modules", "raysweep_environment")
    )
    return [*found[:MOST_DIFFERENCES], *more, *(f"the code of {name.removesuffix('.py')}" for name in code), *flags]


def _other(there: Mapping[str, str], here: Mapping[str, str]) -> list[str]:
    """Return the keys whose values differ, or that only one of the two has."""
    return [key for key in dict.fromkeys([*there, *here]) if there.get(key) != here.get(key)]


def _flat(section: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return the values of nested sections by dotted key, as JSON."""
    flat: dict[str, str] = {}
    for key, value in section.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": json.dumps(value)}
    return flat


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


@contextmanager
def staged(file: Path | None, imports: Sequence[str], environment: Environment) -> Iterator[tuple[Path, list[str]]]:
    """Give a folder with the sweep file, the environment's packages and the modules of `imports` with their siblings.

    Beside it, give what every node must have, as pip names requirements.

    Raises:
        UserError: a package or a module cannot be sent.
    """
    from raysweep.cluster.modules import copy_modules

    with tempfile.TemporaryDirectory(prefix="raysweep-job-") as name:
        folder = Path(name)
        if file:
            shutil.copyfile(file, folder / file.name)
        expected = environment.add_packages(folder)
        copy_modules(imports, folder)
        yield folder, expected


def send(
    server: JobServer,
    words: Sequence[str],
    folder: Path,
    imports: Sequence[str],
    metadata: Mapping[str, str],
    environment: Environment,
) -> str:
    """Start `raysweep WORDS` as a job in a copy of the folder and in an environment of its own; return its id."""
    from raysweep.sweepfile.named import import_flags

    command = ["python", "-m", "raysweep", *words, *import_flags(imports)]
    return server.submit(command, folder, metadata, environment.runtime_env())
