"""What `raysweep probe` trains: the same epochs of a trial again, each time with one supposed cause taken away."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from raysweep.diagnose.curves import Array, Curves

Row = Mapping[str, float]
Phenomenon = Literal["dip", "divergence", "plateau"]

NAMES = {
    "control": "as it was",
    "clipped": "gradients clipped",
    "smaller_lr": "a smaller learning rate",
    "order": "other orders of batches",
    "averaged": "averaged weights",
    "batch_norm": "batch-norm statistics gathered anew",
}
"""What futures are called in words. The last two are not trained apart, since they change no training: they are other
columns of the control's rows, and of those of the other orders."""
LEAST_LR_FACTOR = 3.0
"""What a smaller learning rate is divided by at least; where it rose in the epoch, by as much as it rose."""
CHANGED_ORDERS = 2
"""Other orders of batches that are trained with each change, too."""
EPOCHS: Mapping[Phenomenon, int] = {"dip": 2, "divergence": 3, "plateau": 5}
"""Epochs of a future, from epoch K on."""
USUAL_EPOCHS = 10
"""Epochs before epoch K that tell what is usual."""


@dataclass(frozen=True)
class Future:
    """Some epochs of a trial from its state before epoch K on, with something changed."""

    name: str  # a key of NAMES: control, clipped, smaller_lr or order
    seed: int  # of the trial, or for another order of batches another one
    changes: Mapping[str, Any]  # what to change in the trial's config, by dotted key
    epochs: int  # how many to train, from K on, of the trial's own schedule
    rows: Sequence[Row] = field(default=(), repr=False)  # once trained: a row an epoch
    diverged: bool = False  # whether it ended early, since its loss was not finite


def futures_of(
    config: Mapping[str, Any],
    seed: int,
    epoch: int,
    rows: Sequence[Row],
    orders: int = 5,
    phenomenon: Phenomenon = "dip",
) -> list[Future]:
    """Return what to train to find the cause of what begins in `epoch` (K) of a trial.

    `config` is the trial's, whole, with its defaults: only keys that it has are changed, so of a loop without
    `clip_grad_norm` no future is clipped. `rows` are all of the trial's, from epoch 1 on.
    """
    epochs = EPOCHS[phenomenon]
    if isinstance(config.get("epochs"), int):
        epochs = min(epochs, config["epochs"] - epoch + 1)
    aside: dict[str, Any] = {}  # what is measured beside, and changes no training
    if config.get("ema") is False:
        aside["ema"] = {}
    if "precise_batch_norm" in config:
        aside["precise_batch_norm"] = True
    planned = [Future("control", seed, aside, epochs)]
    others = [seed + 1 + place for place in range(orders)]
    norm = usual_gradient(rows, epoch)
    if "clip_grad_norm" in config and norm > 0:
        clipped = {**aside, "clip_grad_norm": norm}
        planned += [Future("clipped", each, clipped, epochs) for each in (seed, *others[:CHANGED_ORDERS])]
    if isinstance(config.get("lr"), int | float):
        lower = {**aside, "lr": config["lr"] / max(LEAST_LR_FACTOR, lr_rise(rows, epoch))}
        planned += [Future("smaller_lr", each, lower, epochs) for each in (seed, *others[:CHANGED_ORDERS])]
    return planned + [Future("order", each, aside, epochs) for each in others]


def usual_gradient(rows: Sequence[Row], epoch: int) -> float:
    """Return the largest gradient norm of an epoch as it usually was before `epoch`; NaN if none is recorded.

    Clipped there, gradients that do not exceed the usual are left as they are, so that nothing else changes.
    """
    curves = Curves.of(rows[max(0, epoch - 1 - USUAL_EPOCHS) : epoch - 1])
    norms = curves["grad_norm_max" if curves.has("grad_norm_max") else "grad_norm"]
    return _median(norms)


def lr_rise(rows: Sequence[Row], epoch: int) -> float:
    """Return the learning rate of `epoch` over the median of the three epochs before; 1 where it is not known."""
    rates = Curves.of(rows)["lr"]
    before = _median(rates[max(0, epoch - 4) : epoch - 1])
    now = float(rates[epoch - 1]) if epoch <= len(rates) else math.nan
    return now / before if before > 0 and math.isfinite(now) else 1.0


def _median(values: Array) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else math.nan
