"""What Tune tells while it runs: its callbacks, turned into what is known of each trial."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial as TuneTrial

from raysweep.driver.stop import StopRequest
from raysweep.store import Record
from raysweep.trial import Assignment


@dataclass
class Progress:
    """One trial of the plan, as known to the driver; between commits ahead of its record."""

    record: Record
    """As read when the run began."""
    status: str
    epoch: int
    metrics: dict[str, Any] = field(default_factory=dict)
    """The newest epoch's."""
    best: float | None = None
    """Score of the best epoch."""
    deaths: int = 0


class Board:
    """The progress of all trials; written by Tune's callbacks, read by the view, hence the lock."""

    def __init__(self, records: Sequence[Record], notify: Callable[[str, Progress], None]) -> None:
        self.trials = {
            record.id: Progress(record, record.status, record.epoch, best=record.best.score if record.best else None)
            for record in records
        }
        self.began = time.monotonic()
        self.epochs_trained = 0
        self.ended: set[str] = set()
        """Trials whose record changed for good since the views were last written."""
        self.lock = threading.Lock()
        self._notify = notify

    def update(self, trial_id: str, what: str, **changes: Any) -> None:
        """Change a trial's progress and tell the view what happened: started, epoch, ended or died."""
        with self.lock:
            progress = self.trials[trial_id]
            for name, value in changes.items():
                setattr(progress, name, value)
            if what == "ended":
                self.ended.add(trial_id)
        self._notify(what, progress)


class TuneEvents(Callback):
    """Tune's callbacks to the board; records the failure of a trial whose process died once too often."""

    def __init__(self, board: Board, stop: StopRequest, fail: Callable[[Record, str], None]) -> None:
        self.board = board
        self._stop = stop
        self._fail = fail

    def __getstate__(self) -> dict[str, Any]:
        """Nothing to pickle, though Tune asks: the records are the state."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        """A trial's loop begins."""
        self.board.update(_id(trial), "started", status="running")

    def on_trial_result(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, result: dict[str, Any], **info: Any
    ) -> None:
        """A trial reported an epoch, or its end."""
        status = result["status"]
        changes: dict[str, Any] = {"metrics": result, "epoch": int(result["epoch"]), "status": status}
        if abs(result["score"]) != float("inf"):
            changes["best"] = result["score"]
        if status == "running":
            self.board.epochs_trained += 1
        self.board.update(_id(trial), "epoch" if status == "running" else "ended", **changes)

    def on_trial_complete(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        """A trial's function returned, or the scheduler stopped it."""
        trial_id = _id(trial)
        if self.board.trials[trial_id].status == "running":
            self.board.update(trial_id, "ended", status="paused" if self._stop.requested else "stopped")

    def on_trial_recover(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        """A trial's process died; Tune starts it again, from its last commit."""
        progress = self.board.trials[_id(trial)]
        self.board.update(_id(trial), "died", deaths=progress.deaths + 1, status="planned")

    def on_trial_error(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        """A trial's process died for the last time."""
        record = self.board.trials[_id(trial)].record
        self._fail(record, _reason(trial))
        self.board.update(_id(trial), "ended", status="failed")


def _id(trial: TuneTrial) -> str:
    assignment: Assignment = trial.config["assignment"]
    return assignment.record.id


def _reason(trial: TuneTrial) -> str:
    try:
        with open(trial.error_file) as file:
            return file.read()
    except (OSError, TypeError):
        return "the trial's process died"
