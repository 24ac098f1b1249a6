"""Asks all nodes of the connected cluster, and says in words where they differ: in code, in storage.

A run on several nodes asks before it trains anything, and `doctor` asks too. A question is a function that runs as a
task on each node, beside the trials.
"""

from __future__ import annotations

import socket
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raysweep.cluster.autoscaler import HEAD, alive_nodes
from raysweep.config import LoopConfig
from raysweep.errors import DataError, StorageError
from raysweep.loops import loop_named
from raysweep.store.filesystem import TEMPORARY, Storage
from raysweep.worker.tasks import DataFiles, TaskSetting, look_for_data, reason_of

ANSWER_WITHIN_S = 120.0
"""How long a node may take to answer: a process starts within seconds, or tens of seconds on a busy machine."""
ENVIRONMENT_WITHIN_S = 900.0
"""How long it may take in a job whose environment it has to make first; Ray gives the head as long."""
SEEN_WITHIN_S = 10.0
"""How long a file that another node wrote may take to appear: NFS caches folders for seconds."""
SAME_CODE = (
    "install the same checkout on every node; `ray up` leaves workers that run as they are, "
    "so take the cluster down and up again"
)


@dataclass(frozen=True)
class Host:
    """A live node of the cluster."""

    id: str
    name: str
    address: str
    resources: Mapping[str, float]

    @property
    def is_head(self) -> bool:
        """Whether it is the head, where the driver of a submitted run lives."""
        return HEAD in self.resources

    @property
    def is_ours(self) -> bool:
        """Whether this process runs there."""
        return self.id == str(ray.get_runtime_context().get_node_id())


def live_hosts() -> list[Host]:
    """Return the live nodes, ours first, then by name."""
    found = (
        Host(node["NodeID"], node["NodeManagerHostname"], node["NodeManagerAddress"], node["Resources"])
        for node in alive_nodes()
    )
    return sorted(found, key=lambda host: (not host.is_ours, host.name))


def ask(
    hosts: Collection[Host],
    question: Callable[..., Any],
    *arguments: Any,
    is_stopped: Callable[[], bool] = lambda: False,
    within_s: float | None = None,
) -> dict[str, Any]:
    """Call a function on each node, all at the same time; return what each answered, by the node's id.

    In place of an answer that did not come there is the exception that says why. By default a node has the time that it
    takes to start a process, and to make the job's environment first if it has one.
    """
    remote: Any = ray.remote(num_cpus=0, max_retries=0)(question)
    asked = {}
    for host in hosts:
        on_host = NodeAffinitySchedulingStrategy(host.id, soft=False)
        asked[host.id] = remote.options(scheduling_strategy=on_host).remote(*arguments)
    end = time.monotonic() + (_patience_s() if within_s is None else within_s)
    waiting = list(asked.values())
    while waiting and time.monotonic() < end and not is_stopped():
        _, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=0.25)
    return {id: _answer(reference) for id, reference in asked.items()}


def made_by() -> str:
    """Return what makes the environment of this job on each node, pip or conda; empty if the job has none."""
    runtime_env = ray.get_runtime_context().runtime_env
    return next((kind for kind in ("pip", "conda") if runtime_env.get(kind)), "")


def _patience_s() -> float:
    """Return how long a node may take to answer."""
    return ENVIRONMENT_WITHIN_S if made_by() else ANSWER_WITHIN_S


def _answer(reference: Any) -> Any:
    try:
        return ray.get(reference, timeout=0)
    except ray.exceptions.GetTimeoutError as error:
        ray.cancel(reference, force=True)
        return error
    except ray.exceptions.RayError as error:
        return error


def listed(hosts: Iterable[Host]) -> str:
    """Return the names of nodes in words."""
    return ", ".join(host.name for host in hosts)


def no_answer(host: Host, answer: Any) -> str:
    """Say that a node did not answer; empty if it did."""
    if not isinstance(answer, Exception):
        return ""
    late = isinstance(answer, ray.exceptions.GetTimeoutError)
    reason = f"not within {_patience_s():.0f} s" if late else reason_of(answer)
    return f"{host.name} ({host.address}): a process there did not answer: {reason}"


# -- code


