"""Examines the connected cluster through a probe on every node; returns facts and findings."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import ray
from packaging.requirements import Requirement

from raysweep.cluster import slots
from raysweep.cluster.autoscaler import Autoscaler, read_autoscaler
from raysweep.cluster.doctor.checks import Finding, check_nodes, findings
from raysweep.cluster.doctor.facts import NodeFacts, clock, gather_facts
from raysweep.cluster.environment import SETUP_LOG, why_not_made
from raysweep.cluster.hosts import (
    SAME_CODE,
    Host,
    ask,
    different_code,
    different_storage,
    find_data,
    listed,
    live_hosts,
    made_by,
    no_answer,
)
from raysweep.errors import ClusterError, DataError
from raysweep.loops import loop_named
from raysweep.store.filesystem import Storage
from raysweep.sweepfile import Sweep
from raysweep.sweepfile.plan import plan_trials
from raysweep.sweepfile.schema import Resources
from raysweep.terminal import count_of
from raysweep.worker.tasks import TaskSetting

LOOPBACK = ("127.", "localhost", "[::1]")
SAME_DATA = (
    "copy the files to every node, or name a folder that all nodes see (RAYSWEEP_DATA where Ray is started, data.path)"
)


def examine(
    storage: str | None,
    sweep: Sweep | None,
    setting: TaskSetting,
    storage_is_relative: bool = False,
    expected: Sequence[str] = (),
) -> tuple[list[NodeFacts], list[Finding]]:
    """Look at every node, at what the nodes share, and at what the sweep asks for.

    Args:
        storage: where run folders lie, a URI or an absolute path; None: the storage is not checked.
        sweep: the sweep that is to run; None: its slots and data are not checked.
        setting: how tasks find the sweep's data and modules.
        storage_is_relative: whether the user gave a relative path, which is refused on several nodes.
        expected: what every node must have, as pip names requirements.

    Returns:
        The facts of each node that answered, and the findings in the order of the checks.
    """
    autoscaler = read_autoscaler()
    missing = autoscaler.missing(slots.alive_hosts())
    asked = [each for each in map(Requirement, expected) if each.marker is None or each.marker.evaluate()]
    hosts, found = _make_environment(live_hosts())
    code = _check_code(hosts, setting.imports)
    facts, silent = _ask(hosts, list(dict.fromkeys(each.name for each in asked)))
    found += [*silent, _check_joined(hosts, autoscaler, missing), code]
    found += [*check_nodes(facts, autoscaler, asked), _check_dashboard()]
    if storage is not None:
        found.append(_check_storage(storage, storage_is_relative, hosts))
    if sweep is not None:
        found += _check_slots(sweep.resources, autoscaler, missing)
        found += _check_data(sweep, setting, autoscaler, hosts)
    return facts, found


def _make_environment(hosts: list[Host]) -> tuple[list[Host], list[Finding]]:
    """Wait until the nodes have made the job's environment, if it has one; return those that have, and a finding."""
    if not (kind := made_by()):
        return hosts, []
    answers = ask(hosts, clock)
    faults = [
        (fault, f"all that was said is in {SETUP_LOG} there")
        for host in hosts
        if (fault := _no_environment(host, answers[host.id]))
    ]
    found = findings("environment", "error", faults, f"ready on {count_of(len(hosts), 'node')}, by {kind}")
    return [host for host in hosts if isinstance(answers[host.id], float)], found


def _no_environment(host: Host, answer: Any) -> str:
    if isinstance(answer, ray.exceptions.RuntimeEnvSetupError):
        return f"{host.name} ({host.address}): cannot make it: {why_not_made(str(answer))}"
    return no_answer(host, answer)


def _ask(hosts: Sequence[Host], expected: Sequence[str]) -> tuple[list[NodeFacts], list[Finding]]:
    """Return the facts of the nodes that answer, and a finding for each of the others."""
    session = ray.get_runtime_context().worker.node.get_session_dir_path()
    answers = ask(hosts, gather_facts, list(hosts), session, expected)
    remedy = "check that the host is up and has raysweep: `ray status`, /tmp/ray/session_latest/logs"
    silent = [fault for host in hosts if (fault := no_answer(host, answers[host.id]))]
    clocks = _read_clocks([host for host in hosts if isinstance(answers[host.id], NodeFacts)])
    facts = [replace(answers[id], clock_ahead_s=ahead, clock_error_s=error) for id, (ahead, error) in clocks.items()]
    return facts, [Finding("nodes", "error", fault, remedy) for fault in silent]


