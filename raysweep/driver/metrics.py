"""What Ray's dashboard shows of a sweep: the metrics of its running trials, for Prometheus.

The driver hands the newest numbers to Ray every EXPORT_EVERY_S seconds. The agent of its node offers them to Prometheus
and drops a series that it has not heard of for two of its intervals (of 10 s, by default). So a trial's series are
there while it runs and leave with it: a sweep of thousands of trials shows as many as there are slots.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from ray.util.metrics import Gauge

from raysweep.cluster.slots import Slot
from raysweep.driver.costs import curve_of
from raysweep.driver.events import Board, Progress
from raysweep.driver.housekeeping import repeating
from raysweep.results.hours import trained_s

EXPORT_EVERY_S = 2.0
"""Ray forgets a gauge once it has reported it, so this is well below its reporting interval."""
OF_A_TRIAL = {
    "raysweep_epoch": "Epochs that the trial has trained",
    "raysweep_epochs": "Epochs that the trial is to train",
    "raysweep_train_loss": "Training loss of the newest epoch",
    "raysweep_train_acc": "Training accuracy of the newest epoch, 0..1",
    "raysweep_val_loss": "Validation loss of the newest epoch",
    "raysweep_val_acc": "Validation accuracy of the newest epoch, 0..1",
    "raysweep_val_acc_ema": "Validation accuracy of the averaged weights, newest epoch, 0..1",
    "raysweep_lr": "Learning rate of the newest epoch",
    "raysweep_grad_norm": "Mean gradient norm of the newest epoch",
    "raysweep_images_per_s": "Training images a second, newest epoch",
    "raysweep_device_memory_bytes": "GPU memory that the trial's process holds; on a CPU its resident set",
    "raysweep_gpu_hours": "Hours of training times the GPUs held, over all runs of the trial",
}
"""Tagged by `sweep` and `trial`."""
OF_THE_SWEEP = {
    "raysweep_best_score": "The best trial's score under the sweep's objective",
    "raysweep_sweep_gpu_hours": "Hours of training times the GPUs held, over all trials and runs",
}
"""Tagged by `sweep`."""
TRIALS = "raysweep_trials"
"""Tagged by `sweep` and `status`."""
STATUSES = ("planned", "running", "paused", "finished", "stopped", "diverged", "failed")


@contextmanager
def shown_on_dashboard(board: Board, sweep: str, maximize: bool, slot: Slot) -> Iterator[None]:
    """Export the metrics of a sweep while the block lasts; see `Meters`."""
    meters = Meters(board, sweep, maximize, slot)
    with repeating("raysweep-metrics", meters.export, every_s=EXPORT_EVERY_S):
        yield


class Meters:
    """Gauges of a sweep; `export` is to be called again and again while it runs.

    Args:
        board: what is known of the trials.
        sweep: its name.
        maximize: whether a higher score is better.
        slot: of each trial.
    """

    def __init__(self, board: Board, sweep: str, maximize: bool, slot: Slot) -> None:
        self._board, self._sweep = board, sweep
        self._best_of = max if maximize else min
        self._gpus = slot.workers * slot.gpus
        self._of_a_trial = {name: Gauge(name, said, ("sweep", "trial")) for name, said in OF_A_TRIAL.items()}
        self._of_the_sweep = {name: Gauge(name, said, ("sweep",)) for name, said in OF_THE_SWEEP.items()}
        self._trials = Gauge(TRIALS, "Trials of the plan, by status", ("sweep", "status"))
        self._ran: set[str] = set()
        self._spent: dict[str, tuple[int, float]] = {}

    def export(self) -> None:
        """Hand Ray the sweep's numbers and those of trials that run, or ran at the last call and have ended since."""
        with self._board.lock:
            trials = dict(self._board.trials)
            statuses = Counter(progress.status for progress in trials.values())
            scores = [progress.best for progress in trials.values() if progress.best is not None]
            gpu_hours = {id: self._gpu_hours(id, progress) for id, progress in trials.items()}
            running = {id for id, progress in trials.items() if progress.status == "running"}
            numbers = {id: numbers_of(trials[id], gpu_hours[id]) for id in running | self._ran}
        self._ran = running
        for id, of_a_trial in numbers.items():
            for name, value in of_a_trial.items():
                self._of_a_trial[name].set(value, {"sweep": self._sweep, "trial": id})
        for status in STATUSES:
            self._trials.set(statuses[status], {"sweep": self._sweep, "status": status})
        self._of_the_sweep["raysweep_sweep_gpu_hours"].set(sum(gpu_hours.values()), {"sweep": self._sweep})
        if scores:
            self._of_the_sweep["raysweep_best_score"].set(self._best_of(scores), {"sweep": self._sweep})

    def _gpu_hours(self, id: str, progress: Progress) -> float:
        """A trial's, added up anew only where an epoch has come since the last call."""
        epoch, hours = self._spent.get(id, (-1, 0.0))
        if epoch != progress.epoch:
            hours = gpu_hours_of(progress, self._gpus)
            self._spent[id] = (progress.epoch, hours)
        return hours


def gpu_hours_of(progress: Progress, gpus: float) -> float:
    """Hours of a trial's epochs times the GPUs that it holds; an epoch that was trained twice counts once."""
    return trained_s(curve_of(progress)) * gpus / 3600


def numbers_of(progress: Progress, gpu_hours: float) -> dict[str, float]:
    """A trial's numbers by the names of OF_A_TRIAL, as far as they are known."""
    newest = progress.history or progress.record.metrics
    metrics = newest[-1] if newest else {}
    numbers = {f"raysweep_{name}": value for name, value in metrics.items() if f"raysweep_{name}" in OF_A_TRIAL}
    if progress.device_memory_bytes is not None:
        numbers["raysweep_device_memory_bytes"] = progress.device_memory_bytes
    own = {"raysweep_epoch": progress.epoch, "raysweep_epochs": progress.record.epochs, "raysweep_gpu_hours": gpu_hours}
    return {**numbers, **own}
