"""What the driver knows of each trial while a run goes on: ahead of the trial's record, which waits for a commit.

In: what Tune's callbacks and the queue report. Out: what the live view, Ray's dashboard and the exports show.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from raysweep.driver.sharing import Sharing
from raysweep.halving.scores import best_epoch
from raysweep.results.hours import saved_hours, trained_hours
from raysweep.store import Record
from raysweep.store.newest import MOST_EPOCHS, Tail
from raysweep.sweepfile.schema import Objective

COUNT_LEFT_EVERY_S = 1.0


@dataclass
class Progress:
    """How far one trial of the plan has come."""

    record: Record
    """The trial's record when the run began."""
    status: str = field(init=False)
    epoch: int = field(init=False)
    curve: list[dict[str, float]] = field(init=False)
    """The metrics of all epochs so far, oldest first; the newest may not be committed yet."""
    best: float | None = field(init=False)
    """The score of the best epoch."""
    trained_hours: float = field(init=False)
    """Hours that the epochs of `curve` took."""
    lost_hours: float = 0.0
    """Hours of epochs that had to be trained again, since their process died before the commit."""
    saved_hours: float = 0.0
    """Hours that early stopping has saved. Kept up to date, since working it out takes time and is asked for often."""
    device_memory_bytes: int | None = None
    """The memory that the trial's process held at its last report."""
    node: str = ""
    """The node that the trial's newest epochs come from, several if its workers are spread."""
    reason: str = ""
    """Why the trial was stopped, waits, or starts again."""
    remark: str = ""
    """What the trial said last of its own accord."""
    heard_at: float = field(default_factory=time.monotonic)
    """When the trial last started or reported, on the monotonic clock."""

    def __post_init__(self) -> None:
        record = self.record
        self.status, self.epoch, self.curve = record.status, record.epoch, record.metrics
        self.best = record.best.score if record.best else None
        self.trained_hours = trained_hours(record.own_metrics)
        self._taken = {row["epoch"] for row in self.curve} - {row["epoch"] for row in record.own_metrics}
        self.note_saved_hours()

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics of the newest epoch."""
        return self.curve[-1] if self.curve else {}

    def take(self, rows: Sequence[dict[str, float]]) -> None:
        """Take in epochs that another trial has trained."""
        self.curve = [*self.curve[: int(rows[0]["epoch"]) - 1], *rows]
        self._taken |= {row["epoch"] for row in rows}

    def add(self, metrics: dict[str, float]) -> None:
        """Take in an epoch that the trial has trained, in the place of it and later ones that were lost."""
        earlier = [row for row in self.curve if row["epoch"] < metrics["epoch"]]
        lost = self.curve[len(earlier) :]
        self.lost_hours += trained_hours([row for row in lost if row["epoch"] not in self._taken])
        self._taken -= {row["epoch"] for row in lost}
        self.curve = [*earlier, metrics]
        self.trained_hours = trained_hours([row for row in self.curve if row["epoch"] not in self._taken])

    def note_saved_hours(self) -> None:
        """Work out `saved_hours` anew."""
        self.saved_hours = saved_hours(self.curve, self.record.epochs) if self.status == "stopped" else 0.0


class Board:
    """The progress of all trials, by id, beginning with their records; `maximize`: whether a higher score is better.

    Tune's callbacks write it on the main thread; the view, the dashboard and the exports read it on others.
    """

    def __init__(self, records: Sequence[Record], maximize: bool) -> None:
        self.trials: dict[str, Progress] = {}
        self.add(records)
        self.gpus = 0.0
        """GPUs that a running trial holds."""
        self._best_of = max if maximize else min
        self.waits: Callable[[str], bool] = lambda id: False
        """Whether a trial without a slot waits for epochs that another one trains."""
        self.notify: Callable[[str, Progress], None] = lambda what, progress: None
        """Called after each `update` with what happened."""
        self.to_come = 0
        """How many trials a search is yet to propose, at most."""
        self.began = time.monotonic()
        self.epochs_trained = 0
        self.sharing: Sharing | None = None
        """What trials share that train now."""
        self._left: dict[tuple[str, ...], tuple[float, int]] = {}
        """Epochs that are left to trials of some statuses, and until when that is told."""
        self.first_epoch_at: float | None = None
        """When the first epoch of this run was reported; until then, processes were starting."""
        self._lock = threading.Lock()
        self._changed: set[str] = set()
        self._new_from: tuple[dict[str, int], dict[str, int]] = ({}, {})
        """The first epoch of each trial that is new since the export before the last one, and since the last one."""
        self._is_told = True

    def add(self, records: Sequence[Record]) -> None:
        """Take in the records of more trials; what is known of a trial already stays."""
        new = {record.id: Progress(record) for record in records if record.id not in self.trials}
        self.trials = {**self.trials, **new}  # in one step: others read it meanwhile

    def update(self, trial_id: str, what: str, **changes: Any) -> None:
        """Change a trial's progress; `what` happened is one of started, remarked, epoch, paused, ended, died."""
        progress = self.trials[trial_id]
        with self._lock:
            for name, value in changes.items():
                setattr(progress, name, value)
            progress.heard_at = time.monotonic()
            progress.note_saved_hours()
            self._changed.add(trial_id)
            self._new_from[1].setdefault(trial_id, len(progress.curve) + 1)
            self._is_told = False
        self.notify(what, progress)

    def note_epoch(self, trial_id: str, metrics: dict[str, float]) -> None:
        """Add an epoch's metrics; it takes the place of the same and later epochs that were lost with a process."""
        progress = self.trials[trial_id]
        if metrics not in progress.curve:
            self.epochs_trained += 1
            self.first_epoch_at = self.first_epoch_at or time.monotonic()
        with self._lock:
            progress.add(metrics)
            first = int(metrics["epoch"])
            self._new_from[1][trial_id] = min(first, self._new_from[1].get(trial_id, first))
            self._is_told = False

    def note_taken(self, trial_id: str, rows: Sequence[dict[str, float]]) -> None:
        """Add epochs that a trial took over from another one."""
        with self._lock:
            self.trials[trial_id].take(rows)
            first = int(rows[0]["epoch"])
            self._new_from[1][trial_id] = min(first, self._new_from[1].get(trial_id, first))
            self._is_told = False

    def with_status(self, *statuses: str) -> list[Progress]:
        """Return the progress of the trials that have one of these statuses."""
        return [progress for progress in self.trials.values() if progress.status in statuses]

    def epochs_left(self) -> int:
        """Return the epochs that are still to be trained, those that trials share once.

        A trial that a search is yet to propose counts as those that there are do on average. Working it out may take a
        while in a large sweep, so that what is told may be some seconds old.
        """
        to_come = self.to_come * sum(each.record.epochs for each in self.trials.values()) / max(1, len(self.trials))
        return self._left_of("planned", "running", "interrupted", "paused") + round(to_come)

    def saved_hours(self) -> float:
        """Return the hours that early stopping has saved; epochs that trials share it has saved once."""
        stopped = self.with_status("stopped")
        asked_for = sum(each.record.epochs - each.epoch for each in stopped)
        once = self._left_of("stopped") / asked_for if asked_for else 1.0
        return sum(each.saved_hours for each in stopped) * min(1.0, once)

    def _left_of(self, *statuses: str) -> int:
        """Return how many epochs the trials of some statuses lack, those that they share once."""
        if self.sharing is None:
            return sum(each.record.epochs - each.epoch for each in self.with_status(*statuses))
        now, (until, left) = time.monotonic(), self._left.get(statuses, (0.0, 0))
        if now > until:
            left = self._count_left(self.sharing, self.with_status(*statuses))
            self._left[statuses] = now + max(COUNT_LEFT_EVERY_S, 20 * (time.monotonic() - now)), left
        return left

    def _count_left(self, sharing: Sharing, trials: Sequence[Progress]) -> int:
        alone = [each for each in trials if not sharing.prefixes.may_share(each.record.id)]
        going_on = {each.record.id for each in trials} - {each.record.id for each in alone}
        reached = {id: each.epoch for id, each in self.trials.items()}
        return sum(each.record.epochs - each.epoch for each in alone) + sharing.left(reached, going_on)

    def best_score(self) -> float | None:
        """Return the best score of all trials, or None while there is none."""
        return self._best_of((each.best for each in self.trials.values() if each.best is not None), default=None)

    @contextmanager
    def changes(self) -> Iterator[set[str]]:
        """Yield the trials that changed since this was last asked, for the block to deal with; if it raises, again."""
        with self._lock:
            changed, self._changed = self._changed, set()
            before, self._new_from = self._new_from[0], (self._new_from[1], {})
        try:
            yield changed
        except BaseException:
            self.note_changed(*changed)
            with self._lock:  # what it was to export is still new
                self._new_from = (_earliest(before, self._new_from[0]), self._new_from[1])
            raise

    def newest(self) -> dict[str, Tail] | None:
        """Return what is new of each trial since the export before the last; None if this was told already.

        Of more than `MOST_EPOCHS` epochs, those of the trials that changed last.
        """
        with self._lock:
            if self._is_told:
                return None
            self._is_told = True
            first = _earliest(*self._new_from)
            known = [(id, epoch, self.trials[id].status, self.trials[id].curve) for id, epoch in first.items()]
        tails: dict[str, Tail] = {}
        left = MOST_EPOCHS
        for id, epoch, status, curve in reversed(known):  # each curve is a list that nobody changes any more
            left -= len(curve) - epoch + 1
            if left >= 0:
                tails[id] = Tail.of(status, curve, epoch)
        return tails

    def tell_again(self) -> None:
        """Let `newest` tell once more what it told last."""
        self._is_told = False

    def note_changed(self, *trial_ids: str) -> None:
        """Note that these trials' records may have changed."""
        with self._lock:
            self._changed.update(trial_ids)

    def ahead_of(self, record: Record, objective: Objective) -> Record:
        """Return a running trial's record with the epochs that are not committed yet."""
        progress = self.trials.get(record.id)
        if progress is None or progress.status != "running":
            return record
        metrics = [*record.metrics, *(row for row in progress.curve if row["epoch"] > record.epoch)]
        now = record.with_(status="running", metrics=metrics)
        return now.with_(best=best_epoch(now.judged_metrics, objective))


def _earliest(some: dict[str, int], others: dict[str, int]) -> dict[str, int]:
    """Return the smaller number for each key that one of two mappings has, the keys of the second one last."""
    return {key: min(m[key] for m in (some, others) if key in m) for key in {**some, **others}}
