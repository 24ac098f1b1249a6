"""The story of a run: plan, connect, prepare the data, let Tune run what is left, sum up.

A rerun is a resume: the plan says what is wanted, the records what is done, and only the difference is trained.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

from raysweep.cluster.places import storage_problem
from raysweep.driver.before import Run, TrainedOn, connected, next_round, prepare_data, trials_left, write_plan
from raysweep.driver.during import evaluate_best, train
from raysweep.driver.exporters import exporting
from raysweep.driver.summary import evaluation_is_wanted, sum_up
from raysweep.errors import Interrupted, LimitReached
from raysweep.registry import import_modules
from raysweep.results.rerun import keep_confirming
from raysweep.results.run import SweepResult, read_results
from raysweep.results.start import find_start
from raysweep.store import RunFolder
from raysweep.store.newest import remove_newest
from raysweep.sweepfile import Sweep, load_sweep, storage_of, sweep_of
from raysweep.sweepfile.named import Named
from raysweep.sweepfile.start import check_weights_are_here
from raysweep.terminal import count_of, say


def run_sweep(
    sweep: Sweep,
    folder: RunFolder,
    named: Named,
    *,
    address: str | None = None,
    wait_for_nodes: int = 1,
    imports: Sequence[str] = (),
    fresh: bool = False,
    confirm: bool = False,
    as_json_document: bool = False,
    quiet: bool = False,
) -> int:
    """Run a sweep in its run folder, or go on with it; return the exit code.

    0: done; 1: some trials failed; 3: a limit is spent; 130: stopped by the user. Without an `address` and
    $RAY_ADDRESS, a Ray cluster is started on this machine; of another one, so many nodes are waited for. The modules of
    `imports` are imported already. `fresh` moves an old run folder aside first. `confirm` trains the best configs again
    though the sweep does not say so. `as_json_document` prints the results as one JSON document on stdout. `quiet`
    trains alone: the winner is not evaluated, and neither results nor what to do with them are printed, since the
    caller reads them.

    Raises:
        UserError: something about the input is wrong; nothing was begun.
    """
    folder.check_place()
    if fresh:
        with folder.lease():
            aside = folder.set_aside()
        if aside:
            say(f"the old run is now {aside}", stderr=True)
    with ExitStack() as afterwards:
        with folder.lease():  # which tells the exporters that the run goes on
            remove_newest(folder)  # of a run that was killed: with the lease held, readers believe it
            uri = folder.parent.child(folder.name).uri
            wait = afterwards.enter_context(exporting(uri, sweep.export, lambda line: say(line, stderr=True)))
            run = Run(keep_confirming(sweep, folder, confirm), named, folder, tuple(imports))
            _train_what_is_left(run, address, wait_for_nodes, evaluates=not quiet)
            code = sum_up(run, as_json_document, quiet)
        wait()
        return code


def run_and_read(
    sweep_or_path: str | Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    storage: str | None = None,
    imports: Sequence[str] = (),
    fresh: bool = False,
) -> SweepResult:
    """Run a sweep, given as a file or as values, from Python; return its results.

    Raises:
        UserError: something about the input is wrong; nothing was begun.
        Interrupted: the user stopped it; the state is safe.
        LimitReached: a limit is spent; the state is safe.
    """
    import_modules(imports)
    find = partial(find_start, storage=storage, is_fresh=fresh)
    if isinstance(sweep_or_path, Mapping):
        sweep, text = sweep_of(sweep_or_path, overrides, find)
        path = f"{sweep.name}.yaml"  # no such file is read or written; relative paths are those of the working folder
    else:
        sweep, text, path = load_sweep(sweep_or_path, overrides, find), None, sweep_or_path
    folder = RunFolder(storage_of(sweep, path, storage), sweep.name)
    named = Named(path, tuple(overrides), storage, tuple(imports), text)
    code = run_sweep(sweep, folder, named, imports=imports, fresh=fresh)
    if code == Interrupted.exit_code:
        raise Interrupted(f"{sweep.name}: stopped; run it again to go on")
    if code == LimitReached.exit_code:
        raise LimitReached(f"{sweep.name}: a limit is spent; raise it and run it again to go on")
    return read_results(folder)


def _train_what_is_left(run: Run, address: str | None, nodes: int = 1, evaluates: bool = True) -> None:
    """Train and evaluate until all is done, or until the user or a limit stops it."""
    left = trials_left(run)
    if not left:
        run.view.say(f"{run.sweep.name}: nothing is left to train ({count_of(len(run.records), 'trial')} done)")
        write_plan(run)
        if not evaluates or not evaluation_is_wanted(run, read_results(run.folder)):
            return
    elif limit := run.meter.spent_limit():
        run.stop.request(limit)
        write_plan(run)
        return
    if left and not (address or os.environ.get("RAY_ADDRESS")):
        check_weights_are_here(run.sweep, run.trials)
    problem = storage_problem(run.sweep, run.named.path, run.named.storage)
    with connected(run, address, problem, nodes) as slot:
        on = TrainedOn()
        while left and not run.stop.requested:
            on = prepare_data(run, left, slot, on)
            if not run.stop.requested:
                train(run, left, slot, on)
            left = [] if run.stop.requested else next_round(run)
        if evaluates and not run.stop.requested:
            evaluate_best(run, on.data, slot)
