"""The runs that `witness.py` looks at: random configs trained to their end on real Tiny ImageNet, curves in a Parquet.

Beside what `raysweep.vision.loop` reports each epoch, two longer averages are evaluated at the epochs `LOOKED_AT`: the
mean of the EMA weights as they stood at the ends of the last three epochs (`val_acc_mean3`), and of the last half
of the epochs so far (`val_acc_mean_half`). They change nothing in the training.
"""

from __future__ import annotations

import json
import math
import os
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from raysweep.vision.augment.batch import Normalize
from raysweep.vision.config import DataConfig, TrialConfig
from raysweep.vision.data import DataSet, mean_std, open_data
from raysweep.vision.loop import Diverged, Epoch, train
from raysweep.vision.models.build import build_model

EPOCHS = 18
"""The epochs of each run: 1/9, 1/3, 1/2 and 2/3 of them are whole."""
LOOKED_AT = (2, 3, 4, 6, 9, 12)
"""Epochs at which the longer averages are evaluated, about where rungs may lie."""
DATA = DataConfig(name="tiny_imagenet", image_size=40, classes=16, per_class=64)
NETWORKS = [
    {"name": "baseline_block", "width": 16},
    {"name": "resnet18", "width": 16},
    {"name": "my_resnet34", "width": 4},
]
ADAMW_LR_SCALE = 1 / 40
"""AdamW's useful learning rates lie about this much lower than those of SGD with momentum 0.9."""
EVALUATION_BATCH = 400

Row = dict[str, Any]


def draw_config(number: int) -> TrialConfig:
    """Return the config of a run; run `number` is the same whatever the others are."""
    rng = random.Random(f"witness/{number}")
    lr = 0.002 * 600 ** rng.random()  # log-uniform in 0.002 to 1.2
    adamw = rng.random() < 0.25
    return TrialConfig.model_validate(
        {
            "data": DATA.model_dump(),
            "model": rng.choice(NETWORKS),
            "epochs": EPOCHS,
            "batch_size": 32,
            "optimizer": "adamw" if adamw else "sgd",
            "lr": lr * ADAMW_LR_SCALE if adamw else lr,
            "lr_schedule": rng.choice([{"name": "cosine"}, {"name": "step", "milestones": [11, 15]}]),
            "augment": rng.choice(["none", "shift", "jitter"]),
            "normalize": "imagenet",
            "precision": "fp32",
        }
    )


def train_runs(path: Path, runs: int, data_root: Path) -> None:
    """Train the runs that the file at `path` does not have yet; each is added to it as it ends."""
    data = open_data(DATA, sweep_folder=data_root)
    rows: list[Row] = pq.read_table(path).to_pylist() if path.exists() else []
    done = {row["run"] for row in rows}
    for number in range(runs):
        if number in done:
            continue
        rows.append(train_run(number, draw_config(number), data))
        write(path, sorted(rows, key=lambda row: row["run"]))
        last = rows[-1]
        print(
            f"run {number}: best val_acc {max(last['curve_val_acc'], default=0):.3f}, {last['cpu_s']:.0f} s", flush=True
        )


def train_run(number: int, config: TrialConfig, data: DataSet) -> Row:
    """Train one run to its end, or until it diverges."""
    start = time.process_time()
    evaluate = Evaluation(config, data)
    history: list[dict[str, float]] = []
    averages: list[dict[str, torch.Tensor]] = []
    diverged = False
    try:
        for epoch in train(config, data, seed=number, device="cpu"):
            averages.append(averaged_weights(epoch))
            half = (epoch.number + 1) // 2
            longer = {"val_acc_mean3": averages[-3:], "val_acc_mean_half": averages[-half:]}
            looked_at = epoch.number in LOOKED_AT
            values = {name: evaluate(weights) if looked_at else math.nan for name, weights in longer.items()}
            history.append(epoch.metrics | values)
    except Diverged:
        diverged = True
    names = sorted(history[0]) if history else []
    return {
        "run": number,
        "config": json.dumps(config.model_dump(mode="json"), sort_keys=True),
        "epochs": config.epochs,
        "diverged": diverged,
        "cpu_s": time.process_time() - start,
        **{f"curve_{name}": [metrics[name] for metrics in history] for name in names},
    }


def averaged_weights(epoch: Epoch) -> dict[str, torch.Tensor]:
    """Only what is averaged: BatchNorm's counts of batches are left out."""
    return {name: tensor for name, tensor in epoch.weights(averaged=True).items() if tensor.is_floating_point()}


class Evaluation:
    """The accuracy on the validation images of the mean of some weights."""

    def __init__(self, config: TrialConfig, data: DataSet) -> None:
        normalize = Normalize(*mean_std(config.normalize, data), torch.device("cpu"))
        self.model = build_model(config.model, data.num_classes).eval().to(memory_format=torch.channels_last)
        self.batches = [
            (normalize(images), labels)
            for images, labels in zip(
                data.val.images.split(EVALUATION_BATCH), data.val.labels.split(EVALUATION_BATCH), strict=True
            )
        ]

    @torch.inference_mode()
    def __call__(self, weights: Sequence[dict[str, torch.Tensor]]) -> float:
        mean = {name: torch.stack([each[name] for each in weights]).mean(0) for name in weights[0]}
        self.model.load_state_dict(mean, strict=False)
        hits = sum(int((self.model(images).argmax(1) == labels).sum()) for images, labels in self.batches)
        return hits / sum(len(labels) for _, labels in self.batches)


def write(path: Path, rows: list[Row]) -> None:
    """Write whole or not at all; curves as float32."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {}
    for name in names:
        values = [row.get(name, [] if name.startswith("curve_") else None) for row in rows]
        columns[name] = pa.array(values, pa.list_(pa.float32()) if name.startswith("curve_") else None)
    unfinished = path.with_name(f"{path.name}.unfinished")
    pq.write_table(pa.table(columns), unfinished, compression="zstd")
    os.replace(unfinished, path)
