"""
The images of a trial where its network needs them, wherever they lie (see `loops.placement`).

* feed_of    the images of a data set for a trial on a device
* Resident   images on the device, which are indexed there
* Streamed   images in host memory or in memory-mapped files: threads gather the next batches, and copy them to the
             device beside what it computes

Both give the same images, so it makes no difference to any number.
"""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
import psutil
import torch

from raysweep.loops.placement import fits_device
from raysweep.vision.data.dataset import DataSet
from raysweep.vision.memory import is_out_of_memory, telling

Place = Literal["auto", "device", "host"]
Rows = Callable[[slice], torch.Tensor]
"""Gives some images of a batch: uint8, N x 3 x H x W, on the device."""

READERS = {"cuda": 4, "cpu": 1}
"""Threads that gather batches: copying from memory takes one, waiting for a disk several. On a CPU, they take from what
it computes."""


class Resident:
    """Images on the device."""

    def __init__(self, images: torch.Tensor) -> None:
        self._images = images

    def __getitem__(self, rows: slice) -> torch.Tensor:
        """Return images that lie one after the other."""
        return self._images[rows]

    def batches(
        self, batches: Sequence[torch.Tensor], needed: Callable[[int], Sequence[slice]]
    ) -> Generator[Rows, None, None]:
        """Yield of each batch, given by the indices of its images, what gives any of its rows."""
        on_device = torch.cat(list(batches)).to(self._images.device).split([len(batch) for batch in batches])  # type: ignore[no-untyped-call]
        for indices in on_device:
            yield lambda rows, indices=indices: self._images[indices[rows]]  # type: ignore[misc]

    def close(self) -> None:
        """Let go of the images."""
        del self._images


class Streamed:
    """Images on the host, of which the next ones are always on their way to the device."""

    def __init__(self, images: torch.Tensor, device: torch.device) -> None:
        self._images, self._device = images.numpy(), device
        self._ahead = READERS.get(device.type, 1)
        self._readers = ThreadPoolExecutor(self._ahead, "raysweep-feed")
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self._following: tuple[slice, Future[_Arriving]] | None = None

    def __getitem__(self, rows: slice) -> torch.Tensor:
        """Return images that lie one after the other, and begin to fetch as many that follow them.

        After the last ones, those are the first: weights are evaluated one after the other.
        """
        with telling("fetching images"):
            if self._following is not None and self._following[0] == rows:
                arriving = self._following[1].result()
            else:
                arriving = self._fetch(np.arange(rows.start, rows.stop))
        start, count = rows.stop if rows.stop < len(self._images) else 0, rows.stop - rows.start
        then = slice(start, min(start + count, len(self._images)))
        self._following = then, self._readers.submit(self._fetch, np.arange(then.start, then.stop))
        return arriving.there()

    def batches(
        self, batches: Sequence[torch.Tensor], needed: Callable[[int], Sequence[slice]]
    ) -> Generator[Rows, None, None]:
        """Yield of each batch, given by the indices of its images, what gives the rows that are `needed`.

        Of a batch of so many, `needed` are some slices; each time all rows of one of them are asked for, or some.
        """
        ahead: deque[tuple[Sequence[slice], Future[_Arriving]]] = deque()
        try:
            for indices in batches:
                slices = needed(len(indices))
                wanted = torch.cat([indices[rows] for rows in slices]).numpy()
                ahead.append((slices, self._readers.submit(self._fetch, wanted)))
                if len(ahead) > self._ahead:
                    yield _some_of(*ahead.popleft())
            while ahead:
                yield _some_of(*ahead.popleft())
        finally:
            for _, fetched in ahead:
                fetched.cancel()

    def close(self) -> None:
        """End the threads, and let go of the images."""
        self._readers.shutdown(cancel_futures=True)
        self._following = None
        del self._images

    def _fetch(self, indices: np.ndarray) -> _Arriving:
        """Gather images, and begin to copy them to the device."""
        shape = (len(indices), *self._images.shape[1:])
        on_gpu = self._stream is not None
        # Only from pinned memory does a GPU copy while the CPU goes on; torch keeps it until the copy is done.
        gathered = torch.empty(shape, dtype=torch.uint8, pin_memory=on_gpu)
        # numpy, which computes in this thread alone: torch would take as many threads as the network has.
        np.take(self._images, indices, axis=0, out=gathered.numpy(), mode="clip")
        if self._stream is None:
            return _Arriving(gathered)
        with torch.cuda.stream(self._stream):
            return _Arriving(gathered.to(self._device, non_blocking=True), self._stream.record_event())


