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
from ray.exceptions import NodeDiedError, RayError, TaskUnschedulableError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raysweep.config import LoopConfig
from raysweep.errors import UnfitNodeError, UserError
from raysweep.loops import loop_named
from raysweep.worker.tasks import TaskSetting, load, reason_of, result_of

T = TypeVar("T")

OF_THE_DATA = ("data", "weights")
"""The conditions that tell one data set from another."""

_opened: dict[tuple[str, ...], dict[str, Any]] = {}
"""The set that this process opened last: one of the user's own may hold memory."""
_opening = threading.Lock()
"""Held while a set is opened: a trial that was to stop meanwhile leaves its thread behind, and the next trial comes."""


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
        with _opening:
            if key not in _opened:
                arrays = load(setting, self.config)
                _opened.clear()
                _opened[key] = arrays
            return _opened[key]

    def begin_on(self, nodes: Collection[str], name: str) -> dict[str, Any]:
        """Start a task called `name` on each of these nodes that had not prepared the set; return each one's reference.

        A task takes no slot: the trial that waits for it holds one, and there may be no other.
        """
        task: Any = ray.remote(num_cpus=0)(prepare_here)
        return {
            node: task.options(name=name, scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(
                self.setting, self.config
            )
            for node in nodes
            if node not in self.nodes
        }

    def check(self, node: str, prepared: Any) -> None:
        """Check what came of a task that `begin_on` started on a node.

        Raises:
            UnfitNodeError: the node cannot prepare the set, or finds other images; another node may do.
            NodeDiedError: the node went away.
        """
        # Without the causes, since the driver reads the text of the whole traceback.
        name = loop_named(self.setting.loop).data_name(self.config)
        try:
            host, content = result_of(prepared)
        except UserError as error:
            raise UnfitNodeError("; ".join(error.problems), node) from None
        except (NodeDiedError, TaskUnschedulableError):
            gone = f"the node has died that was to prepare {name}"
            raise NodeDiedError(gone) from None  # type: ignore[no-untyped-call]
        except RayError as error:
            raise UnfitNodeError(f"{name} could not be prepared on this node: {reason_of(error)}", node) from None
        if content != self.content:
            what = f"{host}: {name} is not what the run began with: copy its files from another node"
            raise UnfitNodeError(what, node)


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
