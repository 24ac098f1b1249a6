"""The story of a run: read the sweep file, plan, connect, prepare the data, let Tune run what is left, sum up.

A rerun is a resume: the plan says what is wanted, the records what is done, and only the difference is trained.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from rich.console import Console

from raysweep.cluster.places import describe_job, storage_problem
from raysweep.cluster.slots import Slot, alive_hosts, connect, count_slots, dashboard_url, find_slot
from raysweep.driver.board import Board
from raysweep.driver.conditions import check_conditions
from raysweep.driver.events import TuneEvents
from raysweep.driver.failures import Failure
from raysweep.driver.housekeeping import Tolerant, repeating
from raysweep.driver.limits import SAVE_EVERY_S, Meter
from raysweep.driver.metrics import shown_on_dashboard
from raysweep.driver.queue import TrialQueue
from raysweep.driver.scheduler import PlanSearcher, make_scheduler
from raysweep.driver.stop import StopRequest
from raysweep.driver.tasks import TaskRunner, evaluate_best, prepare_data
from raysweep.driver.view import View
from raysweep.errors import ClusterError, Interrupted, LimitReached, StorageError
from raysweep.halving.replay import is_done, replay
from raysweep.halving.rules import rules_of
from raysweep.halving.rungs import RungReport, Verdict
from raysweep.halving.scores import score_again
from raysweep.halving.words import decisive, in_words
from raysweep.loops import loop
from raysweep.report import write_report
from raysweep.results.evaluation import is_wanted
from raysweep.results.ranking import rank
from raysweep.results.run import SweepResult, as_json, read_results
from raysweep.results.table import print_evaluation, print_trials
from raysweep.store import Record, RunFolder
from raysweep.store.exports import write_results
from raysweep.store.record import planned_record
from raysweep.store.resolved import write_resolved
from raysweep.sweepfile import Sweep, load_sweep, storage_of
from raysweep.sweepfile.named import Named
from raysweep.sweepfile.plan import Trial, plan_trials
from raysweep.sweepfile.schema import AshaConfig, RayAshaConfig
from raysweep.worker.tasks import Assignment, StopFlag, Trainable

REFRESH_VIEWS_EVERY_S = 10.0
REFRESH_VIEWS_SHARE = 0.05
"""Of the time that refreshing may take: a large sweep's views are refreshed less often."""


def run_sweep(
    sweep: Sweep,
    folder: RunFolder,
    named: Named,
    *,
    address: str | None = None,
    imports: Sequence[str] = (),
    fresh: bool = False,
    as_json_document: bool = False,
) -> int:
    """Run a sweep, or go on with it; return the exit code.

    0: done; 1: some trials failed; 3: a limit is spent; 130: stopped by the user.

    Args:
        sweep: the sweep, read from a file.
        folder: its run folder.
        named: how the user named both, for messages.
        address: the address of a Ray cluster; default: $RAY_ADDRESS, else one is started on this machine.
        imports: modules that register the user's networks, data sources and augmentations; imported already.
        fresh: whether to move an old run folder aside first.
        as_json_document: whether to print the results as one JSON document on stdout.

    Raises:
        UserError: something about the input is wrong; nothing was begun.
    """
    folder.check_place()
    console = Console(stderr=True)
    if fresh:
        with folder.lease():
            aside = folder.set_aside()
        if aside:
            console.print(f"the old run is now {aside}", highlight=False)
    with folder.lease():
        run = _Run(sweep, Path(named.path), plan_trials(sweep), folder, tuple(imports), console)
        run.to_the_end(address, storage_problem(sweep, named.path, named.storage))
        return run.sum_up(as_json_document, named)


