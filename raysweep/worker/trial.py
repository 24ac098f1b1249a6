"""One trial under Ray: Ray Train around the training loop, commits to the run folder, reports to Tune.

Tune owns the trial's slot and keeps its actor warm for the next; Ray Train runs in local mode inside it, so that
nothing is started for a trial. What goes wrong in the loop is caught, recorded and tried again here, since an
exception that escapes would cost the warm actor; a CUDA error ends the process, which cannot be trusted after it.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune
from ray.exceptions import RayActorError
from safetensors.torch import save as save_safetensors

from raysweep.config import LoopConfig
from raysweep.errors import Diverged, Interrupted, StorageError, UserError
from raysweep.halving.scores import best_epoch, better_of, rung_scores, score_again
from raysweep.registry import Epoch, loop
from raysweep.store import Record, RunFolder
from raysweep.store.uploads import Uploads
from raysweep.worker.conditions import conditions
from raysweep.worker.process import set_up_process
from raysweep.worker.ranks import run_ranks
from raysweep.worker.tasks import Assignment, out_of_memory


def run_trial(config: dict[str, Any], data: Mapping[str, Any], stop: Any) -> None:
    """The Tune trainable: train a trial, from its last commit to its end.

    Args:
        config: has the `assignment`.
        data: object reference of the prepared arrays, by data config.
        stop: the `StopFlag` actor.
    """
    assignment: Assignment = config["assignment"]
    set_up_process(assignment.imports, assignment.threads)
    settings = loop().config.model_validate(assignment.record.config)
    # Time for a loop, and the peers of rank 0, to end; at Tune's default of 2 s it would fail the next trial, unrun.
    os.environ["TUNE_FUNCTION_THREAD_TIMEOUT_S"] = "60"
    reference = data[settings.data_key()]
    peers_loop = functools.partial(train_as_peer, assignment, reference)
    _Run(assignment, settings, ray.get(reference), _watch(stop), peers_loop).to_the_end()


def train_as_peer(assignment: Assignment, arrays: Any) -> None:
    """What the ranks after the first do: train along. All else is rank 0's, also what becomes of the trial.

    Args:
        assignment: the trial's.
        arrays: object reference of the prepared set.
    """
    set_up_process(assignment.imports, assignment.threads)
    settings = loop().config.model_validate(assignment.record.config)
    with contextlib.suppress(Diverged, Interrupted):
        for _ in loop().train(settings, ray.get(arrays), seed=assignment.record.seed):
            pass


@dataclass
class _Run:
    """The trial's way from its last commit to its end."""

    assignment: Assignment
    config: LoopConfig
    data: dict[str, Any]
    should_stop: Callable[[], bool]
    peers_loop: Callable[[], None]
    """Of the ranks after this one."""
    record: Record = field(init=False)
    committed_at: float = field(init=False, default_factory=time.monotonic)
    pending_best: dict[str, torch.Tensor] | None = field(init=False, default=None)
    """Weights of a best epoch that is not committed yet."""

    def __post_init__(self) -> None:
        self.folder = RunFolder(self.assignment.storage, self.assignment.run_name, has_answered=True)
        self.uploads = Uploads(self.folder)

    def to_the_end(self) -> None:
        """Train, commit and report until the trial is finished, diverged, failed or told to stop."""
        for attempt in range(1, self.assignment.retries + 2):
            try:
                self._attempt(attempt)
            except StorageError:  # nothing can be committed: the run is to end, and says why
                raise
            except RayActorError:  # the process of another rank died: the trial starts again as if this one's had
                raise
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
        committed = self.folder.record(self.assignment.record.id)
        if committed is not None and committed.status in ("finished", "diverged"):  # its process died just then
            self.record = committed
            return self._report(is_new=False)
        state = self._go_back_to_last_commit(attempt)
        if self._is_at_rung():  # the process may have died between the commit there and the report
            self._report(is_new=False)
        return run_ranks(lambda: self._train(state), self.peers_loop, self.assignment.workers)

    def _train(self, state: dict[str, Any] | None) -> None:
        """Go on from a state, as rank 0."""
        state_of_last_epoch: dict[str, Any] | None = None
        epochs = loop().train(
            self.config, self.data, seed=self.assignment.record.seed, state=state, should_stop=self.should_stop
        )
        try:
            for epoch in epochs:
                self._note(epoch)
                state_of_last_epoch = epoch.state()
                if epoch.number == self.config.epochs:
                    self._commit("finished", None)
                elif self._is_at_rung():
                    self._commit("paused", state_of_last_epoch)
                elif time.monotonic() - self.committed_at >= self.assignment.commit_every_s:
                    self._commit("running", state_of_last_epoch, beside_training=True)
                self._report()
                if self.record.status == "paused":  # its place was sure
                    self.record = self.record.with_(status="running")
        except Interrupted:
            if state_of_last_epoch is not None:
                self._commit("running", state_of_last_epoch)
        except Diverged as diverged:
            self.record = self.record.with_(error=_divergence(diverged))
            self._commit("diverged", None)
            self._report()
        except SystemExit:  # Tune stops or pauses the trial at its report; at a rung all is committed already
            if self.record.status == "running" and self.assignment.may_be_stopped:
                self._commit("stopped", None)
            raise
        finally:
            epochs.close()
            self.record = self.uploads.finish(self.record)

    def _go_back_to_last_commit(self, attempt: int) -> dict[str, Any] | None:
        """Set the record to the last whole commit, or to the beginning; return the state to train on from."""
        planned = self.assignment.record
        self.folder.tidy(planned.id)
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
            else:
                metrics, objective = self.record.metrics, self.assignment.objective
                best = score_again(self.record.best, metrics, objective) or best_epoch(metrics, objective)
                self.record = self.record.with_(best=best)
        self.record = self.record.with_(
            status="running",
            attempts=self.assignment.deaths + attempt,
            error=(self.assignment.past_error if attempt == 1 else None) or self.record.error,
            config=planned.config,
            conditions=conditions(self.config, self.data, self.assignment.workers),
        )
        return state

    def _note(self, epoch: Epoch) -> None:
        """Add an epoch to the history; keep a copy of its weights if it is the best so far."""
        metrics = {"epoch": epoch.number, **epoch.metrics}
        self.record = self.record.with_(metrics=[*self.record.metrics, metrics])
        best = better_of(self.record.best, metrics, self.assignment.objective)
        if best and best != self.record.best:
            self.record = self.record.with_(best=best)
            self.pending_best = epoch.weights(best.averaged)

    def _commit(self, status: str, state: dict[str, Any] | None, beside_training: bool = False) -> None:
        """Commit; to an object store `beside_training`, if it is not waited for by a decision."""
        weights = {}
        if state is not None:
            buffer = io.BytesIO()
            torch.save(state, buffer)
            weights["last"] = buffer.getvalue()
        if self.pending_best is not None:
            weights["best"] = save_safetensors(self.pending_best)
        record = self.record.with_(status=status)
        if beside_training and self.folder.files.local is None:
            self.uploads.begin(record, weights)
        else:
            keep = ("best",) if status not in ("running", "paused") else ("last", "best")
            self.record = self.folder.commit(self.uploads.finish(record), weights, keep)
        self.pending_best = None
        self.committed_at = time.monotonic()

    def _is_at_rung(self) -> bool:
        return self.record.epoch in self.assignment.rungs

    def _report(self, is_new: bool = True) -> None:
        """Tell Tune; raises SystemExit where Tune decides to stop or pause the trial.

        Args:
            is_new: whether the newest epoch was not reported yet.
        """
        best = self.record.best
        metrics = self.record.metrics[-1] if self.record.metrics and is_new else {}
        history, objective = self.record.metrics, self.assignment.objective
        is_compared = self._is_at_rung() or self.record.is_final
        none = float("-inf") if objective.maximize else float("inf")
        tune.report(
            {
                "epoch": self.record.epoch,
                "score": best.score if best else none,
                "status": self.record.status,
                "metrics": metrics,
                "device_memory_bytes": _device_memory_bytes(),
                "rungs": rung_scores(history, self.assignment.rungs, objective, self.assignment.rank_by)
                if is_compared
                else [],
            }
        )

    def _remember(self, error: BaseException, attempt: int) -> None:
        committed = self.folder.record(self.record.id)
        if committed is not None:
            self.record = self.folder.commit(committed.with_(error=self._describe(error), attempts=attempt), {})

    def _fail(self, error: BaseException, attempt: int) -> None:
        """Record the failure beside the last commit's state, so that a rerun can go on from there."""
        committed = self.folder.record(self.assignment.record.id) or self.assignment.record
        failed = committed.with_(status="failed", error=self._describe(error), attempts=attempt)
        self.record = self.folder.commit(failed, {})
        self._report()

    def _describe(self, error: BaseException) -> dict[str, Any]:
        described = describe(error)
        if is_out_of_memory(error):
            said = out_of_memory(self.record.config["batch_size"], described["message"].partition("\n")[0])
            described |= {"type": "OutOfMemory", "message": said}
        return described


