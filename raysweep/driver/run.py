"""The story of a run: read the sweep file, plan, connect, prepare the data, let Tune run what is left, sum up.

A rerun is a resume: the plan says what is wanted, the records what is done, and only the difference is trained.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray import tune
from rich.console import Console

from raysweep.config import DataConfig, TrialConfig
from raysweep.driver.cluster import Slot, connect, dashboard_url, find_slot
from raysweep.driver.events import Board, TuneEvents
from raysweep.driver.resolved import check_conditions, planned_record, write_resolved
from raysweep.driver.search import PlanSearcher, make_scheduler
from raysweep.driver.stop import StopRequest
from raysweep.driver.view import View
from raysweep.errors import Interrupted, UserError
from raysweep.plan import Trial, plan_trials
from raysweep.registry import import_modules
from raysweep.results import SweepResult, as_json, read_results
from raysweep.store import Record, RunFolder
from raysweep.store.views import write_results, write_tensorboard
from raysweep.sweepfile import Sweep, load_sweep, storage_of
from raysweep.table import print_trials
from raysweep.trial import Assignment, StopFlag, process_environment, run_trial

REFRESH_VIEWS_EVERY_S = 60.0


def run_sweep(
    sweep_path: str,
    overrides: Sequence[str] = (),
    storage: str | None = None,
    address: str | None = None,
    imports: Sequence[str] = (),
    fresh: bool = False,
    as_json_document: bool = False,
) -> int:
    """Run a sweep, or go on with it; return the exit code: 0 done, 1 some trials failed, 130 stopped by the user.

    Args:
        sweep_path: of the sweep file.
        overrides: `key=value` each, patched into it.
        storage: where the run folder lies; default: $RAYSWEEP_STORAGE, else the sweep file's.
        address: of a Ray cluster; default: $RAY_ADDRESS, else one is started on this machine.
        imports: modules that register the user's own networks, data sources and augmentations.
        fresh: move an old run folder aside first.
        as_json_document: print the results as one JSON document on stdout.

    Raises:
        UserError: something about the input is wrong; nothing was begun.
    """
    import_modules(imports)
    sweep = load_sweep(sweep_path, overrides)
    trials = plan_trials(sweep)
    folder = RunFolder(storage_of(sweep, sweep_path, storage), sweep.name)
    folder.check_place()
    console = Console(stderr=True)
    with folder.lease():
        if fresh and (aside := folder.set_aside()):
            console.print(f"the old run is now {aside}", highlight=False)
    with folder.lease():
        run = _Run(sweep, Path(sweep_path), trials, folder, tuple(imports), console)
        interrupted = run.to_the_end(address)
        return run.sum_up(interrupted, as_json_document, sweep_path)


def run_and_read(sweep_path: str, overrides: Sequence[str]) -> SweepResult:
    """Run a sweep from Python; return its results.

    Raises:
        UserError: something about the input is wrong; nothing was begun.
        Interrupted: the user stopped it; the state is safe.
    """
    sweep = load_sweep(sweep_path, overrides)
    if run_sweep(sweep_path, overrides) == Interrupted.exit_code:
        raise Interrupted(f"{sweep.name}: stopped; run it again to go on")
    return read_results(RunFolder(storage_of(sweep, sweep_path), sweep.name))


class _Run:
    def __init__(
        self,
        sweep: Sweep,
        sweep_path: Path,
        trials: list[Trial],
        folder: RunFolder,
        imports: tuple[str, ...],
        console: Console,
    ) -> None:
        self.sweep, self.sweep_path, self.trials = sweep, sweep_path, trials
        self.folder, self.imports = folder, imports
        self.records = [self._known(trial) for trial in trials]
        self.view = View(console, sweep.name, sweep.objective.maximize)
        self.board = Board(self.records, self.view.notify)
        self.stop = StopRequest()

    def to_the_end(self, address: str | None) -> bool:
        """Train what is left; return whether the user stopped it."""
        left = [record for record in self.records if not record.is_final]
        if not left:
            self.view.say(f"{self.sweep.name}: all {len(self.records)} trials are done")
            self._write_resolved({})
            return False
        with self.stop.on_signals(), self._view_while_running():
            connect(address)
            try:
                with self.stop.on_signals():  # again: connecting sets a handler of Ray's
                    slot = find_slot(self.sweep.resources)
                    self.view.say(_first_line(self.sweep.name, self.records, left))
                    data = self._prepare_data(left, slot)
                    if not self.stop.requested:
                        self._tune(left, slot, data)
            finally:
                ray.shutdown()
        return self.stop.requested

    def sum_up(self, interrupted: bool, as_json_document: bool, sweep_path: str) -> int:
        """Rebuild the views, say how it went and what comes next; return the exit code."""
        result = read_results(self.folder)
        if not interrupted:
            drop_weights_of_losers(self.folder, result, self.sweep.checkpoints.keep_best)
        for record in result.trials:
            if record.epoch and (record.id in self.board.ended or interrupted):
                write_tensorboard(self.folder, record)
        write_results(self.folder, result.trials)
        if as_json_document:
            print(json.dumps(as_json(result), allow_nan=False))
        print_trials(result.trials, stderr=as_json_document)
        self.view.say(f"run folder: {self.folder.path}")
        if interrupted:
            self.view.say("stopped; what is whole is committed. To go on, run the same command again")
            return 130
        failed = [record for record in result.trials if record.status == "failed"]
        for record in failed:
            error = record.error or {}
            self.view.say(f"{record.id} failed: {error.get('type')}: {error.get('message')}")
        if result.best:
            where = _storage_option(self.sweep, sweep_path, self.folder)
            self.view.say(f"best checkpoint: python -m raysweep pull {sweep_path}{where}")
        unfinished = [record.id for record in result.trials if not record.is_final and record.status != "failed"]
        if unfinished:
            self.view.say(f"not finished, run the same command again: {', '.join(unfinished)}")
        return 1 if failed or unfinished else 0

    # -- before

    def _known(self, trial: Trial) -> Record:
        record = self.folder.record(trial.id)
        planned = planned_record(trial)
        return planned if record is None else record.with_(name=planned.name, axes=planned.axes, config=planned.config)

    def _write_resolved(self, conditions: dict[str, dict[str, Any]]) -> None:
        known = {record.id: record.conditions for record in self.records if record.conditions}
        write_resolved(self.folder, self.sweep, self.sweep_path, self.trials, {**known, **conditions})

    def _prepare_data(self, left: list[Record], slot: Slot) -> dict[str, Any]:
        """Prepare each data set once, where trials run; return the object references of the arrays by data config.

        Raises:
            DataError: a data set cannot be read as asked.
            UserError: data, precision or workers are not those the run began with.
        """
        configs = {record.id: TrialConfig.model_validate(record.config) for record in left}
        wanted = {config.data.model_dump_json(): config.data for config in configs.values()}
        prepare = ray.remote(num_cpus=slot.cpus, num_gpus=slot.gpus)(_prepare)
        folder = str(self.sweep_path.absolute().parent)
        references, found = {}, {}
        for key, data in wanted.items():
            samples = [config for config in configs.values() if config.data == data]
            on_a_slot = prepare.options(runtime_env={"env_vars": process_environment(slot.threads)})
            reference, found[key] = _get(on_a_slot.remote(data, folder, self.imports, samples, slot.workers))
            references[key] = reference[0]
        resolved = {
            record.id: found[configs[record.id].data.model_dump_json()][configs[record.id].precision] for record in left
        }
        check_conditions(self.folder, left, resolved)
        self._write_resolved(resolved)
        return references

    # -- meanwhile

    def _tune(self, left: list[Record], slot: Slot, data: dict[str, Any]) -> None:
        flag = ray.remote(num_cpus=0)(StopFlag).remote()
        sweep = self.sweep
        assignments = [
            Assignment(
                record=record,
                storage=self.folder.parent.uri,
                run_name=self.folder.name,
                objective=sweep.objective,
                retries=sweep.retries,
                commit_every_s=sweep.checkpoints.every_minutes * 60,
                threads=slot.threads,
                workers=slot.workers,
                imports=self.imports,
            )
            for record in left
        ]
        with tempfile.TemporaryDirectory(prefix="raysweep-") as scratch, self._housekeeping(flag):
            _tune_environment()
            self.board.began = time.monotonic()
            tune.Tuner(
                tune.with_resources(
                    tune.with_parameters(run_trial, data=data, stop=flag),
                    tune.PlacementGroupFactory([slot.bundle] * slot.workers),
                ),
                tune_config=tune.TuneConfig(
                    search_alg=PlanSearcher(assignments, self.stop),
                    scheduler=make_scheduler(sweep, max(trial.config.epochs for trial in self.trials)),
                    num_samples=len(assignments),
                    max_concurrent_trials=sweep.limits.max_concurrent,
                    reuse_actors=True,
                ),
                run_config=tune.RunConfig(
                    name="tune",
                    storage_path=scratch,
                    verbose=0,
                    callbacks=[TuneEvents(self.board, self.stop, self._fail)],
                    failure_config=tune.FailureConfig(max_failures=sweep.retries),
                ),
            ).fit()

    def _fail(self, planned: Record, reason: str) -> None:
        record = self.folder.record(planned.id) or planned
        last_line = reason.strip().splitlines()[-1] if reason.strip() else "its process died"
        error = {"type": "ProcessDied", "message": last_line, "traceback": reason}
        self.folder.commit(record.with_(status="failed", error=error), {})

    @contextmanager
    def _view_while_running(self) -> Iterator[None]:
        with self.view:
            self.view.board = self.board
            yield

    @contextmanager
    def _housekeeping(self, flag: Any) -> Iterator[None]:
        """Beside Tune: hand a stop request on to the trials, and refresh the views now and then."""
        over = threading.Event()

        def keep() -> None:
            told, waited = False, 0.0
            while not over.wait(0.1):
                waited += 0.1
                if self.stop.requested and not told:
                    told = True
                    self.view.say("stopping: trials commit what is whole (again to end at once)")
                    flag.set.remote()
                if waited >= REFRESH_VIEWS_EVERY_S:
                    waited = 0.0
                    self._refresh_views()

        thread = threading.Thread(target=keep, name="raysweep-housekeeping")
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _refresh_views(self) -> None:
        result = read_results(self.folder)
        write_results(self.folder, result.trials)
        with self.board.lock:
            ended = set(self.board.ended)
        for record in result.trials:
            if record.id in ended or record.status == "running":
                write_tensorboard(self.folder, record)


def drop_weights_of_losers(folder: RunFolder, result: SweepResult, keep_best: int) -> None:
    """Delete the weights of ended trials that are not among the best, so that a large sweep does not fill the disk."""
    for record in result.trials[keep_best:]:
        if record.is_final and record.weights:
            folder.commit(record, {}, keep=())


def _get(reference: Any) -> Any:
    """`ray.get`, with the user's errors raised as they were, without the remote traceback."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from None
        raise


