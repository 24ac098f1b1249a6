"""
The processes (ranks) that train one trial together, on torch.distributed. No Ray.

* Group    this process among them: its part of a batch, sums over all, what rank 0 decides
* Pace     how often rank 0 is asked whether to go on
* Sharded  a network as DistributedDataParallel sees it: a rank without images in a step takes part all the same

Outside of a process group a `Group` is this process alone, and each of its methods does nothing at no cost.
"""

from __future__ import annotations

import copy
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from raysweep.errors import Diverged, Interrupted

T = TypeVar("T")
Network = Callable[[torch.Tensor], torch.Tensor]

TOLD_TO_ALL = (Diverged, Interrupted)
"""What all ranks raise at the same place."""
STEP_TIMEOUT = timedelta(minutes=15)
"""Longest wait for the others in a step. A rank that dies is noticed at once, by its closed connections; this is for
one that hangs."""
DECISION_TIMEOUT = timedelta(hours=2)
"""Longest wait for rank 0 before a step or an epoch, where it commits, perhaps to a store that is away for a while."""


class Group:
    """The ranks of the process group that the caller has made, or this process alone.

    Everything here is collective: all ranks call it, in the same order.
    """

    def __init__(self) -> None:
        together = dist.is_available() and dist.is_initialized()
        self.rank: int = dist.get_rank() if together else 0
        self.size: int = dist.get_world_size() if together else 1
        self.data: Any = None
        self._control: Any = None
        if self.size > 1:
            # Groups of its own: two time-outs, and decisions on the CPU, for which no GPU has to wait.
            self.data = dist.new_group(timeout=STEP_TIMEOUT)
            self._control = dist.new_group(timeout=DECISION_TIMEOUT, backend="gloo")

    def __enter__(self) -> Group:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Let go of the connections; the caller's process group stays."""
        if isinstance(error, Exception) and not isinstance(error, TOLD_TO_ALL):
            self.abort()
        for group in (self.data, self._control):
            if group is not None and dist.is_initialized():
                dist.destroy_process_group(group)
        self.data = self._control = None

    def abort(self) -> None:
        """Give up what the ranks have begun together, and wait for none of them.

        A GPU that waits for another in one of NCCL's kernels does so until its own process aborts it, whatever becomes
        of the other's; and all that waits for the GPU waits as well, freeing memory included.
        """
        with suppress(ValueError):  # another thread has aborted all groups
            for group in (self.data, self._control):
                if group is not None and dist.is_initialized():
                    dist.distributed_c10d._abort_process_group(group)
        self.data = self._control = None

    @contextmanager
    def aborted_by_errors(self) -> Iterator[None]:
        """Abort at once where the block raises what the other ranks do not raise as well."""
        try:
            yield
        except TOLD_TO_ALL:
            raise
        except Exception:
            self.abort()
            raise

    # -- who computes what

    def part(self, count: int) -> slice:
        """Return this rank's rows of a training batch of `count` images; they may be none.

        No rank gets a single image of several: batch norm cannot train on one where a stage is 1x1.
        """
        busy = self._busy(count)
        first, end = (min(rank, busy) * count // busy for rank in (self.rank, self.rank + 1))
        return slice(first, end)

    def smallest_part(self, count: int) -> int:
        """Return the fewest images that a rank with any gets of a training batch of `count`."""
        return count // self._busy(count)

    def parts(self, count: int, wanted: int) -> list[slice]:
        """Return this rank's rows of a training batch in parts: as many on every rank, at most `wanted`.

        There are fewer where one would have a single image. Ranks without rows have empty parts: batch norms that look
        at all ranks wait in each part for those of the others.
        """
        rows = self.part(count)
        parts = min(wanted, max(1, self.smallest_part(count) // 2))
        bounds = [rows.start + part * (rows.stop - rows.start) // parts for part in range(parts + 1)]
        return [slice(first, end) for first, end in itertools.pairwise(bounds)]

    def _busy(self, count: int) -> int:
        return min(self.size, max(1, count // 2))

    def share(self, count: int) -> slice:
        """Return this rank's rows of `count` images to evaluate; they may be none."""
        return slice(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    # -- what all know

    def sum_(self, values: torch.Tensor) -> torch.Tensor:
        """Replace `values` by their sum over the ranks, and return them."""
        if self.size > 1:
            dist.all_reduce(values, group=self.data)
        return values

    def average_buffers(self, model: nn.Module) -> None:
        """Set the batch norms' running statistics to their mean over the ranks, on all of them.

        They follow the batches linearly, and EMA weights follow them linearly: one average an epoch gives the same
        numbers as one after each step. What is the same on all ranks, as the statistics of a frozen batch norm are,
        stays so to the bit: in double precision the sum of equal floats is exact.
        """
        if self.size == 1:
            return
        with torch.no_grad():
            real = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
            if real:
                flat = self.sum_(torch.cat([buffer.double().flatten() for buffer in real])) / self.size
                for buffer, mean in zip(real, torch.split(flat, [buffer.numel() for buffer in real]), strict=True):
                    buffer.copy_(mean.view_as(buffer))
            for buffer in model.buffers():
                if not buffer.is_floating_point():  # counts of batches: rank 0 has images in every one
                    dist.broadcast(buffer, 0, group=self.data)

    def wait_for_all(self) -> None:
        """Wait until all ranks are here.

        What one has computed meanwhile, it has computed from numbers of all the others, not from what an abort leaves.
        """
        if self.size > 1:
            dist.barrier(group=self._control)

    # -- what rank 0 decides

    def agree(self, answer: bool) -> bool:
        """Return rank 0's `answer`."""
        return bool(*self.decide(answer))

    def decide(self, *answers: int) -> tuple[int, ...]:
        """Return rank 0's `answers`."""
        if self.size == 1:
            return answers
        box = torch.tensor(answers)
        dist.broadcast(box, 0, group=self._control)
        return tuple(box.tolist())

    def from_first(self, value: T) -> T:
        """Return rank 0's `value`, sent as a pickle: the ranks are one program's."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, 0, group=self._control)
        return box[0]

    def gather(self, value: T) -> list[T]:
        """Return each rank's `value`, sent as a pickle."""
        values = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(values, value, group=self._control)
        return values

    # -- networks

    def gradients_meet(self, network: Network, now: bool) -> AbstractContextManager[None]:
        """Return the context of a forward and backward pass of what `shard` returned.

        Unless they meet `now`, gradients are added up on each rank, and exchanged with those of a later pass.
        """
        if now or not isinstance(network, DistributedDataParallel):
            return nullcontext()
        return network.no_sync()

    def shard(self, network: Network, num_classes: int, device: torch.device, used: Sequence[bool] | None) -> Network:
        """Return what a training step calls for `network`, an nn.Module: gradients are then the mean over the ranks.

        `used` says of each parameter whether the logits depend on it; see `used_parameters`.
        """
        if self.size == 1:
            return network
        assert isinstance(network, nn.Module)
        # static_graph=True would find unused parameters by itself, but not spare us `Sharded`: every rank then has to
        # use the same parameters in every step, and a network may be unable to take no images (`view(len(x), -1)`).
        return DistributedDataParallel(
            Sharded(network, num_classes, used),
            device_ids=[device] if device.type == "cuda" else None,
            process_group=self.data,
            forward_sync_buffers=False,  # see `average_buffers`
            gradient_as_bucket_view=True,
            find_unused_parameters=used is None or not all(used),
        )


class Pace:
    """How many steps ranks take between two questions to rank 0, so that each of them is answered within a moment.

    A broadcast before every step would cost a small network much of its time. Every rank takes as many steps: rank 0
    measures how long the last ones took, and tells the others with its answer.
    """

    ASK_EVERY_S = 0.25
    MOST_STEPS = 32
    """So few that it answers soon, too, where steps become slow."""

    def __init__(self, group: Group) -> None:
        self._group = group
        self._asked_at, self._steps, self._left = 0.0, 1, 0

    def begin_anew(self) -> None:
        """Ask before the next step, and measure from there: an evaluation or a commit was between."""
        self._steps, self._left = 1, 0

    def ask(self, answer: Callable[[], int], otherwise: int) -> int:
        """Return rank 0's `answer()`, or `otherwise` where it is not asked before this step."""
        if self._group.size == 1:
            return answer()
        if self._left > 0:
            self._left -= 1
            return otherwise
        now = time.perf_counter()
        of_a_step = max(now - self._asked_at, 1e-6) / self._steps
        # At most twice as many as before: the first step of a kind takes long, and a GPU's queue is empty at first.
        steps = max(1, min(2 * self._steps, int(self.ASK_EVERY_S / of_a_step), self.MOST_STEPS))
        decided, self._steps = self._group.decide(answer(), steps)
        self._asked_at, self._left = now, self._steps - 1
        return decided


class Sharded(nn.Module):
    """A network on one rank's part of a batch; on no images, the logits of none, which depend on the same parameters.

    A network with SyncBatchNorm is called even with no images: its statistics are exchanged meanwhile.
    """

    def __init__(self, network: nn.Module, num_classes: int, used: Sequence[bool] | None) -> None:
        super().__init__()
        self.network = network
        self.num_classes = num_classes
        self.used = used
        self.takes_none = any(isinstance(module, nn.SyncBatchNorm) for module in network.modules())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits, N x classes, of N x 3 x H x W images."""
        if len(images) or self.takes_none:
            logits: torch.Tensor = self.network(images)
            return logits
        used = itertools.compress(self.network.parameters(), self.used or itertools.repeat(True))
        sums = torch.stack([parameter.sum() for parameter in used if parameter.requires_grad])
        return images.new_zeros(0, self.num_classes) + sums.sum()


def used_parameters(model: nn.Module, image_size: int) -> list[bool] | None:
    """Return of each parameter whether the network's logits depend on it; torch's meta device works it out.

    None: it cannot be told, since an operator has no backward pass there.
    """
    shadow = copy.deepcopy(model).to("meta").train()
    try:
        shadow(torch.empty(2, 3, image_size, image_size, device="meta")).sum().backward()
    except (RuntimeError, NotImplementedError):
        return None
    return [parameter.grad is not None or not parameter.requires_grad for parameter in shadow.parameters()]
