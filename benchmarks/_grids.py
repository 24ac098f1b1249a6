"""Random grids of classifiers as people write them: several schedules, networks, learning rates, lengths and seeds."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from raysweep.sweepfile.plan import Trial
from raysweep.vision.config import TrialConfig

LENGTHS = (10, 20, 40, 80, 160)
Settings = dict[str, Any]


@dataclass(frozen=True)
class Grid:
    """Trials, and what an epoch takes in each."""

    trials: list[Trial]
    seconds: Callable[[Trial], float]


def steps(draw: random.Random) -> Iterator[Settings]:
    for _ in range(draw.randint(1, 5)):
        epochs = draw.choice([20, 35, 50, 70])
        milestones = sorted(draw.sample(range(1, epochs), draw.randint(1, 2)))
        yield {"epochs": epochs, "lr_schedule": {"name": "step", "milestones": milestones}}


def wsd(draw: random.Random) -> Iterator[Settings]:
    decays = draw.sample([0.1, 0.2, 0.4], draw.randint(1, 3))
    for epochs in draw.sample(LENGTHS, draw.randint(1, 4)):
        for decay in decays:
            yield {"epochs": epochs, "lr_schedule": {"name": "wsd", "decay": decay}}


def constant(draw: random.Random) -> Iterator[Settings]:
    for epochs in draw.sample(LENGTHS, draw.randint(1, 4)):
        yield {"epochs": epochs, "lr_schedule": {"name": "constant"}}


def cosine(draw: random.Random) -> Iterator[Settings]:
    for epochs in draw.sample(LENGTHS[:-1], draw.randint(1, 3)):
        yield {"epochs": epochs, "lr_schedule": {"name": "cosine"}}


def random_grid(draw: random.Random, durations: Sequence[float]) -> Grid:
    """Return a grid of one kind of schedule or three; each network's epochs take one of the durations."""
    kinds = draw.choice([[steps], [wsd], [constant], draw.sample([steps, wsd, constant, cosine], 3)])
    lrs, seeds = [0.1, 0.05, 0.01][: draw.randint(1, 3)], range(draw.randint(1, 3))
    seconds = {width: draw.choice(durations) for width in draw.sample([4, 8, 16], draw.randint(1, 3))}
    configs = [
        TrialConfig.model_validate({"data": "digits", "lr": lr, "model": {"width": width}, **settings})
        for kind in kinds
        for settings in kind(draw)
        for lr in lrs
        for width in seconds
    ]
    if draw.random() < 0.3:
        draw.shuffle(configs)
    different = {config.model_dump_json(): config for config in configs}.values()
    trials = [Trial(f"{i}-{seed}", "", config, seed) for i, config in enumerate(different) for seed in seeds]
    return Grid(trials, lambda trial: seconds[trial.config.model.width])  # type: ignore[attr-defined]
