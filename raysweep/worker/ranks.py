"""The ranks of one trial under Ray: each is an actor that runs the loop in Ray Train's local mode.

Rank 0 is the trial's own actor, which Tune put into the first bundle of the trial's placement group; its peers are
actors in the other bundles. They stay for the next trial of the same actor, as the slot does, and go with it. What ends
one rank ends all: peers that did not finish are killed, and made anew for the next attempt.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

import psutil
import ray
import torch.distributed as dist
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError
from ray.train import ScalingConfig
from ray.train.torch import TorchTrainer
from ray.util import get_node_ip_address
from ray.util.placement_group import PlacementGroup, get_current_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from raysweep.worker.naming import called, name_of

Loop = Callable[[], None]

LOOPBACK = "127.0.0.1"
START_WITHIN_S = 300.0
"""How long peers may take to start. They have their bundles, but have to import torch, maybe on a busy machine."""
END_WITHIN_S = 30.0
"""How long peers may take to end after rank 0 did."""
STUCK_AFTER_S = 120.0
"""How long rank 0 may take to end after a peer failed; it may be at a commit."""
HEAR_WITHIN_S = 2.0
"""How long the news of a peer's death may take, after rank 0 lost contact."""


def run_ranks(
    loop: Loop, peers_loop: Loop, workers: int, note: Callable[[BaseException], None], sweep: str, trial: str
) -> None:
    """Run a loop as rank 0 of `workers`, and `peers_loop`, which is pickled, on the others.

    `note` is told why this process is about to be ended, where nothing else brings rank 0 out of its wait for a peer.
    The dashboard calls the peers after the sweep, and what they do after the trial.

    Raises:
        RayActorError: a peer's process died.
        Exception: what a rank raised that did not merely lose contact with one that failed.
    """
    if workers == 1:
        return _fit(loop)
    peers, places = _peers_of_this_slot(workers, sweep)
    with _meeting_point(places) as variables:
        runs = [peer.run.options(name=f"{name_of(sweep, trial)} (rank {n})") for n, peer in enumerate(peers, 1)]
        running = [run.remote(peers_loop, of_it) for run, of_it in zip(runs, variables[1:], strict=True)]
        watch = _Watch(running, note)
        try:
            _fit_as(variables[0], loop)
        except Exception as error:
            cause = watch.cause_of(error)
            _let_go()
            raise cause from (error if cause is not error else error.__cause__)
        finally:  # also where Tune pauses or stops the trial, with SystemExit
            watch.close()
            if not _have_ended_well(running):
                _let_go()
    return None


def ready_peers(get_ready: Loop, workers: int, wait: Callable[[Any], None], sweep: str, trial: str) -> None:
    """Have the peers that `run_ranks` will use for these `workers` call a function, which is pickled, beforehand.

    Given a reference, `wait` returns once the call has ended; if it raises, the peers are ended.

    Raises:
        RayActorError: a peer's process died.
        Exception: what a peer raised.
    """
    if workers == 1:
        return
    peers, _ = _peers_of_this_slot(workers, sweep)
    calls = [peer.call.options(name=f"{name_of(sweep, trial)} (rank {n})") for n, peer in enumerate(peers, 1)]
    try:
        for calling in [call.remote(get_ready) for call in calls]:
            wait(calling)
            if failure := _failure(calling):
                raise failure
    except BaseException:
        _let_go()
        raise


def _fit(loop: Loop) -> None:
    """Run a loop as this process's rank, in the process group that the environment speaks of, if it does."""
    try:
        TorchTrainer(loop, scaling_config=ScalingConfig(num_workers=0)).fit()
    except Exception:
        abort()
        raise
    finally:  # Ray Train leaves the group behind where the loop raises
        if dist.is_initialized():
            dist.destroy_process_group()


def abort() -> None:
    """Give up this process's groups, if there are any, without waiting for the other ranks as their end would.

    Two threads may call it at once.
    """
    with _aborting:
        if dist.is_initialized():
            dist.distributed_c10d._abort_process_group()


_aborting = threading.Lock()


def _fit_as(variables: Mapping[str, str], loop: Loop) -> None:
    """Run a loop as the rank that torchrun's `variables` say; the environment is put back after."""
    variables = {**variables, **_interface(variables["MASTER_ADDR"])}
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        _fit(loop)
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


# ---------------------------------------------------------------------------------------------------------
# The peers


class Place(NamedTuple):
    """The place in which a rank runs."""

    node: str
    address: str


class Peer:
    """An actor that is one of a trial's ranks, for one trial after the other."""

    def where(self) -> Place:
        """Return where it runs."""
        return _here()

    def call(self, function: Loop) -> None:
        """Call a function, outside of any process group."""
        function()

    def run(self, loop: Loop, variables: Mapping[str, str]) -> None:
        """Run a loop as the rank that torchrun's `variables` say."""
        _fit_as(variables, loop)


_kept: dict[Any, list[Any]] = {}
"""This process's peers by the id of the placement group that they are in, which is one at most."""


def _peers_of_this_slot(workers: int, sweep: str) -> tuple[list[Any], list[Place]]:
    """Return the peers in the current placement group and where they run; they are made if they are not there yet.

    Raises:
        RayActorError: one of them died meanwhile.
        GetTimeoutError: they did not start.
    """
    group = get_current_placement_group()
    assert group is not None
    if len(_kept.get(group.id, ())) != workers - 1:
        _let_go()
        _kept[group.id] = [_make_peer(group, index, sweep) for index in range(1, workers)]
    actors = _kept[group.id]
    try:
        return actors, ray.get([actor.where.remote() for actor in actors], timeout=START_WITHIN_S)
    except Exception:
        _let_go()
        raise


