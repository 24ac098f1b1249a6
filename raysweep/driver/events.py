"""What Tune says while it runs: its callbacks in, the board's progress and verdicts on the deaths of processes out."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import ray
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.progress_reporter import TrialProgressCallback

from raysweep.cluster.slots import node_names
from raysweep.driver.board import Board
from raysweep.driver.failures import STORAGE, Failure, failure_of, find_node, last_words, stalled
from raysweep.driver.nodes import IN_A_ROW, Nodes
from raysweep.driver.queue import TrialQueue
from raysweep.driver.scheduler import Stateless
from raysweep.driver.stop import StopRequest
from raysweep.store import Record
from raysweep.worker.naming import name_calls, name_of

LOOK_FOR_STALLS_EVERY_S = 1.0
FALSE_STARTS = 3
"""How often a trial may find its process dead before it has begun."""


class TuneEvents(Stateless, TrialProgressCallback):
    """Passes Tune's callbacks to the board, and decides which deaths of processes count against their trials.

    Tune itself is told to start a trial again however often its process dies (`max_failures=-1`); here `retries` deaths
    are forgiven. This class also takes the place of Tune's own reporter, which would print to stdout, where `--json`
    prints its document.
    """

    def __init__(
        self,
        board: Board,
        stop: StopRequest,
        retries: int,
        stall_minutes: float | None,
        queue: TrialQueue,
        nodes: Nodes,
        fail: Callable[[Record, Failure], None],
        say: Callable[[str], None],
    ) -> None:
        self.board = board
        self._nodes, self._say = nodes, say
        self._names: dict[str, str] = {}
        self._avoided: list[str] = []
        self._starting: set[str] = set()
        self._stop, self._retries, self._stall_minutes = stop, retries, stall_minutes
        self._queue, self._fail = queue, fail
        self._ended_by_us: set[str] = set()
        self._look_at = 0.0

    def on_step_begin(self, iteration: int, trials: list[TuneTrial], **info: Any) -> None:
        """Now and then, end the processes of trials that hang."""
        now = time.monotonic()
        if self._stall_minutes is None or now < self._look_at:
            return
        self._look_at = now + LOOK_FOR_STALLS_EVERY_S
        for trial in trials:
            if self._hangs(trial, now - self._stall_minutes * 60) and trial.temporary_state.ray_actor is not None:
                self._ended_by_us.add(_id(trial))
                ray.kill(trial.temporary_state.ray_actor)

    def on_trial_start(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        """A process is ready and the trial begins in it."""
        self._starting.add(_id(trial))
        assignment = trial.config["assignment"]
        name_calls(trial.temporary_state.ray_actor, "train", name_of(assignment.run_name, _id(trial)))
        self.board.update(_id(trial), "started", status="running", reason="", node="")

    def on_trial_result(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, result: dict[str, Any], **info: Any
    ) -> None:
        """A trial reported an epoch, or its end. The scheduler has answered already."""
        status = result["status"]
        changes: dict[str, Any] = {"epoch": int(result["epoch"]), "device_memory_bytes": result["device_memory_bytes"]}
        if abs(result["score"]) != float("inf"):
            changes["best"] = result["score"]
        if remark := result.get("remark"):
            self.board.update(_id(trial), "remarked", remark=remark)
        if taken := result["taken"]:
            self.board.note_taken(_id(trial), taken)
        if result["metrics"]:
            self.board.note_epoch(_id(trial), result["metrics"])
            self._note_nodes(_id(trial), result["nodes"])
        if status in ("running", "paused"):  # "paused" says that it is at a rung; whether it waits, the queue decides
            self.board.update(_id(trial), "epoch", **changes)
        else:
            self.board.update(_id(trial), "ended", status=status, reason=result.get("reason", ""), **changes)

    def on_trial_complete(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        """A trial's function returned, or the scheduler stopped it."""
        if self.board.trials[_id(trial)].status == "running":
            self.board.update(_id(trial), "ended", status="interrupted" if self._stop.requested else "stopped")

    def on_trial_recover(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        """A trial's process died, and Tune has put the trial back into its queue, to go on from its last commit."""
        id, failure = _id(trial), self._failure(trial)
        if failure.type == STORAGE:
            self._stop.request(fault=failure.message)
        if failure.counts:
            had_begun = self.board.trials[id].status == "running"
            self._nodes.die(id, find_node(failure.detail), had_begun)
        deaths = self._nodes.deaths(id)
        if deaths > self._retries or self._nodes.deaths(id, had_begun=False) > FALSE_STARTS:
            self._queue.give_up(trial)
            self._end_failed(id, failure)
        else:
            again = replace(trial.config["assignment"], deaths=deaths, past_error=failure.as_error())
            trial.config = {**trial.config, "assignment": again}
            self.board.update(id, "died", status="planned", reason=failure.summary)
        self._say_what_is_avoided()

    def on_trial_error(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        """Tune could not start a trial and has dropped it; unless the queue has given it up, it is handed out anew."""
        id, failure = _id(trial), self._failure(trial)
        if self._queue.has_ended(id):
            self._end_failed(id, failure)
        else:
            self.board.update(id, "died", status="planned", reason=failure.summary)

    def _hangs(self, trial: TuneTrial, since: float) -> bool:
        """Whether a trial runs, has not reported since, and was not ended for that already."""
        progress = self.board.trials[_id(trial)]
        runs = trial.status == TuneTrial.RUNNING and progress.status == "running"
        return runs and progress.heard_at < since and _id(trial) not in self._ended_by_us

    def _failure(self, trial: TuneTrial) -> Failure:
        words = last_words(trial)
        failure = failure_of(words, trial.config["assignment"].record.config.get("batch_size"))
        if _id(trial) in self._ended_by_us:
            self._ended_by_us.discard(_id(trial))
            failure = stalled(self._stall_minutes or 0, words)
        return replace(failure, node=self._name(find_node(words)))

    def _end_failed(self, id: str, failure: Failure) -> None:
        self._nodes.fail(id)
        self._fail(self.board.trials[id].record, failure)
        self.board.update(id, "ended", status="failed", reason=failure.summary)

    # -- nodes

    def _note_nodes(self, id: str, nodes: list[str]) -> None:
        """Take in from which nodes a trial has reported an epoch; its first one there speaks for them."""
        if id in self._starting:
            self._starting.discard(id)
            for node in nodes:
                self._nodes.work(node)
            self.board.trials[id].node = ", ".join(map(self._name, nodes))

    def _say_what_is_avoided(self) -> None:
        """Say which nodes have fallen out, and which have not after all."""
        before, self._avoided = self._avoided, self._nodes.avoided
        for node in set(self._avoided) - set(before):
            self._say(
                f"{self._name(node)}: {IN_A_ROW} processes in a row died on this node; new ones start on other nodes"
            )
        for node in set(before) - set(self._avoided):
            self._say(
                f"{self._name(node)}: a trial works on this node, or its deaths were a trial's own; it is used again"
            )

    def _name(self, node: str) -> str:
        """Return what people call a node, given its id."""
        if node and node not in self._names:
            self._names |= node_names()
        return self._names.get(node, "")


def _id(trial: TuneTrial) -> str:
    id: str = trial.config["assignment"].record.id
    return id
