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
from ray.exceptions import NodeDiedError, RayTaskError, TaskUnschedulableError

from raysweep.cluster.hosts import Host, ask, ids_of, listed, live_hosts
from raysweep.cluster.slots import Slot, Store, smallest_store, where_trials_run
from raysweep.config import LoopConfig
from raysweep.driver.view import View
from raysweep.errors import DataError, UserError
from raysweep.loops import CLASSIFY, loop_named
from raysweep.loops.placement import SHARE_OF_STORE, too_large
from raysweep.terminal import count_of, format_bytes
from raysweep.worker.data import OnEachNode, content_of, prepare_here
from raysweep.worker.naming import name_of
from raysweep.worker.tasks import Prepared, TaskSetting, load, reason_of

OF_CLASSIFY = "memory-mapped from each node's cache"
OF_OWN_LOOPS = "prepared by each process that trains, which shares what `prepare` maps from files (docs/loops.md)"
"""How trials get a set that does not fit the object store."""


@dataclass(frozen=True)
class PreparedSet:
    """A data set that one node has prepared."""

    config: LoopConfig  # of one of its trials
    prepared: Prepared
    lacking: Mapping[str, Sequence[Host]]  # the nodes that have not its files, by what is wrong there


@dataclass(frozen=True)
class Placed:
    """A data set where trials get it from."""

    at: Any  # the reference of its arrays, or an `OnEachNode`
    bytes: int  # the size of its arrays

    @property
    def in_store(self) -> int:
        """How many bytes of the object store it takes."""
        return 0 if isinstance(self.at, OnEachNode) else self.bytes


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

    def place(self, sets: Mapping[str, PreparedSet], before: Mapping[str, Placed]) -> dict[str, Placed]:
        """Place the sets, by their keys; return where they are and where those are that this run has placed before.

        Those stay: Tune keeps their references until the driver ends.

        Raises:
            DataError: nodes cannot prepare a set that does not fit the object store, or have other files.
        """
        store, taken = smallest_store(self._slot), sum(each.in_store for each in before.values())
        new = {key: each for key, each in sets.items() if key not in before}
        sizes = {key: each.prepared.bytes for key, each in new.items()}
        large, needed = too_large(sizes, store.bytes, taken), math.ceil((taken + sum(sizes.values())) / SHARE_OF_STORE)
        placed: dict[str, Any] = {}
        problems: list[str] = []
        for key in (key for key in new if key in large):
            try:
                placed[key] = self._on_each_node(new[key], store, needed)
            except DataError as error:
                problems += error.problems
        if problems:
            raise DataError(*problems)
        placed |= {key: self._share(each) for key, each in new.items() if key not in large}
        return {**before, **{key: Placed(at, sizes[key]) for key, at in placed.items()}}

    def _share(self, of: PreparedSet) -> Any:
        """Return the reference of a set's arrays, which Ray loads anew as often as the last copy is lost with a node.

        That takes no slot: the trials that wait for it hold theirs, and there may be no other.
        """
        for problem, without in of.lacking.items():
            self._view.say(f"{listed(without)}: {problem}; prepared on another node that has the files")
        task: Any = ray.remote(num_cpus=0, max_retries=-1)(load)
        name = name_of(self._sweep, f"loading {self._loop.data_name(of.config)}")
        where = where_trials_run(self._slot, of.prepared.node, ids_of(of.lacking))
        return task.options(name=name, **where).remote(self._setting, of.config)

    def _on_each_node(self, of: PreparedSet, store: Store, needed: int) -> OnEachNode:
        """Have a set prepared on each node where trials may run, since the smallest store has less than is needed."""
        name, first = self._loop.data_name(of.config), of.prepared.node
        size, has = format_bytes(of.prepared.bytes), format_bytes(store.bytes)
        why = f"Ray's object store would need {format_bytes(needed)}, that of {store.place} has {has}"
        self._view.say(f"{name}: {size}, {OF_CLASSIFY if self._setting.loop == CLASSIFY else OF_OWN_LOOPS}: {why}")
        content = content_of(of.prepared.conditions[0])
        hosts = [host for host in live_hosts() if self._slot.fits(host.resources) and host.id != first]
        answers: dict[str, Any] = {}
        if hosts:
            setting = replace(self._setting, several_hosts=False)  # who has what problem is said here
            with self._view.step(f"preparing {name} on {count_of(len(hosts), 'more node')}"):
                how: dict[str, Any] = {"is_stopped": self._is_stopped, "within_s": math.inf}
                answers = ask(hosts, prepare_here, setting, of.config, **how)
            if not self._is_stopped():
                mend = f"mend that, or start Ray with --object-store-memory={needed}"
                _check(hosts, answers, content, f"each node has to prepare {name} itself ({why}): {mend}")
        done = (id for id, answer in answers.items() if not isinstance(answer, Exception))
        return OnEachNode(self._setting, of.config, content, frozenset([first, *done]))


def _check(hosts: Sequence[Host], answers: Mapping[str, Any], content: Mapping[str, Any], why: str) -> None:
    """Refuse to go on unless all hosts that are still there have prepared the same, and say `why` they have to.

    Raises:
        DataError: some could not, or have other images.
    """
    alive = {host.id for host in live_hosts()}
    lacking: dict[str, list[Host]] = {}
    for host in hosts:
        if host.id in alive and (problem := _problem(answers[host.id], content)):
            lacking.setdefault(problem, []).append(host)
    if lacking:
        problems = [f"{listed(there)}: {problem}" for problem, there in lacking.items()]
        raise DataError("; ".join([*problems, why]))


def _problem(answer: Any, content: Mapping[str, Any]) -> str:
    """Say what kept a host from preparing what the first one prepared; empty if nothing did."""
    cause = getattr(answer, "cause", None)
    if isinstance(cause, UserError):
        return "; ".join(cause.problems)
    if isinstance(answer, NodeDiedError | TaskUnschedulableError):  # it goes away, and Ray's list does not say so yet
        return ""
    if isinstance(answer, Exception):
        what = "cannot prepare it" if isinstance(answer, RayTaskError) else "a process there died"
        return f"{what}: {reason_of(answer)}"
    return "" if answer[1] == content else "its files make other data than those of the node that prepared it first"
