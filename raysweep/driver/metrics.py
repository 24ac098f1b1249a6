"""What Ray's dashboard and Prometheus show of a sweep: the board's numbers in, Ray's gauges out.

The driver hands the newest numbers to Ray every EXPORT_EVERY_S seconds. The agent of its node offers them to Prometheus
and drops a series that it has not heard of for two of its intervals (of 10 s, by default). So a trial's series exist
while it runs and end with it, and a sweep of thousands of trials shows as many series as there are slots.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from ray.util.metrics import Gauge

from raysweep.driver.board import Board, Progress
from raysweep.driver.housekeeping import repeating

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
"""Gauges with the tags `sweep` and `trial`."""
OF_THE_SWEEP = {
    "raysweep_best_score": "The best trial's score under the sweep's objective",
    "raysweep_sweep_gpu_hours": "Hours of training times the GPUs held, over all trials and runs",
}
"""Gauges with the tag `sweep`."""
TRIALS = "raysweep_trials"
"""A gauge with the tags `sweep` and `status`."""
STATUSES = ("planned", "running", "paused", "finished", "stopped", "diverged", "failed")


@contextmanager
def shown_on_dashboard(board: Board, sweep: str, maximize: bool, gpus: float) -> Iterator[None]:
    """Export the metrics of a sweep while the block lasts; see `Meters`."""
    meters = Meters(board, sweep, maximize, gpus)
    with repeating("raysweep-metrics", meters.export, every_s=EXPORT_EVERY_S):
        yield


class Meters:
    """The gauges of a sweep, to be exported again and again while it runs.

    Args:
        board: what is known of the trials.
        sweep: the sweep's name.
        maximize: whether a higher score is better.
        gpus: how many GPUs a running trial holds.
    """

    def __init__(self, board: Board, sweep: str, maximize: bool, gpus: float) -> None:
        self._board, self._sweep, self._gpus = board, sweep, gpus
        self._best_of = max if maximize else min
        self._of_a_trial = {name: Gauge(name, text, ("sweep", "trial")) for name, text in OF_A_TRIAL.items()}
        self._of_the_sweep = {name: Gauge(name, text, ("sweep",)) for name, text in OF_THE_SWEEP.items()}
        self._trials = Gauge(TRIALS, "Trials of the plan, by status", ("sweep", "status"))
        self._running: set[str] = set()

    def export(self) -> None:
        """Hand Ray the sweep's numbers, and those of each trial that runs or has ended since the last export."""
        tags, trials = {"sweep": self._sweep}, self._board.trials
        running = {id for id, progress in trials.items() if progress.status == "running"}
        for id in running | self._running:
            for name, value in numbers_of(trials[id], self._gpus).items():
                self._of_a_trial[name].set(value, {**tags, "trial": id})
        self._running = running
        statuses = Counter(progress.status for progress in trials.values())
        for status in STATUSES:
            self._trials.set(statuses[status], {**tags, "status": status})
        hours = sum(progress.trained_hours for progress in trials.values())
        self._of_the_sweep["raysweep_sweep_gpu_hours"].set(hours * self._gpus, tags)
        if scores := [progress.best for progress in trials.values() if progress.best is not None]:
            self._of_the_sweep["raysweep_best_score"].set(self._best_of(scores), tags)


def numbers_of(progress: Progress, gpus: float) -> dict[str, float]:
    """Return what is known of a trial, by the names of OF_A_TRIAL."""
    known = {
        **progress.metrics,
        "epoch": progress.epoch,
        "epochs": progress.record.epochs,
        "gpu_hours": progress.trained_hours * gpus,
        "device_memory_bytes": progress.device_memory_bytes,
    }
    named = {f"raysweep_{name}": value for name, value in known.items() if value is not None}
    return {name: value for name, value in named.items() if name in OF_A_TRIAL}
