"""One trial under Ray: Ray Train around the training loop, commits to the run folder, reports to Tune.

Tune owns the trial's slot and keeps its actor warm for the next; Ray Train runs in local mode inside it, so that
nothing is started for a trial. What goes wrong in the loop is caught, recorded and tried again here, since an
exception that escapes would cost the warm actor; a CUDA error ends the process, which cannot be trusted after it.
"""

from __future__ import annotations

import io
import os
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import ray
import torch
from ray import tune
from ray.train import ScalingConfig
from ray.train.torch import TorchTrainer
from safetensors.torch import save as save_safetensors

import raysweep
from raysweep.config import TrialConfig
from raysweep.data import mean_std
from raysweep.data.dataset import DataSet
from raysweep.errors import UserError
from raysweep.models import build_model, check_image_size
from raysweep.registry import import_modules
from raysweep.scoring import best_epoch, is_better, score_epoch
from raysweep.store import Record, RunFolder, Score
from raysweep.sweepfile.schema import Objective
from raysweep.train import Diverged, Epoch, Interrupted, resolve_precision, train


@dataclass(frozen=True)
class Assignment:
    """What a trial is told: all that its process needs to know, beside the images."""

    record: Record
    """As planned, before anything was trained."""
    storage: str
    run_name: str
    objective: Objective
    retries: int
    commit_every_s: float
    threads: int
    """CPU threads of the loop."""
    workers: int = 1
    imports: tuple[str, ...] = ()
    """The user's modules of `--import`."""


def run_trial(config: dict[str, Any], data: Mapping[str, Any], stop: Any) -> None:
    """The Tune trainable.

    Args:
        config: has the `assignment`.
        data: object reference of the prepared arrays, by data config.
        stop: the `StopFlag` actor.
    """
    assignment: Assignment = config["assignment"]
    import_modules(assignment.imports)
    torch.set_num_threads(assignment.threads)
    settings = TrialConfig.model_validate(assignment.record.config)
    arrays = ray.get(data[settings.data.model_dump_json()])

    def loop() -> None:
        _Run(assignment, settings, DataSet.from_arrays(arrays), _watch(stop)).to_the_end()

    TorchTrainer(loop, scaling_config=ScalingConfig(num_workers=0)).fit()


@dataclass
class _Run:
    """The trial's way from its last commit to its end."""

    assignment: Assignment
    config: TrialConfig
    data: DataSet
    should_stop: Callable[[], bool]
    record: Record = field(init=False)
    committed_at: float = field(init=False, default_factory=time.monotonic)
    pending_best: dict[str, torch.Tensor] | None = field(init=False, default=None)
    """Weights of a best epoch that is not committed yet."""

    def __post_init__(self) -> None:
        self.folder = RunFolder(self.assignment.storage, self.assignment.run_name)

    def to_the_end(self) -> None:
        """Train, commit and report until the trial is finished, diverged, failed or told to stop."""
        for attempt in range(1, self.assignment.retries + 2):
            try:
                self._attempt(attempt)
            except UserError as error:  # trying again would end the same way
                return self._fail(error, attempt)
            except Exception as error:
                if _is_cuda_error(error):
                    raise
                if attempt > self.assignment.retries:
                    return self._fail(error, attempt)
                self._remember(error, attempt)
            else:
                return None
        return None

    def _attempt(self, attempt: int) -> None:
        state = self._go_back_to_last_commit(attempt)
        state_of_last_epoch: dict[str, Any] | None = None
        epochs = train(
            self.config, self.data, seed=self.assignment.record.seed, state=state, should_stop=self.should_stop
        )
        try:
            for epoch in epochs:
                self._note(epoch)
                state_of_last_epoch = epoch.state()
                if epoch.number == self.config.epochs:
                    self._commit("finished", None)
                elif time.monotonic() - self.committed_at >= self.assignment.commit_every_s:
                    self._commit("running", state_of_last_epoch)
                self._report()
        except Interrupted:
            if state_of_last_epoch is not None:
                self._commit("running", state_of_last_epoch)
        except Diverged as diverged:
            self.record = self.record.with_(error=_divergence(diverged))
            self._commit("diverged", None)
            self._report()
        except SystemExit:  # Tune stops the trial at its report
            if not self.record.is_final:
                self._commit("stopped", None)
            raise
        finally:
            epochs.close()

    def _go_back_to_last_commit(self, attempt: int) -> dict[str, Any] | None:
        """Set the record to the last whole commit, or to the beginning; return the state to train on from."""
        planned = self.assignment.record
        found = self.folder.resume_point(planned.id)
        state: dict[str, Any] | None = None
        self.pending_best = None
        if found is None:
            self.record = planned
        else:
            self.record, data = found
            state = torch.load(io.BytesIO(data), weights_only=True) if data is not None else None
            if state is None:
                self.record = self.record.with_(metrics=[], best=None)
            elif self.record.best is None:
                self.record = self.record.with_(best=self._best_so_far())
        self.record = self.record.with_(
            status="running",
            attempts=attempt,
            config=planned.config,
            conditions=conditions(self.config, self.data, self.assignment.workers),
        )
        return state

    def _best_so_far(self) -> Score | None:
        best = best_epoch(self.record.metrics, self.assignment.objective)
        if best is None:
            return None
        val_acc = self.record.metrics[best.epoch - 1].get("val_acc_ema" if best.averaged else "val_acc")
        return Score(best.epoch, best.score, best.averaged, val_acc)

    def _note(self, epoch: Epoch) -> None:
        """Add an epoch to the history; keep a copy of its weights if it is the best so far."""
        metrics = {"epoch": epoch.number, **epoch.metrics}
        self.record = self.record.with_(metrics=[*self.record.metrics, metrics])
        objective = self.assignment.objective
        scored = score_epoch(metrics, objective)
        best = self.record.best
        if scored and (best is None or is_better(scored[0], best.score, objective)):
            score, averaged = scored
            val_acc = metrics.get("val_acc_ema" if averaged else "val_acc")
            self.record = self.record.with_(best=Score(epoch.number, score, averaged, val_acc))
            self.pending_best = epoch.weights(averaged)

    def _commit(self, status: str, state: dict[str, Any] | None) -> None:
        weights = {}
        if state is not None:
            buffer = io.BytesIO()
            torch.save(state, buffer)
            weights["last"] = buffer.getvalue()
        if self.pending_best is not None:
            weights["best"] = save_safetensors(self.pending_best)
        final = status not in ("running", "paused")
        self.record = self.folder.commit(
            self.record.with_(status=status), weights, keep=("best",) if final else ("last", "best")
        )
        self.pending_best = None
        self.committed_at = time.monotonic()

    def _report(self) -> None:
        """Tell Tune; raises SystemExit where Tune decides to stop the trial."""
        best = self.record.best
        latest: dict[str, float] = dict(self.record.metrics[-1]) if self.record.metrics else {"epoch": 0}
        objective = self.assignment.objective
        latest["score"] = best.score if best else (float("-inf") if objective.maximize else float("inf"))
        tune.report({**latest, "status": self.record.status})

    def _remember(self, error: BaseException, attempt: int) -> None:
        committed = self.folder.record(self.record.id)
        if committed is not None:
            self.record = self.folder.commit(committed.with_(error=describe(error), attempts=attempt), {})

    def _fail(self, error: BaseException, attempt: int) -> None:
        """Record the failure beside the last commit's state, so that a rerun can go on from there."""
        committed = self.folder.record(self.assignment.record.id) or self.assignment.record
        failed = committed.with_(status="failed", error=describe(error), attempts=attempt)
        self.record = self.folder.commit(failed, {})
        self._report()


