"""What Ray's dashboard and Prometheus show of a sweep: the board's numbers in, Ray's gauges out.

The driver hands the newest numbers to Ray every EXPORT_EVERY_S seconds. The agent of its node offers them to Prometheus
and drops a series that it has not heard of for two of its intervals (of 10 s, by default). So a trial's series exist
while it runs and end with it, and a sweep of thousands of trials shows as many series as there are slots.
"""

from __future__ import annotations

import re
from collections import Counter

from ray.util.metrics import Gauge

from raysweep.driver.board import Board, Progress

EXPORT_EVERY_S = 2.0
"""Ray forgets a gauge's value once it has reported it, so this is well below its reporting interval."""
OF_A_TRIAL = {
    "raysweep_epoch": "Epochs that the trial has trained",
    "raysweep_epochs": "Epochs that the trial is to train",
    "raysweep_train_loss": "Training loss of the newest epoch",
    "raysweep_train_acc": "Training accuracy of the newest epoch, 0..1",
    "raysweep_val_loss": "Validation loss of the newest epoch",
    "raysweep_val_acc": "Validation accuracy of the newest epoch, 0..1",
    "raysweep_val_acc_ema": "Validation accuracy of the EMA weights, newest epoch, 0..1",
    "raysweep_lr": "Learning rate of the newest epoch",
    "raysweep_grad_norm": "Mean gradient norm of the newest epoch",
    "raysweep_images_per_s": "Training images a second, newest epoch",
    "raysweep_device_memory_bytes": "GPU memory that the trial's process holds; on a CPU its resident set",
    "raysweep_gpu_hours": "Hours of training times the GPUs held, over all runs of the trial",
}
"""Gauges with the tags `sweep` and `trial`. Another metric that a loop reports has one as well, made when it comes."""
MOST_METRICS = 50
"""Metrics of a loop that are exported: a trial may report one for each of a thousand classes."""
OF_THE_SWEEP = {
    "raysweep_best_score": "The best trial's score under the sweep's objective",
    "raysweep_sweep_gpu_hours": "Hours of training times the GPUs held, over all trials and runs",
}
"""Gauges with the tag `sweep`."""
TRIALS = "raysweep_trials"
"""A gauge with the tags `sweep` and `status`."""
OWN = ("epoch", "epochs", "gpu_hours", "device_memory_bytes")
RESERVED = {*OF_THE_SWEEP, TRIALS, *(f"raysweep_{name}" for name in OWN)}
"""Gauges that say something else than a metric of this name would."""
NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9_]")
STATUSES = ("planned", "running", "interrupted", "paused", "finished", "stopped", "diverged", "failed")


class Meters:
    """The gauges of a sweep, to be exported again and again while its trials run."""

    def __init__(self, board: Board, sweep: str) -> None:
        self._board, self._sweep = board, sweep
        self._gauges = {
            **{name: Gauge(name, text, ("sweep", "trial")) for name, text in OF_A_TRIAL.items()},
            **{name: Gauge(name, text, ("sweep",)) for name, text in OF_THE_SWEEP.items()},
            TRIALS: Gauge(TRIALS, "Trials of the plan, by status", ("sweep", "status")),
        }
        self._running: set[str] = set()
        self._left = MOST_METRICS

    def export(self) -> None:
        """Hand Ray the sweep's numbers, and those of each trial that runs or has ended since the last export."""
        trials = self._board.trials
        running = {progress.record.id for progress in self._board.with_status("running")}
        for id in running | self._running:
            for name, value in numbers_of(trials[id], self._board.gpus).items():
                self._set(name, value, trial=id)
        self._running = running
        statuses = Counter(progress.status for progress in trials.values())
        for status in STATUSES:
            self._set(TRIALS, statuses[status], status=status)
        hours = sum(progress.trained_hours for progress in trials.values())
        self._set("raysweep_sweep_gpu_hours", hours * self._board.gpus)
        if (best := self._board.best_score()) is not None:
            self._set("raysweep_best_score", best)

    def _set(self, name: str, value: float, **tags: str) -> None:
        if name not in self._gauges:
            if not self._left:
                return
            self._left -= 1
            self._gauges[name] = Gauge(name, "Reported by the loop, newest epoch", ("sweep", "trial"))
        self._gauges[name].set(value, {"sweep": self._sweep, **tags})


def numbers_of(progress: Progress, gpus: float) -> dict[str, float]:
    """Return what is known of a trial, by the names of its gauges: ours, and those of the metrics that it reported."""
    known = {
        "epoch": progress.epoch,
        "epochs": progress.record.epochs,
        "gpu_hours": progress.trained_hours * gpus,
        "device_memory_bytes": progress.device_memory_bytes,
    }
    ours = {f"raysweep_{name}": value for name, value in known.items() if value is not None}
    reported = ((name, value) for name, value in progress.metrics.items() if name != "epoch" and value is not None)
    return {gauge_of(name): value for name, value in reported} | ours


def gauge_of(metric: str) -> str:
    """Return the name of a metric's gauge, of the letters that Prometheus allows, which is none of ours."""
    name = f"raysweep_{NOT_IN_NAMES.sub('_', metric)}"
    return f"raysweep_loop{name.removeprefix('raysweep')}" if name in RESERVED else name
