"""Where prepared data sets lie: in Ray's object store where they fit, else in the cache of each node.

In: what is known of the sets of a run once one node has prepared each. Out: the references of their arrays, or
`OnEachNode`s whose nodes have all prepared them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ray

from raysweep.cluster.hosts import Host, ask, listed, live_hosts, no_answer
from raysweep.cluster.slots import Slot, Store, smallest_store, where_trials_run
from raysweep.config import LoopConfig
from raysweep.driver.view import View
from raysweep.errors import ClusterError, DataError, UserError
from raysweep.loops import loop_named
from raysweep.loops.placement import SHARE_OF_STORE, fits_store
from raysweep.terminal import count_of, format_bytes
from raysweep.worker.data import OnEachNode, content_of, prepare_here
from raysweep.worker.naming import name_of
from raysweep.worker.tasks import Prepared, TaskSetting, load


@dataclass(frozen=True)
class PreparedSet:
    """A data set that one node has prepared."""

    config: LoopConfig  # of one of its trials
    prepared: Prepared
    without: Sequence[str]  # ids of the nodes that have not its files


class Placing:
    """Places the data sets of a run.

    Args:
        sweep: its name.
        is_stopped: says that the run is to stop; then what comes out does not count.
    """

    def __init__(
        self, sweep: str, slot: Slot, setting: TaskSetting, view: View, is_stopped: Callable[[], bool]
    ) -> None:
        self._sweep, self._slot, self._setting, self._view = sweep, slot, setting, view
        self._is_stopped = is_stopped
        self._loop = loop_named(setting.loop)

    def place(self, sets: Mapping[str, PreparedSet]) -> dict[str, Any]:
        """Return the reference of each set's arrays, or an `OnEachNode`, by the set's key.

        Raises:
            DataError: a node cannot prepare a set that does not fit the object store, or has other files.
            ClusterError: a process that was to prepare it died.
        """
        store = smallest_store(self._slot)
        sizes = {key: each.prepared.bytes for key, each in sets.items()}
        large = too_large(sizes, store.bytes)
        beside = " beside the other sets" if len(sets) > 1 else ""
        return {
            key: self._on_each_node(each, self._unfit(each, store, beside)) if key in large else self._share(each)
            for key, each in sets.items()
        }

    def _share(self, of: PreparedSet) -> Any:
        """Return the reference of a set's arrays, which Ray loads anew as often as the last copy is lost with a node.

        That takes no slot: the trials that wait for it hold theirs, and there may be no other.
        """
        task: Any = ray.remote(num_cpus=0, max_retries=-1)(load)
        name = name_of(self._sweep, f"loading {self._loop.data_name(of.config)}")
        where = where_trials_run(self._slot, of.prepared.node, of.without)
        return task.options(name=name, **where).remote(self._setting, of.config)

    def _on_each_node(self, of: PreparedSet, unfit: str) -> OnEachNode:
        """Have a set prepared on each node where trials may run; `unfit` says why it is not shared."""
        self._view.say(f"{unfit}: trials map them into memory from the cache of their node")
        name, first = self._loop.data_name(of.config), of.prepared.node
        content = content_of(of.prepared.conditions[0])
        hosts = [host for host in live_hosts() if self._slot.fits(host.resources) and host.id != first]
        if hosts:
            setting = replace(self._setting, several_hosts=False)  # who has what problem is said here
            with self._view.step(f"preparing {name} on {count_of(len(hosts), 'more node')}"):
                how: dict[str, Any] = {"is_stopped": self._is_stopped, "within_s": math.inf}
                answers = ask(hosts, prepare_here, setting, of.config, **how)
            if not self._is_stopped():
                _check(hosts, answers, content, f"{unfit}, so each node has to prepare it")
        return OnEachNode(self._setting, of.config, content, frozenset([first, *(host.id for host in hosts)]))

    def _unfit(self, of: PreparedSet, store: Store, beside: str) -> str:
        """Say that a set does not fit the object store."""
        size, share = format_bytes(of.prepared.bytes), f"{100 * SHARE_OF_STORE:.0f} %"
        return (
            f"{self._loop.data_name(of.config)}: its {size} do not fit{beside} into the object store of {store.place}, "
            f"of whose {format_bytes(store.bytes)} data may take {share}"
        )


def _check(hosts: Sequence[Host], answers: Mapping[str, Any], content: Mapping[str, Any], unfit: str) -> None:
    """Refuse to go on unless all hosts that are still there have prepared the same.

    Raises:
        DataError: one could not, or has other images.
        ClusterError: a process there died.
    """
    alive = {host.id for host in live_hosts()}
    lacking: dict[str, list[Host]] = {}
    for host in hosts:
        if host.id in alive and (problem := _problem(host, answers[host.id], content)):
            lacking.setdefault(problem, []).append(host)
    if lacking:
        problems = [f"{listed(there)}: {problem}" for problem, there in lacking.items()]
        mend = "mend that, or start Ray with a larger --object-store-memory"
        raise DataError("; ".join([*problems, f"{unfit}: {mend}"]))


def _problem(host: Host, answer: Any, content: Mapping[str, Any]) -> str:
    """Say what kept a host from preparing what the first one prepared; empty if nothing did."""
    cause = getattr(answer, "cause", None)
    if isinstance(cause, UserError):
        return "; ".join(cause.problems)
    if fault := no_answer(host, answer):
        raise ClusterError(fault)
    return "" if answer[1] == content else "its files make other data than those of the node that prepared it first"


def too_large(sizes: Mapping[str, int], capacity: int) -> set[str]:
    """Return the keys of the sets that do not fit an object store of so many bytes beside the smaller ones."""
    large, total = set[str](), 0
    for key in sorted(sizes, key=sizes.__getitem__):
        total += sizes[key]
        if not fits_store(total, capacity):
            large.add(key)
    return large
