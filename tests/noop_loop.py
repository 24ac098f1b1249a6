"""A loop that trains nothing: `raysweep --import noop_loop` runs real sweeps whose curves are known beforehand.

In a trial whose learning rate ends the fate so the loss is no number from some epoch on, see `death_of`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from raysweep.errors import Diverged, Interrupted
from raysweep.loops import loop

MORTALITY = 0.2


def curve(lr: float, seed: int, epochs: int) -> list[float]:
    """The accuracies of a trial, by epoch, best so far."""
    draws = [random.Random(f"{lr}/{seed}/{epoch}").random() for epoch in range(1, epochs + 1)]
    return [max(draws[: epoch + 1]) for epoch in range(epochs)]


def death_of(lr: float, epochs: int) -> int | None:
    """The epoch in which a trial diverges, or None."""
    fate = random.Random(f"fate of {lr}")
    return fate.randint(1, epochs) if fate.random() < MORTALITY else None


@dataclass
class NoEpoch:
    """Stands for `raysweep.vision.loop.Epoch`."""

    number: int
    metrics: dict[str, float]

    def state(self) -> dict[str, Any]:
        return {"epoch": self.number}

    def weights(self, averaged: bool) -> dict[str, torch.Tensor]:
        return {"weight": torch.zeros(1)}

    def correct(self, averaged: bool) -> None:
        return None


def train(
    config: Any,
    data: Any,
    conditions: Any,
    *,
    seed: int,
    state: Mapping[str, Any] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    should_save: Callable[[], bool] = lambda: False,
    device: str = "auto",
) -> Iterator[NoEpoch]:
    """Yield the epochs of a trial, in random intervals, so that trials arrive in another order each time."""
    accuracies, death = curve(config.lr, seed, config.epochs), death_of(config.lr, config.epochs)
    for epoch in range((state or {"epoch": 0})["epoch"] + 1, config.epochs + 1):
        time.sleep(0.02 * random.random())
        if should_stop():
            if should_save():
                yield NoEpoch(epoch - 1, {})
            raise Interrupted("told to stop")
        acc = accuracies[epoch - 1]
        metrics = {
            "train_loss": 1 - acc,
            "val_loss": 1 - acc,
            "val_acc": 0.0,
            "val_acc_ema": acc,
            "val_loss_ema": 1 - acc,
        }
        metrics |= {"lr": config.lr, "grad_norm": 1.0, "images_per_s": 1.0, "seconds": 0.01}
        if epoch == death:
            raise Diverged(epoch, {**metrics, "train_loss": float("nan")})
        yield NoEpoch(epoch, metrics)


loop().train = train  # type: ignore[method-assign]
