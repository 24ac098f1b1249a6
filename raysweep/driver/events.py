"""What Tune tells while it runs: its callbacks, turned into what is known of each trial."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import ray
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.progress_reporter import TrialProgressCallback

from raysweep.driver.failures import STORAGE, Failure, failure_of, last_words, stalled
from raysweep.driver.queue import TrialQueue
from raysweep.driver.stop import StopRequest
from raysweep.halving.scores import best_epoch
from raysweep.store import Record
from raysweep.sweepfile.schema import Objective
from raysweep.worker.tasks import Assignment

LOOK_FOR_STALLS_EVERY_S = 1.0
FALSE_STARTS = 3
"""How often a trial may find its process dead before it has begun."""


@dataclass
class Progress:
    """One trial of the plan, as known to the driver; between commits ahead of its record."""

    record: Record
    """As read when the run began."""
    status: str
    epoch: int
    history: list[dict[str, float]] = field(default_factory=list)
    """Metrics of the epochs since then that may not be committed yet, oldest first."""
    best: float | None = None
    """Score of the best epoch."""
    device_memory_bytes: int | None = None
    """What its process held at its last report."""
    deaths: int = 0
    """Of its processes, that were its own doing."""
    false_starts: int = 0
    """Deaths of a process that it was only about to begin in: one kept warm for it, say."""
    reason: str = ""
    """Why it was stopped, waits, or starts again."""
    heard_at: float = field(default_factory=time.monotonic)
    """When it last started or reported."""

    @property
    def metrics(self) -> dict[str, float]:
        """The newest epoch's."""
        return self.history[-1] if self.history else {}


class Board:
    """The progress of all trials; written by Tune's callbacks, read by the view, hence the lock."""

    def __init__(self, records: Sequence[Record], notify: Callable[[str, Progress], None]) -> None:
        self.trials = {
            record.id: Progress(record, record.status, record.epoch, best=record.best.score if record.best else None)
            for record in records
        }
        self.began = time.monotonic()
        self.epochs_trained = 0
        self.first_epoch_at: float | None = None
        """When the first of them was reported; before that, processes started."""
        self.lock = threading.Lock()
        self._ended: set[str] = set()
        self._notify = notify

    def update(self, trial_id: str, what: str, **changes: Any) -> None:
        """Change a trial's progress and tell the view what happened: started, epoch, paused, ended or died."""
        with self.lock:
            progress = self.trials[trial_id]
            for name, value in changes.items():
                setattr(progress, name, value)
            progress.heard_at = time.monotonic()
            if what in ("paused", "ended"):
                self._ended.add(trial_id)
        self._notify(what, progress)

    def note_epoch(self, trial_id: str, metrics: dict[str, float]) -> None:
        """Add an epoch's metrics; those of a try that ended before are dropped from there on."""
        with self.lock:
            progress = self.trials[trial_id]
            if metrics not in progress.history:
                self.epochs_trained += 1
                self.first_epoch_at = self.first_epoch_at or time.monotonic()
            earlier = [row for row in progress.history if row["epoch"] < metrics["epoch"]]
            progress.history = [*earlier, metrics]

    def is_silent(self, trial_id: str, seconds: float) -> bool:
        """Whether a trial runs and has not reported for so long."""
        with self.lock:
            progress = self.trials[trial_id]
            return progress.status == "running" and time.monotonic() - progress.heard_at > seconds

    def running(self) -> int:
        """Return how many trials run."""
        with self.lock:
            return sum(progress.status == "running" for progress in self.trials.values())

    def take_ended(self) -> set[str]:
        """Return the trials that ended or paused since this was last asked."""
        with self.lock:
            ended, self._ended = self._ended, set()
        return ended

    def ahead_of(self, record: Record, objective: Objective) -> Record:
        """Return a running trial's record with the epochs that are not committed yet."""
        with self.lock:
            progress = self.trials.get(record.id)
            if progress is None or progress.status != "running":
                return record
            newer = [row for row in progress.history if row["epoch"] > record.epoch]
        metrics = [*record.metrics, *newer]
        return record.with_(status="running", metrics=metrics, best=best_epoch(metrics, objective))


