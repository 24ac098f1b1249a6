"""The ranks of a trial where one fails and the others wait in a collective as NCCL's do: until their own process aborts
it, whatever becomes of the others. On a real Ray, with a stand-in for NCCL."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from raysweep.worker import ranks

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(400)]


def like_nccl() -> Any:
    """A process group whose collectives never end, nor its own end as long as one of them lasts.

    An abort ends them, as if all were well: what they leave is garbage. After it, they raise.
    """
    import threading

    import torch
    import torch.distributed as dist

    class Group(dist.ProcessGroup):
        def __init__(self, rank: int, size: int) -> None:
            super().__init__(rank, size)
            self.aborted, self.busy = threading.Event(), False

        def getBackendName(self) -> str:
            return "like_nccl"

        def allreduce(self, tensors: Any, options: Any = None) -> Any:
            if self.aborted.is_set():
                raise dist.DistBackendError("the communicator was aborted")
            self.busy = True
            self.aborted.wait()
            done: torch.futures.Future[Any] = torch.futures.Future()
            done.set_result(tensors)
            return torch._C._distributed_c10d._create_work_from_future(done)

        def abort(self) -> None:
            self.aborted.set()

        def shutdown(self) -> None:
            if self.busy:
                self.aborted.wait()

    def make(store: Any, rank: int, size: int, timeout: Any) -> Group:
        return Group(rank, size)

    if not hasattr(dist.Backend, "LIKE_NCCL"):
        dist.Backend.register_backend("like_nccl", make, devices=["cpu"])
    return dist.new_group(backend="like_nccl")


def wait_for_the_others() -> None:
    import torch
    import torch.distributed as dist

    group = like_nccl()
    dist.all_reduce(torch.ones(1), group=group)
    dist.all_reduce(torch.ones(1), group=group)


def raise_at_once() -> None:
    like_nccl()
    raise ArithmeticError("raised on purpose")


def raise_soon() -> None:
    """Raise once the first rank is deep in its loop: before that, it would be woken."""
    like_nccl()
    time.sleep(3)
    raise ArithmeticError("raised on purpose")


def raise_while_busy() -> None:
    """As a network that runs out of memory while gradients are on their way."""
    import threading

    import torch
    import torch.distributed as dist

    group = like_nccl()
    threading.Thread(target=lambda: dist.all_reduce(torch.ones(1), group=group), daemon=True).start()
    time.sleep(0.5)
    raise ArithmeticError("raised on purpose")


def hear_nothing() -> None:
    import contextlib

    with contextlib.suppress(Exception):  # the peer may be gone already
        like_nccl()
    time.sleep(300)


def mark() -> None:
    os.environ["MARK"] = "made before the ranks met"


def tell_mark() -> None:
    raise ArithmeticError(os.environ.get("MARK"))


class FirstRank:
    """Tune's actor."""

    def run(self, loop: Callable[[], None], peers_loop: Callable[[], None], noted: str, stuck_after_s: float) -> Any:
        """Return what `run_ranks` raised, and after how many seconds."""

        def note(error: BaseException) -> None:
            Path(noted).write_text(repr(error))

        ranks.STUCK_AFTER_S = stuck_after_s
        began = time.monotonic()
        try:
            ranks.run_ranks(loop, peers_loop, 2, note, "sweep", "trial")
        except Exception as error:
            return repr(error), time.monotonic() - began
        return "", time.monotonic() - began

    def ready(self, get_ready: Callable[[], None], stops: bool) -> tuple[str, int]:
        """Return what `ready_peers` raised, and how many peers are kept."""

        def wait(calling: Any) -> None:
            if stops:
                raise InterruptedError
            ray.wait([calling])

        raised = ""
        try:
            ranks.ready_peers(get_ready, 2, wait, "sweep", "trial")
        except Exception as error:
            raised = repr(error)
        return raised, sum(map(len, ranks._kept.values()))

    def ping(self) -> int:
        return os.getpid()


@pytest.fixture(scope="module")
def _connected(cluster: str) -> Iterator[None]:
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    ray.init(address=cluster, logging_level="ERROR", log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture
def first_rank(_connected: None) -> Iterator[Any]:
    """An actor in the first bundle of a slot of two."""
    group = ray.util.placement_group([{"CPU": 1}] * 2)
    where = PlacementGroupSchedulingStrategy(
        group, placement_group_bundle_index=0, placement_group_capture_child_tasks=True
    )
    actor: Any = ray.remote(FirstRank).options(num_cpus=1, scheduling_strategy=where).remote()
    yield actor
    ray.util.remove_placement_group(group)


def test_what_a_peer_raised_is_told_though_the_gpus_wait_for_each_other(first_rank: Any, tmp_path: Path) -> None:
    raised, seconds = ray.get(
        first_rank.run.remote(wait_for_the_others, raise_at_once, str(tmp_path / "noted"), 60), timeout=200
    )
    assert raised == "ArithmeticError('raised on purpose')"
    assert seconds < 60
    again, _ = ray.get(first_rank.run.remote(raise_while_busy, wait_for_the_others, "", 60), timeout=200)
    assert again == "ArithmeticError('raised on purpose')", "rank 0's own, in the same process"
    assert not (tmp_path / "noted").exists()


def test_a_process_that_nothing_wakes_notes_what_the_peer_raised_before_it_ends(
    first_rank: Any, tmp_path: Path
) -> None:
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(first_rank.run.remote(hear_nothing, raise_soon, str(tmp_path / "noted"), 1), timeout=200)
    assert (tmp_path / "noted").read_text() == "ArithmeticError('raised on purpose')"


def test_peers_get_ready_before_they_meet_and_end_with_what_one_raised_or_where_the_wait_ends(
    first_rank: Any, tmp_path: Path
) -> None:
    assert ray.get(first_rank.ready.remote(mark, False), timeout=200) == ("", 1)
    raised, _ = ray.get(first_rank.run.remote(wait_for_the_others, tell_mark, str(tmp_path / "noted"), 60), timeout=200)
    assert raised == "ArithmeticError('made before the ranks met')", "it is the same process"
    assert ray.get(first_rank.ready.remote(tell_mark, False), timeout=200) == ("ArithmeticError(None)", 0)
    assert ray.get(first_rank.ready.remote(mark, True), timeout=200) == ("InterruptedError()", 0)
