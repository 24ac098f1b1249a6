"""What the driver starts on the cluster, and what it tells it.

The driver and the flag's process need no torch, whose import takes seconds; so what it starts imports what it needs
where it runs, and this module next to nothing.
"""

from __future__ import annotations

import asyncio
import os
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raysweep.config import LoopConfig
from raysweep.registry import loop
from raysweep.results.evaluation import Accuracies
from raysweep.store import Record, RunFolder
from raysweep.sweepfile.schema import Objective, RankBy

DATA_VARIABLES = ("RAYSWEEP_DATA", "RAYSWEEP_CACHE")


def data_variables() -> dict[str, str]:
    """What this process's environment says of data, to be told to others."""
    return {name: os.environ[name] for name in DATA_VARIABLES if name in os.environ}


# -- trials


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
    rungs: tuple[int, ...] = ()
    """Epochs after which it is compared with others: it commits there, and may be paused until its place is sure."""
    rank_by: RankBy = "ema"
    may_be_stopped: bool = False
    """Whether Tune's answer to any report may be the trial's end (`ray_asha`): the trial then records that itself."""
    workers: int = 1
    """Ranks that train it together."""
    imports: tuple[str, ...] = ()
    """The user's modules of `--import`."""
    deaths: int = 0
    """How often its process has died in this run, by its own fault."""
    past_error: Mapping[str, Any] | None = None
    """How its last process ended, for the record."""


class Trainable:
    """`trial.run_trial` by name: unpickled in a trial's process it is that function, imported before it starts."""

    __name__ = "run_trial"

    def __call__(self, config: dict[str, Any], data: Mapping[str, Any], stop: Any) -> None:
        """Never here."""
        raise NotImplementedError

    def __reduce__(self) -> tuple[Callable[[str], Any], tuple[str]]:
        """Pickle as the function's name."""
        return pkgutil.resolve_name, ("raysweep.worker.trial:run_trial",)


class StopFlag:
    """An async Ray actor that trials wait on: set once when the user stops the run."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    async def set(self) -> None:
        """Tell all that wait."""
        self._event.set()

    async def wait(self) -> bool:
        """Return once the flag is set."""
        return await self._event.wait()


def out_of_memory(batch_size: int, what: str) -> str:
    """What is said of a trial that was out of memory."""
    return f"out of memory with batch_size {batch_size} ({what}); a smaller batch_size or network is another trial"


# -- tasks before and after them


def prepare(
    configs: list[LoopConfig],
    sweep_folder: str,
    imports: tuple[str, ...],
    workers: int,
    threads: int,
    variables: dict[str, str],
) -> tuple[Any, list[dict[str, Any]]]:
    """Prepare a data set in this process; see `conditions.prepare_set`.

    Returns:
        The arrays, as a value of their own that the driver owns, so that Ray prepares them anew if the node that holds
        them dies, and the conditions of each config.
    """
    from raysweep.worker.conditions import prepare_set
    from raysweep.worker.process import set_up_process

    set_up_process(imports, threads, variables)
    return prepare_set(configs, Path(sweep_folder), workers)


@dataclass(frozen=True)
class EvaluationTask:
    """What `evaluate` is told."""

    record: Record
    storage: str
    run_name: str
    sweep_folder: str
    imports: tuple[str, ...]
    tta: list[int]
    threads: int
    variables: dict[str, str]


def evaluate(task: EvaluationTask, arrays: dict[str, Any] | None) -> list[Accuracies]:
    """Return the accuracies of each number of views. `arrays`: of the prepared set; None: it is opened here."""
    from raysweep.results.checkpoint import build_from_record
    from raysweep.worker.process import set_up_process

    set_up_process(task.imports, task.threads, task.variables)
    record = task.record
    network = build_from_record(RunFolder(task.storage, task.run_name), record)
    measured = loop().accuracies(record.config, record.conditions, network, arrays, Path(task.sweep_folder), task.tta)
    return [Accuracies(views, val, test) for views, (val, test) in zip(task.tta, measured, strict=True)]