def _read_clocks(hosts: Sequence[Host]) -> dict[str, tuple[float, float]]:
    """Return how far each node's clock is ahead of ours and the error of that, by the quickest of three answers.

    That is Cristian's algorithm. One node is asked at a time, so that none waits for another.
    """
    found = {}
    for host in hosts:
        best = (float("inf"), 0.0)
        for _ in range(3):
            asked = time.time()
            there = ask([host], clock)[host.id]
            answered = time.time()
            if isinstance(there, float):
                best = min(best, (answered - asked, there - (asked + answered) / 2))
        found[host.id] = best[1], best[0] / 2
    return found


def _check_code(hosts: Sequence[Host], imports: Sequence[str]) -> Finding:
    modules = ["raysweep", *imports]
    if fault := different_code(hosts, modules):
        return Finding("code", "error", fault, SAME_CODE)
    return Finding("code", "ok", f"{', '.join(modules)}: the same files on {count_of(len(hosts), 'node')}")


def _check_joined(hosts: Sequence[Host], autoscaler: Autoscaler, missing: str) -> Finding:
    if missing:
        remedy = (
            "`ray monitor cluster.yaml` shows what the autoscaler does; a setup or start command may fail (`ray up` "
            "succeeds all the same), the host may be down, or it cannot reach port 6379 of the head"
        )
        return Finding("nodes", "error", f"{missing} have not joined the cluster", remedy)
    names = ", ".join(host.name for host in hosts)
    may_grow = f"; the autoscaler may start up to {most} workers" if (most := autoscaler.max_workers) else ""
    return Finding("nodes", "ok", f"{len(hosts)}: {names}{may_grow}")


def _check_dashboard() -> Finding:
    url = (slots.dashboard_url() or "").removeprefix("http://")
    if not url:
        return Finding("dashboard", "warning", "it is not running", "install ray[default]; `raysweep submit` needs it")
    if url.startswith(LOOPBACK):
        return Finding("dashboard", "ok", f"on loopback only, {url}")
    remedy = "start the head with --dashboard-host=127.0.0.1 and reach it through `ray dashboard cluster.yaml`"
    return Finding("dashboard", "warning", f"it listens on {url}, open to anyone who can reach that address", remedy)


def _check_storage(storage: str, is_relative: bool, hosts: Sequence[Host]) -> Finding:
    """Check that all nodes can write the storage, and that it is the same place on all of them."""
    if is_relative and len(hosts) > 1:
        remedy = "give --storage (or RAYSWEEP_STORAGE) an s3:// or gs:// URI, or the absolute path of a shared folder"
        return Finding("storage", "error", "a relative path means a different folder on each node", remedy)
    if fault := different_storage(hosts, Storage(storage)):
        remedy = "mount the same writable folder on every node, or use s3:// or gs://"
        if "://" in storage:
            remedy = "let the nodes' role (or keys) list, get, put and delete under that prefix (docs/aws.md)"
        return Finding("storage", "error", f"{storage}: {fault}", remedy)
    on_others = f"; seen and written on {count_of(len(hosts) - 1, 'other node')}" if len(hosts) > 1 else ""
    return Finding("storage", "ok", f"{storage}: written on {hosts[0].name}{on_others}")


def _check_data(sweep: Sweep, setting: TaskSetting, autoscaler: Autoscaler, hosts: Sequence[Host]) -> Iterator[Finding]:
    """Check that the data's files are there, and the same, on every node where trials may run."""
    slot = slots.resolve_slot(sweep.resources, slots.node_resources(), autoscaler)
    able = [host for host in hosts if slot.fits(host.resources)]
    loop = loop_named(sweep.loop)
    sets = {loop.data_key(trial.config): trial.config for trial in plan_trials(sweep)}
    for config in sets.values() if able else ():
        try:
            lacking = find_data(able, setting, config)
        except DataError as error:
            yield from (Finding("data", "error", problem, SAME_DATA) for problem in error.problems)
            continue
        faults = [
            (f"{listed(without)}: {problem}; other nodes have the files", SAME_DATA)
            for problem, without in lacking.items()
        ]
        well = f"{loop.data_name(config)}: the same files on {count_of(len(able), 'node')} where trials may run"
        yield from findings("data", "warning", faults, well)


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