class TuneEvents(TrialProgressCallback):
    """Tune's callbacks to the board; judges the deaths of trials' processes.

    Tune starts such a trial again, from its last commit, for ever: which deaths count, and how many a trial may have,
    is said here. Stands in the place of Tune's own reporter, which would print to stdout, where `--json` has its
    document.

    Args:
        board: of all trials.
        stop: asked for where no trial can commit any more.
        retries: deaths of a trial that are forgiven.
        stall_s: a trial without a report for so long is ended and started again; None: waited for.
        queue: told which trials are not to be started again.
        fail: told to record the failure of a trial.
    """

    def __init__(
        self,
        board: Board,
        stop: StopRequest,
        retries: int,
        stall_s: float | None,
        queue: TrialQueue,
        fail: Callable[[Record, Failure], None],
    ) -> None:
        self.board = board
        self._stop, self._retries, self._stall_s = stop, retries, stall_s
        self._queue, self._fail = queue, fail
        self._ended_by_us: set[str] = set()
        self._look_at = 0.0

    def __getstate__(self) -> dict[str, Any]:
        """Nothing to pickle, though Tune asks: the records are the state."""
        return {}

    def on_step_begin(self, iteration: int, trials: list[TuneTrial], **info: Any) -> None:
        """Now and then: end the processes of trials that hang."""
        now = time.monotonic()
        if self._stall_s is None or now < self._look_at:
            return
        self._look_at = now + LOOK_FOR_STALLS_EVERY_S
        for trial in trials:
            if trial.status == TuneTrial.RUNNING and self.board.is_silent(_id(trial), self._stall_s):
                actor = trial.temporary_state.ray_actor
                if actor is not None and _id(trial) not in self._ended_by_us:
                    self._ended_by_us.add(_id(trial))
                    ray.kill(actor)

    def on_trial_start(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        """A trial's loop begins."""
        self.board.update(_id(trial), "started", status="running", reason="")

    def on_trial_result(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, result: dict[str, Any], **info: Any
    ) -> None:
        """A trial reported an epoch, or its end."""
        status = result["status"]
        changes: dict[str, Any] = {"epoch": int(result["epoch"]), "device_memory_bytes": result["device_memory_bytes"]}
        if abs(result["score"]) != float("inf"):
            changes["best"] = result["score"]
        if result["metrics"]:
            self.board.note_epoch(_id(trial), result["metrics"])
        if status in ("running", "paused"):  # at a rung: whether it goes on is for the scheduler to say
            self.board.update(_id(trial), "epoch", **changes)
        else:
            self.board.update(_id(trial), "ended", status=status, **changes)

    def on_trial_complete(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        """A trial's function returned, or the scheduler stopped it."""
        trial_id = _id(trial)
        if self.board.trials[trial_id].status == "running":
            self.board.update(trial_id, "ended", status="paused" if self._stop.requested else "stopped")

    def on_trial_recover(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        """A trial's process died; Tune starts it again, from its last commit, unless it has died too often."""
        id = _id(trial)
        progress, failure = self.board.trials[id], self._failure(trial)
        if failure.type == STORAGE:
            self._stop.fail(failure.message)
        had_begun = progress.status == "running"
        deaths = progress.deaths + (failure.counts and had_begun)
        false_starts = progress.false_starts + (failure.counts and not had_begun)
        if deaths > self._retries or false_starts > FALSE_STARTS:
            self._queue.give_up(trial)
            self._end_failed(id, deaths, failure)
            return
        assignment: Assignment = trial.config["assignment"]
        again = replace(assignment, deaths=deaths, past_error=failure.as_error())
        trial.config = {**trial.config, "assignment": again}
        changes = {"deaths": deaths, "false_starts": false_starts, "reason": failure.message}
        self.board.update(id, "died", status="planned", **changes)

    def on_trial_error(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        """A trial could not even be started; unless that is so again and again, the queue hands it out anew."""
        id, failure = _id(trial), self._failure(trial)
        if self._queue.has_ended(id):
            self._end_failed(id, self.board.trials[id].deaths, failure)
        else:
            self.board.update(id, "died", status="planned", reason=failure.message)

    def _failure(self, trial: TuneTrial) -> Failure:
        if _id(trial) in self._ended_by_us:
            self._ended_by_us.discard(_id(trial))
            return stalled((self._stall_s or 0) / 60)
        return failure_of(last_words(trial), trial.config["assignment"].record.config["batch_size"])

    def _end_failed(self, id: str, deaths: int, failure: Failure) -> None:
        self._fail(self.board.trials[id].record, failure)
        self.board.update(id, "ended", status="failed", deaths=deaths, reason=failure.message)


def _id(trial: TuneTrial) -> str:
    assignment: Assignment = trial.config["assignment"]
    return assignment.record.id
