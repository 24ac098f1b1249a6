"""Examines the connected cluster through a probe on every node; returns facts and findings."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raysweep.cluster import slots
from raysweep.cluster.autoscaler import Autoscaler, alive_nodes, read_autoscaler
from raysweep.cluster.doctor.checks import Finding, check_nodes, findings
from raysweep.cluster.doctor.facts import NodeFacts, Probe
from raysweep.errors import ClusterError
from raysweep.sweepfile.schema import Resources
from raysweep.terminal import count_of

ANSWER_WITHIN_S = 120.0
"""How long a node may take to answer: a process starts within seconds, or tens of seconds on a busy machine."""
LOOPBACK = ("127.", "localhost", "[::1]")


def examine(
    storage: str | None, resources: Resources | None, storage_is_relative: bool = False
) -> tuple[list[NodeFacts], list[Finding]]:
    """Look at every node, at what the nodes share, and at what the sweep asks for.

    Args:
        storage: where run folders lie, a URI or an absolute path; None: the storage is not checked.
        resources: what the sweep asks for; None: its slots are not checked.
        storage_is_relative: whether the user gave a relative path, which is refused on several nodes.

    Returns:
        The facts of each node that answered, and the findings in the order of the checks.
    """
    nodes, autoscaler = alive_nodes(), read_autoscaler()
    missing = autoscaler.missing(slots.alive_hosts())
    answers, found = _ask(nodes)
    facts = [each for each, _ in answers]
    found += [_check_joined(nodes, autoscaler, missing), *check_nodes(facts), _check_dashboard()]
    if storage is not None and answers:
        found += _check_storage(storage, storage_is_relative, answers)
    if resources is not None:
        found += _check_slots(resources, autoscaler, missing)
    return facts, found


def _ask(nodes: list[dict[str, Any]]) -> tuple[list[tuple[NodeFacts, Any]], list[Finding]]:
    """Start a probe on each node; return (facts, probe) of those that answer, and a finding for each of the others."""
    session = ray.get_runtime_context().worker.node.get_session_dir_path()
    remote: Any = ray.remote(num_cpus=0)(Probe)
    asked = {}
    for node in nodes:
        on_node = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        probe = remote.options(scheduling_strategy=on_node).remote()
        asked[probe.facts.remote(node["NodeManagerAddress"], node["Resources"], session)] = node, probe
    ray.wait(list(asked), num_returns=len(asked), timeout=ANSWER_WITHIN_S)
    answers, found = [], []
    for reference, (node, probe) in asked.items():
        try:
            answers.append((_with_clock(ray.get(reference, timeout=0.1), probe), probe))
        except (ray.exceptions.GetTimeoutError, ray.exceptions.RayError) as error:
            found.append(_no_answer(node, error))
    return answers, found


def _no_answer(node: Mapping[str, Any], error: Exception) -> Finding:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    where = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
    remedy = "check that the host is up and has raysweep: `ray status`, /tmp/ray/session_latest/logs"
    return Finding("nodes", "error", f"{where}: a process there did not answer: {reason}", remedy)


def _with_clock(facts: NodeFacts, probe: Any) -> NodeFacts:
    """Add how far the node's clock is ahead of ours, by the quickest of three answers (Cristian's algorithm)."""
    best = (float("inf"), 0.0)
    for _ in range(3):
        asked = time.time()
        there = ray.get(probe.clock.remote(), timeout=10)
        answered = time.time()
        best = min(best, (answered - asked, there - (asked + answered) / 2))
    return replace(facts, clock_ahead_s=best[1], clock_error_s=best[0] / 2)


def _check_joined(nodes: Sequence[Mapping[str, Any]], autoscaler: Autoscaler, missing: str) -> Finding:
    if missing:
        remedy = (
            "`ray monitor cluster.yaml` shows what the autoscaler does; a setup or start command may fail (`ray up` "
            "succeeds all the same), the host may be down, or it cannot reach port 6379 of the head"
        )
        return Finding("nodes", "error", f"{missing} have not joined the cluster", remedy)
    hosts = ", ".join(node["NodeManagerHostname"] for node in nodes)
    may_grow = f"; the autoscaler may start up to {most} workers" if (most := autoscaler.max_workers) else ""
    return Finding("nodes", "ok", f"{len(nodes)}: {hosts}{may_grow}")


def _check_dashboard() -> Finding:
    url = (slots.dashboard_url() or "").removeprefix("http://")
    if not url:
        return Finding("dashboard", "warning", "it is not running", "install ray[default]; `raysweep submit` needs it")
    if url.startswith(LOOPBACK):
        return Finding("dashboard", "ok", f"on loopback only, {url}")
    remedy = "start the head with --dashboard-host=127.0.0.1 and reach it through `ray dashboard cluster.yaml`"
    return Finding("dashboard", "warning", f"it listens on {url}, open to anyone who can reach that address", remedy)


def _check_storage(storage: str, is_relative: bool, answers: list[tuple[NodeFacts, Any]]) -> list[Finding]:
    """Write a file from one node, a worker where there is one, and read it on every other."""
    if is_relative and len(answers) > 1:
        remedy = "give --storage (or RAYSWEEP_STORAGE) an s3:// or gs:// URI, or the absolute path of a shared folder"
        return [Finding("storage", "error", "a relative path means a different folder on each node", remedy)]
    (writer, on_writer), *readers = sorted(answers, key=lambda answer: answer[0].is_head)
    name, data = f"raysweep-doctor-{uuid.uuid4().hex}", uuid.uuid4().bytes
    if fault := ray.get(on_writer.write.remote(storage, name, data)):
        faults = [f"{writer.host} cannot write {storage}: {fault}"]
    else:
        read = ray.get([probe.read.remote(storage, name, data) for _, probe in readers])
        cannot = f"cannot read in {storage} what {writer.host} wrote"
        faults = [f"{facts.host} {cannot}: {fault}" for (facts, _), fault in zip(readers, read, strict=True) if fault]
        if fault := ray.get(on_writer.delete.remote(storage, name)):
            faults.append(f"{writer.host} cannot delete in {storage}: {fault}")
    on_others = f" and read on {count_of(len(readers), 'other node')}" if readers else ""
    well = f"{storage}: written on {writer.host}{on_others}"
    remedy = "mount the same writable folder on every node, or use s3:// or gs://"
    if "://" in storage:
        remedy = "let the nodes' role (or keys) list, get, put and delete under that prefix (docs/clusters.md)"
    return findings("storage", "error", [(fault, remedy) for fault in faults], well)


def _check_slots(resources: Resources, autoscaler: Autoscaler, missing: str) -> Iterator[Finding]:
    """Check that a trial of the sweep fits, now or later, and leaves no GPU idle."""
    nodes = slots.node_resources()
    slot = slots.resolve_slot(resources, nodes, autoscaler)
    try:
        waiting = slots.check_slot(slot, nodes, autoscaler, missing)
    except ClusterError as error:
        yield Finding("slots", "error", str(error), "ask for less under `resources`, or add larger nodes")
        return
    at_a_time = count_of(slots.count_slots(slot), "trial")
    fits = f"{at_a_time} at a time, {slot.workers} x {slots.resource_words(slot.bundle)}"
    nothing = "no action is needed if the autoscaler may launch that node: see `ray status`"
    yield from findings("slots", "warning", [(waiting, nothing)] if waiting else [], fits)
    for gpus, fit in ((node.get("GPU", 0), slot.fits(node)) for node in nodes):
        if slot.gpus and (idle := gpus - fit * slot.gpus) >= slot.gpus:
            message = f"{idle:g} of a node's {gpus:g} GPUs stay idle, since a worker takes {slot.cpus:g} of its CPUs"
            remedy = "ask for fewer `resources.cpus` for each worker, or set them to auto"
            yield Finding("slots", "warning", message, remedy)
