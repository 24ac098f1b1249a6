"""What the driver starts on the cluster: trials, their stop flag, and the tasks before and after the trials.

The driver and the flag's process need no torch, whose import takes seconds. So this module imports next to nothing, and
each task imports what it needs where it runs.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import pkgutil
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from raysweep.config import LoopConfig
from raysweep.errors import DataError, UserError
from raysweep.loops import CLASSIFY, Loop, evaluating_loop, loop_named, loop_of
from raysweep.loops.placement import bytes_of
from raysweep.results.evaluation import Accuracies
from raysweep.results.mistakes import Mistakes
from raysweep.store import Record, RunFolder
from raysweep.store.record import COSTS
from raysweep.sweepfile.schema import Objective, RankBy
from raysweep.terminal import count_of

DATA_VARIABLES = ("RAYSWEEP_DATA", "RAYSWEEP_CACHE")


@dataclass(frozen=True)
class Assignment:
    """What a trial's process is told, beside the images."""

    record: Record
    """The trial's record as the run found it, with the config of the sweep file."""
    storage: str
    run_name: str
    objective: Objective
    retries: int
    commit_every_s: float
    threads: int
    """CPU threads of the loop."""
    conditions: Mapping[str, Any]
    """What the trial's numbers depend on beside its config, resolved once for the whole run."""
    device: str = "auto"
    """The device of each worker, as `Loop.train` takes it."""
    gpu_share: float = 1.0
    """The share of its GPU that each worker's process may take."""
    rungs: tuple[int, ...] = ()
    """The epochs after which the trial commits and is compared with others; it may be paused there."""
    stops: Mapping[int, str] = field(default_factory=dict)
    """The epochs after which the trial's state may be of use to another one, or another's to it, with their keys."""
    rank_by: RankBy = "ema"
    may_be_stopped: bool = False
    """Whether Tune may end the trial at any report (`ray_asha`); the trial then records that itself."""
    workers: int = 1
    """The ranks that train the trial together."""
    imports: tuple[str, ...] = ()
    """The user's modules, from `--import`."""
    loop: str = CLASSIFY
    """The name of the loop that trains."""
    deaths: int = 0
    """How often the trial's process has died in this run by the trial's own fault."""
    past_error: Mapping[str, Any] | None = None
    """How the trial's last process ended, for the record."""


class Trainable:
    """`trial.run_trial` by name: where it is unpickled it is that function, and the driver need not import torch."""

    __name__ = "run_trial"

    def __call__(self, config: dict[str, Any], data: Mapping[str, Any], stop: Any) -> None:
        """Exist, since Tune takes only what can be called; it is called where it is unpickled, so this never is."""
        raise NotImplementedError

    def __reduce__(self) -> tuple[Callable[[str], Any], tuple[str]]:
        return pkgutil.resolve_name, ("raysweep.worker.trial:run_trial",)


class StopFlag:
    """An async Ray actor that trials wait for; it is set once, when the run is to stop."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    async def set(self) -> None:
        """Let all who wait go on."""
        self._event.set()

    async def wait(self) -> bool:
        """Return once the flag is set."""
        return await self._event.wait()


@dataclass(frozen=True)
class TaskSetting:
    """What a task before or after the trials is told about where it runs."""

    sweep_folder: str
    """The folder of the sweep file, from which relative paths start."""
    imports: tuple[str, ...]
    """The user's modules, from `--import`."""
    threads: int
    device: str
    loop: str = CLASSIFY
    """The name of the loop whose data it is."""
    several_hosts: bool = False
    """Whether messages about data have to name the host."""
    variables: dict[str, str] = field(
        default_factory=lambda: {name: os.environ[name] for name in DATA_VARIABLES if name in os.environ}
    )
    """The driver's environment variables that say where data lies and is cached."""

    def set_up_process(self) -> None:
        """Make this process ready for the task."""
        from raysweep.worker.process import set_up_process

        set_up_process(self.imports, self.threads, self.device, self.variables)

    @contextmanager
    def on_this_host(self) -> Iterator[None]:
        """Make this process ready; in what is wrong with the data, name the host where there are several."""
        self.set_up_process()
        try:
            yield
        except DataError as error:
            host = f"{socket.gethostname()}: " if self.several_hosts else ""
            raise DataError(*(f"{host}{problem}" for problem in error.problems)) from error


@dataclass(frozen=True)
class DataFiles:
    """The files of a data set on one node; equal if the set has the same files, by name and size, on another."""

    count: int
    bytes: int
    names_and_sizes: str
    """A checksum."""

    def in_words(self) -> str:
        """Return how many they are, and how large."""
        return f"{count_of(self.count, 'file')} of {self.bytes:,} bytes"


