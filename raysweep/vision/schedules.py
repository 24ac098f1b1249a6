"""The learning rate of an epoch, in closed form: a pure function of the epoch's number, so a resume needs no state.

Each schedule equals the one of torch.optim.lr_scheduler that its config names, stepped once an epoch; the warm-up
equals LinearLR(start_factor=1 / (warmup_epochs + 1), total_iters=warmup_epochs).
"""

from __future__ import annotations

import math

from raysweep.vision.config import ConstantConfig, CosineConfig, LrScheduleConfig, StepConfig


def lr_at(schedule: LrScheduleConfig, epoch: int, epochs: int, lr: float) -> float:
    """Return the learning rate of epoch `epoch`, counted from 0, in a trial of `epochs`; `lr` is the peak."""
    if epoch < schedule.warmup_epochs:
        return lr * (epoch + 1) / (schedule.warmup_epochs + 1)
    return _after_warmup(schedule, epoch - schedule.warmup_epochs, epochs - schedule.warmup_epochs, lr)


def _after_warmup(schedule: LrScheduleConfig, epoch: int, epochs: int, lr: float) -> float:
    match schedule:
        case ConstantConfig():
            return lr
        case StepConfig(milestones=milestones, gamma=gamma):
            passed = sum(milestone <= epoch for milestone in milestones)
            return lr * float(gamma**passed)
        case CosineConfig(min_lr=min_lr, t_max=t_max):
            share = epoch / (t_max or max(1, epochs))
            return min_lr + (lr - min_lr) * (1 + math.cos(math.pi * share)) / 2
