"""A set that is larger than the memory which a process may take: it is prepared, and trained on, all the same."""

from __future__ import annotations

import multiprocessing
import resource
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
from torch import nn

from raysweep import register_data, register_model
from raysweep.errors import OutOfMemory
from raysweep.vision.config import DataConfig, TrialConfig
from raysweep.vision.data import DataSet, RawData, RawSplit, load
from raysweep.vision.data.prepare import prepare
from raysweep.vision.data.raw import Encoded, Rows
from raysweep.vision.feed import Place
from raysweep.vision.loop import train
from raysweep.vision.memory import telling

SIDE, IMAGES, CLASSES = 160, 2_800, 4
SPARE_BYTES = 150 * 2**20
"""What the process may take beside what its imports have: three quarters of the set."""
PLACES: tuple[Place, ...] = ("device", "host")


@pytest.mark.slow
def test_a_process_prepares_and_trains_on_a_set_that_its_memory_does_not_hold(tmp_path: Path) -> None:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as apart:
        read, streamed, copied = apart.submit(within_limit, tmp_path).result()
    assert read == streamed
    assert read["val_acc"] > 0.9, "it trained on the images"
    assert "out of memory in copying" in copied, "the limit holds"


def within_limit(cache: Path) -> tuple[dict[str, float], dict[str, float], str]:
    """Prepare, train where the set lies and streamed, then copy it; return the metrics and what came of the copy."""
    most = psutil.Process().memory_info().data + SPARE_BYTES
    resource.setrlimit(resource.RLIMIT_DATA, (most, resource.RLIM_INFINITY))
    register_data("grey")(grey)
    register_model("strided")(strided)
    data = load(prepare(DataConfig(name="grey"), root=cache, cache=cache, progress=False))
    config = TrialConfig.model_validate({"model": "strided", "epochs": 1, "batch_size": 32, "lr": 0.1, "ema": False})
    read, streamed = (numbers(config, data, place) for place in PLACES)
    try:
        with telling("copying"):
            data.train.images.clone()
    except OutOfMemory as error:
        return read, streamed, str(error)
    return read, streamed, "it fits"


def numbers(config: TrialConfig, data: DataSet, place: Place) -> dict[str, float]:
    """Return the metrics of the only epoch that are no times."""
    (epoch,) = train(config, data, seed=0, place=place)
    return {name: value for name, value in epoch.metrics.items() if name not in ("seconds", "images_per_s")}


def grey(config: DataConfig, root: Path) -> RawData:
    """Images that are as bright as their label says, made one by one."""
    return RawData(lambda: [str(label) for label in range(CLASSES)], split(IMAGES), split(8 * CLASSES))


def split(count: int) -> RawSplit:
    def images(rows: Rows) -> Iterator[Encoded]:
        return (np.full((SIDE, SIDE), 255 * (row % CLASSES) // (CLASSES - 1), np.uint8) for row in rows)

    return RawSplit(lambda: np.arange(count) % CLASSES, images, "grey: row {}".format)


def strided(num_classes: int, width: int | None = None) -> nn.Module:
    """A network that costs next to nothing."""
    pooled = (SIDE // 16) ** 2
    return nn.Sequential(
        nn.MaxPool2d(1, 16), nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * pooled, num_classes)
    )
