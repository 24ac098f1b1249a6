"""A loop that trains nothing: `raysweep --import noop_loop` runs real sweeps whose curves are known beforehand.

In a trial whose learning rate ends the fate so the loss is no number from some epoch on, see `death_of`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

import torch

import raysweep

MORTALITY = 0.2


class Config(raysweep.Config):
    """The settings of a trial."""

    lr: float = 0.1


def curve(lr: float, seed: int, epochs: int) -> list[float]:
    """The accuracies of a trial, by epoch, best so far."""
    draws = [random.Random(f"{lr}/{seed}/{epoch}").random() for epoch in range(1, epochs + 1)]
    return [max(draws[: epoch + 1]) for epoch in range(epochs)]


def death_of(lr: float, epochs: int) -> int | None:
    """The epoch in which a trial diverges, or None."""
    fate = random.Random(f"fate of {lr}")
    return fate.randint(1, epochs) if fate.random() < MORTALITY else None


@raysweep.register_loop("noop", config=Config, metrics={"val_acc": "max"})
def train(config: Config, trial: raysweep.TrialContext) -> Iterator[raysweep.Epoch]:
    """Yield the epochs of a trial, in random intervals, so that trials arrive in another order each time."""
    accuracies, death = curve(config.lr, trial.seed, config.epochs), death_of(config.lr, config.epochs)
    pause = random.Random()  # of its own: raysweep seeds the global generator for each epoch
    for epoch in range((trial.state or {"epoch": 0})["epoch"] + 1, config.epochs + 1):
        time.sleep(0.02 * pause.random())
        if trial.should_stop():
            if trial.should_save():
                yield raysweep.Epoch(state=lambda done=epoch - 1: {"epoch": done})  # type: ignore[misc]
            raise raysweep.Interrupted("told to stop")
        acc = accuracies[epoch - 1]
        metrics = {"train_loss": 1 - acc, "val_loss": 1 - acc, "val_acc": 0.0}
        metrics |= {"val_acc_ema": acc, "val_loss_ema": 1 - acc}
        metrics |= {"lr": config.lr, "grad_norm": 1.0, "images_per_s": 1.0, "seconds": 0.01}
        if epoch == death:
            raise raysweep.Diverged(epoch, {**metrics, "train_loss": float("nan")})
        yield raysweep.Epoch(
            metrics,
            state=lambda done=epoch: {"epoch": done},  # type: ignore[misc]
            weights=lambda: {"weight": torch.zeros(1)},
        )
