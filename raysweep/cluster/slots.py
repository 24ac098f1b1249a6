"""Connects to a cluster, works out the slot that each trial gets there, and waits for nodes that are still to come."""

from __future__ import annotations

import logging
import math
import os
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import ray
from ray.job_config import JobConfig

from raysweep.cluster.autoscaler import NO_AUTOSCALER, Autoscaler, NodeType, alive_nodes, read_autoscaler
from raysweep.cluster.places import is_url
from raysweep.cluster.token import knock, token_place
from raysweep.errors import ClusterError, TokenError, did_you_mean
from raysweep.sweepfile.schema import Resources
from raysweep.terminal import count_of
from raysweep.worker.tasks import result_of

JOIN_WITHIN_S = 120.0
"""How long a run waits for the workers that `ray up` has begun to start, while no other node can hold a trial."""
SAY_EVERY_S = 30.0
"""How often a run says that it still waits for a node."""
NODE_ID = "ray.io/node-id"
"""The label by which Ray knows a node."""
KIND, KIND_SHARE = "accelerator_type:", 0.001
"""A node with GPUs has one of the resource that Ray names after their kind, of which a worker that asks for the kind
takes this much, as with Ray's own option `accelerator_type`."""
OBJECT_STORE = "object_store_memory"
"""The resource that says how many bytes a node's object store has."""
Nodes = Sequence[Mapping[str, float]]
"""The resources of each node, by Ray's names."""


@dataclass(frozen=True)
class Slot:
    """What one trial holds while it runs."""

    workers: int
    gpus: float  # GPUs of each worker
    cpus: float  # CPUs of each worker
    accelerator: str | None = None  # the kind of GPU, by Ray's name; any if None

    @property
    def bundle(self) -> dict[str, float]:
        """One worker's resources, by Ray's names."""
        kind = {f"{KIND}{self.accelerator}": KIND_SHARE} if self.accelerator else {}
        return {"CPU": self.cpus, **({"GPU": self.gpus} if self.gpus else {}), **kind}

    @property
    def device(self) -> str:
        """The device that a worker computes on, as `loops.Loop` takes it."""
        return "auto" if self.gpus else "cpu"

    @property
    def threads(self) -> int:
        """How many CPU threads one worker's loop uses."""
        return max(1, math.floor(self.cpus))

    def fits(self, node: Mapping[str, float]) -> int:
        """Return how many workers a node with these resources holds."""
        return min(math.floor(node.get(name, 0) / need) for name, need in self.bundle.items())


