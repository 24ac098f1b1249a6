"""`raysweep submit --kuberay`: writes the file by which Kubernetes runs a sweep; `kubectl` submits it.

Kubernetes keeps no copy of the command line, so the file has all that a run needs: the sweep file, the modules of
`--import`, the overrides and where the run folder lies.
"""

from __future__ import annotations

import argparse
import shlex
import textwrap
from pathlib import Path

from raysweep.commands.context import Context
from raysweep.commands.submit.ray_jobs import job_words, staged
from raysweep.commands.submit.written import write_job
from raysweep.errors import UserError


def submit(arguments: argparse.Namespace) -> int:
    """Write the ConfigMap and the RayJob of a sweep, and say what to do with them; return the exit code."""
    context = Context.of(arguments, "that file is sent to the cluster")
    path: Path = arguments.write
    from raysweep.cluster.environment import Environment
    from raysweep.cluster.kuberay import make_objects, to_yaml
    from raysweep.cluster.modules import is_installed
    from raysweep.cluster.places import describe_job
    from raysweep.sweepfile.named import import_flags

    _check(context)
    words = [*job_words(context), *import_flags(arguments.imports)]
    folder = _run_folder(*context.place)
    sent = [module for module in arguments.imports if not is_installed(module)]
    with staged(context.file, sent, Environment()) as (files, _):
        objects = make_objects(context.sweep, words, files, describe_job(context.sweep.name, folder))
    text = f"{_header(context, path)}{to_yaml(objects)}"
    named = {key: objects[0]["metadata"].get(key) for key in ("name", "namespace")}
    write_job(arguments, text, _next_steps(context, path, str(named["name"])), {**named, "run_folder": folder})
    return 0


def _check(context: Context) -> None:
    """Refuse what cannot run on Kubernetes; all problems at once."""
    from raysweep.cluster.kuberay import why_not
    from raysweep.cluster.places import data_problems, storage_problem

    sweep, named = context.sweep, context.named
    of_storage = storage_problem(sweep, named.path, named.storage)
    of_cluster = why_not(sweep.cluster, None if of_storage else context.place[0])
    problems = [of_storage, *data_problems(sweep, named.path), *(f"{named.path}: {each}" for each in of_cluster)]
    if found := list(filter(None, problems)):
        raise UserError(*found)


def _run_folder(storage: str, name: str) -> str:
    """Return where the run folder will lie, without asking the object store, which this machine may not reach."""
    base = storage.partition("?")[0] if "://" in storage else storage
    return f"{base.rstrip('/')}/{name}"


def _header(context: Context, path: Path) -> str:
    """Return comments that say how the file was made and how it is used."""
    made = shlex.join([*shlex.split(context.named.in_words()), "--kuberay", "--write", str(path)])
    lines = (
        "A sweep on Kubernetes, for KubeRay 1.5.1 or later, made by",
        f"  raysweep submit {made}",
        "which makes it anew: what is to last belongs in the sweep file. To start, or to go on after an edit:",
        f"  {_start(context, path)}",
    )
    return textwrap.indent("\n".join(lines) + "\n", "# ", lambda line: True)


def _kubectl(context: Context, *words: str) -> str:
    namespace = context.sweep.cluster.kuberay.namespace
    return shlex.join(["kubectl", *(["--namespace", namespace] if namespace else []), *words])


def _start(context: Context, path: Path) -> str:
    return _kubectl(context, "replace", "--force", "--filename", str(path))


def _next_steps(context: Context, path: Path, name: str) -> list[str]:
    steps = {
        "to start, or to go on": _start(context, path),
        "its state": _kubectl(context, "get", "rayjob", name),
        "its log": _kubectl(context, "logs", "--follow", f"job/{name}"),
        "to end it": _kubectl(context, "delete", "rayjob,configmap", name),
    }
    if "://" in context.place[0]:
        steps["from here"] = f"raysweep status {context.named.without_cluster.in_words()}"
    width = max(map(len, steps))
    return [f"{what:<{width}}  {command}" for what, command in steps.items()]
