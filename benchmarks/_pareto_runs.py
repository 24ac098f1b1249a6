"""The runs that `pareto.py` looks at: networks of many sizes on real Tiny ImageNet, curves and costs in a Parquet.

The grid is networks and widths, from 0.23 to 12 million FLOPs an image, times learning rates and augmentations: what
people sweep who want to know which accuracy they can have for what price. Each run is trained to its end.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raysweep.vision.config import DataConfig, TrialConfig
from raysweep.vision.data import DataSet, open_data
from raysweep.vision.loop import Diverged, train
from raysweep.vision.models.summary import summarize

EPOCHS = 18
"""The epochs of each run: 1/9 and 2/9 of them are whole."""
DATA = DataConfig(name="tiny_imagenet", image_size=40, classes=16, per_class=64)
NETWORKS = [("baseline_block", width) for width in (2, 4, 8, 16)]
NETWORKS += [("resnet18", width) for width in (2, 4, 8, 16)]
NETWORKS += [("resnet34", width) for width in (4, 8)]
LRS = (0.02, 0.05, 0.12, 0.3)
AUGMENTATIONS = ("none", "shift")
KEPT = ("val_acc", "val_acc_ema")


def configs() -> list[TrialConfig]:
    """Return the grid: 80 configs."""
    return [
        TrialConfig.model_validate(
            {
                "data": DATA.model_dump(),
                "model": {"name": name, "width": width},
                "epochs": EPOCHS,
                "batch_size": 32,
                "lr": lr,
                "augment": augment,
                "precision": "fp32",
            }
        )
        for lr, augment, (name, width) in itertools.product(LRS, AUGMENTATIONS, NETWORKS)
    ]


def train_runs(path: Path, data_root: Path) -> None:
    """Train the runs that the file at `path` does not have yet; each is added to it as it ends."""
    data = open_data(DATA, sweep_folder=data_root)
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist() if path.exists() else []
    for number, config in enumerate(configs()):
        if number < len(rows):
            continue
        rows.append(_train_run(number, config, data))
        _write(path, rows)
        best = max(rows[-1]["curve_val_acc"], default=0)
        print(f"run {number}: best val_acc {best:.3f}, {rows[-1]['cpu_s']:.0f} s", flush=True)


def _train_run(number: int, config: TrialConfig, data: DataSet) -> dict[str, Any]:
    """Train one run to its end, or until it diverges."""
    start = time.process_time()
    history: list[dict[str, float]] = []
    try:
        for epoch in train(config, data, seed=number, device="cpu"):
            history.append(dict(epoch.metrics))
    except Diverged:
        pass
    known = summarize(config.model, data.num_classes, data.image_size)
    return {
        "run": number,
        "config": json.dumps(config.model_dump(mode="json"), sort_keys=True),
        "epochs": config.epochs,
        "params": known.params,
        "flops": known.flops,
        "cpu_s": time.process_time() - start,
        **{f"curve_{name}": [row[name] for row in history] for name in KEPT},
    }


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write whole or not at all; curves as float32."""
    columns = {
        name: pa.array([row[name] for row in rows], pa.list_(pa.float32()) if name.startswith("curve_") else None)
        for name in rows[0]
    }
    unfinished = path.with_name(f"{path.name}.unfinished")
    pq.write_table(pa.table(columns), unfinished, compression="zstd")
    os.replace(unfinished, path)