def _prepare(
    data: DataConfig, folder: str, imports: tuple[str, ...], samples: list[TrialConfig], workers: int
) -> tuple[list[Any], dict[str, dict[str, Any]]]:
    """Remote: prepare a data set and put it into the object store; say what each precision resolves to here.

    Returns:
        The reference, in a list so that Ray hands it on unopened, and the conditions by `precision`.
    """
    from raysweep.data import open_data
    from raysweep.trial import check_model, conditions

    import_modules(imports)
    dataset = open_data(data, sweep_folder=Path(folder))
    for config in {sample.model.model_dump_json(): sample for sample in samples}.values():
        check_model(config, dataset)
    return [ray.put(dataset.to_arrays())], {
        config.precision: conditions(config, dataset, workers) for config in samples
    }


def _first_line(name: str, records: list[Record], left: list[Record]) -> str:
    begun = sum(record.epoch > 0 for record in left)
    parts = [f"{name}: {len(records)} trials"]
    if len(left) < len(records):
        parts.append(f"{len(records) - len(left)} done")
    if begun:
        parts.append(f"{begun} to continue")
    url = dashboard_url()
    return ", ".join(parts) + (f"; dashboard: {url}" if url else "")


def _storage_option(sweep: Sweep, sweep_path: str, folder: RunFolder) -> str:
    """What the pull command needs to find the run folder, where it is not the sweep file's own."""
    uri = folder.parent.uri
    return "" if uri == storage_of(sweep, sweep_path) else f" --storage {uri}"


def _tune_environment() -> None:
    """Ray's and Tune's own chatter off, and no state files of Tune's that nobody reads."""
    os.environ.update(
        RAY_AIR_NEW_OUTPUT="0",
        TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1",
        TUNE_GLOBAL_CHECKPOINT_S="1000000",
        TUNE_DISABLE_SIGINT_HANDLER="1",
    )
    for name in ("ray.tune", "ray.train", "ray._private"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