def run_and_read(path: str, overrides: Sequence[str]) -> SweepResult:
    """Run a sweep file from Python; return its results.

    Raises:
        UserError: something about the input is wrong; nothing was begun.
        Interrupted: the user stopped it; the state is safe.
        LimitReached: a limit is spent; the state is safe.
    """
    sweep = load_sweep(path, overrides)
    folder = RunFolder(storage_of(sweep, path), sweep.name)
    code = run_sweep(sweep, folder, Named(path, tuple(overrides)))
    if code == Interrupted.exit_code:
        raise Interrupted(f"{sweep.name}: stopped; run it again to go on")
    if code == LimitReached.exit_code:
        raise LimitReached(f"{sweep.name}: a limit is spent; raise it and run it again to go on")
    return read_results(folder)


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
        self.board = Board(self.records)
        self.view = View(console, sweep.name, sweep.objective.maximize, self.board)
        self.stop = StopRequest()
        self.halving = replay(self.records, sweep.scheduler, sweep.objective, retry_failed=True)
        self.meter = Meter(folder, sweep.limits)
        self.closer = ThreadPoolExecutor(1, thread_name_prefix="raysweep-closer")
        self.closing: list[Future[None]] = []
        stopped = (record for record in self.records if record.status == "stopped")
        self.may_come_back = {record.id for record in stopped if not is_done(record, sweep.scheduler)}
        """Trials that `asha` stopped in an earlier run; in a larger plan they may get a place, and write again."""

    def to_the_end(self, address: str | None, if_several_nodes: str | None = None) -> None:
        """Train what is left, until the user or a limit stops it; `if_several_nodes`: why a cluster cannot."""
        left = self._left()
        if self.halving.next_trial() is None:
            self.view.say(f"{self.sweep.name}: all {len(self.records)} trials are done")
            self._write_resolved({})
            if not self._evaluation_is_wanted():
                return
            left = []
        elif limit := self.meter.spent_limit():
            self.stop.request(limit)
            self._write_resolved({})
            return
        with self.stop.on_signals(), self.view:
            connect(address, describe_job(self.sweep.name, self.folder.path))
            try:
                with self.stop.on_signals():  # again: connecting sets a handler of Ray's
                    if if_several_nodes and len(alive_hosts()) > 1:
                        raise ClusterError(if_several_nodes)
                    slot = find_slot(self.sweep.resources, self.view.say)
                    self.view.gpus = slot.workers * slot.gpus
                    data: dict[str, Any] = {}
                    if left:
                        self.view.say(_first_line(self.sweep.name, self.records, left))
                        # Imports torch, for seconds: now, while this process waits for others to prepare the data.
                        threading.Thread(target=importlib.import_module, args=("raysweep.store.tensorboard",)).start()
                        data = self._prepare_data(left, slot)
                        if not self.stop.requested:
                            self._tune(left, slot, data)
                    if not self.stop.requested:
                        self._evaluate(slot, data)
            finally:
                ray.shutdown()

    def sum_up(self, as_json_document: bool, named: Named) -> int:
        """Rebuild the views, say how it went and what comes next; return the exit code."""
        from raysweep.store.tensorboard import outdated_tensorboard, write_tensorboard

        self._finish_closing()
        if self.stop.fault:
            raise StorageError(self.stop.fault)
        interrupted = self.stop.requested
        if interrupted and not self.folder.files.is_file("resolved.yaml"):
            self.view.say("stopped before anything was trained. To begin, run the same command again")
            return Interrupted.exit_code
        self.meter.save(cut_short=self.stop.limit)
        result = read_results(self.folder)
        if not interrupted:
            drop_weights_of_losers(self.folder, result.trials, self.sweep.checkpoints.keep_best)
            for path in self.folder.rubbish(self.folder.files.list_files(recursive=True)):
                self.folder.files.delete(path)
        for record in outdated_tensorboard(self.folder, result.trials):
            write_tensorboard(self.folder, record)
        write_results(self.folder, result.trials)
        if as_json_document:
            print(json.dumps(as_json(result), allow_nan=False))
        print_trials(result.trials, stderr=as_json_document)
        print_evaluation(result.evaluation, stderr=as_json_document)
        self.view.say(f"run folder: {self.folder.path}")
        self._write_report(named)
        if self.stop.limit:
            self.view.say(
                f"{self.stop.limit}; what is whole is committed, the ranking is that of trials cut short. "
                "To go on, raise the limit and run the same command again"
            )
            return LimitReached.exit_code
        if interrupted:
            self.view.say("stopped; what is whole is committed. To go on, run the same command again")
            return Interrupted.exit_code
        failed = [record for record in result.trials if record.status == "failed"]
        for record in failed:
            error = record.error or {}
            self.view.say(f"{record.id} failed: {error.get('type')}: {error.get('message')}")
        if result.best:
            self.view.say(f"best checkpoint: python -m raysweep pull {named.in_words()}")
        unfinished = [record.id for record in result.trials if not record.is_final and record.status != "failed"]
        if unfinished:
            self.view.say(f"not finished, run the same command again: {', '.join(unfinished)}")
        return 1 if failed or unfinished or self._evaluation_is_wanted() else 0

    def _write_report(self, named: Named) -> None:
        """Write the report; it is a view, so a fault in it is said and changes nothing about how the run ended."""
        try:
            page = write_report(read_results(self.folder), named, has_ended=True)
        except Exception as error:
            again = f"python -m raysweep report {named.in_words()}"
            self.view.say(f"no report: {type(error).__name__}: {error}; try again: {again}")
        else:
            self.view.say(f"report: {page}")

    # -- before

    def _known(self, trial: Trial) -> Record:
        record = self.folder.record(trial.id)
        planned = planned_record(trial)
        if record is None:
            return planned
        best = score_again(record.best, record.metrics, self.sweep.objective)
        return record.with_(name=planned.name, axes=planned.axes, config=planned.config, best=best)

    def _left(self) -> list[Record]:
        """Return the trials that may have to go on; commit the end of those that wait and now have no chance."""
        left = []
        for record in self.records:
            if is_done(record, self.sweep.scheduler):
                continue
            if self.halving.verdict(record.id) is not Verdict.OUT:
                left.append(record)
            elif not record.is_final:
                self._on_stop(record.id, self.halving.explain(record.id))
        return left

    def _write_resolved(self, conditions: dict[str, dict[str, Any]]) -> None:
        known = {record.id: record.conditions for record in self.records if record.conditions}
        data = {entry["data"] for entry in {**known, **conditions}.values()}
        write_resolved(self.folder, self.sweep, self.sweep_path.read_bytes(), self.trials, data)

    def _prepare_data(self, left: list[Record], slot: Slot) -> dict[str, Any]:
        """Prepare the data sets of what is left; return the object references of their arrays by data config.

        Raises:
            DataError: a data set cannot be read as asked.
            UserError: data, precision or workers are not those the run began with.
        """
        configs = {record.id: loop().config.model_validate(record.config) for record in left}
        prepared = prepare_data(configs, self._tasks(slot))
        if prepared is None:
            return {}
        check_conditions(self.folder, left, prepared.conditions)
        self._write_resolved(prepared.conditions)
        return prepared.references

    # -- meanwhile

    def _tune(self, left: list[Record], slot: Slot, data: dict[str, Any]) -> None:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        make_flag: Any = ray.remote(num_cpus=0)(StopFlag)
        flag = make_flag.options(scheduling_strategy=here).remote()  # on another node it could die, and read as set
        sweep = self.sweep
        queue = TrialQueue(
            self.halving,
            [self._assignment(record, slot) for record in left],
            paused=[record.id for record in left if self.halving.verdict(record.id) is Verdict.UNDECIDED],
            count_slots=lambda: count_slots(slot),
            max_concurrent=sweep.limits.max_concurrent,
            retries=sweep.retries,
            on_pause=self._on_pause,
            on_stop=self._on_stop,
        )
        longest = max(trial.config.epochs for trial in self.trials)
        with (
            tempfile.TemporaryDirectory(prefix="raysweep-") as scratch,
            self._housekeeping(flag, slot),
            shown_on_dashboard(self.board, sweep.name, sweep.objective.maximize, slot.workers * slot.gpus),
        ):
            _tune_environment(max_starting=max(1, count_slots(slot)))
            self.board.began = time.monotonic()
            tune.Tuner(
                tune.with_resources(
                    tune.with_parameters(Trainable(), data=data, stop=flag),
                    tune.PlacementGroupFactory([slot.bundle] * slot.workers),
                ),
                tune_config=tune.TuneConfig(
                    search_alg=PlanSearcher(queue, self.stop),
                    scheduler=make_scheduler(sweep, queue, self.stop, longest),
                    num_samples=len(left) * (sweep.retries + 1) + 1,  # then Tune would take the search for finished
                    reuse_actors=True,
                ),
                run_config=tune.RunConfig(
                    name="tune",
                    storage_path=scratch,
                    verbose=0,
                    callbacks=[self._events(queue)],
                    failure_config=tune.FailureConfig(max_failures=-1),  # which deaths count is for TuneEvents to say
                ),
            ).fit()

    def _events(self, queue: TrialQueue) -> TuneEvents:
        stall_minutes = self.sweep.limits.stall_minutes
        stall_s = None if stall_minutes is None else stall_minutes * 60

        def fail(planned: Record, failure: Failure) -> None:
            self.closing.append(self.closer.submit(self._fail, planned, failure))

        return TuneEvents(self.board, self.stop, self.sweep.retries, stall_s, queue, fail)

    def _assignment(self, record: Record, slot: Slot) -> Assignment:
        sweep = self.sweep
        return Assignment(
            record=record,
            storage=self.folder.parent.uri,
            run_name=self.folder.name,
            objective=sweep.objective,
            retries=sweep.retries,
            commit_every_s=sweep.checkpoints.every_minutes * 60,
            threads=slot.threads,
            rungs=rules_of(sweep.scheduler, sweep.objective).rung_epochs(record.epochs),
            rank_by=sweep.scheduler.rank_by if isinstance(sweep.scheduler, AshaConfig) else "ema",
            may_be_stopped=isinstance(sweep.scheduler, RayAshaConfig),
            workers=slot.workers,
            imports=self.imports,
        )

    def _on_pause(self, trial_id: str, rungs: list[RungReport]) -> None:
        self.board.update(trial_id, "paused", status="paused", epoch=rungs[-1].epoch, reason=_reason(rungs))

    def _on_stop(self, trial_id: str, rungs: list[RungReport]) -> None:
        """Say that a trial is stopped, and commit that; it holds no slot, so its record is ours to write."""
        self.board.update(trial_id, "ended", status="stopped", epoch=rungs[-1].epoch, reason=_reason(rungs))
        self.closing.append(self.closer.submit(self._close, trial_id))

    def _close(self, trial_id: str) -> None:
        record = self.folder.record(trial_id)
        if record is not None and not record.is_final:
            self.folder.commit(record.with_(status="stopped"), {}, keep=("best",))

    def _finish_closing(self) -> None:
        self.closer.shutdown()
        for future in self.closing:
            future.result()

    def _fail(self, planned: Record, failure: Failure) -> None:
        record = self.folder.record(planned.id) or planned
        self.folder.commit(record.with_(status="failed", error=failure.as_error()), {})

    def _evaluation_is_wanted(self) -> bool:
        return is_wanted(self.folder, read_results(self.folder).best, self.sweep.evaluate.tta)

    def _evaluate(self, slot: Slot, data: dict[str, Any]) -> None:
        evaluate_best(self.folder, self.sweep.evaluate.tta, data, self._tasks(slot))

    def _tasks(self, slot: Slot) -> TaskRunner:
        return TaskRunner(slot, self.sweep_path.absolute().parent, self.imports, self.view, self.stop)

    @contextmanager
    def _housekeeping(self, flag: Any, slot: Slot) -> Iterator[None]:
        """Beside Tune: hand a stop request on to the trials, count what is spent, refresh the views now and then."""
        tolerant = Tolerant(self.folder.path, self.view.say)
        told = threading.Event()

        def watch() -> None:
            self.meter.count(len(self.board.with_status("running")) * slot.workers * slot.gpus)
            if limit := self.meter.spent_limit():
                self.stop.request(limit)
            if self.stop.requested and not told.is_set():
                told.set()
                why = self.stop.limit or self.stop.fault
                self.view.say(
                    f"{f'{why}: ' if why else ''}stopping: trials commit what is whole (again to end at once)"
                )
                flag.set.remote()

        refresh, save = partial(tolerant, self._refresh_views), partial(tolerant, self.meter.save)
        self.meter.start()
        with (
            repeating("raysweep-watch", watch, every_s=0.1),
            repeating("raysweep-views", refresh, every_s=REFRESH_VIEWS_EVERY_S, share=REFRESH_VIEWS_SHARE),
            repeating("raysweep-spent", save, every_s=SAVE_EVERY_S),
        ):
            yield

    def _refresh_views(self) -> None:
        from raysweep.store.tensorboard import write_tensorboard

        objective = self.sweep.objective
        records = [self.board.ahead_of(record, objective) for record in read_results(self.folder).trials]
        ranked = rank(records, objective)
        write_results(self.folder, ranked)
        over = [record for record in ranked if record.id not in self.may_come_back]
        drop_weights_of_losers(self.folder, over, self.sweep.checkpoints.keep_best)
        ended = self.board.take_ended()
        for record in records:
            if record.id in ended or record.status == "running":
                write_tensorboard(self.folder, record)


