"""Evidence per image: which validation images a trial's best weights got right, as it was committed with them.

`pack` makes the file, at a bit an image; `read_correct` and `correct_of` read it. Older runs have none.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from raysweep.store import Record, RunFolder

BoolArray = NDArray[np.bool_]


def pack(correct: BoolArray) -> bytes:
    """Return the file of what was right, one bool for each image; equal arrays make equal bytes."""
    file = io.BytesIO()
    np.savez(file, bits=np.packbits(correct), images=len(correct))
    return file.getvalue()


def unpack(data: bytes) -> BoolArray:
    """Return what was packed."""
    with np.load(io.BytesIO(data)) as file:
        return np.unpackbits(file["bits"], count=int(file["images"])).astype(bool)


def read_correct(folder: RunFolder, record: Record) -> BoolArray | None:
    """Return which validation images a trial's best weights got right, in the data set's order.

    None if that was not recorded, is damaged, or is of another epoch than the record's best.
    """
    entry = record.weights.get("correct")
    if entry is None or record.best is None or entry.epoch != record.best.epoch:
        return None
    data = folder.read_weights(record, "correct")
    return None if data is None else unpack(data)


def correct_of(folder: RunFolder, records: Sequence[Record]) -> list[BoolArray | None]:
    """Return `read_correct` of each record; on an object store several are read at once."""
    return folder.files.for_each(partial(read_correct, folder), records)
