"""Facts of the nodes to findings, each with its remedy. Pure: no Ray, no clock, no files."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from raysweep.cluster.doctor.facts import NodeFacts

Level = Literal["ok", "warning", "error"]
CLOCK_S = 2.0
"""Apart by more than this, clocks make logs, dashboards and credentials of object stores confusing."""
DISK_SHARE = 0.05
"""Ray refuses to spill objects onto a disk with less free than this (`local_fs_capacity_threshold`)."""
DISK_BYTES = 5 * 2**30
OPEN_FILES = 8192
GIB = 2**30


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    check: str
    level: Level
    message: str
    remedy: str = ""
    """What to do about it; empty where all is well."""


def check_nodes(nodes: Sequence[NodeFacts]) -> list[Finding]:
    """All that the nodes' own facts tell; at least one finding a check."""
    checks = (check_versions, check_gpus, check_token, check_clocks, check_shared_memory, check_disk, check_open_files)
    return [finding for check in checks for finding in check(nodes)]


def check_versions(nodes: Sequence[NodeFacts]) -> Iterator[Finding]:
    """Whether Python, Ray, torch, CUDA and raysweep are there, and the same on all nodes."""
    names = list(dict.fromkeys(name for node in nodes for name in node.versions))
    same = True
    for name in names:
        hosts = _hosts_by_version(nodes, name)
        if len(hosts) > 1 or "absent" in hosts:
            same = False
            where = "; ".join(f"{value} on {', '.join(found)}" for value, found in hosts.items())
            remedy = "install the same everywhere: setup_commands with constraints.txt, then `ray up cluster.yaml`"
            yield Finding("versions", "error", f"{name}: {where}", remedy)
    if same and nodes:
        all_of = ", ".join(f"{name} {nodes[0].versions[name]}" for name in names)
        yield Finding("versions", "ok", f"{all_of} on {_count(nodes)}")


def check_gpus(nodes: Sequence[NodeFacts]) -> Iterator[Finding]:
    """Whether torch sees as many GPUs on each node as Ray schedules there."""
    wrong = [node for node in nodes if node.gpus_seen is not None and node.gpus_seen < node.gpus]
    for node in wrong:
        yield Finding(
            "gpus",
            "error",
            f"{node.host}: Ray schedules {node.gpus:g} GPUs, torch sees {node.gpus_seen}",
            "check `nvidia-smi` there: a driver for CUDA "
            f"{node.versions.get('cuda', '?')} or newer; do not give --num-gpus to `ray start` where it counts itself",
        )
    if not wrong:
        total = sum(node.gpus for node in nodes)
        yield Finding("gpus", "ok", f"{total:g} GPUs on {_count(nodes)}" if total else "none; trials run on CPUs")


def check_token(nodes: Sequence[NodeFacts]) -> Iterator[Finding]:
    """Whether Ray asks for a token, and nobody else can read it."""
    found = False
    level: Level = "error" if len(nodes) > 1 else "warning"  # one machine: Ray keeps to loopback
    if open_to_all := [node.host for node in nodes if not node.has_token_mode]:
        found = True
        yield Finding(
            "token",
            level,
            f"no authentication on {', '.join(open_to_all)}: who reaches Ray's ports runs what he likes there",
            "make a token (`ray get-auth-token --generate`, chmod 600 ~/.ray/auth_token), copy it to every node and "
            "start Ray with RAY_AUTH_MODE=token, as cluster.yaml does",
        )
    for node in nodes:
        if node.token_file_mode is not None and node.token_file_mode & 0o077:
            found = True
            yield Finding(
                "token",
                level,
                f"{node.host}: others can read ~/.ray/auth_token (mode {node.token_file_mode:o})",
                f"chmod 600 ~/.ray/auth_token on {node.host}, and here before `ray up` copies it",
            )
    if not found:
        yield Finding("token", "ok", f"asked for on {_count(nodes)}; its file is readable by its owner alone")


def check_clocks(nodes: Sequence[NodeFacts]) -> Iterator[Finding]:
    """Whether the clocks agree, as far as that could be measured."""
    apart = [node for node in nodes if abs(node.clock_ahead_s) - node.clock_error_s > CLOCK_S]
    for node in apart:
        way = "ahead" if node.clock_ahead_s > 0 else "behind"
        yield Finding(
            "clocks",
            "warning",
            f"{node.host}: its clock is {abs(node.clock_ahead_s):.1f} s {way}",
            "synchronise it: chrony or systemd-timesyncd",
        )
    if not apart and nodes:
        most = max(abs(node.clock_ahead_s) for node in nodes)
        error = max(node.clock_error_s for node in nodes)
        yield Finding("clocks", "ok", f"at most {most:.2f} s apart (measured to {error:.2f} s)")


def check_shared_memory(nodes: Sequence[NodeFacts]) -> Iterator[Finding]:
    """Whether /dev/shm holds the object store, through which trials share the prepared data."""
    small = [node for node in nodes if node.shm_bytes < node.object_store_bytes]
    for node in small:
        yield Finding(
            "shared memory",
            "warning",
            f"{node.host}: /dev/shm has {node.shm_bytes / GIB:.1f} GiB, the object store wants "
            f"{node.object_store_bytes / GIB:.1f} GiB, so Ray puts it on the disk, which is slow",
            "make /dev/shm larger (docker run --shm-size), or give `ray start` a smaller --object-store-memory",
        )
    if not small:
        least = min((node.object_store_bytes for node in nodes), default=0)
        yield Finding(
            "shared memory", "ok", f"/dev/shm holds each node's object store (the least: {least / GIB:.1f} GiB)"
        )


def check_disk(nodes: Sequence[NodeFacts]) -> Iterator[Finding]:
    """Whether Ray can spill and log on each node."""
    full = [node for node in nodes if node.disk_free_share < DISK_SHARE or node.disk_free_bytes < DISK_BYTES]
    for node in full:
        stops = node.disk_free_share < DISK_SHARE
        yield Finding(
            "disk",
            "error" if stops else "warning",
            f"{node.host}: {node.disk_free_bytes / GIB:.1f} GiB ({node.disk_free_share:.0%}) free under Ray's folder"
            + ("; Ray refuses to spill objects there" if stops else ""),
            "delete old /tmp/ray/session_* there, or start Ray with --temp-dir on a larger disk",
        )
    if not full:
        least = min((node.disk_free_bytes for node in nodes), default=0)
        yield Finding("disk", "ok", f"at least {least / GIB:.0f} GiB free on {_count(nodes)}")


def check_open_files(nodes: Sequence[NodeFacts]) -> Iterator[Finding]:
    """Whether a node may open as many files as a large sweep's processes do."""
    low = [node for node in nodes if node.open_files < OPEN_FILES]
    for node in low:
        yield Finding(
            "open files",
            "warning",
            f"{node.host}: Ray's processes may open {node.open_files} files",
            "put `ulimit -n 65536` before `ray start`, as cluster.yaml does",
        )
    if not low:
        yield Finding("open files", "ok", f"at least {min((node.open_files for node in nodes), default=0):,} a process")


def _hosts_by_version(nodes: Sequence[NodeFacts], name: str) -> dict[str, list[str]]:
    hosts: dict[str, list[str]] = defaultdict(list)
    for node in nodes:
        hosts[node.versions.get(name, "") or "absent"].append(node.host)
    return dict(hosts)


def _count(nodes: Sequence[NodeFacts]) -> str:
    return f"{len(nodes)} node{'s' if len(nodes) != 1 else ''}"
