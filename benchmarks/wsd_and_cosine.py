"""Warmup-stable-decay against a cosine at equal epochs: accuracies, and the epochs that are trained for them.

Tiny ImageNet in small: 20 of its classes, 200 images of each, 32x32 pixels, the smallest network, augmented by `shift`.
Every schedule is trained at every length, learning rate and seed, and each epoch that trials share is trained once. The
score is the accuracy on the 1,000 validation images of these classes after the last epoch, at the learning rate that
has the best mean over the seeds. A difference is the mean of those at equal seeds, with Student's 95 % interval over
the seeds. The images lie in $RAYSWEEP_DATA, else in ./data.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _report import emit, parse_arguments, skip
from numpy.typing import NDArray
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
BASE = {
    "data": {"name": "tiny_imagenet", "image_size": 32, "classes": 20, "per_class": 200},
    "model": {"name": "baseline_block", "width": 8},
    "batch_size": 64,
    "augment": "shift",
    "ema": False,
}
LENGTHS, LRS, SEEDS = [8, 16, 32], [0.2, 0.05], [0, 1, 2, 3, 4]


def trials_of(name: str, lengths: Sequence[int], seeds: Sequence[int]) -> list[Trial]:
    """Return the trials of a schedule."""
    grid = {"epochs": list(lengths), "lr": LRS, "lr_schedule": [SCHEDULES[name]]}
    return plan_trials(restore_sweep({"name": name, "base": BASE, "grid": grid, "seeds": list(seeds)}, name))


def accuracies(trials: Sequence[Trial], data: DataSet) -> dict[str, float]:
    """Train trials, each from the deepest state that it shares; return their last accuracies, by id."""
    prefixes = Prefixes(trials)
    stops = prefixes.stops()
    states: dict[str, dict[str, Any]] = {}
    found, trained = {}, 0
    for trial in sorted(trials, key=lambda trial: (trial.seed, trial.config.epochs)):
        keys = {epoch: prefixes.key(trial.id, epoch, {}) for epoch in stops.get(trial.id, ())}
        state = next((states[keys[epoch]] for epoch in sorted(keys, reverse=True) if keys[epoch] in states), None)
        # A copy, since torch's optimizers go on in the tensors that they are given.
        for epoch in train(trial.config, data, seed=trial.seed, device="cpu", state=deepcopy(state)):
            trained += 1
            found[trial.id] = epoch.metrics["val_acc"]
            if epoch.number in keys:
                states[keys[epoch.number]] = epoch.state()
        config = trial.config
        schedule = config.lr_schedule.model_dump(exclude_defaults=True)
        print(trial.seed, config.lr, config.epochs, schedule, f"{found[trial.id]:.3f}", file=sys.stderr, flush=True)
    assert trained == prefixes.unique_epochs
    return found


def by_seed(trials: Sequence[Trial], found: dict[str, float], epochs: int) -> NDArray[np.float64]:
    """Return the accuracies of trials of a length by seed, at the learning rate with the best mean."""
    of_lr: dict[float, list[float]] = defaultdict(list)
    for trial in trials:
        if trial.config.epochs == epochs:
            of_lr[trial.config.lr].append(found[trial.id])
    return max((np.array(each) for each in of_lr.values()), key=np.mean)


def main() -> None:
    arguments = parse_arguments(__doc__)
    lengths, seeds = ([4, 8], [0, 1]) if arguments.quick else (LENGTHS, SEEDS)
    torch.set_num_threads(1)
    plans = {name: trials_of(name, lengths, seeds) for name in SCHEDULES}
    try:
        data = open_data(plans["cosine"][0].config.data, sweep_folder=Path.cwd())
    except DataError as error:
        skip(str(error))
    figures: dict[str, float] = {f"{name}_epochs": Prefixes(trials).unique_epochs for name, trials in plans.items()}
    found = accuracies([trial for trials in plans.values() for trial in trials], data)
    scores = {(name, epochs): by_seed(trials, found, epochs) for name, trials in plans.items() for epochs in lengths}
    for (name, epochs), each in scores.items():
        figures[f"{name}_{epochs}_percent"] = 100 * float(each.mean())
        if name != "cosine":
            difference = 100 * (each - scores["cosine", epochs])
            reach = stats.t.ppf(0.975, len(seeds) - 1) * stats.sem(difference)
            figures[f"{name}_{epochs}_minus_cosine_points"] = float(difference.mean())
            figures[f"{name}_{epochs}_plus_or_minus_points"] = float(reach)
    emit("wsd_and_cosine", figures, {}, arguments)


if __name__ == "__main__":
    main()
