"""A rehearsal on this machine: what an epoch of a trial costs, and whether the trial goes on to the same numbers.

Two epochs are trained in one process, and the second of them once more in another, from the state that the first one
left. Where the numbers differ, a third process trains both epochs again: what differs then, too, is not the state's
fault. Real epochs of the real loop, without Ray's cluster and without a run folder.
"""

from __future__ import annotations

import hashlib
import math
import multiprocessing
import os
import re
import resource
import signal
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import Any, Literal

from raysweep.config import LoopConfig
from raysweep.errors import Diverged, RaysweepError
from raysweep.loops import Epoch, Loop, TrainFunctionLoop, TrialContext, loop_named
from raysweep.terminal import count_of
from raysweep.worker.frames import traceback_of
from raysweep.worker.tasks import TaskSetting

NEARLY = 1e-3
"""The largest relative difference at which a loop still counts as going on to nearly the same numbers."""
TIMES = re.compile(r"(^|_)(seconds?|time|runtime|duration|speed|throughput)(_|$)|_per_s|per_second", re.IGNORECASE)
"""Metrics with such names tell how long something took, and differ anyway."""

PRELOADED = ["raysweep.worker.silent", "raysweep.worker.looping", "raysweep.worker.ranks", "raysweep.worker.states"]
"""The modules that take seconds to import, since they import torch and Ray; before them, what an interrupt needs."""

Resumes = Literal["exactly", "nearly", "no", "anew", "unknown"]


@dataclass(frozen=True)
class Rehearsed:
    """What was found of a trial."""

    epoch_s: float  # seconds of an epoch
    memory_bytes: int  # the most that the process held: on a GPU its memory, otherwise the process's own
    last_bytes: int  # size of the state to go on from
    best_bytes: int  # size of the best weights
    resumes: Resumes
    why: str  # in words, with the metric that differs first
    metrics: list[str]  # the names of what the loop measures


class RehearsalError(Exception):
    """The loop failed; the message says why, or is its traceback."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message, exit_code)  # both: it is pickled
        self.message, self.exit_code = message, exit_code


def rehearse(setting: TaskSetting, config: LoopConfig, seed: int) -> Rehearsed:
    """Train two epochs of a trial, and the second one again from the state of the first.

    Raises:
        RehearsalError: the loop failed, or the data is not there.
    """
    values = config.model_copy(update={"epochs": max(config.epochs, 2)}).model_dump(mode="json")
    straight = _apart(_Part(setting, values, seed))
    cost = (straight.epoch_s, straight.memory_bytes, straight.last_bytes, straight.best_bytes)
    metrics = list(straight.numbers[0])
    if straight.last is None:
        why = "the loop gives no state: a trial that is interrupted begins anew"
        return Rehearsed(*cost, "anew", why, metrics)
    resumed = _apart(_Part(setting, values, seed, straight.last))
    found = compare(straight.outcome(), resumed.outcome())
    if resumed.is_led_again:
        why = (
            "the function does not go on from a checkpoint of its own: it trains its epochs again, to the same numbers"
        )
        return Rehearsed(*cost, "anew", why if found is None else f"{why} but for {found.name}", metrics)
    if found is None:
        return Rehearsed(*cost, "exactly", "the same metrics, weights and state, bit for bit", metrics)
    again = _apart(_Part(setting, values, seed))
    by_itself = compare(straight.outcome(), again.outcome())
    if by_itself is not None and by_itself.by >= found.by / 10:
        why = f"two runs from the beginning differ: {by_itself.in_words('the one', 'the other')}"
        return Rehearsed(*cost, "unknown", why, metrics)
    why = found.in_words("without a stop", "resumed")
    return Rehearsed(*cost, "nearly" if found.by <= NEARLY else "no", why, metrics)


@dataclass(frozen=True)
class Difference:
    """Where two trainings of the same epoch differ first."""

    name: str  # a metric, or what was saved
    one: float | str  # a checksum of what was saved
    other: float | str

    @property
    def by(self) -> float:
        """The relative difference; that of what was saved is infinite."""
        if isinstance(self.one, str) or isinstance(self.other, str):
            return math.inf
        if not (math.isfinite(self.one) and math.isfinite(self.other)):
            return math.inf
        return abs(self.one - self.other) / max(abs(self.one), abs(self.other))

    def in_words(self, one: str, other: str) -> str:
        """Say what differs, and by how much."""
        if self.by == math.inf and isinstance(self.one, str):
            return f"{self.name} differs after epoch 2, though no metric does yet ({other} against {one})"
        return f"{self.name} differs first, after epoch 2: {self.one:.6g} {one}, {self.other:.6g} {other}"


def compare(one: Mapping[str, float | str], other: Mapping[str, float | str]) -> Difference | None:
    """Return the first metric that differs between two epochs, or else what was saved; None if nothing does.

    A metric that only one of them has differs. Metrics that tell times do not count.
    """
    for name in dict.fromkeys([*one, *other]):
        first, second = one.get(name, math.nan), other.get(name, math.nan)
        if not isinstance(first, str) and TIMES.search(name):
            continue
        if first == second or (first != first and second != second):
            continue
        return Difference(name, first, second)
    return None


# ---------------------------------------------------------------------------------------------------------
# In a process of its own


@dataclass(frozen=True)
class _Part:
    """What a process is to train: both epochs, or the second one from a state."""

    setting: TaskSetting
    config: dict[str, Any]
    seed: int
    last: bytes | None = None


@dataclass
class _Trained:
    """What a process has trained."""

    numbers: list[dict[str, float]] = field(default_factory=list)  # the metrics of each epoch
    saved: dict[str, str] = field(default_factory=dict)  # checksums of weights and state after the last epoch
    epoch_s: float = 0.0
    memory_bytes: int = 0
    is_led_again: bool = False  # whether a function that was to go on began anew
    last: bytes | None = None  # the state after the first epoch
    last_bytes: int = 0
    best_bytes: int = 0

    def outcome(self) -> dict[str, float | str]:
        """Return what is compared of the second epoch."""
        return {**self.numbers[-1], **self.saved}


def _apart(part: _Part) -> _Trained:
    """Train in a fresh process, as a trial's would be; but it is forked from one that has loaded torch, for once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    _start_server()
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            return pool.submit(_train, part).result()
        except BrokenProcessPool:
            raise RehearsalError("its process died, of want of memory perhaps: `dmesg` says so") from None


