"""The work on the cluster: Tune trains the trials, with the queue behind it, then a task evaluates the winner.

Beside Tune, threads count what is spent, hand on that the run is to stop, and refresh the exports.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import ray
from ray import tune
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raysweep.cluster.hosts import ids_of
from raysweep.cluster.slots import SAY_EVERY_S, Shortage, Slot, count_slots, node_names
from raysweep.driver.adopting import adopt
from raysweep.driver.before import (
    Run,
    TrainedOn,
    conditions_by_likeness,
    is_prepared,
    next_proposals,
    next_round,
    nodes_without,
    run_task,
)
from raysweep.driver.endings import drop_weights_of_losers, losers_of
from raysweep.driver.events import TuneEvents
from raysweep.driver.housekeeping import Tolerant, repeating
from raysweep.driver.limits import SAVE_EVERY_S
from raysweep.driver.metrics import EXPORT_EVERY_S, Meters
from raysweep.driver.nodes import Nodes, SlotRequest
from raysweep.driver.queue import Stage, TrialQueue
from raysweep.driver.scheduler import PlanSearcher, make_scheduler
from raysweep.driver.sharing import Sharing, keys_of_last_states, whose_last_stays
from raysweep.errors import StorageError, UserError
from raysweep.halving.replay import is_done
from raysweep.halving.rules import rules_of
from raysweep.halving.scores import score_again
from raysweep.loops import EvaluatingLoop
from raysweep.results import mistakes
from raysweep.results.evaluation import (
    Accuracies,
    Evaluation,
    is_wanted,
    read_evaluation,
    views_to_evaluate,
    write_evaluation,
)
from raysweep.results.mistakes import Mistakes, rival_of
from raysweep.results.ranking import rank, standings
from raysweep.results.run import read_results
from raysweep.results.trade_offs import rank_all
from raysweep.store import Record
from raysweep.store.exports import write_results
from raysweep.store.newest import write_newest
from raysweep.store.record import FINAL
from raysweep.store.states import StateStore
from raysweep.sweepfile.plan import Trial
from raysweep.sweepfile.schema import AshaConfig, RayAshaConfig
from raysweep.worker.data import OnEachNode
from raysweep.worker.naming import called, name_of, trainable_called
from raysweep.worker.notices import LOOK_EVERY_S, drained_nodes
from raysweep.worker.tasks import Assignment, Questions, StopFlag, Trainable, evaluate

REFRESH_EXPORTS_EVERY_S = 10.0
REFRESH_EXPORTS_SHARE = 0.05
"""The share of time that refreshing may take: a large sweep's exports are refreshed less often."""
REFRESH_EXPORTS_AT_LEAST_EVERY_S = 45.0
"""With the time that refreshing takes, exports are a minute old at most."""
WRITE_NEWEST_EVERY_S = 0.5
WRITE_NEWEST_SHARE = 0.1
"""The share of time that writing the newest epochs may take, if it takes longer than 0.05 s."""


def train(run: Run, left: Sequence[Record], slot: Slot, on: TrainedOn) -> None:
    """Let Tune run what is left, until it is done or the run is to stop."""
    name = name_of(run.sweep.name)
    flag = _start_stop_flag(name)
    nodes = Nodes(partial(count_slots, slot))
    request = SlotRequest(slot, lambda: nodes.avoided)
    queue = _make_queue(run, left, slot, on, nodes)
    limits, retries = run.sweep.limits, run.sweep.retries
    events = TuneEvents(
        run.board, run.stop, retries, limits.stall_minutes, queue, nodes, run.endings.fail, run.view.say
    )
    with tempfile.TemporaryDirectory(prefix="raysweep-") as scratch, _housekeeping(run, slot, nodes, flag):
        _set_tune_environment(max_starting=max(1, count_slots(slot)))
        run.board.began = time.monotonic()
        trainable = tune.with_resources(tune.with_parameters(Trainable(), data=on.data, stop=flag), request)
        tune.Tuner(
            trainable_called(trainable, name),
            tune_config=_tune_config(run, queue, request),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=scratch,
                verbose=0,
                callbacks=[events],
                failure_config=tune.FailureConfig(max_failures=-1),  # which deaths count is for TuneEvents to say
            ),
        ).fit()


