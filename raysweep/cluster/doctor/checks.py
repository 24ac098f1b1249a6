"""Turns the facts of nodes into findings, each with its remedy, without asking Ray, the clock or any file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from raysweep.cluster.autoscaler import NO_AUTOSCALER, Autoscaler
from raysweep.cluster.doctor.facts import NodeFacts
from raysweep.terminal import count_of, format_bytes

Level = Literal["ok", "warning", "error"]
CLOCK_S = 2.0
"""A larger difference between clocks muddles logs and dashboards, and object stores may refuse requests."""
DISK_SHARE = 0.05
"""Ray spills no objects onto a disk with a smaller free share (`local_fs_capacity_threshold`)."""
DISK_BYTES = 5 * 2**30
OPEN_FILES = 8192
MOST_PACKAGES = 8
"""Packages that a message names; it only counts the others."""
INSTALLERS = ("pip", "setuptools", "wheel")
"""Packages that install others, and take no part in training."""
ABSENT = "absent"
LACKING = "name it in --requirements, or install it on every node, in their image or by setup_commands"
NOT_IMPORTED = "it may lack a library of the system's, which belongs in the nodes' image, or be built for another torch"
PIN = "name one version of each (name==1.0): nodes that are set up on another day get what is the newest then"
MAKE_A_TOKEN = (
    "make a token (`ray get-auth-token --generate`, chmod 600 ~/.ray/auth_token), copy it to every node and start Ray "
    "with RAY_AUTH_MODE=token, as cluster.yaml does"
)


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    check: str
    level: Level
    message: str
    remedy: str = ""  # what to do about it; empty where all is well


def check_nodes(
    nodes: Sequence[NodeFacts], autoscaler: Autoscaler = NO_AUTOSCALER, expected: Sequence[Requirement] = ()
) -> list[Finding]:
    """Check the facts of the nodes; if there are any nodes, each check makes at least one finding.

    `expected` is what every node must have, in a version that will do.
    """
    gpus = partial(_gpus, to_come=autoscaler.gpu_types)
    checks = (
        _versions,
        partial(_packages, expected=expected),
        gpus,
        _token,
        _clocks,
        _shared_memory,
        _disk,
        _open_files,
    )
    return [finding for check in checks if nodes for finding in check(nodes)]


def _versions(nodes: Sequence[NodeFacts]) -> list[Finding]:
    """Check that Python, Ray, torch, CUDA and raysweep are installed, in the same versions on all nodes."""
    faults = []
    remedy = "install the same version on every node: setup_commands with constraints.txt, then `ray up cluster.yaml`"
    names = list(dict.fromkeys(name for node in nodes for name in node.versions))
    for name in names:
        hosts = _hosts_by(nodes, [node.versions.get(name) or ABSENT for node in nodes])
        if len(hosts) > 1 or ABSENT in hosts:
            faults.append((f"{name}: {_where(hosts)}", remedy))
    same = ", ".join(f"{name} {nodes[0].versions.get(name)}" for name in names)
    return findings("versions", "error", faults, f"{same} on {_all(nodes)}")


def _packages(nodes: Sequence[NodeFacts], expected: Sequence[Requirement]) -> list[Finding]:
    """Check that every node has what is expected, can import it, and has all packages in the same versions."""
    found = []
    for asked in expected:
        versions = [node.packages.get(canonicalize_name(asked.name), ABSENT) for node in nodes]
        if wrong := {each: on for each, on in _hosts_by(nodes, versions).items() if not _suits(each, asked)}:
            found.append(Finding("packages", "error", f"{asked}: {_where(wrong)}", LACKING))
    for module in dict.fromkeys(module for node in nodes for module in node.import_faults):
        hosts = _hosts_by(nodes, [node.import_faults.get(module, "") for node in nodes])
        hosts.pop("", None)
        found.append(Finding("packages", "error", f"{module} cannot be imported: {_where(hosts)}", NOT_IMPORTED))
    if differing := _differing(nodes):
        found.append(Finding("packages", "warning", differing, PIN))
    asked_for = f"{', '.join(map(str, expected))} can be imported on {_all(nodes)}; " if expected else ""
    return found or [Finding("packages", "ok", f"{asked_for}all in the same versions")]


def _suits(version: str, asked: Requirement) -> bool:
    return version != ABSENT and (not version or asked.specifier.contains(version, prereleases=True))


def _differing(nodes: Sequence[NodeFacts]) -> str:
    """Say which packages are not the same on all nodes, apart from those that `_versions` checks."""
    found = []
    for name in sorted({name for node in nodes for name in node.packages} - {*INSTALLERS, *nodes[0].versions}):
        hosts = _hosts_by(nodes, [node.packages.get(name, ABSENT) for node in nodes])
        if len(hosts) > 1:
            found.append(f"{name} ({_where(hosts)})")
    more = f" and {len(found) - MOST_PACKAGES} more" if len(found) > MOST_PACKAGES else ""
    return f"not the same on all nodes: {', '.join(found[:MOST_PACKAGES])}{more}" if found else ""


def _hosts_by(nodes: Sequence[NodeFacts], values: Sequence[str]) -> dict[str, list[str]]:
    """Return the hosts that have each value, given that of each node."""
    hosts: dict[str, list[str]] = {}
    for node, value in zip(nodes, values, strict=True):
        hosts.setdefault(value, []).append(node.host)
    return hosts


def _where(hosts: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(f"{value} on {', '.join(found)}" for value, found in hosts.items())


def _gpus(nodes: Sequence[NodeFacts], to_come: Sequence[str]) -> list[Finding]:
    """Check that torch sees as many GPUs on each node as Ray schedules there."""
    faults = [
        (
            f"{node.host}: Ray schedules {count_of(node.gpus, 'GPU')}, but torch sees {node.gpus_seen}",
            f"check `nvidia-smi` there: the driver must be for CUDA {node.versions.get('cuda', '?')} or newer; start "
            "Ray without --num-gpus, so that it counts the GPUs itself",
        )
        for node in nodes
        if node.gpus_seen is not None and node.gpus_seen < node.gpus
    ]
    total = sum(node.gpus for node in nodes)
    now = f"{count_of(total, 'GPU')} on {_all(nodes)}" if total else "none"
    later = f"the autoscaler may add nodes with GPUs ({', '.join(to_come)})" if to_come else ""
    well = "; ".join(filter(None, [now, later or ("" if total else "trials run on CPUs")]))
    return findings("gpus", "error", faults, well)


def _token(nodes: Sequence[NodeFacts]) -> list[Finding]:
    """Check that Ray asks for a token, and that only the token file's owner can read it."""
    unprotected = ", ".join(node.host for node in nodes if not node.has_token_mode)
    no_token = f"no authentication on {unprotected}: anyone who can reach Ray's ports can run code there"
    faults = [(no_token, MAKE_A_TOKEN)] if unprotected else []
    faults += [
        (
            f"{node.host}: other users can read ~/.ray/auth_token (mode {node.token_file_mode:o})",
            f"chmod 600 ~/.ray/auth_token on {node.host}, and on this machine before `ray up` copies it",
        )
        for node in nodes
        if node.token_file_mode is not None and node.token_file_mode & 0o077
    ]
    level: Level = "error" if len(nodes) > 1 else "warning"  # on a single machine Ray listens on loopback alone
    return findings("token", level, faults, f"required on {_all(nodes)}; only its owner can read the file")


