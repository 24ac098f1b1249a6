"""The ranks of one trial under Ray: each is an actor that runs the loop in Ray Train's local mode.

Rank 0 is the trial's own actor, which Tune put into the first bundle of the trial's placement group; its peers are
actors in the other bundles. They stay for the next trial of the same actor, as the slot does, and go with it. What ends
one rank ends all: peers that did not come to their end are killed, and made anew for the next attempt.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import ray
import torch.distributed as dist
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError
from ray.train import ScalingConfig
from ray.train.torch import TorchTrainer
from ray.util import get_node_ip_address
from ray.util.placement_group import PlacementGroup, get_current_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

Loop = Callable[[], None]

LOOPBACK = "127.0.0.1"
START_WITHIN_S = 300.0
"""Their bundles are there already, so this is the time to start Python and import torch on a busy machine."""
END_WITHIN_S = 30.0
"""Time for peers to end after rank 0 did."""
STUCK_AFTER_S = 120.0
"""Time for rank 0 to end after a peer failed; it may be at a commit."""
HEAR_WITHIN_S = 2.0
"""Time for the news of a peer's death, after rank 0 lost contact."""


def run_ranks(loop: Loop, peers_loop: Loop, workers: int) -> None:
    """Run a loop as rank 0 of `workers`, and `peers_loop` on the others; with one worker, run the loop here.

    Args:
        loop: of rank 0; what it raises is raised here.
        peers_loop: is pickled; takes part in all that `loop` does together with others.
        workers: how many ranks there are.

    Raises:
        RayActorError: a peer's process died.
        Exception: what a rank raised that did not merely lose contact with one that failed.
    """
    if workers == 1:
        return _fit(loop)
    peers, places = _peers_of_this_slot(workers)
    with _meeting_point(places) as variables:
        running = [peer.run.remote(peers_loop, of_it) for peer, of_it in zip(peers, variables[1:], strict=True)]
        watch = _Watch(running)
        try:
            with _variables(variables[0]):
                _fit(loop)
        except Exception as error:
            cause = watch.cause_of(error)
            _let_go()
            raise cause from (error if cause is not error else error.__cause__)
        finally:  # also where Tune pauses or stops the trial, with SystemExit
            watch.close()
            if not _have_ended_well(running):
                _let_go()
    return None


def _fit(loop: Loop) -> None:
    """Run a loop as this process's rank, in the process group that the environment speaks of, if it does."""
    try:
        TorchTrainer(loop, scaling_config=ScalingConfig(num_workers=0)).fit()
    finally:  # which Ray Train leaves behind where the loop raises
        if dist.is_initialized():
            dist.destroy_process_group()


# ---------------------------------------------------------------------------------------------------------
# The peers


@dataclass(frozen=True)
class Place:
    """Where a rank runs."""

    node: str
    address: str


class Peer:
    """An actor that is one of a trial's ranks, for one trial after the other."""

    def where(self) -> Place:
        """Return where it runs."""
        return _here()

    def run(self, loop: Loop, variables: Mapping[str, str]) -> None:
        """Run a loop as the rank that torchrun's `variables` say."""
        with _variables({**variables, **_interface(variables["MASTER_ADDR"])}):
            _fit(loop)


@dataclass(frozen=True)
class _Peers:
    group: PlacementGroup
    actors: list[Any]


_kept: _Peers | None = None


def _peers_of_this_slot(workers: int) -> tuple[list[Any], list[Place]]:
    """Return the peers in the current placement group and where they run; they are made if they are not there yet.

    Raises:
        RayActorError: one of them died meanwhile.
        GetTimeoutError: they did not start.
    """
    global _kept
    group = get_current_placement_group()
    assert group is not None
    if _kept is None or _kept.group.id != group.id or len(_kept.actors) != workers - 1:
        _let_go()
        _kept = _Peers(group, [_make_peer(group, index) for index in range(1, workers)])
    try:
        return _kept.actors, ray.get([actor.where.remote() for actor in _kept.actors], timeout=START_WITHIN_S)
    except Exception:
        _let_go()
        raise


def _make_peer(group: PlacementGroup, index: int) -> Any:
    """Start a peer that holds a bundle of the placement group."""
    bundle = group.bundle_specs[index]
    make: Any = ray.remote(Peer)
    return make.options(
        num_cpus=bundle.get("CPU", 0),
        num_gpus=bundle.get("GPU", 0),
        scheduling_strategy=PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index),
    ).remote()


def _let_go() -> None:
    """End the peers' processes; the next attempt makes new ones."""
    global _kept
    if _kept is not None:
        for actor in _kept.actors:
            ray.kill(actor)
    _kept = None


