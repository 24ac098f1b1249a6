"""One trial under Ray: an `Assignment` in; commits to the run folder and reports to Tune out.

Tune owns the trial's slot and keeps its actor warm for the next trial. Ray Train runs the loop in local mode inside
that actor, so that no process is started for a trial. An exception of the loop is caught here and recorded, and the
trial is tried again: an exception that escaped would cost the warm actor. A CUDA error does end the process, which
cannot be trusted after it.
"""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent import futures
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import ray
import torch
from pydantic import ValidationError
from ray import tune
from ray.exceptions import NodeDiedError, RayActorError
from ray.util.placement_group import get_current_placement_group, placement_group_table

from raysweep.errors import Diverged, Interrupted, StorageError, UnfitNodeError, UserError
from raysweep.halving.scores import best_epoch, better_of, costs_of, first_rung_scores, is_same_epoch, score_again
from raysweep.loops import CLASSIFY, Epoch, GeneratorLoop, Loop, TrialContext, loop_named
from raysweep.store import Record, RunFolder
from raysweep.store.record import COSTS, LAST_WORDS, Status
from raysweep.store.runfolder import OF_THE_BEST, SUFFIX
from raysweep.store.states import StateStore
from raysweep.store.uploads import Uploads
from raysweep.sweepfile.messages import describe_errors
from raysweep.sweepfile.prefixes import Segment, segments_of, starts_of
from raysweep.worker import notices
from raysweep.worker.data import OnEachNode, arrays_of, in_a_thread
from raysweep.worker.frames import place_of, traceback_of
from raysweep.worker.looping import check_objective, ended_early, numbers_of, run_loop
from raysweep.worker.naming import name_of
from raysweep.worker.process import set_up_process
from raysweep.worker.ranks import ready_peers, run_ranks
from raysweep.worker.sharing import deepest_state, take_over
from raysweep.worker.states import Best, going_on_from, state_of
from raysweep.worker.tasks import Assignment

SAME_ERROR = ("type", "message", "at", "epoch")
"""What two errors have in common that come of the same cause, with no epoch between them."""
COMMIT_UNDER_NOTICE_EVERY_S = 20.0
"""How often a trial commits whose node is to go away."""
TELL_EVERY_S = 5.0
"""How often such a trial reports that it is alive, lest it be ended for its silence."""
WAIT_FOR_AN_EPOCH_S = 30.0
"""How long a trial that is to stop may take to the end of its epoch, where there are whole epochs to commit then."""
LOOK_EVERY_S = 0.25
"""How often a trial that waits for its data looks whether the run is to stop."""


def run_trial(config: dict[str, Any], data: Mapping[str, Any], stop: Any) -> None:
    """Train a trial from its last commit to its end; this is the function that Tune runs.

    `config` holds the assignment, `data` the object references of the prepared arrays, or `OnEachNode`s, by
    `Loop.data_key`; `stop` is the `StopFlag` actor.
    """
    # A loop and the peers of rank 0 may need this long to end. At Tune's default, 2 s, the next trial would fail unrun.
    os.environ["TUNE_FUNCTION_THREAD_TIMEOUT_S"] = "60"
    check_node(config["assignment"])
    _Run(config["assignment"], data, _watch(stop)).to_the_end()


def check_node(assignment: Assignment) -> None:
    """Refuse to train where the run folder is not seen: the node may have joined after the run had asked all others.

    Raises:
        UnfitNodeError: this node does not see it.
    """
    folder = RunFolder(assignment.storage, assignment.run_name, has_answered=True)
    if not folder.exists():
        raise UnfitNodeError(
            f"{socket.gethostname()} does not see the run folder {folder.path}: mount it there, or take the node out "
            "of the cluster"
        )


def train_as_peer(assignment: Assignment, placed: Any, epoch: int, state: bytes | None) -> None:
    """Train along as one of the ranks after the first; rank 0 does all else and decides what becomes of the trial."""
    segment = _segment_after(epoch, _get_ready(assignment))
    notices.watch((ray.get_runtime_context().get_node_id(),))
    with going_on_from(state) as last, contextlib.suppress(Diverged, Interrupted):
        trial = _context(assignment, segment.seed, arrays_of(placed), epoch, last)
        run_loop(loop_named(assignment.loop), segment.config, trial, lambda epoch: None, _name_of(assignment))


