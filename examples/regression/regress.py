"""Predicts the progress of diabetes from ten measurements (scikit-learn's `diabetes`, 442 patients)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from sklearn.datasets import load_diabetes
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from torch import nn

import raysweep


class Config(raysweep.Config):
    """What one trial trains with."""

    epochs: int = 40
    lr: float = 0.01
    batch_size: int = 32
    hidden: int = 32
    activation: Literal["relu", "tanh"] = "relu"
    weight_decay: float = 0.01


def read_patients() -> dict[str, np.ndarray]:
    """Return measurements and progress of those to train with, and of those to validate with, standardised."""
    measured, progress = load_diabetes(return_X_y=True)
    x, val_x, y, val_y = train_test_split(measured, progress[:, None], test_size=0.25, random_state=0)
    of_x, of_y = StandardScaler().fit(x), StandardScaler().fit(y)
    arrays = {
        "x": of_x.transform(x),
        "y": of_y.transform(y),
        "val_x": of_x.transform(val_x),
        "val_y": of_y.transform(val_y),
    }
    return {name: array.astype(np.float32) for name, array in arrays.items()}


@raysweep.register_loop("regress", config=Config, metrics={"val_mse": "min", "val_r2": "max"}, prepare=read_patients)
def train(config: Config, trial: raysweep.TrialContext) -> Iterator[raysweep.Epoch]:
    """Train, and report mean squared errors, in units of the progress' variance."""
    x, y, val_x, val_y = (torch.tensor(trial.data[name]) for name in ("x", "y", "val_x", "val_y"))
    activation = {"relu": nn.ReLU(), "tanh": nn.Tanh()}[config.activation]
    net = nn.Sequential(nn.Linear(x.shape[1], config.hidden), activation, nn.Linear(config.hidden, 1))
    optimizer = torch.optim.AdamW(net.parameters(), config.lr, weight_decay=config.weight_decay)
    if state := trial.state:
        net.load_state_dict(state["net"])
        optimizer.load_state_dict(state["optimizer"])
    for _ in range(trial.epoch, config.epochs):
        for batch in torch.randperm(len(x)).split(config.batch_size):
            loss = nn.functional.mse_loss(net(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            mse, val_mse = (nn.functional.mse_loss(net(a), b).item() for a, b in ((x, y), (val_x, val_y)))
        yield raysweep.Epoch(
            metrics={"train_mse": mse, "val_mse": val_mse, "val_r2": 1 - val_mse / val_y.var(correction=0).item()},
            state=lambda: {"net": net.state_dict(), "optimizer": optimizer.state_dict()},
            weights=net.state_dict,
        )