def _start_stop_flag(name: str) -> Any:
    """Start the flag's actor on this node, which the run depends on anyway; its process may die and is made anew."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    make: Any = ray.remote(num_cpus=0)(called(StopFlag, f"{name} (stop flag)"))
    return make.options(scheduling_strategy=here, max_restarts=-1, max_task_retries=-1).remote()


def _make_queue(run: Run, left: Sequence[Record], slot: Slot, on: TrainedOn, nodes: Nodes) -> TrialQueue:
    def stage_of(left: Sequence[Record], beside: bool = False) -> Stage:
        """Return trials as a stage of its own, or to be trained `beside` those that run."""
        run.tried.update(record.id for record in left)
        sharing = _sharing(run, left, on.conditions)
        assignments = [_assignment(run, record, slot, on.conditions[record.id], sharing) for record in left]
        if beside and run.sharing:
            run.sharing.join(sharing)
        else:
            run.sharing = sharing
        run.board.sharing = run.sharing
        run.board.waits = run.sharing.twins.waits
        return run.rerun.halving, assignments, run.sharing.twins

    def are_ready(trials: Sequence[Trial]) -> bool:
        return conditions_by_likeness(run, on, trials) is not None

    def next_stage(is_busy: bool) -> Stage | None:
        """Return more trials for these processes, unless Tune's own ASHA would stop them, or their data is not here.

        While others still run, they are those of a search.
        """
        if isinstance(run.scheduler, RayAshaConfig):
            return None
        try:
            more = next_proposals(run, are_ready) if is_busy else next_round(run)
            return stage_of(more, beside=is_busy) if more and is_prepared(run, on, more) else None
        except UserError as error:  # Tune, which asks, would make a traceback of it
            run.stop.request(fault=str(error))
            return None

    return TrialQueue(
        stage_of(left),
        next_stage,
        count_slots=lambda: count_slots(slot, without=nodes.avoided),
        max_concurrent=run.sweep.limits.max_concurrent,
        retries=run.sweep.retries,
        endings=run.endings,
        stop=run.stop,
    )


def _sharing(run: Run, left: Sequence[Record], conditions: Mapping[str, Mapping[str, Any]]) -> Sharing:
    """Return what these trials share with one another, and with states that earlier ones have left."""
    shares_any, rules = run.sweep.shares_epochs, rules_of(run.scheduler, run.sweep.objective, left)
    trials = {trial.id: trial for trial in (*run.trials, *run.fresh)}
    early = [record.id for record in left if record.start and record.epoch < record.start.epoch] if shares_any else []
    if early and (remark := adopt(StateStore(run.folder), trials[early[0]], conditions[early[0]])):
        run.view.say(f"start: {remark}")
    elif any(record.start and record.epoch < record.start.epoch for record in left):
        run.view.say("start: nothing is shared here, so each trial trains the epochs that it begins with itself")
    sharing = Sharing(
        [trials[record.id] for record in left] if shares_any else [],
        left,
        conditions,
        rungs=lambda record: rules.rung_epochs(record.epochs),
        keeps_last=run.sweep.checkpoints.keep_last != "none",
        kept=StateStore(run.folder).all() if shares_any else {},
        objective=run.sweep.objective,
    )
    finished = {record.id: record for record in run.records if record.status == "finished" and record.id in trials}
    sharing.last_states.update(keys_of_last_states(list(trials.values()), finished))
    return sharing


def _assignment(run: Run, record: Record, slot: Slot, conditions: dict[str, Any], sharing: Sharing) -> Assignment:
    sweep, scheduler = run.sweep, run.scheduler
    return Assignment(
        record=record,
        storage=run.folder.parent.uri,
        run_name=run.folder.name,
        objective=sweep.objective,
        retries=sweep.retries,
        commit_every_s=sweep.checkpoints.every_minutes * 60,
        threads=slot.threads,
        conditions=conditions,
        device=slot.device,
        gpu_share=min(1.0, slot.gpus),
        rungs=rules_of(scheduler, sweep.objective, [record]).rung_epochs(record.epochs),
        stops=sharing.stops.get(record.id, {}),
        rank_by=scheduler.rank_by if isinstance(scheduler, AshaConfig) else "ema",
        may_be_stopped=isinstance(scheduler, RayAshaConfig),
        workers=slot.workers,
        imports=run.imports,
        loop=sweep.loop,
    )


def _tune_config(run: Run, queue: TrialQueue, request: SlotRequest) -> tune.TuneConfig:
    longest = max(record.epochs for record in run.rerun.records)
    return tune.TuneConfig(
        search_alg=PlanSearcher(queue),
        scheduler=make_scheduler(run.scheduler, run.sweep.objective, queue, request, longest),
        num_samples=-1,  # the searcher says when it is done: trials that cannot be started are handed out anew
        reuse_actors=True,
    )


def _set_tune_environment(max_starting: int) -> None:
    """Silence Ray and Tune, keep Tune from state files that nobody reads, and let processes start side by side."""
    os.environ.update(
        TUNE_MAX_PENDING_TRIALS_PG=str(max_starting),
        RAY_AIR_NEW_OUTPUT="0",
        TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1",
        TUNE_GLOBAL_CHECKPOINT_S="1000000",
        TUNE_DISABLE_SIGINT_HANDLER="1",
    )
    for name in ("ray.tune", "ray.train", "ray._private"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


@contextmanager
def _housekeeping(run: Run, slot: Slot, nodes: Nodes, flag: Any) -> Iterator[None]:
    """Do beside Tune what has to be done now and then, each on a thread of its own, while the block lasts."""
    tolerant = Tolerant(run.folder.path, run.view.say)
    refresh, save = partial(tolerant, partial(_refresh_exports, run)), partial(tolerant, run.meter.save)
    meters = Meters(run.board, run.sweep.name)
    run.meter.start()
    with (
        repeating("raysweep-watch", _watch(run, flag), every_s=0.1),
        repeating(
            "raysweep-exports",
            refresh,
            every_s=REFRESH_EXPORTS_EVERY_S,
            share=REFRESH_EXPORTS_SHARE,
            at_least_every_s=REFRESH_EXPORTS_AT_LEAST_EVERY_S,
        ),
        _telling_newest(run, tolerant),
        repeating("raysweep-spent", save, every_s=SAVE_EVERY_S),
        repeating("raysweep-slots", Shortage(slot, run.view.say, lambda: nodes.avoided).look, every_s=SAY_EVERY_S),
        repeating("raysweep-metrics", meters.export, every_s=EXPORT_EVERY_S),
        repeating("raysweep-notices", _tell_of_nodes_that_leave(run), every_s=LOOK_EVERY_S),
    ):
        yield


@contextmanager
def _telling_newest(run: Run, tolerant: Tolerant) -> Iterator[None]:
    """Keep the file of the newest epochs up to date while the block lasts.

    It stays when the block ends: the exports that have all epochs are written only once the winner is evaluated, and
    `sum_up` removes it then. If it went earlier, readers would see trials go back.
    """

    def write() -> None:
        tails = run.board.newest()
        if tails is None:
            return
        try:
            write_newest(run.folder, tails)
        except StorageError:
            run.board.tell_again()
            raise

    tell = partial(tolerant, write)
    run.board.tell_again()
    tell()
    with repeating("raysweep-newest", tell, every_s=WRITE_NEWEST_EVERY_S, share=WRITE_NEWEST_SHARE):
        yield
    tell()


def _watch(run: Run, flag: Any) -> Callable[[], None]:
    """Return what counts the hours that are spent, and tells the trials once that the run is to stop."""
    told = False

    def watch() -> None:
        nonlocal told
        run.meter.count(len(run.board.with_status("running")) * run.board.gpus)
        if limit := run.meter.spent_limit():
            run.stop.request(limit)
        if not run.stop.requested:
            return
        if not told:
            told = True
            why = run.stop.limit or run.stop.fault
            run.view.say(f"{f'{why}: ' if why else ''}stopping: trials commit what is whole (again to end at once)")
        flag.set.remote()  # again and again, since the flag's process may be a new one

    return watch


def _tell_of_nodes_that_leave(run: Run) -> Callable[[], None]:
    """Return what says of each node, once, that it is to go away."""
    told: set[str] = set()

    def tell() -> None:
        for node in set(drained_nodes()) - told:
            told.add(node)
            name = node_names().get(node, node)
            run.view.say(f"{name}: this node is to go away: trials there commit now, and no new process starts there")

    return tell


def _refresh_exports(run: Run) -> None:
    """Bring results.parquet and the TensorBoard files up to date, and drop the weights of those that have lost."""
    from raysweep.store.tensorboard import write_tensorboard

    with run.board.changes() as changed:
        records = _records_now(run, changed)
        objective, fresh = run.sweep.objective, {trial.id for trial in run.fresh}
        shown = rank_all(records, objective, fresh)
        in_order = [record for config in shown for record in config.trials]
        write_results(run.folder, in_order, standings(shown))
        # A trial that an earlier run stopped may get a place in a larger plan, and then its process commits again.
        stopped = (record for record in run.records if record.status == "stopped")
        may_come_back = {record.id for record in stopped if not is_done(record, run.sweep.scheduler)}
        confirm = run.sweep.confirm
        keep_best = max(run.sweep.checkpoints.keep_best, confirm.top if confirm else 0)  # each may still win the race
        ranked = rank(records, objective, fresh) if confirm else shown  # the race is of the first objective
        drop_weights_of_losers(run.folder, ranked, keep_best, objective, may_come_back)
        _drop_states(run, losers_of(ranked, keep_best, objective, may_come_back), may_come_back)
        outdated = [record for record in records if record.id in changed and record.epoch]
        run.folder.files.for_each(partial(write_tensorboard, run.folder), outdated)


def _drop_states(run: Run, losers: Sequence[Record], may_come_back: Collection[str]) -> None:
    """Delete the states that no trial of this stage may want any more."""
    if run.sharing is None or not run.sharing.known:
        return
    store, sharing, stays = StateStore(run.folder), run.sharing, whose_last_stays(run.sweep, losers)
    trials = run.board.trials
    going_on = {id: each.epoch for id, each in trials.items() if each.status not in FINAL or id in may_come_back}
    wanted = sharing.wanted(going_on) | {key for id, key in sharing.last_states.items() if id in going_on or stays(id)}
    store.drop(key for key in store.listed() if key in sharing.known - wanted and store.has(key))


def _records_now(run: Run, changed: Collection[str]) -> list[Record]:
    """Return the trials' records, of which only the `changed` ones are read again, with what is not committed yet."""
    objective = run.sweep.objective
    committed = run.folder.records([planned.id for planned in run.records], changed=changed)
    records = (committed[planned.id] or planned for planned in run.records)
    known = (record.with_(best=score_again(record.best, record.metrics, objective)) for record in records)
    return [run.board.ahead_of(record, objective) for record in known]


