"""What is enough to tell how long an epoch takes: which trials compute the same, and how few images do."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from raysweep.vision.config import TrialConfig

if TYPE_CHECKING:
    from raysweep.vision.data import DataSet

STEPS = 2
"""Steps of an epoch on few images."""
MAX_VAL_IMAGES = 512


def same_cost(config: TrialConfig) -> str:
    """Return all that the time of a step depends on: neither the learning rate nor the number of epochs."""
    same = {"epochs": 2, "lr": 1e-3, "lr_schedule": {"name": "constant"}, "label_smoothing": 0.0}
    return config.model_copy(update=same).model_dump_json(warnings=False)


def few_of(config: TrialConfig, data: DataSet) -> DataSet:
    """Return a data set of as many images as a few steps take."""
    return replace(data, train=data.train[: STEPS * config.batch_size], val=data.val[:MAX_VAL_IMAGES])
