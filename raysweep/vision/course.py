"""What decides each epoch of a trial, as texts: trials whose first texts are equal have the same first epochs.

In: a trial's config. Out: a `Course`, one text an epoch, each made when it is asked for. No torch, no Ray.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, overload

from raysweep.errors import UserError
from raysweep.vision.config import CosineConfig, LrScheduleConfig, OwnSchedule, TrialConfig, WsdConfig
from raysweep.vision.schedules import is_even, lr_at

NOT_IN_COURSE: dict[str, Any] = {
    "epochs": True,
    "lr": True,  # of these three, the exact learning rates
    "lr_schedule": True,
    "precision": True,  # what it resolves to is one of the trial's conditions, as is the fingerprint of the data
    "data": {"path"},
}
"""The settings that others stand for."""


class Course(Sequence[str]):
    """The texts of a trial's epochs: the learning rates of each, and in the first all other settings too."""

    def __init__(self, config: TrialConfig) -> None:
        self.config = config

    def __len__(self) -> int:
        return self.config.epochs

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        places = range(len(self))[index]
        return self._text(places) if isinstance(places, int) else [self._text(epoch) for epoch in places]

    def _text(self, epoch: int) -> str:
        config = self.config
        lrs = learning_rates(config.lr_schedule, epoch, config.epochs, config.lr)
        return lrs if epoch else f"{_other_settings(config)} {lrs}"


def _other_settings(config: TrialConfig) -> str:
    content = config.model_dump(mode="json", exclude_defaults=True, exclude=NOT_IN_COURSE)
    if not content.get("data", True):  # it had a path alone
        del content["data"]
    return json.dumps(content, sort_keys=True)


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
