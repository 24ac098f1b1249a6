"""The cluster we are connected to, examined from a probe on every node."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raysweep.cluster.autoscaler import HEAD, Autoscaler, read_autoscaler
from raysweep.cluster.doctor.checks import Finding, check_nodes
from raysweep.cluster.doctor.facts import NodeFacts, Probe
from raysweep.cluster.slots import alive_hosts, check_slot, dashboard_url, node_resources, resolve_slot
from raysweep.errors import ClusterError
from raysweep.sweepfile.schema import Resources

ANSWER_WITHIN_S = 120.0
"""A probe's process starts in seconds, on a busy machine in tens of them."""
LOOPBACK = ("127.", "localhost", "[::1]")


@dataclass(frozen=True)
class _Node:
    host: str
    address: str
    is_head: bool
    resources: Mapping[str, float]
    probe: Any


def examine(
    storage: str | None, resources: Resources | None, storage_is_relative: bool = False
) -> tuple[list[NodeFacts], list[Finding]]:
    """Look at every node, at what they share, and at what the sweep asks for.

    Args:
        storage: where run folders are to lie, a URI or an absolute path; None: not checked.
        resources: the sweep's; None: its slots are not checked.
        storage_is_relative: whether it was given so; that is refused on several nodes.

    Returns:
        What each node that answered says of itself, and the findings, in the order of the checks.
    """
    nodes = [_with_probe(node) for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    autoscaler = read_autoscaler()
    facts, silent = _ask(nodes)
    answering = [node for node in nodes if node.address in {each.address for each in facts}]
    findings = [*silent, *_check_joined(nodes, autoscaler), *check_nodes(facts)]
    findings += [*_check_dashboard(), *_check_storage(storage, storage_is_relative, answering)]
    if resources is not None:
        findings += _check_slots(resources, autoscaler)
    return facts, findings


def _with_probe(node: dict[str, Any]) -> _Node:
    on_node = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    probe: Any = ray.remote(num_cpus=0)(Probe)
    resources = node["Resources"]
    return _Node(
        node["NodeManagerHostname"],
        node["NodeManagerAddress"],
        HEAD in resources,
        {name: count for name, count in resources.items() if not name.startswith("node:")},
        probe.options(scheduling_strategy=on_node).remote(),
    )


def _ask(nodes: list[_Node]) -> tuple[list[NodeFacts], list[Finding]]:
    """Gather the facts side by side; a node that does not answer is a finding."""
    session = ray.get_runtime_context().worker.node.get_session_dir_path()
    asked = {node.probe.facts.remote(node.address, node.is_head, node.resources, session): node for node in nodes}
    ray.wait(list(asked), num_returns=len(asked), timeout=ANSWER_WITHIN_S)
    facts, findings = [], []
    for reference, node in asked.items():
        try:
            facts.append(_with_clock(ray.get(reference, timeout=0.1), node.probe))
        except (ray.exceptions.GetTimeoutError, ray.exceptions.RayError) as error:
            findings.append(
                Finding(
                    "nodes",
                    "error",
                    f"{node.host} ({node.address}): no answer from a process there: {_first_line(error)}",
                    "see that the host is up and raysweep installed there; `ray status`, /tmp/ray/session_latest/logs",
                )
            )
    return facts, findings


def _with_clock(facts: NodeFacts, probe: Any) -> NodeFacts:
    """Add how far the node's clock is from ours, by the quickest of three answers (Cristian's algorithm)."""
    best = (float("inf"), 0.0)
    for _ in range(3):
        asked = time.time()
        there = ray.get(probe.clock.remote(), timeout=10)
        answered = time.time()
        best = min(best, (answered - asked, there - (asked + answered) / 2))
    return replace(facts, clock_ahead_s=best[1], clock_error_s=best[0] / 2)


def _check_joined(nodes: list[_Node], autoscaler: Autoscaler | None) -> Iterator[Finding]:
    """Whether the workers that should be there are."""
    missing = autoscaler.missing(alive_hosts()) if autoscaler else None
    if missing:
        yield Finding(
            "nodes",
            "error",
            f"{missing} have not joined the cluster",
            "a start or setup command may be broken (`ray up` ends well all the same), the host be down, or its port "
            "6379 to the head closed: `ray monitor cluster.yaml` shows what the autoscaler does",
        )
    else:
        may_grow = f"; the autoscaler may have {autoscaler.max_workers} workers" if autoscaler else ""
        yield Finding("nodes", "ok", f"{len(nodes)}: {', '.join(node.host for node in nodes)}{may_grow}")


def _check_dashboard() -> Iterator[Finding]:
    url = (dashboard_url() or "").removeprefix("http://")
    if not url:
        yield Finding("dashboard", "warning", "it does not run", "install ray[default]; `raysweep submit` needs it")
    elif not url.startswith(LOOPBACK):
        yield Finding(
            "dashboard",
            "warning",
            f"it listens on {url}, for whoever reaches that address",
            "start the head with --dashboard-host=127.0.0.1 and reach it by `ray dashboard cluster.yaml`",
        )
    else:
        yield Finding("dashboard", "ok", f"on loopback alone, {url}")


def _check_storage(storage: str | None, is_relative: bool, nodes: list[_Node]) -> Iterator[Finding]:
    """Write a file from one node, a worker where there is one, and read it on every other."""
    if storage is None:
        return
    if is_relative and len(nodes) > 1:
        yield Finding(
            "storage",
            "error",
            "it is given as a relative path, another folder on each node",
            "give --storage (or RAYSWEEP_STORAGE) an s3:// or gs:// URI, or the absolute path of a shared folder",
        )
        return
    if not nodes:
        return
    writer, *readers = sorted(nodes, key=lambda node: node.is_head)
    name, data = f"raysweep-doctor-{uuid.uuid4().hex}", uuid.uuid4().bytes
    problem = ray.get(writer.probe.write.remote(storage, name, data))
    if problem:
        yield Finding("storage", "error", f"{writer.host} cannot write {storage}: {problem}", _remedy(storage))
        return
    failed = False
    answers = [(reader, reader.probe.read.remote(storage, name, data)) for reader in readers]
    for reader, answer in answers:
        if problem := ray.get(answer):
            failed = True
            message = f"{reader.host} cannot read in {storage} what {writer.host} wrote: {problem}"
            yield Finding("storage", "error", message, _remedy(storage))
    if problem := ray.get(writer.probe.delete.remote(storage, name)):
        failed = True
        yield Finding("storage", "error", f"{writer.host} cannot delete in {storage}: {problem}", _remedy(storage))
    if not failed:
        yield Finding("storage", "ok", f"{storage}: written on {writer.host}, read on {len(readers)} others")


def _remedy(storage: str) -> str:
    if "://" in storage:
        return (
            "give the nodes' role (or keys) the right to list, get, put and delete under that prefix (docs/clusters.md)"
        )
    return "mount the same shared folder on every node, writable, or use s3:// or gs://"


def _check_slots(resources: Resources, autoscaler: Autoscaler | None) -> Iterator[Finding]:
    """Whether a trial of the sweep fits, now or later, and leaves no GPU idle."""
    slot = resolve_slot(resources, node_resources(), autoscaler)
    missing = autoscaler.missing(alive_hosts()) if autoscaler else None
    try:
        waiting = check_slot(slot, node_resources(), autoscaler, missing)
    except ClusterError as error:
        yield Finding("slots", "error", str(error), "ask for less under `resources`, or add larger nodes")
        return
    now = sum(map(slot.fits, node_resources())) // slot.workers
    if waiting:
        yield Finding("slots", "warning", waiting, "nothing, if the autoscaler may launch it; see `ray status`")
    else:
        yield Finding("slots", "ok", f"{now} trials at a time, {slot.workers} x {slot.bundle}")
    for node in node_resources():
        gpus = node.get("GPU", 0)
        if slot.gpus and (idle := gpus - slot.fits(node) * slot.gpus) >= slot.gpus:
            yield Finding(
                "slots",
                "warning",
                f"{idle:g} of a node's {gpus:g} GPUs stay idle: a worker takes {slot.cpus:g} of its CPUs",
                "ask for fewer `resources.cpus` a worker, or leave them auto",
            )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
