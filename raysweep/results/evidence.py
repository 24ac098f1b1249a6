"""Evidence per image: which validation images a trial's best weights got right, as it was committed with them.

`pack` makes the file, at a bit an image; `read_correct` and `correct_of` read it. Older runs have none. `samples_of`
puts it beside the scores, for `winner` to compare configs by.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from raysweep.results.luck import Lineage
from raysweep.results.ranking import has_ended, is_whole
from raysweep.results.shared import lineages_of
from raysweep.results.winner import LOOKED_AT, Sample
from raysweep.store import Record, RunFolder
from raysweep.sweepfile.schema import Objective

BoolArray = NDArray[np.bool_]
_known: WeakKeyDictionary[RunFolder, dict[str, BoolArray | None]] = WeakKeyDictionary()
"""What was read of each run folder, by the file's checksum: each round of `confirm` looks at it again."""


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
    """Return `read_correct` of each record; on an object store several are read at once, and each once."""
    known = _known.setdefault(folder, {})
    files = [record.weights["correct"].sha256 if "correct" in record.weights else "" for record in records]
    new = [record for record, file in zip(records, files, strict=True) if file and file not in known]
    for record, correct in zip(new, folder.files.for_each(partial(read_correct, folder), new), strict=True):
        known[record.weights["correct"].sha256] = correct
    return [known.get(file) for file in files]


def samples_of(configs: Sequence[Sequence[Record]], objective: Objective, folder: RunFolder) -> list[Sample]:
    """Return what is compared of each config's seeds that trained to the end; more is better, so losses change sign.

    Which images were right is read for the first LOOKED_AT configs, where all have the same images; which epochs are
    shared, for these as well.
    """
    counting = [list(filter(is_whole, records)) for records in configs]
    looked_at = [record for records in counting[:LOOKED_AT] for record in records]
    lineages = lineages_of(looked_at)
    if len({record.conditions.get("data") for record in looked_at}) > 1:
        looked_at = []
    correct = dict(zip((record.id for record in looked_at), correct_of(folder, looked_at), strict=True))
    return [
        replace(
            _sample(whole, [correct.get(record.id) for record in whole], objective),
            lost=sum(map(has_ended, records)) - len(whole),
            lineages=[lineages.get(record.id, Lineage()) for record in whole],
        )
        for records, whole in zip(configs, counting, strict=True)
    ]


def _sample(records: Sequence[Record], correct: Sequence[BoolArray | None], objective: Objective) -> Sample:
    sign = 1 if objective.maximize else -1
    scores = [record.best.score for record in records if record.best]
    known = [each for each in correct if each is not None]
    if len(known) < len(scores) or any(
        not math.isclose(each.mean(), score, abs_tol=1e-6) for each, score in zip(known, scores, strict=True)
    ):
        return Sample([sign * score for score in scores])  # not of all seeds, or the score is no accuracy
    return Sample([sign * score for score in scores], np.stack(known) if known else None)
