"""Where a prepared data set lies while trials train on it, by its size and the memory that there is. No torch, no Ray.

* in Ray's object store, once on each node, where the trials' processes share it; or, where it does not fit there,
* in each node's cache, whose files the processes map into memory; and
* on the device too, where it fits; else its batches are streamed there, each copied while the last one is computed.

The batches are the same in each place, and so are the numbers, bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SHARE_OF_DEVICE = 0.5
"""The share of a device's free memory that a set may take; the rest is for networks and what they compute."""
SHARE_OF_STORE = 0.8
"""The share of an object store that the sets of a run may take together; the rest is for what else Ray keeps there."""


@dataclass(frozen=True)
class Size:
    """The bytes of a prepared data set."""

    whole: int  # which the processes of a node share
    on_device: int  # of those, what a trial keeps on its device where it fits


def bytes_of(arrays: Mapping[str, Any]) -> int:
    """Return the size of a data set: the bytes of its arrays, those in lists and dicts of it too."""
    return sum(map(_bytes, arrays.values()))


def _bytes(value: Any) -> int:
    if isinstance(value, Mapping | list | tuple):
        return sum(map(_bytes, value.values() if isinstance(value, Mapping) else value))
    return int(getattr(value, "nbytes", 0))


def fits_device(size: int, free: int) -> bool:
    """Whether a set of so many bytes lies on a device with so many free ones."""
    return size <= SHARE_OF_DEVICE * free


def fits_store(size: int, capacity: int) -> bool:
    """Whether sets of so many bytes lie in object stores of which the smallest has this capacity."""
    return size <= SHARE_OF_STORE * capacity


def too_large(sizes: Mapping[str, int], capacity: int, taken: int = 0) -> set[str]:
    """Return the keys of the sets that do not fit an object store beside the smaller ones, where sets take some.

    It has `capacity` bytes, of which `taken` are taken.
    """
    large, total = set[str](), taken
    for key in sorted(sizes, key=sizes.__getitem__):
        total += sizes[key]
        if not fits_store(total, capacity):
            large.add(key)
    return large