def _open_as_peer(assignment: Assignment, placed: OnEachNode) -> None:
    """Open a data set, which this process keeps, as one of the ranks after the first."""
    _get_ready(assignment)
    placed.open()


def _name_of(assignment: Assignment) -> str:
    return f"{assignment.run_name}-{assignment.record.id}"


def _context(
    assignment: Assignment,
    seed: int,
    arrays: Mapping[str, Any],
    epoch: int,
    last: tuple[Mapping[str, Any] | None, Path | None],
    should_stop: Callable[[], bool] = lambda: False,
    should_save: Callable[[], bool] = lambda: False,
) -> TrialContext:
    """Return what the loop of this process is told: after which epoch it goes on, and from what."""
    on_gpu = assignment.device != "cpu" and torch.cuda.is_available()
    return TrialContext(
        seed=seed,
        epoch=epoch,
        saved=last[0],
        checkpoint=last[1],
        device="cuda" if on_gpu else "cpu",
        data=arrays,
        conditions=assignment.conditions,
        rank=int(os.environ["RANK"]) if assignment.workers > 1 else 0,
        world_size=assignment.workers,
        gpu_share=assignment.gpu_share,
        should_stop=should_stop,
        should_save=should_save,
        from_another=epoch in {start.epoch for start in starts_of(assignment.record.start)},
    )


def _get_ready(assignment: Assignment) -> list[Segment]:
    """Make this process ready for a trial; return who trains its epochs, by settings that may name the user's modules.

    Raises:
        UserError: the settings are not valid here.
    """
    set_up_process(assignment.imports, assignment.threads, assignment.device)
    kind, record = loop_named(assignment.loop).config, assignment.record
    values = record.config
    try:
        own = Segment(assignment.loop, kind.model_validate(values), record.seed, record.epochs)
        return segments_of(record.start, own)
    except ValidationError as error:
        faults = (": ".join((".".join(map(str, way)), what)) for way, what in describe_errors(error, kind, values))
        raise UserError(
            f"{socket.gethostname()}: cannot read the config that the driver has read: {'; '.join(faults)}"
        ) from error


def _segment_after(epoch: int, segments: Sequence[Segment]) -> Segment:
    """Return who trains the epoch after so many."""
    return next(segment for segment in segments if segment.until > epoch)


class _Done(SystemExit):
    """Ends a loop after the last epoch that it is to train, as Tune's SystemExit does where it stops a trial."""