@dataclass(frozen=True)
class _Arriving:
    """Images that are copied to the device."""

    images: torch.Tensor
    copied: torch.cuda.Event | None = None  # there once all of them are

    def there(self) -> torch.Tensor:
        """Return the images; what the device computes with them waits for them, and this process does not."""
        if self.copied is not None:
            stream = torch.cuda.current_stream(self.images.device)
            stream.wait_event(self.copied)
            self.images.record_stream(stream)
        return self.images


def _some_of(slices: Sequence[slice], fetched: Future[_Arriving]) -> Rows:
    """Return what gives rows of a batch, of which those in `slices` were fetched, one slice after the other."""
    with telling("fetching images"):
        images = fetched.result().there()

    def rows_of(rows: slice) -> torch.Tensor:
        start = 0
        for there in slices:
            if there.start <= rows.start and rows.stop <= there.stop:
                return images[start + rows.start - there.start : start + rows.stop - there.start]
            start += there.stop - there.start
        raise IndexError(f"rows {rows.start}..{rows.stop} of a batch were not asked for")

    return rows_of


@dataclass
class Feed:
    """The images of a trial, and their labels on its device."""

    train: Resident | Streamed
    train_labels: torch.Tensor
    val: Resident | Streamed
    val_labels: torch.Tensor

    def close(self) -> None:
        """Let go of what this trial has; a set on a GPU stays there for the next trial."""
        self.train.close()
        self.val.close()
        del self.train_labels, self.val_labels


@dataclass(frozen=True)
class _Kept:
    """The images that this process has on a GPU, which the next trial may ask for again."""

    key: tuple[object, ...]
    train: torch.Tensor
    val: torch.Tensor


_kept: _Kept | None = None


def feed_of(data: DataSet, share: slice, device: torch.device, place: Place = "auto", gpu_share: float = 1.0) -> Feed:
    """Return the training images of a set, and the validation images of which this rank has a `share`.

    They are streamed where they take more than half of the memory that this process may have on the device.
    """
    images, val = (data.train.images, data.val.images[share]), data.val[share]
    there = _on_device(data.fingerprint, *images, device, place, gpu_share)
    train_feed, val_feed = map(Resident, there) if there else (Streamed(each, device) for each in images)
    # Labels are copied for each trial: a loss of the user's own may write to them.
    labels = (each.labels.to(device, copy=True) for each in (data.train, val))
    return Feed(train_feed, next(labels), val_feed, next(labels))


def _on_device(
    fingerprint: str, train: torch.Tensor, val: torch.Tensor, device: torch.device, place: Place, gpu_share: float
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return the images on the device; None where they do not fit there, or are not to lie there."""
    global _kept
    key = (fingerprint, train.shape, val.shape, val.storage_offset(), str(device))
    if _kept is not None and _kept.key == key and place != "host":
        return _kept.train, _kept.val
    if _kept is not None:
        _kept = None
        _free_unused()
    if place == "host" or (
        place == "auto" and not fits_device(train.nbytes + val.nbytes, free_bytes(device, gpu_share))
    ):
        return None
    try:
        there = train.to(device), val.to(device)
    except (RuntimeError, MemoryError) as error:
        if place != "auto" or not is_out_of_memory(error):
            raise
        there = None  # another process took the memory meanwhile
    if there is None:  # not before: while the error is handled, its traceback holds what was copied
        _free_unused()
    elif device.type != "cpu":  # where they are read from where they were
        _kept = _Kept(key, *there)
    return there


def free_bytes(device: torch.device, gpu_share: float) -> int:
    """Return how much memory a set may take half of: what is free on a GPU, or of this process's share of it.

    On a CPU it is all memory, since a set that lies there is read where it is.
    """
    if device.type != "cuda":
        return int(psutil.virtual_memory().total)
    free, total = torch.cuda.mem_get_info(device)
    return min(free, int(total * gpu_share))


def _free_unused() -> None:
    """Give unused memory of GPUs back, for other processes too."""
    gc.collect()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()
