"""A checksum of the data that a loop has prepared: a rerun on other data is refused."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from raysweep.errors import UserError


def checksum(data: Mapping[str, Any], loop: str) -> str:
    """Return a checksum of what a loop's `prepare` returned.

    Raises:
        UserError: something in it is neither an array of numbers or texts, nor a plain value, list or dict of these.
    """
    found = hashlib.sha256()
    for part in _parts_of(data, "", loop):
        found.update(part)
    return found.hexdigest()[:16]


def _parts_of(value: Any, way: str, loop: str) -> Iterator[bytes | memoryview[int]]:
    """Yield the bytes that make up a value, each with its way, kind and shape before it."""
    if isinstance(value, Mapping):
        for key in sorted(value, key=str):
            yield from _parts_of(value[key], f"{way}.{key}", loop)
    elif isinstance(value, list | tuple):
        yield f"{way} {len(value)}".encode()
        for index, inner in enumerate(value):
            yield from _parts_of(inner, f"{way}.{index}", loop)
    elif isinstance(value, str | bytes | int | float | bool | None):
        yield f"{way} {value!r}".encode()
    else:
        yield from _parts_of_array(value, way, loop)


def _parts_of_array(value: Any, way: str, loop: str) -> Iterator[bytes | memoryview[int]]:
    import numpy as np

    try:
        array = np.ascontiguousarray(value)
    except (TypeError, ValueError, RuntimeError):  # torch's, of a kind that numpy lacks, or on a GPU
        array = np.array(None)
    if array.dtype.hasobject:
        raise UserError(
            f"loop {loop!r}: prepare: {way[1:]} is of type {type(value).__name__}; it may return arrays, plain values, "
            "and lists and dicts of these"
        )
    yield f"{way} {array.dtype.str} {array.shape}".encode()
    yield array.reshape(-1).view(np.uint8).data
