"""`raysweep submit --slurm`: runs a sweep as a job of Slurm's, from a login node, and follows it.

The job reads the sweep file and the modules of `--import` where they lie, since all nodes see them. When its time is
up, it goes back into the queue.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import sys
from pathlib import Path

from raysweep.cluster.slurm.queue import STOP_WITHIN_S, Job, JobForgotten, Queue
from raysweep.cluster.slurm.script import job_script, why_not
from raysweep.commands.context import Context
from raysweep.commands.submit.written import STDOUT, write_job
from raysweep.errors import UserError
from raysweep.sweepfile import Sweep
from raysweep.sweepfile.named import import_flags
from raysweep.sweepfile.start import paths_of
from raysweep.terminal import say, step

MOST_LINES = 8
"""Lines of a job's script that a message shows."""


def submit(arguments: argparse.Namespace) -> int:
    """Submit a sweep as a job, or write the job's script; follow the job, and return the run's exit code.

    A sweep that has a job already is followed, not begun a second time; with another script, it must be replaced.
    """
    context = Context.of(arguments, "the job goes on with it")
    run_folder = context.folder.path
    if problems := why_not(context.sweep):
        raise UserError(*problems)
    _check_slot(context.sweep)
    _make_storage(context.place[0])
    words = ["run", os.path.abspath(context.file), *context.named.without_cluster.overrides]
    words += [*import_flags(arguments.imports), "--storage", context.place[0]]
    script = job_script(
        context.sweep.name,
        run_folder,
        words,
        context.sweep.cluster,
        Path.cwd(),
        sys.executable,
        _places(context),
    )
    if arguments.write is not None:
        said = f"{arguments.write}: submit it with `sbatch {arguments.write}`, and again once it has ended"
        write_job(arguments, script, [said] if arguments.write != STDOUT else [], {"run_folder": run_folder})
        return 0

    queue = Queue()
    job = _find_or_stop(queue, context, script, arguments.replace)
    if job is None:
        context.folder.check_place()
        id = queue.submit(script)
        print(f"job {id}: {context.sweep.name}; run folder: {run_folder}", file=sys.stderr)
    else:
        id = job.id
    output = sys.stderr if arguments.json else sys.stdout
    code = None if arguments.detach else queue.follow(id, lambda text: print(text, end="", flush=True, file=output))
    if arguments.json:
        print(json.dumps({"job": id, "run_folder": run_folder, "exit_code": code}))
    return code or 0


def _make_storage(storage: str) -> None:
    """Make the folder that run folders lie in: a node that does not see it is one that would lose the results.

    Raises:
        UserError: it cannot be made.
    """
    if "://" in storage:
        return
    try:
        Path(storage).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{storage}: cannot be made ({error.strerror}); name a folder that this machine and all nodes see "
            "(--storage)"
        ) from error


def _check_slot(sweep: Sweep) -> None:
    """Refuse a sweep of which no trial fits the nodes that are asked for, before it has waited in the queue.

    Raises:
        ClusterError: a trial asks for more than all nodes have.
    """
    from raysweep.cluster.slots import KIND, check_slot, resolve_slot

    cluster, asked = sweep.cluster, sweep.resources
    kind, gpus = asked.accelerator, cluster.gpus_per_node or 0
    of_trials = (1 if asked.cpus == "auto" else asked.cpus) * max(gpus, asked.workers)
    node = {
        "CPU": float(cluster.cpus_per_node or of_trials),
        "GPU": float(gpus),
        **({f"{KIND}{kind}": 1.0} if kind else {}),
    }
    check_slot(resolve_slot(asked, [node]), [node] * cluster.nodes)


def _places(context: Context) -> list[str]:
    """Return the folders that the sweep reads, which an image has to see."""
    named = [path for _, path in paths_of(context.sweep, context.trials)]
    of_variables = [os.environ[name] for name in ("RAYSWEEP_DATA", "RAYSWEEP_CACHE") if os.environ.get(name)]
    beside = context.file.absolute().parent
    return [
        str(beside),
        *(str(beside / Path(path).expanduser()) for path in [*named, *of_variables] if "://" not in path),
    ]


def _find_or_stop(queue: Queue, context: Context, script: str, replace: bool) -> Job | None:
    """Return the job that the sweep has already, if there is one and it is not to be replaced.

    Raises:
        UserError: it has another script.
    """
    job = queue.find(context.folder.path)
    if job is None:
        return None
    if job.state == "COMPLETING":
        with step(f"waiting for job {job.id}, which is about to end"):
            queue.wait_for_end(job, STOP_WITHIN_S)
        return None
    if replace:
        with step(f"stopping job {job.id}: its trials commit"):
            queue.stop(job, max(STOP_WITHIN_S, context.sweep.cluster.slurm.signal_seconds) + 30)
        return None
    try:
        theirs = queue.script_of(job.id)
    except JobForgotten:  # it has ended meanwhile
        return None
    if others := _differences(theirs, script):
        raise UserError(
            f"{context.sweep.name} has a job already, {job.id}, with another script:",
            *others,
            "Submit as you did then to follow it; or add --replace: it stops, its trials commit, and this one goes on",
        )
    say(f"{context.sweep.name} has a job already, {job.id}", stderr=True)
    if job.began and context.file.stat().st_mtime > job.began:
        say(
            f"{context.file} was changed after that job began with it; with --replace it begins again with the change",
            stderr=True,
        )
    return job


def _differences(theirs: str, ours: str) -> list[str]:
    """Return the lines of two scripts that differ."""
    lines = difflib.unified_diff(theirs.strip().splitlines(), ours.strip().splitlines(), n=0, lineterm="")
    found = [f"  {line}" for line in lines if line[:1] in "+-" and not line.startswith(("+++", "---"))]
    more = [f"  and {len(found) - MOST_LINES} more lines"] if len(found) > MOST_LINES else []
    return [*found[:MOST_LINES], *more]
