"""The cluster: connecting to it, and the slot each trial gets there."""

from __future__ import annotations

import logging
import math
import os
from dataclasses import dataclass
from typing import Any

import ray

from raysweep.errors import ClusterError
from raysweep.sweepfile.schema import Resources


@dataclass(frozen=True)
class Slot:
    """What one trial holds while it runs."""

    workers: int
    gpus: float
    cpus: float
    """Of each worker."""

    @property
    def bundle(self) -> dict[str, float]:
        """One worker's resources, as Ray names them."""
        return {"CPU": self.cpus, **({"GPU": self.gpus} if self.gpus else {})}

    @property
    def threads(self) -> int:
        """CPU threads of one worker's loop."""
        return max(1, math.floor(self.cpus))


def connect(address: str | None) -> None:
    """Connect to the cluster at `address` or $RAY_ADDRESS, or start one on this machine.

    Raises:
        ClusterError: there is none at that address.
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if ray.is_initialized():
        return
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, configure_logging=True)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ClusterError(f"--address {address}: cannot connect to a Ray cluster there: {error}") from error


def find_slot(resources: Resources) -> Slot:
    """Work out a trial's slot on the cluster we are connected to.

    Raises:
        ClusterError: no node has, or the whole cluster has not, what one trial asks for.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    slot = _resolve(resources, nodes)
    on_node = [min((math.floor(node.get(name, 0) / need) for name, need in slot.bundle.items())) for node in nodes]
    if not any(on_node):
        raise ClusterError(
            f"resources: a worker asks for {_words(slot.bundle)}, more than any node has; "
            f"the cluster has {_cluster_words(nodes)}"
        )
    if sum(on_node) < slot.workers:
        raise ClusterError(
            f"resources: a trial asks for {slot.workers} workers of {_words(slot.bundle)} each, more than the whole "
            f"cluster has: {_cluster_words(nodes)}"
        )
    return slot


def _resolve(resources: Resources, nodes: list[dict[str, float]]) -> Slot:
    with_gpus = [node for node in nodes if node.get("GPU", 0) > 0]
    gpus = (1.0 if with_gpus else 0.0) if resources.gpus == "auto" else float(resources.gpus)
    if resources.cpus != "auto":
        return Slot(resources.workers, gpus, float(resources.cpus))
    shares = [node.get("CPU", 0) * gpus / node["GPU"] for node in with_gpus] if gpus else []
    return Slot(resources.workers, gpus, float(max(1, math.floor(min(shares)))) if shares else 1.0)


def _words(bundle: dict[str, float]) -> str:
    return " and ".join(f"{count:g} {name}{'s' if count != 1 else ''}" for name, count in bundle.items())


def _cluster_words(nodes: list[dict[str, float]]) -> str:
    return "; ".join(_words({name: node.get(name, 0) for name in ("CPU", "GPU")}) for node in nodes) or "no nodes"


def dashboard_url() -> str | None:
    """Where the Ray dashboard answers, if it runs."""
    url: Any = ray.get_runtime_context().worker.node.webui_url if ray.is_initialized() else None
    return f"http://{url}" if url else None
