"""What decides the epochs of a trial of `classify`: its settings, and the exact learning rates of each epoch.

In: a trial's config. Out: a `loops.Course`, whose texts are made when they are asked for. No torch, no Ray.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, overload

from raysweep.errors import UserError
from raysweep.loops import Course
from raysweep.vision.config import CosineConfig, LrScheduleConfig, OwnOptimizer, OwnSchedule, TrialConfig, WsdConfig
from raysweep.vision.schedules import is_even, lr_at

INSTEAD: dict[str, Any] = {
    **dict.fromkeys(("epochs", "lr", "lr_schedule"), True),  # the exact learning rates
    "precision": True,  # what it resolves to, one of the trial's conditions
    "data": {"path"},  # the fingerprint of the data, another one
}
"""The settings in whose place something else decides, and what that is."""


def course_of(config: TrialConfig) -> Course:
    """Return what decides a trial's epochs."""
    content = config.model_dump(mode="json", exclude_defaults=True, exclude=INSTEAD)
    if not content.get("data", True):  # it had a path alone
        del content["data"]
    if isinstance(config.optimizer, OwnOptimizer):  # which is told the peak when it is made
        content["lr"] = config.lr
    return Course(json.dumps(content, sort_keys=True), _LearningRates(config))


class _LearningRates(Sequence[str]):
    """Those of a trial's epochs, as `learning_rates` tells them."""

    def __init__(self, config: TrialConfig) -> None:
        self.config = config

    def __len__(self) -> int:
        return self.config.epochs

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        config, places = self.config, range(len(self))[index]
        if isinstance(places, int):
            return learning_rates(config.lr_schedule, places, config.epochs, config.lr)
        return [self[epoch] for epoch in places]


def learning_rates(schedule: LrScheduleConfig, epoch: int, epochs: int, lr: float) -> str:
    """Return a text of the exact learning rates of an epoch's steps, however many these are; `epoch` is from 0.

    It is the learning rate, if that is the same in all steps, else what a closed form makes them of.

    Raises:
        UserError: a schedule of the user's own fails.
    """
    if schedule.per == "step" and not is_even(schedule, epoch, epochs, lr):
        return json.dumps(_closed_form(schedule, epoch, epochs, lr))
    try:
        return repr(lr_at(schedule, epoch, epochs, lr))
    except Exception as error:
        if not isinstance(schedule, OwnSchedule):
            raise
        why = f"{type(error).__name__}: {error}"
        raise UserError(f"lr_schedule {schedule.name}: it failed in epoch {epoch + 1} of {epochs}: {why}") from error


def _closed_form(schedule: LrScheduleConfig, epoch: int, epochs: int, lr: float) -> list[Any]:
    """Return what decides the learning rates of an epoch whose steps have different ones."""
    warmup = schedule.warmup_epochs
    if epoch < warmup:
        return ["rise", lr, warmup]
    match schedule:
        case CosineConfig(min_lr=min_lr, t_max=t_max):
            return ["cosine", lr, min_lr, warmup, t_max or epochs - warmup]
        case WsdConfig(decay=decay):
            return ["fall", lr, epochs, min(decay, (epochs - warmup) / epochs)]
    return [schedule.model_dump(mode="json"), lr, epochs]
