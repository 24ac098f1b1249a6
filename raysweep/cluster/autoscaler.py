"""What Ray's autoscaler may add to the cluster: the node types and hosts of the `cluster.yaml` that it was given.

No API returns that file, but the autoscaler's process on the head has its path among its arguments.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from ruamel.yaml import YAML

HEAD = "node:__internal_head__"
"""A resource that Ray gives to the head alone."""
OPTION = "--autoscaling-config="


@dataclass(frozen=True)
class NodeType:
    """A kind of node that the autoscaler may launch."""

    name: str
    resources: Mapping[str, float]  # resources by Ray's names; empty on-premise, where only the node itself knows them
    min_workers: int
    max_workers: int


@dataclass(frozen=True)
class Autoscaler:
    """The workers that the cluster may have beside its head; a cluster without an autoscaler adds none."""

    node_types: tuple[NodeType, ...] = ()
    hosts: tuple[str, ...] = ()  # addresses of an on-premise cluster's workers
    max_workers: int = 0

    @property
    def min_workers(self) -> int:
        """How many workers the cluster is meant to have at all times."""
        return sum(node_type.min_workers for node_type in self.node_types)

    @property
    def gpu_types(self) -> tuple[str, ...]:
        """The names of the node types that have GPUs."""
        return tuple(each.name for each in self.node_types if each.resources.get("GPU") and each.max_workers)

    def missing(self, alive: Iterable[str]) -> str:
        """Return, in words, the workers that should have joined but are not among the live addresses; empty if none."""
        alive = set(alive)
        absent = [host for host in self.hosts if host not in alive]
        if absent and len(self.hosts) - len(absent) < self.min_workers:
            return f"{', '.join(absent)} of {len(self.hosts)} hosts"
        lacking = self.min_workers - (len(alive) - 1)
        return f"{lacking} of {self.min_workers} workers" if not self.hosts and lacking > 0 else ""


def alive_nodes() -> list[dict[str, Any]]:
    """Return the live nodes of the connected cluster, as Ray describes them."""
    return [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


NO_AUTOSCALER = Autoscaler()


def read_autoscaler() -> Autoscaler:
    """Return what the autoscaler of the connected cluster may add."""
    gcs = ray.get_runtime_context().gcs_address
    head = next((node["NodeID"] for node in alive_nodes() if HEAD in node["Resources"]), None)
    if head is None:
        return NO_AUTOSCALER
    if head == ray.get_runtime_context().get_node_id():
        config = find_config(gcs)
    else:
        find: Any = ray.remote(num_cpus=0)(find_config)
        on_head = NodeAffinitySchedulingStrategy(head, soft=False)
        config = ray.get(find.options(scheduling_strategy=on_head).remote(gcs))
    return parse_autoscaler(config) if config else NO_AUTOSCALER


def find_config(gcs_address: str) -> dict[str, Any] | None:
    """Return the completed `cluster.yaml` of the autoscaler of the cluster at host:port, if it runs on this machine."""
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        given = [word.removeprefix(OPTION) for word in words if word.startswith(OPTION)]
        if given and f"--gcs-address={gcs_address}" in words:
            config: dict[str, Any] = YAML(typ="safe").load(Path(given[0]).expanduser())
            return config
    return None


def parse_autoscaler(config: Mapping[str, Any]) -> Autoscaler:
    """Turn a completed `cluster.yaml` into what it allows."""
    head = config.get("head_node_type")
    hosts = tuple(config.get("provider", {}).get("worker_ips", ()))
    limit = int(config.get("max_workers", len(hosts)))
    types = tuple(
        NodeType(
            name,
            {resource: float(count) for resource, count in (node_type.get("resources") or {}).items()},
            int(node_type.get("min_workers", 0)),
            min(limit, int(node_type.get("max_workers", limit))),
        )
        for name, node_type in config.get("available_node_types", {}).items()
        if name != head or hosts  # on-premise, head and workers are of one type
    )
    return Autoscaler(types, hosts, limit)