@dataclass
class _Run:
    """A trial on its way from its last commit to its end."""

    assignment: Assignment
    data: Mapping[str, Any]
    """The references of the prepared arrays, or `OnEachNode`s, by `Loop.data_key`."""
    should_stop: Callable[[], bool]
    loop: Loop = field(init=False)
    segment: Segment = field(init=False)
    """Who trains the epochs now: the trial, or one that it begins with."""
    record: Record = field(init=False)
    committed_at: float = field(init=False, default_factory=time.monotonic)
    committed_epoch: int = field(init=False, default=0)
    state_at: float = field(init=False, default_factory=time.monotonic)
    """When a state was committed."""
    epoch_began_at: float = field(init=False, default_factory=time.monotonic)
    pending_best: Best | None = field(init=False, default=None)
    """That of a best epoch which is not committed yet."""
    remark: str = field(init=False, default="")
    """What the user is to hear with the next report."""
    state: bytes | None = field(init=False, default=None)
    """From which the loop goes on, once it begins."""
    is_interrupted: bool = field(init=False, default=False)
    taken: list[dict[str, float]] = field(init=False, default_factory=list)
    """The epochs that were taken over and not reported."""
    taken_from: str = field(init=False, default="")
    """The trial's epoch, in words, whose state was taken over last."""
    lacks_state: bool = field(init=False, default=False)
    """Whether the loop gave no state where others wait for one."""
    saved: tuple[Epoch, dict[str, bytes]] | None = field(init=False, default=None)
    """The last epoch whose state was asked for, with its files."""

    def __post_init__(self) -> None:
        self.folder = RunFolder(self.assignment.storage, self.assignment.run_name, has_answered=True)
        self.uploads, self.states = Uploads(self.folder), StateStore(self.folder)
        self.nodes = _nodes_of_this_slot(self.assignment.workers)
        self.notices = notices.watch(tuple(self.nodes))

    def to_the_end(self) -> None:
        """Train, commit and report until the trial is finished, diverged, failed or told to stop."""
        before: dict[str, Any] | None = None
        for attempt in range(1, self.assignment.retries + 2):
            try:
                return self._attempt(attempt)
            except (StorageError, RayActorError, NodeDiedError, torch.AcceleratorError, UnfitNodeError):
                # Without storage nothing can be committed: the driver ends the run and says why. If another rank's
                # process or its node died, or this one's CUDA is broken, or a node has not the data, the trial starts
                # again in a new process, maybe elsewhere.
                raise
            except Interrupted:
                return None
            except Exception as error:
                # After an error of the user's, or one that came twice at the same epoch, another attempt would end
                # the same way.
                described = self._describe(error)
                is_again = before is not None and all(before[key] == described[key] for key in SAME_ERROR)
                if isinstance(error, UserError) or is_again or attempt > self.assignment.retries:
                    return self._fail(described, attempt, is_again)
                self._remember(error, attempt)
                before = described
        return None

    def _attempt(self, attempt: int) -> None:
        committed = self.folder.record(self.assignment.record.id)
        if committed is not None and committed.status in ("finished", "diverged"):
            # The process died between the last commit and the report of it.
            self.record = committed
            return self._report(is_new=False)
        segments = _get_ready(self.assignment)
        self.loop = loop_named(self.assignment.loop)
        self.state = self._go_back_to_last_commit(attempt)
        if self._is_at_rung():  # here too the process may have died between the commit and its report
            self._report(is_new=False)
        while not self.record.is_final and self._take_over():  # from rung to rung, as long as its place is sure
            self._report(is_new=False)
            if self.record.status == "paused":
                self.record = self.record.with_(status="running")
        placed = self.data[self.loop.data_key(segments[-1].config)]
        arrays = None
        while not (self.record.is_final or self.is_interrupted):
            self.segment = _segment_after(self.record.epoch, segments)
            peers_loop = functools.partial(train_as_peer, self.assignment, placed, self.record.epoch, self.state)
            arrays = arrays or self._wait_for_data(placed)
            note = functools.partial(self._remember, attempt=attempt, last_words=True)
            workers, sweep, trial = self.assignment.workers, self.assignment.run_name, self.assignment.record.id
            run_ranks(functools.partial(self._train, arrays), peers_loop, workers, note, sweep, trial)
        return None

    def _wait_for_data(self, placed: Any) -> dict[str, Any]:
        """Return the arrays; Ray may have to make them anew, since the only copy may have gone with a node.

        A set that each node prepares may have to be prepared on one that joined after the start.

        Raises:
            DataError: they cannot be made anew.
            UnfitNodeError: a node that joined later cannot prepare the set; another one may.
            NodeDiedError, RayActorError: a peer's node or its process went away.
            Interrupted: the run is to stop meanwhile.
        """
        if not isinstance(placed, OnEachNode):
            self._wait_for(placed)
            return arrays_of(placed)
        sweep, trial = self.assignment.run_name, self.assignment.record.id
        name = name_of(sweep, f"preparing {self.loop.data_name(self.segment.config)}")
        for node, task in placed.begin_on(self.nodes, name).items():
            self._wait_for(task)
            placed.check(node, task)
        # A loop of the user's own may take its time. Once the ranks have met, nobody could tell Tune.
        opening = in_a_thread(placed.open)
        open_as_peer = functools.partial(_open_as_peer, self.assignment, placed)
        ready_peers(open_as_peer, self.assignment.workers, self._wait_for, sweep, trial)
        self._wait_until(lambda: bool(futures.wait([opening], LOOK_EVERY_S).done))
        return opening.result()

    def _wait_for(self, reference: Any) -> None:
        """Wait until an object is there, or a task has ended; else as `_wait_until`."""
        self._wait_until(functools.partial(_is_there, reference))

    def _wait_until(self, is_there: Callable[[], bool]) -> None:
        """Wait until what is asked now and then says so, and tell Tune meanwhile that the trial is alive.

        Raises:
            Interrupted: the run is to stop meanwhile.
        """
        told_at = time.monotonic()
        while not is_there():
            if self.should_stop():
                raise Interrupted("stopped while the data was loaded")
            if time.monotonic() - told_at > TELL_EVERY_S:  # it waits, and does not hang
                told_at = time.monotonic()
                self._report(is_new=False)

    def _train(self, arrays: dict[str, Any]) -> None:
        epoch, should_save = self.record.epoch, lambda: self._is_commit_due() or self.should_stop()
        seed, config = self.segment.seed, self.segment.config
        try:
            with going_on_from(self.state) as last:
                trial = _context(self.assignment, seed, arrays, epoch, last, self._is_told_to_stop, should_save)
                run_loop(self.loop, config, trial, self._take, _name_of(self.assignment))
            if self.should_stop():
                raise Interrupted("the loop ended since the run is to stop")
            raise UserError(ended_early(self.loop, self.record.epoch, config.epochs))
        except _Done:
            pass
        except Interrupted:
            self.is_interrupted = True  # what is not committed is trained again
        except Diverged as diverged:
            self.record = self.record.with_(error=_divergence(diverged))
            self._keep_end()
            self._commit("diverged", None)
            self._report()
        except SystemExit:  # raised by `_report` where Tune stops or pauses the trial; at a rung all is committed
            if self.record.status == "running" and self.assignment.may_be_stopped:
                self._commit("stopped", None)
            raise
        finally:
            self.record = self.uploads.finish(self.record)

    def _take(self, epoch: Epoch) -> None:
        """Add an epoch to the trial, commit and report it; or commit a place inside one.

        Raises:
            _Done: it was the last one.
            Interrupted: the run is to stop, and the loop did not ask.
            SystemExit: Tune stops or pauses the trial.
        """
        if not epoch.metrics:
            self._commit("running", epoch)
            if self.should_stop() and not self.loop.keeps_step:
                raise Interrupted("stopped inside an epoch")
            return
        self.epoch_began_at = time.monotonic()
        self._note(epoch)
        self._keep_state(epoch)
        self._commit_if_due(epoch)
        self._report()
        if self.record.status == "paused":  # Tune let it go on: its place at the rung is sure
            self.record = self.record.with_(status="running")
        if self.record.is_final:
            raise _Done
        if self.record.epoch == self.segment.until:  # the trial's own settings take over
            self.state = self._state_of(epoch).get("last")
            if self.state is None:
                raise UserError(
                    f"loop {self.loop.name!r} gave no state after epoch {self.record.epoch}, where other settings take "
                    "over: it must yield one there (a Ray Train function: report a checkpoint)"
                )
            raise _Done
        self.saved = None  # it takes as much memory as the weights, and more
        if self.should_stop():
            if self.committed_epoch < self.record.epoch:
                self._commit("running", epoch)
            raise Interrupted("stopped between two epochs")

    def _commit_if_due(self, epoch: Epoch) -> None:
        """Commit at the end, at a rung, or after some time without a commit."""
        if self.record.epoch == self.record.epochs:
            self._commit("finished", None)
        elif self._is_at_rung():
            self._commit("paused", epoch)
        elif self._is_commit_due() or (epoch.state is not None and self._is_state_due()):
            self._commit("running", epoch)
        elif self.record.epoch == 1 and isinstance(self.loop, GeneratorLoop):
            self._state_of(epoch)  # tried once, lest it fail after minutes of training

    def _state_of(self, epoch: Epoch) -> dict[str, bytes]:
        """Return what a trial can go on from after an epoch; it is worked out once."""
        if self.saved is None or self.saved[0] is not epoch:
            self.saved = epoch, state_of(epoch, self.loop)
        return self.saved[1]

    def _keep_state(self, epoch: Epoch) -> None:
        """Keep the state where other trials may go on from it, unless one of them has kept it already.

        It is kept before the trial commits: if its process dies in between, the trial itself goes on from it.
        """
        key = self.assignment.stops.get(self.record.epoch)
        if key is None or self._is_kept(key):
            return
        if not (weights := dict(self._state_of(epoch))):
            if not self.lacks_state:
                self.remark = f"the loop gives no state after epoch {self.record.epoch}: no trial can go on from there"
            self.lacks_state = True
            return
        record = self.record = self.uploads.finish(self.record)
        if self.pending_best is not None:  # the best epoch may have no weights: those of another are not its own
            weights |= self.pending_best.files()
            committed = {kind: entry for kind, entry in record.weights.items() if kind not in OF_THE_BEST}
            record = record.with_(weights=committed)
        with contextlib.suppress(FileNotFoundError):  # the folder goes just now, since nobody wants the state any more
            self.states.keep(key, record.with_(status="running"), weights)

    def _keep_end(self) -> None:
        """Keep that the trial has diverged, for all who share the epoch: between two stops nobody begins or ends."""
        stop = next((epoch for epoch in sorted(self.assignment.stops) if epoch > self.record.epoch), None)
        if stop is None or self.states.has(key := self.assignment.stops[stop]):
            return
        record = self.record = self.uploads.finish(self.record)
        best = {} if self.pending_best is None else self.pending_best.files()
        if self.pending_best is not None:
            record = record.with_(weights={})
        with contextlib.suppress(FileNotFoundError):
            self.states.keep(key, record.with_(status="diverged"), best)

    def _is_kept(self, key: str) -> bool:
        """Whether there is a state, with the best weights that this trial would leave: else its own takes its place."""
        kept, best = self.states.record(key), self.record.best
        return kept is not None and (best is None or is_same_epoch(best, kept.best))

    def _take_over(self) -> bool:
        """Go on from the deepest state that another trial kept, up to the next rung; return whether there is one."""
        rungs, done = self.assignment.rungs, self.record.epoch
        until = next((rung for rung in rungs if rung > done), self.record.epochs)
        self.folder.damaged.clear()
        objective = self.assignment.objective
        found = deepest_state(self.states, self.assignment.stops, self.record, until, objective)
        if found is None:
            self.remark = "; ".join(filter(None, (self.remark, _setback(self.folder.damaged, done))))
            return False
        state, files = found
        record = take_over(self.record, state, objective)
        self.taken = record.metrics[done:]
        has_diverged, is_at_end = state.status == "diverged", record.epoch == record.epochs
        status = "diverged" if has_diverged else "finished" if is_at_end else self._status_at_rung(record)
        record = record.with_(status=status, error=state.error if has_diverged else record.error)
        is_own_best = record.best is not None and record.best.epoch <= done
        wanted = (set() if record.is_final else {"last"}) | (OF_THE_BEST if record.best and not is_own_best else set())
        keep: Collection[str] = OF_THE_BEST if is_own_best else ()
        self.record = self.folder.commit(record, {kind: files[kind] for kind in wanted & files.keys()}, keep)
        self.state = files.get("last")
        self.committed_at = self.state_at = time.monotonic()
        self.committed_epoch = record.epoch
        whose = self.record.origins[-1].trial if self.record.origins else record.id
        self.taken_from = f"epoch {record.epoch} of {whose}"
        self.remark = "; ".join(filter(None, (self.remark, f"goes on after {self.taken_from}")))
        return True

    def _status_at_rung(self, record: Record) -> Status:
        return "paused" if record.epoch in self.assignment.rungs else "running"

    def _is_commit_due(self) -> bool:
        """Whether it is time to commit: at once, and more often, if one of the trial's nodes is to go away."""
        every_s, noticed_at = self.assignment.commit_every_s, self.notices.since
        if noticed_at is not None:
            every_s = min(every_s, COMMIT_UNDER_NOTICE_EVERY_S) if self.committed_at >= noticed_at else 0
        return time.monotonic() - self.committed_at >= every_s

    def _is_state_due(self) -> bool:
        """Whether the last state is too old: a loop may give one now and then, and not when a commit was due."""
        return time.monotonic() - self.state_at >= self.assignment.commit_every_s

    def _is_told_to_stop(self) -> bool:
        """Return what a loop is told that asks whether the run is to stop.

        At the end of its epoch the trial is committed. So it is told before only where no whole epoch is lost by that,
        or where the epoch takes long.
        """
        lasts = time.monotonic() - self.epoch_began_at
        loses_nothing = self.loop.keeps_step or self.committed_epoch == self.record.epoch
        return (loses_nothing or lasts > WAIT_FOR_AN_EPOCH_S) and self.should_stop()

    def _go_back_to_last_commit(self, attempt: int) -> bytes | None:
        """Set the record to the last whole commit, or to the beginning; return the state from which to go on."""
        planned, objective = self.assignment.record, self.assignment.objective
        self.folder.damaged.clear()
        self.folder.tidy(planned.id)
        record, data = self.folder.resume_point(planned.id) or (planned.cut(0), None)
        again, setback = self._tried_again(attempt, record), _setback(self.folder.damaged, record.epoch)
        self.remark = "; ".join(filter(None, (again, setback)))
        metrics, rungs = record.metrics, self.assignment.rungs
        error = (self.assignment.past_error if attempt == 1 else None) or record.error
        self.pending_best = None
        self.record = record.with_(
            status="running",
            attempts=self._attempts(attempt),
            error=record.ended_by(error) if error else None,
            config=planned.config,
            conditions=dict(self.assignment.conditions),
            best=score_again(record.best, metrics, objective) or best_epoch(record.judged_metrics, objective),
            former_metrics=[history for history in record.former_metrics if rungs and len(history) >= rungs[0]],
        )
        self.committed_epoch = self.record.epoch
        self.epoch_began_at = time.monotonic()
        return data

    def _note(self, epoch: Epoch) -> None:
        """Add an epoch to the history; keep a copy of its weights if it is the best so far.

        Raises:
            UserError: a metric is no number, or the objective is not among them.
        """
        number, objective = self.record.epoch + 1, self.assignment.objective
        metrics = {"epoch": number, **numbers_of(epoch.metrics, self.assignment.loop)}
        check_objective(metrics, objective, self.record.conditions.get(COSTS, ()))
        self.record = self.record.with_(metrics=[*self.record.metrics, metrics])
        best = better_of(self.record.best, metrics, objective) if self.record.judged_metrics else None
        if best and best != self.record.best:
            self.record = self.record.with_(best=best)
            self.pending_best = Best.of(epoch, best.averaged)

    def _commit(self, status: str, epoch: Epoch | None) -> None:
        """Commit the record with a status, its weights, and the state of an epoch if the trial is to go on from there.

        Without a state of that epoch, the trial would go on from the last one that there is. So that one's best weights
        are kept, too. While the trial is "running" no decision waits for it, so an upload to an object store goes on
        beside training.
        """
        self.record = self.uploads.finish(self.record)
        weights = dict(self._state_of(epoch)) if epoch is not None else {}
        if weights:
            self.state_at = time.monotonic()
        without: Collection[str] = ()
        begins_anew, may_end = "last" not in self.record.weights, status != "running"
        if self.pending_best is not None and (weights or begins_anew or may_end):
            without = OF_THE_BEST  # the best epoch may have no weights: those of another are not its own
            weights |= self.pending_best.files()
            self.pending_best = None
        record = self.record.with_(status=status)
        if status == "running" and self.folder.files.local is None:
            self.uploads.begin(record, weights, set(SUFFIX) - set(without))
        else:
            keep: Collection[str] = OF_THE_BEST if status not in ("running", "paused") else SUFFIX
            self.record = self.folder.commit(record, weights, set(keep) - set(without))
        self.committed_at, self.committed_epoch = time.monotonic(), self.record.epoch

    def _is_at_rung(self) -> bool:
        return self.record.epoch in self.assignment.rungs

    def _report(self, is_new: bool = True) -> None:
        """Report to Tune, with the newest epoch if it `is_new`; raise SystemExit if Tune stops or pauses the trial."""
        record, rungs, objective = self.record, self.assignment.rungs, self.assignment.objective
        remark, self.remark = self.remark, ""
        taken, self.taken = self.taken, []
        is_compared = self._is_at_rung() or record.is_final
        worst = float("-inf") if objective.maximize else float("inf")
        tune.report(
            {
                "epoch": record.epoch,
                "score": record.best.score if record.best else worst,
                "status": record.status,
                "nodes": self.nodes,
                "metrics": record.metrics[-1] if record.metrics and is_new else {},
                "taken": taken,
                "lacks_state": self.lacks_state,
                "device_memory_bytes": _device_memory_bytes(self.assignment.device),
                "remark": remark,
                "reason": _in_a_line(record.error) if record.status == "failed" else "",
                "rungs": first_rung_scores(record, rungs, objective, self.assignment.rank_by) if is_compared else [],
                "costs": costs_of(record, objective, record.conditions.get(COSTS, ())),
            }
        )

    def _remember(self, error: BaseException, attempt: int, last_words: bool = False) -> None:
        """Record an error; `last_words`: of this process, which is about to be ended."""
        committed = self.folder.record(self.assignment.record.id) or (self.assignment.record if last_words else None)
        if committed is not None:
            described = {**self._describe(error), **({LAST_WORDS: True} if last_words else {})}
            self.record = self.folder.commit(committed.with_(error=described, attempts=self._attempts(attempt)), {})

    def _attempts(self, attempt: int) -> int:
        return self.assignment.deaths + attempt

    def _fail(self, error: dict[str, Any], attempt: int, is_again: bool) -> None:
        """Record the failure in the last commit, so that a rerun can go on from its state."""
        committed = self.folder.record(self.assignment.record.id) or self.assignment.record
        if is_again and attempt <= self.assignment.retries:
            error = {**error, "message": f"{error['message']} (twice in a row at the same place, so not tried again)"}
        failed = committed.with_(status="failed", error=error, attempts=self._attempts(attempt))
        self.record = self.folder.commit(failed, {})
        self._report()

    def _describe(self, error: BaseException) -> dict[str, Any]:
        """Return an exception as a record holds it."""
        trace = str(error) if isinstance(error, UserError) else traceback_of(error)
        at = "" if isinstance(error, UserError) else place_of(error)  # its message says what is wrong, and where
        message = str(error)
        if self.taken_from and self._epoch() == self.committed_epoch and not isinstance(error, UserError):
            horizon = "does register_loop's horizon name a setting that changes an epoch?"
            message += f" (it went on from {self.taken_from}" + (
                f"; {horizon})" if self.assignment.loop != CLASSIFY else ")"
            )
        known = {"type": type(error).__name__, "message": message, "at": at, "traceback": trace}
        return {**known, "epoch": self._epoch()}

    def _epoch(self) -> int:
        """Return how many epochs are whole, be they committed or not."""
        return self.record.epoch if hasattr(self, "record") else 0

    def _tried_again(self, attempt: int, record: Record) -> str:
        """Say why the trial is tried again; nothing at its first attempt."""
        error, at_most = record.error or {}, self.assignment.retries + 1
        if attempt == 1 or not error:
            return ""
        why = f"{error.get('type')}: {error.get('message')}"
        return f"attempt {attempt - 1} of {at_most} failed, {why}; goes on after epoch {record.epoch}"


