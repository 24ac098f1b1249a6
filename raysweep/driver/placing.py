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
from raysweep.loops.placement import SHARE_OF_STORE, too_large
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
        large, needed = too_large(sizes, store.bytes), math.ceil(sum(sizes.values()) / SHARE_OF_STORE)
        return {
            key: self._on_each_node(each, store, needed) if key in large else self._share(each)
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

    def _on_each_node(self, of: PreparedSet, store: Store, needed: int) -> OnEachNode:
        """Have a set prepared on each node where trials may run, since the smallest store has less than is needed."""
        name, first = self._loop.data_name(of.config), of.prepared.node
        size, has = format_bytes(of.prepared.bytes), format_bytes(store.bytes)
        why = f"Ray's object store would need {format_bytes(needed)}, that of {store.place} has {has}"
        self._view.say(f"{name}: {size}, memory-mapped from each node's cache: {why}")
        content = content_of(of.prepared.conditions[0])
        hosts = [host for host in live_hosts() if self._slot.fits(host.resources) and host.id != first]
        if hosts:
            setting = replace(self._setting, several_hosts=False)  # who has what problem is said here
            with self._view.step(f"preparing {name} on {count_of(len(hosts), 'more node')}"):
                how: dict[str, Any] = {"is_stopped": self._is_stopped, "within_s": math.inf}
                answers = ask(hosts, prepare_here, setting, of.config, **how)
            if not self._is_stopped():
                mend = f"mend that, or start Ray with --object-store-memory={needed}"
                _check(hosts, answers, content, f"each node has to prepare {name} itself ({why}): {mend}")
        return OnEachNode(self._setting, of.config, content, frozenset([first, *(host.id for host in hosts)]))


def _check(hosts: Sequence[Host], answers: Mapping[str, Any], content: Mapping[str, Any], why: str) -> None:
    """Refuse to go on unless all hosts that are still there have prepared the same, and say `why` they have to.

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
        raise DataError("; ".join([*problems, why]))


def _problem(host: Host, answer: Any, content: Mapping[str, Any]) -> str:
    """Say what kept a host from preparing what the first one prepared; empty if nothing did."""
    cause = getattr(answer, "cause", None)
    if isinstance(cause, UserError):
        return "; ".join(cause.problems)
    if fault := no_answer(host, answer):
        raise ClusterError(fault)
    return "" if answer[1] == content else "its files make other data than those of the node that prepared it first"
