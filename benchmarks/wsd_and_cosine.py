"""Warmup-stable-decay against a cosine at equal epochs: accuracy, and the epochs that both train.

Tiny ImageNet in small: 20 of its classes, 200 of their images each, 32x32 pixels, and the smallest network. Every
schedule is trained at every length, learning rate and seed; trials of `wsd` begin with the epochs that a shorter one
has trained already, as in a run of raysweep. The score is the accuracy on the 1,000 validation images of these classes
after the last epoch, of the learning rate with the best mean over the seeds. A difference is that of the same seeds,
with Student's 95 % interval of its mean over them. The images lie in $RAYSWEEP_DATA, else ./data.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _report import emit, parse_arguments, skip
from scipy import stats

from raysweep.errors import DataError
from raysweep.sweepfile.load import restore_sweep
from raysweep.sweepfile.plan import Trial, plan_trials
from raysweep.sweepfile.prefixes import Prefixes
from raysweep.vision.data import DataSet, open_data
from raysweep.vision.loop import train

SCHEDULES: dict[str, dict[str, Any]] = {
    "cosine": {"name": "cosine"},
    "wsd_0.2": {"name": "wsd", "decay": 0.2},
    "wsd_0.4": {"name": "wsd", "decay": 0.4},
}
LENGTHS, LRS, SEEDS = [8, 16, 32], [0.2, 0.1, 0.05], list(range(6))


def sweep_of(lengths: Sequence[int], lrs: Sequence[float], seeds: Sequence[int]) -> list[Trial]:
    base = {
        "data": {"name": "tiny_imagenet", "image_size": 32, "classes": 20, "per_class": 200},
        "model": {"name": "baseline_block", "width": 8},
        "batch_size": 64,
        "augment": "shift",
        "ema": False,
    }
    grid = {"epochs": list(lengths), "lr": list(lrs), "lr_schedule": list(SCHEDULES.values())}
    return plan_trials(restore_sweep({"name": "wsd", "base": base, "grid": grid, "seeds": list(seeds)}, "wsd"))


def accuracies(trials: Sequence[Trial], prefixes: Prefixes, data: DataSet) -> dict[str, float]:
    """Train the trials, shorter ones first, each from the deepest state that it shares; return the last accuracies."""
    states: dict[str, dict[str, Any]] = {}
    stops, scores = prefixes.stops(), {}
    trained = 0
    for trial in sorted(trials, key=lambda trial: (trial.seed, trial.config.lr, trial.config.epochs)):
        keys = {epoch: prefixes.key(trial.id, epoch, {}) for epoch in stops.get(trial.id, ())}
        found = [key for epoch, key in sorted(keys.items()) if key in states and epoch < trial.config.epochs]
        state = states[found[-1]] if found else None
        for epoch in train(trial.config, data, seed=trial.seed, device="cpu", state=state):
            trained += 1
            scores[trial.id] = epoch.metrics["val_acc"]
            if epoch.number in keys:
                states[keys[epoch.number]] = epoch.state()
        print(trial.seed, trial.config.lr, trial.config.epochs, trial.config.lr_schedule, scores[trial.id], flush=True)
    assert trained == prefixes.unique_epochs
    return scores
