"""The size of a data set by which it is decided where the set lies."""

from __future__ import annotations

import numpy as np
import torch

from raysweep.loops.placement import bytes_of, too_large


def test_arrays_count_with_their_bytes_wherever_they_stand_and_plain_values_do_not() -> None:
    images, labels = np.zeros((4, 3, 8, 8), np.uint8), torch.zeros(4, dtype=torch.int64)
    assert bytes_of({"images": images, "labels": labels, "name": "small", "mean": (0.5, 0.5)}) == 768 + 32
    assert bytes_of({"splits": [{"images": images}, {"images": images[:2]}], "classes": ["cat"]}) == 768 + 384


def test_of_several_sets_the_smaller_ones_stay_in_the_object_store() -> None:
    assert too_large({"large": 500, "small": 100, "middle": 300}, capacity=1000) == {"large"}
    assert too_large({"large": 500, "small": 100, "middle": 200}, capacity=1000) == set()
