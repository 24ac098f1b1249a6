"""Notices that a node is to go away: EC2's, which the node itself has to ask for, and Ray's drains.

A thread in each trial's process looks every few seconds, so that the loop has only to compare two times. Where EC2 says
when it takes the node, the thread has Ray drain it: then nothing new starts there, and rank 0 of a trial of several
nodes hears of it too.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import time
from collections.abc import Collection
from datetime import datetime
from pathlib import Path

import ray
import requests
from ray._private import state
from ray._raylet import GcsClient  # type: ignore[attr-defined]
from ray.core.generated.autoscaler_pb2 import DRAIN_NODE_REASON_PREEMPTION  # type: ignore[attr-defined]
from ray.exceptions import RayError

LOOK_EVERY_S = 5.0
"""As AWS advises; a spot instance has two minutes left."""
ANSWERS_WITHIN_S = 2.0
EC2 = "http://169.254.169.254"
DMI = Path("/sys/class/dmi/id")


class Notices:
    """Watches the nodes of a trial, one of which is this, in a thread of its own."""

    def __init__(self, nodes: Collection[str]) -> None:
        self._nodes = nodes
        self._instance = here()
        self._is_drained_by_us = False
        self.since: float | None = None
        """When a notice was first seen, on the monotonic clock; None while no node is to go away."""

    def start(self) -> Notices:
        """Look from now on."""
        threading.Thread(target=self._watch, name="raysweep-notices", daemon=True).start()
        return self

    def _watch(self) -> None:
        while True:
            self.look()
            time.sleep(LOOK_EVERY_S)

    def look(self) -> None:
        """Bring `since` up to date."""
        if not (self._is_noticed_by_ec2() or self._is_drained()):
            self.since = None
        elif self.since is None:
            self.since = time.monotonic()

    def _is_noticed_by_ec2(self) -> bool:
        if self._instance is None:
            return False
        try:
            at = self._instance.ends_at()
            if at is not None and not self._is_drained_by_us:
                self._drain_here(at)
            return at is not None or self._instance.may_end()
        except (requests.RequestException, KeyError, TypeError, ValueError):  # no answer, or none that says anything
            return False

    def _drain_here(self, at: datetime) -> None:
        with contextlib.suppress(RayError):
            drain(at)
            self._is_drained_by_us = True

    def _is_drained(self) -> bool:
        return any(node in self._nodes for node in drained_nodes())


@functools.lru_cache(maxsize=1)
def watch(nodes: tuple[str, ...]) -> Notices:
    """Return what watches these nodes: a process's trials, one after the other, have the same ones."""
    return Notices(nodes).start()


def drained_nodes() -> list[str]:
    """Return the ids of the nodes on which Ray starts nothing new, since they are to go away; none if it is away."""
    with contextlib.suppress(RayError):
        return list(state.state.get_draining_nodes())
    return []


def drain(deadline: datetime) -> None:
    """Ask Ray to start nothing new on this node, which is to end then; what runs there goes on."""
    context = ray.get_runtime_context()
    GcsClient(address=context.gcs_address).drain_node(
        context.get_node_id(),
        DRAIN_NODE_REASON_PREEMPTION,
        "EC2 has announced that it takes this instance",
        int(deadline.timestamp() * 1000),
    )


# ---------------------------------------------------------------------------------------------------------
# EC2


def here() -> Instance | None:
    """Return this EC2 instance; None elsewhere, or where AWS's own variable forbids to ask.

    `AWS_EC2_METADATA_SERVICE_ENDPOINT` says where the metadata are asked for, as it does to AWS's libraries.
    """
    if os.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
        return None
    endpoint = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or (EC2 if _is_ec2() else None)
    return Instance(endpoint.rstrip("/")) if endpoint else None


def _is_ec2() -> bool:
    """Whether the firmware is EC2's: Nitro's, or that of its Xen."""
    return "Amazon EC2" in _firmware("sys_vendor") or "amazon" in _firmware("bios_version")


def _firmware(name: str) -> str:
    try:
        return (DMI / name).read_text()
    except OSError:
        return ""


class Instance:
    """What EC2 tells an instance about itself (IMDSv2)."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._session = requests.Session()
        self._session.trust_env = False  # no proxy knows the address

    def ends_at(self) -> datetime | None:
        """Return when a spot instance will be taken; None unless that is decided."""
        found = self._get("spot/instance-action")
        return datetime.fromisoformat(found.json()["time"]) if found is not None else None

    def may_end(self) -> bool:
        """Whether EC2 expects to take the instance, and advises to move."""
        return self._get("events/recommendations/rebalance") is not None

    def _get(self, path: str) -> requests.Response | None:
        """Return a document; None if there is none. A token that is missing or too old is asked for anew."""
        url = f"{self._endpoint}/latest/meta-data/{path}"
        found = self._session.get(url, timeout=ANSWERS_WITHIN_S)
        if found.status_code == requests.codes.unauthorized:
            self._renew_token()
            found = self._session.get(url, timeout=ANSWERS_WITHIN_S)
        if found.status_code == requests.codes.not_found:
            return None
        found.raise_for_status()
        return found

    def _renew_token(self) -> None:
        lasting = {"X-aws-ec2-metadata-token-ttl-seconds": "21600"}
        found = self._session.put(f"{self._endpoint}/latest/api/token", headers=lasting, timeout=ANSWERS_WITHIN_S)
        found.raise_for_status()
        self._session.headers["X-aws-ec2-metadata-token"] = found.text