def connect(address: str | None, metadata: Mapping[str, str] | None = None) -> None:
    """Connect to the cluster at `address` or $RAY_ADDRESS, or start one here; the dashboard shows the metadata.

    Raises:
        ClusterError: there is no cluster at that address, or it refuses our token.
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if ray.is_initialized():
        return
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    if is_url(address):
        raise ClusterError(
            f"--address {address}: is a dashboard's URL, but a run connects to Ray itself, on a node of the cluster: "
            "auto or HOST:6379. From another machine, use `raysweep submit`"
        )
    if address != "local" and "://" not in address:
        knock(address)
    job = JobConfig(metadata=dict(metadata or {}))
    try:
        ray.init(address, job_config=job, log_to_driver=False, logging_level=logging.ERROR, configure_logging=True)
    except ray.exceptions.AuthenticationError as error:
        raise TokenError(address, str(error), token_place()) from error
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ClusterError(f"--address {address}: cannot connect to a Ray cluster there: {error}") from error


def wait_for_nodes(count: int, say: Callable[[str], None], is_stopped: Callable[[], bool]) -> None:
    """Wait until the cluster has as many nodes; after JOIN_WITHIN_S, `say` that the run goes on without the others."""
    end, said = time.monotonic() + JOIN_WITHIN_S, False
    while (there := len(alive_nodes())) < count and not is_stopped():
        if time.monotonic() > end:
            say(f"{there} of {count_of(count, 'node')} are there after {JOIN_WITHIN_S:.0f} s; the run begins on these")
            return
        if not said:
            say(f"waiting: {there} of {count_of(count, 'node')} are there yet")
            said = True
        time.sleep(0.5)


def find_slot(resources: Resources, say: Callable[[str], None], is_stopped: Callable[[], bool]) -> Slot:
    """Work out a trial's slot on the connected cluster, counting what its autoscaler may add; `say` why a run waits.

    Once the run `is_stopped`, what is returned is only what is known so far.

    Raises:
        ClusterError: a trial fits neither the cluster nor what its autoscaler may add.
    """
    autoscaler = read_autoscaler()
    missing = _wait_for_workers(resources, autoscaler, say, is_stopped)
    nodes = node_resources()
    slot = resolve_slot(resources, nodes, autoscaler)
    if not is_stopped() and (waiting := check_slot(slot, nodes, autoscaler, missing)):
        say(waiting)
    return slot


def _wait_for_workers(
    resources: Resources, autoscaler: Autoscaler, say: Callable[[str], None], is_stopped: Callable[[], bool]
) -> str:
    """Wait until all workers have joined, a trial fits, or JOIN_WITHIN_S is over; return which workers are missing."""
    said = False
    end = time.monotonic() + JOIN_WITHIN_S
    while (missing := autoscaler.missing(alive_hosts())) and time.monotonic() < end and not is_stopped():
        if count_slots(resolve_slot(resources, node_resources(), autoscaler)):
            break
        if not said:
            say(f"waiting: {missing} have not joined the cluster yet")
            said = True
        time.sleep(0.5)
    return missing


def check_slot(slot: Slot, nodes: Nodes, autoscaler: Autoscaler = NO_AUTOSCALER, missing: str = "") -> str | None:
    """Return what a run with this slot has to wait for, in words; None if it can begin.

    `missing` says in words which nodes should have joined and have not.

    Raises:
        ClusterError: a trial fits neither the cluster nor what its autoscaler may add.
    """
    types = [each for each in autoscaler.node_types if each.resources]
    able = [each for each in types if slot.fits(each.resources)]
    there = sum(map(slot.fits, nodes))
    need, has = resource_words(slot.bundle), _supply(nodes, types, missing)
    if not there and not able and slot.accelerator:
        _check_kind(slot.accelerator, [*nodes, *(each.resources for each in types)])
    if not there and not able:
        raise ClusterError(f"resources: a worker asks for {need}, more than any node has; the cluster has {has}")
    if there + sum(slot.fits(each.resources) * each.max_workers for each in able) < slot.workers:
        of_each = f"{slot.workers} workers of {need} each"
        raise ClusterError(f"resources: a trial asks for {of_each}, more than the whole cluster has: {has}")
    if there >= slot.workers:
        return None
    names = " or ".join(each.name for each in able)
    return f"waiting: no node holds a trial yet ({slot.workers} x {need}); the autoscaler should add {names}"


def _check_kind(kind: str, nodes: Nodes) -> None:
    known = sorted({name.removeprefix(KIND) for node in nodes for name in node if name.startswith(KIND)})
    if kind not in known:
        raise ClusterError(
            f"resources.accelerator: no node has a GPU of kind {kind!r}{did_you_mean(kind, known)}; "
            f"kinds in the cluster: {', '.join(known) or 'none'}"
        )


def _supply(nodes: Nodes, types: Sequence[NodeType], missing: str) -> str:
    """Say what the cluster has, what may still come, and what should have come."""
    has = "; ".join(map(_computing, nodes)) or "no nodes"
    if types:
        added = (f"{each.max_workers} {each.name} ({_computing(each.resources)})" for each in types)
        has += f"; its autoscaler may add {', '.join(added)}"
    return has + (f"; {missing} have not joined: see `raysweep doctor`" if missing else "")


def _computing(resources: Mapping[str, float]) -> str:
    kinds = {name: count for name, count in resources.items() if name.startswith(KIND)}
    return resource_words({**{name: resources.get(name, 0) for name in ("CPU", "GPU")}, **kinds})


def resource_words(bundle: Mapping[str, float]) -> str:
    """Return resources in words: 4 CPUs and 1 GPU (A100)."""
    words = " and ".join(count_of(count, name) for name, count in bundle.items() if not name.startswith(KIND))
    kinds = ", ".join(name.removeprefix(KIND) for name in bundle if name.startswith(KIND))
    return f"{words} ({kinds})" if kinds else words


def resolve_slot(resources: Resources, nodes: Nodes, autoscaler: Autoscaler = NO_AUTOSCALER) -> Slot:
    """Replace `auto` in the sweep file's resources by numbers, from the nodes and what the autoscaler may add."""
    to_come = [node_type.resources for node_type in autoscaler.node_types]
    kind = resources.accelerator
    of_kind = [node for node in [*nodes, *to_come] if kind is None or node.get(f"{KIND}{kind}", 0)]
    with_gpus = [node for node in of_kind if node.get("GPU", 0) > 0]
    gpus = float(bool(with_gpus or kind)) if resources.gpus == "auto" else float(resources.gpus)
    shares = [node.get("CPU", 0) * gpus / node["GPU"] for node in with_gpus] if gpus else []
    share = float(max(1, math.floor(min(shares)))) if shares else 1.0
    return Slot(resources.workers, gpus, share if resources.cpus == "auto" else float(resources.cpus), kind)