def _make_peer(group: PlacementGroup, index: int, sweep: str) -> Any:
    """Start a peer that holds a bundle of the placement group."""
    bundle = group.bundle_specs[index]
    make: Any = ray.remote(called(Peer, f"{name_of(sweep)} (rank {index})"))
    return make.options(
        num_cpus=bundle.get("CPU", 0),
        num_gpus=bundle.get("GPU", 0),
        scheduling_strategy=PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index),
    ).remote()


def _let_go() -> None:
    """End the peers' processes; the next attempt makes new ones. Two threads may call it at once."""
    for group_id in list(_kept):
        for actor in _kept.pop(group_id, []):
            ray.kill(actor)


def _have_ended_well(running: list[Any]) -> bool:
    """Wait for the peers to end their loop; return whether all did, without a fault."""
    try:
        ray.get(running, timeout=END_WITHIN_S)
    except (RayActorError, RayTaskError, GetTimeoutError):
        return False
    return True


class _Watch:
    """Watches the peers in a thread of its own while rank 0 is at work.

    Rank 0 may wait for a peer that failed. On a GPU it does so until its own process aborts the groups; over gloo for
    as long as another peer is there. So the groups are aborted then, and all peers ended. Aborted first, a group does
    not see its peers die: NCCL ends a process that does. Where all that wakes nobody, this process is ended as well.
    """

    def __init__(self, running: list[Any], note: Callable[[BaseException], None]) -> None:
        self._running, self._note = running, note
        self._failed: list[BaseException] = []
        self._heard, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._look, name="raysweep-peers", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the watch, since rank 0 is done."""
        self._over.set()
        self._thread.join()

    def cause_of(self, error: Exception) -> BaseException:
        """Return why rank 0 raised `error`: that, or what befell a peer, after which all sorts of errors follow."""
        if is_lost_contact(error):
            self._heard.wait(HEAR_WITHIN_S)
        return self._first_cause() or error

    def _first_cause(self) -> BaseException | None:
        return next((each for each in self._failed if not is_lost_contact(each)), None)

    def _look(self) -> None:
        left = self._running
        while left and not self._over.is_set():
            done, left = ray.wait(left, timeout=0.2)
            self._failed += [failure for each in done if (failure := _failure(each))]
            if self._failed and not self._heard.is_set():
                self._failed += [failure for each in left if (failure := _failure(each, timeout=0.0))]
                self._heard.set()
                abort()
                _let_go()
                if not self._over.wait(STUCK_AFTER_S):
                    self._note(self._first_cause() or self._failed[0])
                    os._exit(1)


def _failure(reference: Any, timeout: float | None = None) -> BaseException | None:
    """Return what ended a peer's loop; None if it ended well, or goes on."""
    try:
        ray.get(reference, timeout=timeout)
    except RayTaskError as error:
        cause: BaseException = error.cause
        return cause
    except RayActorError as error:
        return error
    except GetTimeoutError:
        pass
    return None


def is_lost_contact(error: BaseException) -> bool:
    """Whether a rank failed because another was gone. gloo has no exception of its own."""
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


# ---------------------------------------------------------------------------------------------------------
# How they find each other


@contextlib.contextmanager
def _meeting_point(peers: Sequence[Place]) -> Iterator[list[dict[str, str]]]:
    """Serve the store that the ranks meet at, as torchrun does for its ranks; yield each rank's variables.

    The kernel chooses the port, and the socket that it was chosen for becomes the store's, so no two trials get the
    same. Ranks on one node meet on its loopback.
    """
    here = _here()
    address = LOOPBACK if all(place.node == here.node for place in peers) else here.address
    listener = socket.create_server((address, 0))
    port = listener.getsockname()[1]
    store = dist.TCPStore(  # type: ignore[attr-defined]
        address,
        port,
        is_master=True,
        wait_for_workers=False,
        timeout=timedelta(seconds=START_WITHIN_S),
        master_listen_fd=listener.detach(),
    )
    try:
        yield _torchrun_variables(len(peers) + 1, address, port)
    finally:
        del store


def _torchrun_variables(workers: int, address: str, port: int) -> list[dict[str, str]]:
    common = {
        "WORLD_SIZE": str(workers),
        "LOCAL_RANK": "0",  # Ray shows each actor its own GPUs
        "LOCAL_WORLD_SIZE": "1",
        "MASTER_ADDR": address,
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # rank 0 shall not serve one of its own
        "TORCHELASTIC_RESTART_COUNT": "0",
    }
    return [{**common, "RANK": str(rank)} for rank in range(workers)]


def _here() -> Place:
    return Place(ray.get_runtime_context().get_node_id(), get_node_ip_address())  # type: ignore[no-untyped-call]


def _interface(meeting_address: str) -> dict[str, str]:
    """The network interface that this rank's connections go through, where the user has not chosen one.

    Left to itself, gloo takes the one that the host's name resolves to, which on Debian no other host can reach.
    """
    on_loopback = meeting_address == LOOPBACK
    own = LOOPBACK if on_loopback else _here().address
    name = next((name for name, held in psutil.net_if_addrs().items() if own in [each.address for each in held]), None)
    if name is None:
        return {}
    variables = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME") if on_loopback else ("GLOO_SOCKET_IFNAME",)
    return {key: os.environ.get(key, name) for key in variables}  # between nodes NCCL chooses better
