"""The learning rate of a step, in closed form: a pure function of its place, so a resume needs no state.

Each schedule equals the one of torch.optim.lr_scheduler that its config names, stepped once an epoch or, with
`per: step`, once a step; the warm-up equals LinearLR(start_factor=1 / (n + 1), total_iters=n), n its epochs or steps,
and the fall of `wsd` is its mirror, LinearLR(end_factor=1 / (n + 1), total_iters=n).
"""

from __future__ import annotations

import math

from raysweep.vision.config import ConstantConfig, CosineConfig, LrScheduleConfig, OwnSchedule, StepConfig, WsdConfig
from raysweep.vision.names import SCHEDULES

ROUNDING = 1e-9
"""Epochs by which the product of `decay` and `epochs` may be off; less than a step of any epoch."""


def lr_at(schedule: LrScheduleConfig, epoch: int, epochs: int, lr: float, step: int = 0, steps: int = 1) -> float:
    """Return the learning rate of a step in a trial of `epochs`; `lr` is the peak.

    `epoch` and `step`, the latter inside the epoch, are counted from 0; an epoch has so many `steps`.
    """
    # In a schedule per step, a step is what an epoch is in the others.
    scale = steps if schedule.per == "step" else 1
    place, warmup = epoch * scale + (step if scale > 1 else 0), schedule.warmup_epochs * scale
    if place < warmup:
        return lr * (place + 1) / (warmup + 1)
    return _after_warmup(schedule, place - warmup, epochs * scale - warmup, lr, scale)


def mean_lr(schedule: LrScheduleConfig, epoch: int, epochs: int, lr: float, steps: int) -> float:
    """Return the mean of the learning rates of an epoch's steps."""
    if schedule.per == "epoch" or is_even(schedule, epoch, epochs, lr):
        return lr_at(schedule, epoch, epochs, lr)  # a mean of equal numbers may differ from them in the last bit
    return math.fsum(lr_at(schedule, epoch, epochs, lr, step, steps) for step in range(steps)) / steps


def is_even(schedule: LrScheduleConfig, epoch: int, epochs: int, lr: float) -> bool:
    """Whether a schedule per step has one learning rate in all steps of an epoch, however many these are."""
    if epoch < schedule.warmup_epochs:
        return False
    match schedule:
        case ConstantConfig() | StepConfig():
            return True
        case CosineConfig(min_lr=min_lr):
            return lr == min_lr
        case WsdConfig(decay=decay):
            left = epochs - epoch - 1
            return left >= max(1, decay * epochs - ROUNDING)
        case OwnSchedule():
            return False


def _after_warmup(schedule: LrScheduleConfig, place: int, places: int, lr: float, scale: int) -> float:
    """`scale`: how many places an epoch has."""
    match schedule:
        case ConstantConfig():
            return lr
        case StepConfig(milestones=milestones, gamma=gamma):
            passed = sum(milestone * scale <= place for milestone in milestones)
            return lr * float(gamma**passed)
        case CosineConfig(min_lr=min_lr, t_max=t_max):
            share = place / (t_max * scale if t_max else max(1, places))
            return min_lr + (lr - min_lr) * (1 + math.cos(math.pi * share)) / 2
        case WsdConfig(decay=decay, warmup_epochs=warmup):
            falling = min(max(1, round(decay * (warmup * scale + places))), places)
            return lr * min(1.0, (places - place) / (falling + 1))
        case OwnSchedule(name=name, options=options):
            return lr * float(SCHEDULES.get(name)(place / scale, places / scale, **options))