def _have_ended_well(running: Sequence[Any]) -> bool:
    """Wait for the peers to end their loop; return whether all did, without a fault."""
    try:
        ray.get(list(running), timeout=END_WITHIN_S)
    except (RayActorError, RayTaskError, GetTimeoutError):
        return False
    return True


class _Watch:
    """Looks after the peers while rank 0 is at work, in a thread of its own.

    Rank 0 may be waiting for a peer that failed, for as long as the other is there: so all peers are ended then, which
    closes their connections. Where that wakes nobody (a GPU waits for another), this process is ended as well.
    """

    def __init__(self, running: Sequence[Any]) -> None:
        self._running = list(running)
        self._failed: list[BaseException] = []
        self._heard, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._look, name="raysweep-peers", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Rank 0 is done."""
        self._over.set()
        self._thread.join()

    def cause_of(self, error: Exception) -> BaseException:
        """Return why rank 0 raised `error`: that, or what befell a peer."""
        if not is_lost_contact(error):
            return error
        self._heard.wait(HEAR_WITHIN_S)
        return next((each for each in self._failed if not is_lost_contact(each)), error)

    def _look(self) -> None:
        left = self._running
        while left and not self._over.is_set():
            done, left = ray.wait(left, timeout=0.2)
            for reference in done:
                if failure := _failure(reference):
                    self._failed.append(failure)
            if self._failed and not self._heard.is_set():
                self._failed += [failure for each in left if (failure := _failure(each, timeout=0.0))]
                self._heard.set()
                _let_go()
                if not self._over.wait(STUCK_AFTER_S):
                    print(f"raysweep: rank 0 waits for a peer that failed: {self._failed[0]}", file=sys.stderr)
                    os._exit(1)


def _failure(reference: Any, timeout: float | None = None) -> BaseException | None:
    try:
        ray.get(reference, timeout=timeout)
    except RayTaskError as error:
        cause: BaseException = error.cause
        return cause
    except GetTimeoutError:
        return None
    except RayActorError as error:
        return error
    return None


def is_lost_contact(error: BaseException) -> bool:
    """Whether a rank failed because another was gone. gloo has no exception of its own."""
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


# ---------------------------------------------------------------------------------------------------------
# How they find each other


@contextlib.contextmanager
def _meeting_point(peers: Sequence[Place]) -> Iterator[list[dict[str, str]]]:
    """Serve the store that the ranks meet at, as torchrun does for its ranks; yields each rank's variables.

    The port is chosen by the kernel and never let go of in between, so no two trials get the same. Ranks on one node
    meet on its loopback.
    """
    here = _here()
    address = LOOPBACK if all(place.node == here.node for place in peers) else here.address
    listener = socket.create_server((address, 0))
    port = listener.getsockname()[1]
    workers = len(peers) + 1
    store = dist.TCPStore(  # type: ignore[attr-defined]
        address,
        port,
        is_master=True,
        wait_for_workers=False,
        timeout=timedelta(seconds=START_WITHIN_S),
        master_listen_fd=listener.detach(),
    )
    common = {
        "WORLD_SIZE": str(workers),
        "LOCAL_RANK": "0",  # Ray shows each actor its own GPUs
        "LOCAL_WORLD_SIZE": "1",
        "MASTER_ADDR": address,
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # rank 0 shall not serve one of its own
        "TORCHELASTIC_RESTART_COUNT": "0",
    }
    try:
        yield [{**common, **(_interface(address) if rank == 0 else {}), "RANK": str(rank)} for rank in range(workers)]
    finally:
        del store


def _here() -> Place:
    return Place(ray.get_runtime_context().get_node_id(), _own_address())


def _own_address() -> str:
    address: str = get_node_ip_address()  # type: ignore[no-untyped-call]
    return address


def _interface(meeting_address: str) -> dict[str, str]:
    """The network interface that this rank's connections go through, where the user has not chosen one.

    Left to itself, gloo takes the one that the host's name resolves to, which on Debian is no other host's to reach.
    """
    name = _interface_of(LOOPBACK if meeting_address == LOOPBACK else _own_address())
    if name is None:
        return {}
    chosen = {"GLOO_SOCKET_IFNAME": name}
    if meeting_address == LOOPBACK:  # elsewhere NCCL knows better
        chosen["NCCL_SOCKET_IFNAME"] = name
    return {key: os.environ.get(key, value) for key, value in chosen.items()}


def _interface_of(address: str) -> str | None:
    """Return the name of the interface that has an IPv4 address (Linux; None elsewhere)."""
    get_address = 0x8915  # SIOCGIFADDR
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(probe, get_address, struct.pack("256s", name.encode()[:15]))
            except OSError:  # it has none
                continue
            if socket.inet_ntoa(answer[20:24]) == address:
                return name
    return None


@contextlib.contextmanager
def _variables(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables inside the block, and put them back after."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
