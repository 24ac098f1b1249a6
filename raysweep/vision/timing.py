"""How long an epoch of a plan's trials takes on this machine, and how large their state is: `raysweep plan --time`.

A few steps are timed on the sweep's own images, once for all trials that compute the same.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as save_safetensors

from raysweep.vision.config import TrialConfig
from raysweep.vision.data import DataSet, open_data
from raysweep.vision.loop import train
from raysweep.vision.models.pretrained import Pretrained, read_weights

STEPS = 2
"""Steps timed per network, after as many warm-up steps."""
MAX_VAL_IMAGES = 512


@dataclass(frozen=True)
class Timing:
    """What an epoch of a trial takes."""

    epoch_s: float  # seconds of training and evaluation
    last_bytes: int  # size of the state to go on from
    best_bytes: int  # size of the best weights


def time_trials(configs: Sequence[Any], sweep_folder: Path, device: str = "auto") -> list[Timing]:
    """Return the timing of each config on a device; UserError if a network or data set cannot be had as asked."""
    open_once = cache(partial(open_data, sweep_folder=sweep_folder))
    timings: dict[str, Timing] = {}
    for config in configs:
        key = _what_it_computes(config)
        if key not in timings:
            pretrained = read_weights(config.model, sweep_folder)
            timings[key] = _time(config, open_once(config.data), pretrained, device)
    return [timings[_what_it_computes(config)] for config in configs]


def _what_it_computes(config: TrialConfig) -> str:
    """Return all that the time of a step depends on: neither the learning rate nor the number of epochs."""
    same = {"epochs": 2, "lr": 1e-3, "lr_schedule": {"name": "constant"}, "label_smoothing": 0.0}
    return config.model_copy(update=same).model_dump_json(warnings=False)


def _time(config: TrialConfig, data: DataSet, pretrained: Pretrained | None, device: str) -> Timing:
    """Train two short epochs; the second is timed."""
    few = replace(data, train=data.train[: STEPS * config.batch_size], val=data.val[:MAX_VAL_IMAGES], test=None)
    short = config.model_copy(update={"epochs": 2, "lr": 1e-3})  # so low that nothing diverges
    for epoch in train(short, few, seed=0, device=device, pretrained=pretrained):
        metrics = epoch.metrics
        if epoch.number == 2:
            buffer = io.BytesIO()
            torch.save(epoch.state(), buffer)
            best_bytes = len(save_safetensors(epoch.weights(averaged=False)))
    train_s = len(few.train) / metrics["images_per_s"]
    evaluate_s = metrics["seconds"] - train_s
    epoch_s = train_s * len(data.train) / len(few.train) + evaluate_s * len(data.val) / len(few.val)
    return Timing(epoch_s, buffer.tell(), best_bytes)