def _start_server() -> None:
    """Start the process that loads torch, deaf to Ctrl-C until `worker.silent` keeps it from printing a traceback."""
    resource_tracker.ensure_running()  # first, since to start it unblocks the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _train(part: _Part) -> _Trained:
    os.dup2(2, 1)  # what the loop prints is not the command's output
    part.setting.set_up_process()
    loop = loop_named(part.setting.loop)
    taking = _Taking(loop, part)
    try:
        config = loop.config.model_validate(part.config)
        arrays = loop.prepare(config, Path(part.setting.sweep_folder))
        loop.check([config], arrays, part.setting.device)
        taking.whole, taking.few = arrays, loop.few(config, arrays)
        _run(loop, config, part, taking)
    except _Enough:
        taking.is_done = True
    except RaysweepError as error:
        raise RehearsalError(str(error), error.exit_code) from None
    except Diverged as error:
        raise RehearsalError(str(error)) from None
    except (Exception, SystemExit) as error:
        raise RehearsalError(traceback_of(error)) from None
    if not taking.is_done:
        raise RehearsalError(
            f"the loop ended by itself after {count_of(taking.done, 'epoch')}; it must train two at least"
        )
    taking.found.is_led_again = taking.trial.is_led_again
    taking.found.memory_bytes = _memory(part.setting.device)
    return taking.found


def _run(loop: Loop, config: LoopConfig, part: _Part, taking: _Taking) -> None:
    from raysweep.worker.looping import run_loop
    from raysweep.worker.ranks import run_ranks
    from raysweep.worker.states import going_on_from

    device = part.setting.device
    conditions = {"workers": 1, **loop.conditions(config, taking.few, device)}
    with going_on_from(part.last) as (saved, checkpoint):
        trial = TrialContext(
            part.seed,
            0 if part.last is None else 1,
            saved,
            checkpoint,
            "cpu" if device == "cpu" or not _has_gpu() else "cuda",
            taking.few,
            conditions,
        )
        taking.began = time.perf_counter()

        def train() -> None:
            run_loop(loop, config, trial, taking, "rehearsal")

        taking.trial = trial
        if isinstance(loop, TrainFunctionLoop):  # inside Ray Train's local mode, which needs no cluster
            run_ranks(train, train, 1, print, "rehearsal", "rehearsal")
        else:
            train()


class _Enough(SystemExit):
    """Ends the loop after the epochs that were wanted."""


class _Taking:
    """Takes the epochs that a process trains."""

    def __init__(self, loop: Loop, part: _Part) -> None:
        self.loop, self.part, self.found = loop, part, _Trained()
        self.config = loop.config.model_validate(part.config)
        self.whole: Mapping[str, Any] = {}
        self.few: dict[str, Any] = {}
        self.began, self.is_done = 0.0, False
        self.trial = TrialContext()

    @property
    def done(self) -> int:
        """Epochs of the trial that are trained."""
        return len(self.found.numbers) + (0 if self.part.last is None else 1)

    def __call__(self, epoch: Epoch) -> None:
        """Note an epoch; raise `_Enough` after the last one that is wanted."""
        from raysweep.worker.looping import numbers_of
        from raysweep.worker.states import Best, leaves_of, state_of

        if not epoch.metrics:
            return
        took, found = time.perf_counter() - self.began, self.found
        found.numbers.append(numbers_of(epoch.metrics, self.loop.name))
        last = state_of(epoch, self.loop).get("last")
        if self.done == 2:
            found.epoch_s = self.loop.epoch_seconds(self.config, self.whole, self.few, found.numbers[-1], took)
            best = Best.of(epoch, averaged=False)
            found.best_bytes = len(best.files().get("best", b""))
            found.saved = leaves_of(last) if last else {}
            if best.weights is not None:
                found.saved["the weights"] = hashlib.sha256(best.files()["best"]).hexdigest()
            raise _Enough
        found.last, found.last_bytes = last, len(last or b"")
        self.began = time.perf_counter()


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _memory(device: str) -> int:
    """Return the most memory that this process has held, in bytes: the GPU's, or its own."""
    import torch

    if device != "cpu" and torch.cuda.is_available():
        return torch.cuda.max_memory_reserved()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts KiB