def _is_there(reference: Any) -> bool:
    """Wait a moment for an object or the end of a task; return whether it came."""
    return bool(ray.wait([reference], timeout=LOOK_EVERY_S)[0])


def _in_a_line(error: Mapping[str, Any] | None) -> str:
    """Return the first line of what went wrong, with its type and place."""
    if not error:
        return ""
    first = next(iter(str(error.get("message")).splitlines()), "")
    return f"{error.get('type')}: {first}" + (f" ({error['at']})" if error.get("at") else "")


def _setback(damaged: Mapping[str, str], epoch: int) -> str:
    """Say which of a trial's files were damaged, and what that means; nothing if none was."""
    files = [f"{path}: {why}" for path, why in damaged.items()]
    return "; ".join([*files, f"goes on after epoch {epoch}" if epoch else "begins anew"]) if files else ""


def _nodes_of_this_slot(workers: int) -> list[str]:
    """Return the ids of the nodes that this trial's workers run on, rank 0's first."""
    here = ray.get_runtime_context().get_node_id()
    if workers == 1:
        return [here]
    bundles = placement_group_table(get_current_placement_group())["bundles_to_node_id"]
    return list(dict.fromkeys([here, *bundles.values()]))


def _device_memory_bytes(device: str) -> int:
    """Return the GPU memory that torch's allocator has reserved, or without a GPU this process's resident set."""
    on_gpu = device != "cpu" and torch.cuda.is_available()
    return torch.cuda.memory_reserved() if on_gpu else psutil.Process().memory_info().rss


def _divergence(diverged: Diverged) -> dict[str, Any]:
    """Return the error of the record, with what may tell the cause: as text, since JSON has no infinity."""
    known = {name: str(value) for name, value in diverged.numbers.items() if name in ("lr", "grad_norm")}
    return {"type": "Diverged", "message": str(diverged), "epoch": str(diverged.epoch)} | known


def _watch(stop: Any) -> Callable[[], bool]:
    """Return a function that tells whether the run is to stop, cheap enough to be called between steps."""
    waiting = _outstanding(stop)
    asked_at, answer = 0.0, False

    def should_stop() -> bool:
        nonlocal asked_at, answer
        now = time.monotonic()
        if not answer and now - asked_at > 0.1:
            asked_at = now
            answer = bool(ray.wait([waiting], timeout=0)[0])
        return answer

    return should_stop


@functools.lru_cache(maxsize=1)
def _outstanding(stop: Any) -> Any:
    """Ask the flag, once a process: an async actor takes a thousand calls at a time, and there may be more trials."""
    return stop.wait.remote()