def count_slots(slot: Slot, without: Collection[str] = ()) -> int:
    """Return how many trials the cluster as it is now can run at the same time, `without` the nodes of these ids."""
    nodes = (node["Resources"] for node in alive_nodes() if node["NodeID"] not in without)
    return sum(map(slot.fits, nodes)) // slot.workers


class Store(NamedTuple):
    """A node's part of Ray's object store."""

    bytes: int
    place: str
    """The node, in words."""


def smallest_store(slot: Slot) -> Store:
    """Return the smallest object store of the nodes that hold a trial's worker; one without end if none is known.

    Nodes that the autoscaler may add count if its file says how large theirs is.
    """
    nodes = [(node["NodeManagerHostname"], node["Resources"]) for node in alive_nodes()]
    to_come = (each for each in read_autoscaler().node_types if each.max_workers)
    nodes += [(f"a node of type {each.name}", each.resources) for each in to_come]
    able = ((place, has) for place, has in nodes if OBJECT_STORE in has and slot.fits(has))
    return min((Store(int(has[OBJECT_STORE]), place) for place, has in able), default=Store(sys.maxsize, ""))


def where_trials_run(slot: Slot, first: str, without: Sequence[str] = ()) -> dict[str, Any]:
    """Return the options of a task that runs on the node `first`, or once it is gone where a trial's worker fits.

    It does not run on the nodes `without`.

    Nodes that are still to come count as fit, since a task that Ray repeats keeps its options. They are said by the
    nodes to avoid: Ray fails a task that is to run on a node that is gone, even where others would do.
    """
    nodes = alive_nodes()
    elsewhere = [node["NodeID"] for node in nodes if node["NodeID"] != first]
    unfit = [node["NodeID"] for node in nodes if not slot.fits(node["Resources"])]
    unfit += [id for id in without if id not in unfit]
    return {"label_selector": avoiding(elsewhere), "fallback_strategy": [{"label_selector": avoiding(unfit)}]}


def avoiding(nodes: Collection[str]) -> dict[str, str]:
    """Return the label selector of a task or bundle that is not to run on these nodes."""
    # Without spaces, which Ray takes for a part of the id.
    return {NODE_ID: f"!in({','.join(nodes)})"} if nodes else {}


def wait_for(reference: Any, slot: Slot, say: Callable[[str], None], is_stopped: Callable[[], bool]) -> Any:
    """Wait for a task that needs a trial's slot, and say so now and then; return its result.

    Once stopped, cancel it and return None.
    """
    shortage, said_at = Shortage(slot, say), time.monotonic()
    while True:
        with suppress(ray.exceptions.GetTimeoutError):
            return result_of(reference, timeout_s=0.25)
        if is_stopped():
            ray.cancel(reference, force=True)
            return None
        if (now := time.monotonic()) - said_at >= SAY_EVERY_S:
            said_at = now
            shortage.look()


class Shortage:
    """Says that no node holds a trial, each time that one looks and it is so."""

    def __init__(self, slot: Slot, say: Callable[[str], None], avoided: Callable[[], Collection[str]] = tuple) -> None:
        self._slot, self._say, self._avoided = slot, say, avoided
        self._had_room_at = time.monotonic()

    def look(self) -> None:
        """Count the slots, and say so if there are none."""
        now = time.monotonic()
        avoided = self._avoided()
        if count_slots(self._slot, without=avoided):
            self._had_room_at = now
            return
        each = resource_words(self._slot.bundle)
        need = f"a node with {each}" if self._slot.workers == 1 else f"nodes with {self._slot.workers} x {each}"
        self._say(
            f"still waiting for {need}, for {now - self._had_room_at:.0f} s so far; "
            "`ray status` on the head, or the dashboard, shows what the autoscaler does"
            + ("; the nodes on which processes died are not used in this run, but in a rerun" if avoided else "")
        )


def alive_hosts() -> list[str]:
    """Return the addresses of the cluster's nodes."""
    return [node["NodeManagerAddress"] for node in alive_nodes()]


def node_names() -> dict[str, str]:
    """Return what people call each node that the cluster has or had, by its id: its address, unless it was named."""
    return {node["NodeID"]: node["NodeName"] for node in ray.nodes()}  # type: ignore[no-untyped-call]


def node_resources() -> list[dict[str, float]]:
    """Return the resources of each of the cluster's nodes, by Ray's names."""
    return [node["Resources"] for node in alive_nodes()]


def dashboard_url() -> str | None:
    """Return where the Ray dashboard answers, if it runs."""
    url: Any = ray.get_runtime_context().worker.node.webui_url if ray.is_initialized() else None
    return f"http://{url}" if url else None
