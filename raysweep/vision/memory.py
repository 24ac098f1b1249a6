"""
Memory that runs out: an error that says in which phase, and an evaluation that goes on in smaller batches.

* telling    tells what the allocator raises inside a block as `errors.OutOfMemory`
* Batches    the batches of an evaluation, which are halved where one does not fit
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

from raysweep.errors import OutOfMemory

T = TypeVar("T")

PIXELS = 2**16
"""Pixels that an evaluation takes at a time at least, so that a device has work where images and training batches are
small. The largest of the built-in networks needs 7 kB for each."""
MOST_IMAGES = {"cuda": 2048, "cpu": 256}
"""Images that an evaluation takes at a time at most; more are no faster."""
FEWER = "fewer trials at a time on the device (resources.gpus, limits.max_concurrent) leave more to each"


class Batches:
    """The batches of an evaluation, of `size` images; where they do not fit in memory, `size` is halved for good.

    As many images as a training step has fit, if that does: without gradients a network holds the tensors of a layer or
    two at a time, in training those of all layers. More would gain little, since for the same batch an evaluation
    computes a third of what a training step does.
    """

    def __init__(self, device: torch.device, image_size: int, trained_at_once: int = 1) -> None:
        """`trained_at_once`: the images of a training step, as far as this process computes it."""
        self._device = device
        self.size = min(max(trained_at_once, PIXELS // image_size**2), MOST_IMAGES.get(device.type, 256))

    def over(self, count: int, compute: Callable[[slice], T]) -> Iterator[T]:
        """Yield what `compute` returns of the rows of each batch of `count` images.

        Raises:
            OutOfMemory: a single image is too much.
        """
        start = 0
        while start < count:
            rows = slice(start, min(start + self.size, count))
            with telling(f"evaluation, in batches of {rows.stop - start}"):
                fitted = self._unless_too_many(compute, rows)
            if fitted is not None:
                yield fitted
                start = rows.stop

    def _unless_too_many(self, compute: Callable[[slice], T], rows: slice) -> T | None:
        """Return what `compute` does; None, with `size` halved, if that takes more memory than there is."""
        try:
            return compute(rows)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or self.size == 1:
                raise
        # Not while the error is handled, since its traceback holds what was computed.
        self.size = max(1, (rows.stop - rows.start) // 2)
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        return None


@contextmanager
def telling(phase: str, advice: str = FEWER) -> Iterator[None]:
    """Raise OutOfMemory, which names the phase and what helps, if memory runs out in the block."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        what = (str(error) or type(error).__name__).partition("\n")[0]
        raise OutOfMemory(f"out of memory in {phase} ({what}); {advice}") from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the GPU's memory or this process's ran out; not all that raises it has an exception for it."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _IN_WORDS)


_IN_WORDS = ("can't allocate memory", "STATUS_ALLOC_FAILED")
"""What torch's CPU allocator says; cuBLAS and cuDNN."""
