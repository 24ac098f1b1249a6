"""The loop `noop`, which trains nothing."""

from __future__ import annotations

import random
from collections.abc import Iterator

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
