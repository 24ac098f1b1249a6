"""
The runs that `winner.py` resamples: configs on digits and Tiny ImageNet, many seeds each, and what each got right.

A run is trained by `raysweep.vision.loop`. Its best epoch is, as in a sweep, the one of its plain or EMA weights with
the best accuracy on the validation images. Beside it, what picking the epoch costs: the validation images lie in two
halves, and the epoch picked on one is judged on the other.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from raysweep.vision.config import TrialConfig
from raysweep.vision.data import DataSet, mean_std, open_data
from raysweep.vision.inference import Classifier
from raysweep.vision.loop import Diverged, Epoch, train
from raysweep.vision.models.build import build_model

DIGITS_DATA = {"name": "digits", "val_fraction": 0.5}
"""899 images to train on, 898 to judge by."""
DIGITS: Sequence[Mapping[str, Any]] = [
    {"model": {"name": "baseline_block", "width": width}, "lr": lr, "augment": augment}
    for (width, lr), augment in itertools.product(
        [(16, 0.4), (16, 0.3), (16, 0.2), (16, 0.1), (16, 0.05), (12, 0.4), (12, 0.2), (12, 0.1), (8, 0.2), (8, 0.05)],
        ["none", "shift"],
    )
]
TINY_DATA = {"name": "tiny_imagenet", "image_size": 40, "classes": 10, "per_class": 100}
"""1,000 images to train on, 500 to judge by: those of `sweeps/report_small.yaml`."""
TINY: Sequence[Mapping[str, Any]] = [
    {"model": {"name": "baseline_block", "width": width}, "lr": lr, "augment": augment}
    for width, lr, augment in [
        (8, 0.025, "none"),
        (16, 0.025, "none"),
        (16, 0.1, "none"),
        (16, 0.1, "jitter"),
        (16, 0.05, "shift"),
        (8, 0.1, "shift"),
    ]
]
SETS: Mapping[str, tuple[Mapping[str, Any], Sequence[Mapping[str, Any]], int, int]] = {
    "digits": (DIGITS_DATA, DIGITS, 20, 12),
    "tiny_imagenet": (TINY_DATA, TINY, 8, 8),
}
"""By name: the images, the configs, the seeds of each, the epochs of each run."""

Row = dict[str, Any]
Bits = npt.NDArray[np.bool_]


def train_runs(path: Path, data_root: Path) -> None:
    """Train the runs that the file at `path` does not have yet; it is written as each seed of a set ends."""
    rows: list[Row] = pq.read_table(path).to_pylist() if path.exists() else []
    done = {(row["set"], row["config"], row["seed"]) for row in rows}
    for name, (images, configs, seeds, epochs) in SETS.items():
        common = {"data": images, "epochs": epochs, "batch_size": 32, "precision": "fp32"}
        data = open_data(TrialConfig.model_validate(common).data, sweep_folder=data_root)
        for seed in range(seeds):
            for place, config in enumerate(configs):
                if (name, place, seed) not in done:
                    row = train_run(TrialConfig.model_validate(common | config), data, seed)
                    rows.append({"set": name, "config": place, "seed": seed} | row)
            write(path, rows)
            print(f"{name}: {seed + 1} of {seeds} seeds", flush=True)


def train_run(config: TrialConfig, data: DataSet, seed: int) -> Row:
    """Train one run; `correct` is what its best epoch got right, packed, and `optimism` what the picking gains."""
    try:
        bits = np.array(
            [each for epoch in train(config, data, seed=seed, device="cpu") for each in right(epoch, config, data)]
        )
    except Diverged:
        bits = np.zeros((1, len(data.val)), bool)
    settings = {"width": config.model.width, "lr": config.lr, "augment": config.augment}
    return {
        "settings": json.dumps(settings),
        "images": len(data.val),
        "correct": np.packbits(bits[bits.mean(1).argmax()]).tobytes(),
        "optimism": picked_too_well(bits),
    }


def right(epoch: Epoch, config: TrialConfig, data: DataSet) -> Iterator[Bits]:
    """Yield what the plain and the EMA weights got right of the validation images."""
    mean, std = mean_std(config.normalize, data)
    for averaged in (False, True):
        network = build_model(config.model, data.num_classes)
        network.load_state_dict(epoch.weights(averaged))
        answers = Classifier(network, mean, std, "fp32", data.image_size, "cpu").top(data.val.images)[1][:, 0]
        yield (answers == data.val.labels).numpy()


def picked_too_well(bits: Bits) -> float:
    """Return by how much an epoch looks better on the half of the images that it was picked on than on the other."""
    halves = np.random.default_rng(0).permutation(bits.shape[1]) % 2
    one, other = bits[:, halves == 0].mean(1), bits[:, halves == 1].mean(1)
    # That one half is easier than the other cancels.
    return float(((one - other)[one.argmax()] + (other - one)[other.argmax()]) / 2)


def write(path: Path, rows: Sequence[Row]) -> None:
    """Write whole or not at all."""
    unfinished = path.with_name(f"{path.name}.unfinished")
    pq.write_table(pa.Table.from_pylist(list(rows)), unfinished, compression="zstd")
    os.replace(unfinished, path)