def _clocks(nodes: Sequence[NodeFacts]) -> list[Finding]:
    """Check that the clocks agree, as far as that could be measured."""
    remedy = "synchronise it with chrony or systemd-timesyncd"
    way = {True: "ahead", False: "behind"}
    faults = [
        (f"{node.host}: its clock is {abs(node.clock_ahead_s):.1f} s {way[node.clock_ahead_s > 0]}", remedy)
        for node in nodes
        if abs(node.clock_ahead_s) - node.clock_error_s > CLOCK_S
    ]
    most = max(abs(node.clock_ahead_s) for node in nodes)
    error = max(node.clock_error_s for node in nodes)
    return findings("clocks", "warning", faults, f"at most {most:.2f} s apart (measured to {error:.2f} s)")


def _shared_memory(nodes: Sequence[NodeFacts]) -> list[Finding]:
    """Check that /dev/shm has room for the object store, through which trials share the prepared data."""
    faults = [
        (
            f"{node.host}: /dev/shm has {format_bytes(node.shm_bytes)}, but the object store needs "
            f"{format_bytes(node.object_store_bytes)}, so Ray puts it on the disk, which is slow",
            "make /dev/shm larger (docker run --shm-size), or give `ray start` a smaller --object-store-memory",
        )
        for node in nodes
        if node.shm_bytes < node.object_store_bytes
    ]
    least = format_bytes(min(node.object_store_bytes for node in nodes))
    well = f"/dev/shm holds each node's object store (the smallest: {least})"
    return findings("shared memory", "warning", faults, well)


def _disk(nodes: Sequence[NodeFacts]) -> list[Finding]:
    """Check that Ray can spill objects and write logs on each node."""
    remedy = "delete old /tmp/ray/session_* there, or start Ray with --temp-dir on a larger disk"
    found = []
    for node in nodes:
        refuses = node.disk_free_share < DISK_SHARE
        if refuses or node.disk_free_bytes < DISK_BYTES:
            free = f"{format_bytes(node.disk_free_bytes)} ({node.disk_free_share:.0%}) free under Ray's folder"
            message = f"{node.host}: {free}{'; Ray spills no objects there' if refuses else ''}"
            found.append(Finding("disk", "error" if refuses else "warning", message, remedy))
    least = format_bytes(min(node.disk_free_bytes for node in nodes))
    return found or [Finding("disk", "ok", f"at least {least} free on {_all(nodes)}")]


def _open_files(nodes: Sequence[NodeFacts]) -> list[Finding]:
    """Check that each process may open as many files as a large sweep needs."""
    remedy = "put `ulimit -n 65536` before `ray start`, as cluster.yaml does"
    faults = [
        (f"{node.host}: Ray's processes may open only {node.open_files} files", remedy)
        for node in nodes
        if node.open_files < OPEN_FILES
    ]
    least = min(node.open_files for node in nodes)
    return findings("open files", "warning", faults, f"at least {least:,} for each process")


def findings(check: str, level: Level, faults: Iterable[tuple[str, str]], well: str) -> list[Finding]:
    """Return a finding for each fault, given as its message and remedy, or one that all is well."""
    return [Finding(check, level, *fault) for fault in faults] or [Finding(check, "ok", well)]


def _all(nodes: Sequence[NodeFacts]) -> str:
    return count_of(len(nodes), "node")