def evaluate_best(run: Run, data: Mapping[str, Any], slot: Slot) -> None:
    """Measure the winner's best weights as the sweep asks for, and its mistakes, unless the run folder has it already.

    A data set whose reference is in `data` need not be opened again. A fault is only said, since the trials are done
    all the same; a rerun tries again.
    """
    asked = _questions(run)
    if asked is None:
        return
    config = run.loop.config.model_validate(asked.winner.config)
    placed = data.get(run.loop.data_key(config))
    arrays = None if isinstance(placed, OnEachNode) else placed  # the task opens it where it runs
    try:
        without = ids_of(nodes_without(run, slot, config)) if arrays is None else []
        answer = run_task(run, slot, f"evaluating {asked.winner.id}", evaluate, asked, arrays, without=without)
    except (ray.exceptions.RayError, UserError) as error:
        lines = str(getattr(error, "cause", None) or error).strip().splitlines()
        reason = lines[-1] if lines else type(error).__name__  # the last line of a traceback says what went wrong
        run.view.say(f"{asked.winner.id}: its evaluation failed: {reason}")
        return
    if answer is not None:
        _write_answer(run, asked, *answer)


def _questions(run: Run) -> Questions | None:
    """Return what the run folder does not know of the winner yet; None if that is nothing, or the loop cannot tell."""
    if not isinstance(run.loop, EvaluatingLoop):
        return None
    folder, sweep, result = run.folder, run.sweep, read_results(run.folder)
    winner, rival, images = result.best, rival_of(folder, result.configs), sweep.report.images
    lacks_accuracies = is_wanted(folder, winner, sweep.evaluate.tta)
    lacks_mistakes = mistakes.is_wanted(folder, winner, rival, images)
    if winner is None or not (lacks_accuracies or lacks_mistakes):
        return None
    views = views_to_evaluate(winner, sweep.evaluate.tta) if lacks_accuracies else []
    return Questions(folder.parent.uri, folder.name, winner, views, lacks_mistakes, rival, images)


def _write_answer(run: Run, asked: Questions, accuracies: list[Accuracies], found: Mistakes | None) -> None:
    winner = asked.winner
    if asked.tta and winner.best is not None:
        weights, best, before = winner.weights["best"].sha256, winner.best, read_evaluation(run.folder)
        measured = sorted({before.weights, *before.before} - {weights}) if before else []
        evaluation = Evaluation(winner.id, best.epoch, best.averaged, weights, accuracies, measured)
        write_evaluation(run.folder, evaluation)
    if found is not None:
        mistakes.write_mistakes(run.folder, found)