def drop_weights_of_losers(folder: RunFolder, ranked: Sequence[Record], keep_best: int) -> None:
    """Delete the weights of ended trials that are not among the best, so that a large sweep does not fill the disk."""
    ended = [record for record in ranked if record.is_final]
    for record in ended[keep_best:]:
        if record.weights:
            folder.commit(record, {}, keep=())


def _reason(rungs: list[RungReport]) -> str:
    report = decisive(rungs)
    return in_words(report) if report else ""


def _first_line(name: str, records: list[Record], left: list[Record]) -> str:
    begun = sum(record.epoch > 0 for record in left)
    parts = [f"{name}: {len(records)} trials"]
    if len(left) < len(records):
        parts.append(f"{len(records) - len(left)} done")
    if begun:
        parts.append(f"{begun} to continue")
    url = dashboard_url()
    return ", ".join(parts) + (f"; dashboard: {url}" if url else "")


def _tune_environment(max_starting: int) -> None:
    """Ray's and Tune's own chatter off, no state files of Tune's that nobody reads, processes started side by side."""
    os.environ.update(
        TUNE_MAX_PENDING_TRIALS_PG=str(max_starting),
        RAY_AIR_NEW_OUTPUT="0",
        TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1",
        TUNE_GLOBAL_CHECKPOINT_S="1000000",
        TUNE_DISABLE_SIGINT_HANDLER="1",
    )
    for name in ("ray.tune", "ray.train", "ray._private"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