def different_code(hosts: Sequence[Host], modules: Sequence[str], **how: Any) -> str:
    """Say on which nodes processes find other files of these modules' packages than this one; empty if on none."""

    def checksums(modules: Sequence[str]) -> dict[str, str]:
        import hashlib
        import importlib.util
        from pathlib import Path

        found = {}
        for module in modules:
            spec = importlib.util.find_spec(module)
            folders = list(spec.submodule_search_locations or ()) if spec else []
            files = [path for folder in folders for path in sorted(Path(folder).rglob("*.py"))]
            files += [Path(spec.origin)] if spec and spec.origin and not folders else []
            base = Path(folders[0]).parent if folders else None
            for path in files:
                name = str(path.relative_to(base)) if base and path.is_relative_to(base) else path.name
                found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        return found

    packages = list(dict.fromkeys(module.partition(".")[0] for module in modules))
    # A function inside a function travels whole. One of a module would be looked up there, in code that may be old.
    ours, answers = checksums(packages), ask(hosts, checksums, packages, **how)
    differing: dict[str, list[Host]] = {}
    for host in hosts:
        theirs = answers[host.id]
        if isinstance(theirs, dict) and theirs != ours:
            files = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
            more = f" and {len(files) - 1} more" if len(files) > 1 else ""
            differing.setdefault(f"{files[0]}{more}", []).append(host)
    words = [f"{files} on {listed(those)}" for files, those in differing.items()]
    return f"other code than here, on {socket.gethostname()}: {'; '.join(words)}" if words else ""


# -- storage


def different_storage(hosts: Sequence[Host], storage: Storage, **how: Any) -> str:
    """Write a file from here and look for it on all other nodes; say where the storage is another place, or unusable.

    Each node that sees the file writes one beside it. Nothing stays behind. Where the file is not seen nothing is
    written, so that no folder is made there.
    """
    first, *others = hosts
    name, data = f".{uuid.uuid4().hex}{TEMPORARY}", uuid.uuid4().bytes
    try:
        storage.write(name, data)
        try:
            answers = ask(others, use_storage, storage.uri, name, data, **how)
        finally:
            storage.delete(name)
    except (OSError, StorageError) as error:
        return f"{first.name} cannot use it: {error}"
    faults: dict[str, list[str]] = {}
    for host in others:
        fault = answers[host.id]
        if isinstance(fault, str) and fault:  # who does not answer is left to its trials, which look for themselves
            faults.setdefault(fault, []).append(host.name)
    unseen = faults.pop(UNSEEN, [])
    words = [f"what {first.name} wrote there is not seen on {', '.join(unseen)}"] if unseen else []
    return "; ".join([*words, *(f"{', '.join(names)}: {fault}" for fault, names in faults.items())])


UNSEEN = "unseen"


def use_storage(uri: str, name: str, data: bytes) -> str:
    """Read a file that another node wrote, write one and delete it; return what went wrong, or nothing."""
    storage, end = Storage(uri), time.monotonic() + SEEN_WITHIN_S
    try:
        while True:
            try:
                if storage.read(name) != data:
                    return f"{name} has other bytes than were written"
                break
            except FileNotFoundError:
                if time.monotonic() > end:
                    return UNSEEN
                time.sleep(0.25)
        own = f".{uuid.uuid4().hex}{TEMPORARY}"
        storage.write(own, data)
        storage.delete(own)
    except (OSError, StorageError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


# -- data


def ids_of(lacking: Mapping[str, Iterable[Host]]) -> list[str]:
    """Return the ids of the nodes that `find_data` found lacking."""
    return [host.id for hosts in lacking.values() for host in hosts]


def find_data(hosts: Sequence[Host], setting: TaskSetting, config: LoopConfig, **how: Any) -> dict[str, list[Host]]:
    """Look for a data set's files on nodes; return what is wrong with them in words, and on which nodes.

    Raises:
        DataError: no node has them, or they are not the same on those that do.
    """
    answers = ask(hosts, look_for_data, setting, config, **how)
    lacking: dict[str, list[Host]] = {}
    kinds: dict[DataFiles, list[Host]] = {}
    for host in hosts:
        answer = answers[host.id]
        if isinstance(answer, str):
            lacking.setdefault(answer, []).append(host)
        elif isinstance(answer, DataFiles):
            kinds.setdefault(answer, []).append(host)
    if lacking and not kinds:
        raise DataError(*(f"{listed(without)}: {problem}" for problem, without in lacking.items()))
    if len(kinds) > 1:
        found = "; ".join(f"{files.in_words()} on {listed(there)}" for files, there in kinds.items())
        name = loop_named(setting.loop).data_name(config)
        raise DataError(f"{name}: not the same files on all nodes: {found}; copy one of them to all")
    return lacking
