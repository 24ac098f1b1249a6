"""A data set that does not fit Ray's object store: each node prepares it, and each process maps its files into memory.

An `OnEachNode` stands where otherwise the reference of a set's arrays would, and is small.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raysweep.config import LoopConfig
from raysweep.errors import UnfitNodeError, UserError
from raysweep.loops import loop_named
from raysweep.worker.tasks import TaskSetting, load, result_of

T = TypeVar("T")

OF_THE_DATA = ("data", "weights")
"""The conditions that tell one data set from another."""

_opened: dict[tuple[str, ...], dict[str, Any]] = {}
"""The set that this process opened last: one of the user's own may hold memory."""


@dataclass(frozen=True)
class OnEachNode:
    """A data set that each node prepares in its own cache."""

    setting: TaskSetting
    config: LoopConfig
    content: Mapping[str, Any]  # those of its conditions that tell it from others
    nodes: frozenset[str]  # ids of the nodes that had prepared it when the trials began

    def open(self) -> dict[str, Any]:
        """Return the arrays, which this process keeps for its next trial.

        Raises:
            DataError: the data set cannot be read as asked.
        """
        setting = self.setting
        key = (setting.loop, setting.sweep_folder, loop_named(setting.loop).data_key(self.config))
        if key not in _opened:
            arrays = load(setting, self.config)
            _opened.clear()
            _opened[key] = arrays
        return _opened[key]

    def begin_on(self, nodes: Collection[str], name: str) -> list[Any]:
        """Start a task called `name` on each of these nodes that had not prepared the set; return their references.

        A task takes no slot: the trial that waits for it holds one, and there may be no other.
        """
        task: Any = ray.remote(num_cpus=0)(prepare_here)
        return [
            task.options(name=name, scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(
                self.setting, self.config
            )
            for node in nodes
            if node not in self.nodes
        ]

    def check(self, prepared: Any) -> None:
        """Check what came of a task that `begin_on` started.

        Raises:
            UnfitNodeError: its node cannot prepare the set, or finds other images; another node may do.
        """
        try:
            host, content = result_of(prepared)
        except UserError as error:
            raise UnfitNodeError("; ".join(error.problems)) from error
        if content != self.content:
            name = loop_named(self.setting.loop).data_name(self.config)
            raise UnfitNodeError(f"{host}: {name} is not what the run began with: copy its files from another node")


def prepare_here(setting: TaskSetting, config: LoopConfig) -> tuple[str, dict[str, Any]]:
    """Prepare a data set in this node's cache; return the host's name and the conditions that tell the set from others.

    Raises:
        DataError: the data set cannot be read as asked.
    """
    arrays = load(setting, config)
    conditions = loop_named(setting.loop).conditions(config, arrays, "cpu")  # on a GPU it would take memory there
    return socket.gethostname(), content_of(conditions)


def content_of(conditions: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of a trial's conditions that tell its data set from others."""
    return {key: conditions[key] for key in OF_THE_DATA if key in conditions}


def arrays_of(placed: Any) -> dict[str, Any]:
    """Return the arrays of a data set, given their reference or an `OnEachNode`.

    Raises:
        DataError: the data set cannot be read as asked.
    """
    arrays: dict[str, Any] = placed.open() if isinstance(placed, OnEachNode) else result_of(placed)
    return arrays


def in_a_thread(function: Callable[[], T]) -> Future[T]:
    """Call a function in a thread that does not outlive the process; return what comes of it."""
    future: Future[T] = Future()

    def call() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=call, name="raysweep-data", daemon=True).start()
    return future