def describe(error: BaseException) -> dict[str, Any]:
    """An exception as it stands in a record."""
    text = "".join(traceback.format_exception(error))
    return {"type": type(error).__name__, "message": str(error), "traceback": text}


def is_out_of_memory(error: BaseException) -> bool:
    """Whether there was no memory left, of a GPU or for this process."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)  # torch's CPU allocator


def _device_memory_bytes() -> int | None:
    """What this process holds: of its GPU, as torch's allocator has reserved it; without one, its resident set."""
    if torch.cuda.is_available():
        return torch.cuda.memory_reserved()
    statm = Path("/proc/self/statm")  # Linux
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else None


def _divergence(diverged: Diverged) -> dict[str, Any]:
    numbers = {"epoch": diverged.epoch, "lr": diverged.lr, "grad_norm": diverged.grad_norm, "loss": diverged.loss}
    return {"type": "Diverged", "message": str(diverged), **{key: str(value) for key, value in numbers.items()}}


def _is_cuda_error(error: BaseException) -> bool:
    return isinstance(error, torch.AcceleratorError)


def _watch(stop: Any) -> Callable[[], bool]:
    """Return a cheap question, for between steps: was the run told to stop?"""
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
    """Ask the flag once a process: an async actor takes a thousand calls at a time, and trials may be more."""
    return stop.wait.remote()
