"""Examines the connected cluster through a probe on every node; returns facts and findings."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raysweep.cluster.autoscaler import Autoscaler, read_autoscaler
from raysweep.cluster.doctor.checks import Finding, check_nodes
from raysweep.cluster.doctor.facts import NodeFacts, Probe
from raysweep.cluster.slots import alive_hosts, check_slot, dashboard_url, node_resources, resolve_slot
from raysweep.errors import ClusterError
from raysweep.sweepfile.schema import Resources
from raysweep.terminal import count_of

ANSWER_WITHIN_S = 120.0
"""How long a node may take to answer: a process starts within seconds, on a busy machine within tens of them."""
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
    nodes = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    autoscaler = read_autoscaler()
    answers, findings = _ask(nodes)
    facts = [each for each, _ in answers]
    findings += [*_check_joined(nodes, autoscaler), *check_nodes(facts), *_check_dashboard()]
    if storage is not None and answers:
        findings += _check_storage(storage, storage_is_relative, answers)
    if resources is not None:
        findings += _check_slots(resources, autoscaler)
    return facts, findings


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
    answers, findings = [], []
    for reference, (node, probe) in asked.items():
        try:
            answers.append((_with_clock(ray.get(reference, timeout=0.1), probe), probe))
        except (ray.exceptions.GetTimeoutError, ray.exceptions.RayError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            where = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
            remedy = "check that the host is up and has raysweep: `ray status`, /tmp/ray/session_latest/logs"
            findings.append(Finding("nodes", "error", f"{where}: a process there did not answer: {reason}", remedy))
    return answers, findings


def _with_clock(facts: NodeFacts, probe: Any) -> NodeFacts:
    """Add how far the node's clock is ahead of ours, by the quickest of three answers (Cristian's algorithm)."""
    best = (float("inf"), 0.0)
    for _ in range(3):
        asked = time.time()
        there = ray.get(probe.clock.remote(), timeout=10)
        answered = time.time()
        best = min(best, (answered - asked, there - (asked + answered) / 2))
    return replace(facts, clock_ahead_s=best[1], clock_error_s=best[0] / 2)


def _check_joined(nodes: list[dict[str, Any]], autoscaler: Autoscaler | None) -> Iterator[Finding]:
    missing = autoscaler.missing(alive_hosts()) if autoscaler else None
    if missing:
        yield Finding(
            "nodes",
            "error",
            f"{missing} have not joined the cluster",
            "`ray monitor cluster.yaml` shows what the autoscaler does; a setup or start command may fail (`ray up` "
            "succeeds all the same), the host may be down, or it cannot reach port 6379 of the head",
        )
    else:
        may_grow = f"; the autoscaler may start up to {autoscaler.max_workers} workers" if autoscaler else ""
        yield Finding(
            "nodes", "ok", f"{len(nodes)}: {', '.join(node['NodeManagerHostname'] for node in nodes)}{may_grow}"
        )


def _check_dashboard() -> Iterator[Finding]:
    url = (dashboard_url() or "").removeprefix("http://")
    if not url:
        yield Finding("dashboard", "warning", "it does not run", "install ray[default]; `raysweep submit` needs it")
    elif not url.startswith(LOOPBACK):
        remedy = "start the head with --dashboard-host=127.0.0.1 and reach it through `ray dashboard cluster.yaml`"
        yield Finding("dashboard", "warning", f"it listens on {url}, open to anyone who can reach that address", remedy)
    else:
        yield Finding("dashboard", "ok", f"on loopback only, {url}")


def _check_storage(storage: str, is_relative: bool, answers: list[tuple[NodeFacts, Any]]) -> Iterator[Finding]:
    """Write a file from one node, a worker where there is one, and read it on every other."""
    if is_relative and len(answers) > 1:
        remedy = "give --storage (or RAYSWEEP_STORAGE) an s3:// or gs:// URI, or the absolute path of a shared folder"
        yield Finding("storage", "error", "it is a relative path, which means another folder on each node", remedy)
        return
    (writer, on_writer), *readers = sorted(answers, key=lambda answer: answer[0].is_head)
    name, data = f"raysweep-doctor-{uuid.uuid4().hex}", uuid.uuid4().bytes
    if fault := ray.get(on_writer.write.remote(storage, name, data)):
        yield Finding("storage", "error", f"{writer.host} cannot write {storage}: {fault}", _remedy(storage))
        return
    read = {reader.host: probe.read.remote(storage, name, data) for reader, probe in readers}
    faults = [
        f"{host} cannot read in {storage} what {writer.host} wrote: {fault}"
        for host, answer in read.items()
        if (fault := ray.get(answer))
    ]
    if fault := ray.get(on_writer.delete.remote(storage, name)):
        faults.append(f"{writer.host} cannot delete in {storage}: {fault}")
    for message in faults:
        yield Finding("storage", "error", message, _remedy(storage))
    if not faults:
        on_others = f" and read on {count_of(len(readers), 'other node')}" if readers else ""
        yield Finding("storage", "ok", f"{storage}: written on {writer.host}{on_others}")


def _remedy(storage: str) -> str:
    if "://" in storage:
        return "let the nodes' role (or keys) list, get, put and delete under that prefix (docs/clusters.md)"
    return "mount the same writable folder on every node, or use s3:// or gs://"


def _check_slots(resources: Resources, autoscaler: Autoscaler | None) -> Iterator[Finding]:
    """Check that a trial of the sweep fits, now or later, and leaves no GPU idle."""
    nodes = node_resources()
    slot = resolve_slot(resources, nodes, autoscaler)
    missing = autoscaler.missing(alive_hosts()) if autoscaler else None
    try:
        waiting = check_slot(slot, nodes, autoscaler, missing)
    except ClusterError as error:
        yield Finding("slots", "error", str(error), "ask for less under `resources`, or add larger nodes")
        return
    if waiting:
        yield Finding("slots", "warning", waiting, "none if the autoscaler may launch that node: see `ray status`")
    else:
        at_a_time = count_of(sum(map(slot.fits, nodes)) // slot.workers, "trial")
        yield Finding("slots", "ok", f"{at_a_time} at a time, {slot.workers} x {slot.bundle}")
    for node in nodes:
        gpus = node.get("GPU", 0)
        if slot.gpus and (idle := gpus - slot.fits(node) * slot.gpus) >= slot.gpus:
            message = f"{idle:g} of a node's {gpus:g} GPUs stay idle, since a worker takes {slot.cpus:g} of its CPUs"
            remedy = "ask for fewer `resources.cpus` for each worker, or set them to auto"
            yield Finding("slots", "warning", message, remedy)