def look_for_data(setting: TaskSetting, config: LoopConfig) -> DataFiles | str:
    """Return what this node has of a data set's files, or what is wrong with them, in words."""
    setting.set_up_process()
    try:
        paths = [
            os.path.abspath(path) for path in loop_named(setting.loop).data_files(config, Path(setting.sweep_folder))
        ]
        sizes = [os.stat(path).st_size for path in paths]
    except (UserError, OSError) as error:
        return str(error)
    start = len(os.path.commonpath(paths)) if paths else 0
    listed = sorted((path[start:], size) for path, size in zip(paths, sizes, strict=True))
    return DataFiles(len(paths), sum(sizes), hashlib.sha256(repr(listed).encode()).hexdigest())


@dataclass(frozen=True)
class Prepared:
    """What is known of a data set once it is prepared."""

    node: str
    """The node whose cache has it now."""
    conditions: list[dict[str, Any]]
    """What each trial's numbers depend on beside its config."""
    bytes: int = 0
    """The size of its arrays."""


def prepare(setting: TaskSetting, configs: list[LoopConfig], workers: int, with_costs: bool = False) -> Prepared:
    """Prepare the data set that configs share on this node, and check that each can be trained here by so many ranks.

    The conditions have what of a trial is known before it trains, if that is wanted (`with_costs`).

    Raises:
        DataError: the data set cannot be read as asked.
        UserError: a config cannot be trained on it.
    """
    import ray

    with setting.on_this_host():
        loop = loop_named(setting.loop)
        arrays = loop.prepare(configs[0], Path(setting.sweep_folder))
    loop.check(configs, arrays, setting.device)
    named = {} if setting.loop == CLASSIFY else {"loop": setting.loop}
    versions = {"raysweep": version("raysweep"), "torch": version("torch").split("+")[0]}
    conditions = [
        {"workers": workers, **loop.conditions(each, arrays, setting.device), **named, "versions": versions}
        for each in configs
    ]
    if with_costs:
        for config, each in zip(configs, conditions, strict=True):
            each[COSTS] = costs_of_trial(loop, config, each)
    return Prepared(ray.get_runtime_context().get_node_id(), conditions, bytes_of(arrays))


def costs_of_trial(loop: Loop, config: LoopConfig, conditions: Mapping[str, Any]) -> dict[str, float]:
    """Return what of a trial is known before it trains.

    Raises:
        UserError: the loop does not say all that it promises.
    """
    costs = loop.costs_of(config, conditions)
    if missing := loop.costs.keys() - costs.keys():
        raise UserError(f"loop {loop.name!r}: costs_of returned no {', '.join(sorted(missing))}, which its costs name")
    return {name: float(costs[name]) for name in loop.costs}


def load(setting: TaskSetting, config: LoopConfig) -> dict[str, Any]:
    """Return the arrays of a data set, which this node prepares if its cache has none.

    Raises:
        DataError: the data set cannot be read as asked.
    """
    with setting.on_this_host():
        return loop_named(setting.loop).prepare(config, Path(setting.sweep_folder))


def result_of(reference: Any, timeout_s: float | None = None) -> Any:
    """Get what a task returned; what it raised for the user is raised as it was, without the remote traceback.

    Raises:
        GetTimeoutError: it is not there in time.
    """
    import ray

    try:
        return ray.get(reference, timeout=timeout_s)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from None
        raise


def reason_of(error: BaseException) -> str:
    """Return the line in which Ray says why a task gave no result: the last one of what it raised, else the first."""
    import ray

    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1 if isinstance(error, ray.exceptions.RayTaskError) else 0]


@dataclass(frozen=True)
class Questions:
    """What is asked about the winner at the end."""

    storage: str
    run_name: str
    winner: Record
    tta: list[int]
    """The numbers of views under which it is measured; 0: the image alone."""
    mistakes: bool
    """Whether its mistakes are wanted."""
    rival: Record | None
    """The runner-up that they stand beside."""
    images: bool
    """Whether thumbnails of them are wanted."""


def evaluate(
    setting: TaskSetting, asked: Questions, arrays: dict[str, Any] | None
) -> tuple[list[Accuracies], Mistakes | None]:
    """Return the accuracies of the winner's best weights under each number of views, and its mistakes if asked for.

    Where `arrays` is None, the data set is opened here.
    """
    from raysweep.results.checkpoint import build_from_record
    from raysweep.worker.mistakes import find_mistakes

    setting.set_up_process()
    folder, winner = RunFolder(asked.storage, asked.run_name), asked.winner
    network, loop = build_from_record(folder, winner), evaluating_loop(loop_of(winner.conditions))
    if arrays is None:
        with setting.on_this_host():
            arrays = loop.prepare(loop.config.model_validate(winner.config), Path(setting.sweep_folder))
    measured = loop.accuracies(winner.conditions, network, arrays, asked.tta, setting.device)
    accuracies = [Accuracies(views, val, test) for views, (val, test) in zip(asked.tta, measured, strict=True)]
    if not asked.mistakes:
        return accuracies, None
    return accuracies, find_mistakes(folder, winner, asked.rival, network, arrays, asked.images, setting.device)