def conditions(config: TrialConfig, data: DataSet, workers: int) -> dict[str, Any]:
    """What a trial's numbers depend on beside its config; what of it must stay the same is in `driver.resolved`."""
    mean, std = mean_std(config.normalize, data)
    return {
        "workers": workers,
        "precision": resolve_precision(config, torch.device("cuda" if torch.cuda.is_available() else "cpu")),
        "data": data.fingerprint,
        "classes": list(data.classes),
        "image_size": data.image_size,
        "mean": list(mean),
        "std": list(std),
        "versions": {"raysweep": raysweep.__version__, "torch": torch.__version__.split("+")[0]},
    }


def check_model(config: TrialConfig, data: DataSet) -> None:
    """Build the trial's network and check that it takes the images, before anything is trained.

    Raises:
        UserError: it cannot be built as asked, or the images are too small for it.
    """
    model = build_model(config.model, data.num_classes)
    check_image_size(model, config.model.name, data.image_size, batch_size=2)


def describe(error: BaseException) -> dict[str, Any]:
    """An exception as it stands in a record."""
    text = "".join(traceback.format_exception(error))
    return {"type": type(error).__name__, "message": str(error), "traceback": text}


def _divergence(diverged: Diverged) -> dict[str, Any]:
    numbers = {"epoch": diverged.epoch, "lr": diverged.lr, "grad_norm": diverged.grad_norm, "loss": diverged.loss}
    return {"type": "Diverged", "message": str(diverged), **{key: str(value) for key, value in numbers.items()}}


def _is_cuda_error(error: BaseException) -> bool:
    return isinstance(error, torch.AcceleratorError)


class StopFlag:
    """An async Ray actor that trials wait on: set once when the user stops the run."""

    def __init__(self) -> None:
        import asyncio

        self._event = asyncio.Event()

    async def set(self) -> None:
        """Tell all that wait."""
        self._event.set()

    async def wait(self) -> bool:
        """Return once the flag is set."""
        return await self._event.wait()


def _watch(stop: Any) -> Callable[[], bool]:
    """Return a cheap question, for between steps: was the run told to stop?"""
    waiting = stop.wait.remote()
    asked_at, answer = 0.0, False

    def should_stop() -> bool:
        nonlocal asked_at, answer
        now = time.monotonic()
        if not answer and now - asked_at > 0.1:
            asked_at = now
            answer = bool(ray.wait([waiting], timeout=0)[0])
        return answer

    return should_stop


THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


def process_environment(threads: int) -> dict[str, str]:
    """Environment of a trial's process."""
    return {
        **{name: os.environ.get(name, str(threads)) for name in THREAD_VARIABLES},
        "TUNE_FUNCTION_THREAD_TIMEOUT_S": "60",
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    }
