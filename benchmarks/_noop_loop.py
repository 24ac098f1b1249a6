"""Loops that train nothing: `noop`, a generator, and `noop_function`, a Ray Train function that reports checkpoints."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

import raysweep


class Config(raysweep.Config):
    lr: float = 0.1


def metrics_of(config: Config, seed: int, epoch: int) -> dict[str, float]:
    acc = random.Random(f"{config.lr}/{seed}/{epoch}").random()
    return {"train_loss": 1.0, "val_loss": 1.0, "val_acc": acc, "val_acc_ema": acc, "seconds": 0.0}


def weights() -> dict[str, torch.Tensor]:
    return {"weight": torch.zeros(1)}


@raysweep.register_loop("noop", config=Config, metrics={"val_acc": "max"})
def train(config: Config, trial: raysweep.TrialContext) -> Iterator[raysweep.Epoch]:
    for epoch in range(trial.epoch + 1, config.epochs + 1):
        yield raysweep.Epoch(metrics_of(config, trial.seed, epoch), state=dict, weights=weights)


@raysweep.register_loop("noop_function", config=Config, metrics={"val_acc": "max"})
def train_function(config: dict[str, Any]) -> None:
    import ray.train

    begin = 0
    if checkpoint := ray.train.get_checkpoint():
        with checkpoint.as_directory() as folder:
            begin = int(Path(folder, "epoch").read_text())
    for epoch in range(begin + 1, config["epochs"] + 1):
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "epoch").write_text(str(epoch))
            metrics = metrics_of(Config(lr=config["lr"]), config["seed"], epoch)
            ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))
