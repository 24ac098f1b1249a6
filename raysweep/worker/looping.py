"""Runs a loop, of whatever kind, and hands each of its epochs on; and what is asked of the metrics of one."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

from raysweep.errors import UserError, did_you_mean
from raysweep.loops import Epoch, Loop, TrainFunctionLoop, TrialContext
from raysweep.sweepfile.schema import Objective
from raysweep.terminal import count_of
from raysweep.worker.together import Ended, in_step
from raysweep.worker.train_function import host


def run_loop(loop: Loop, config: Any, trial: TrialContext, take: Callable[[Epoch], None], name: str) -> None:
    """Train a trial of that name by a loop, and call `take` after each epoch; it ends the loop by raising."""
    if isinstance(loop, TrainFunctionLoop):
        return host(loop.function, loop.arguments(config, trial.seed), trial, take, name)
    if trial.world_size > 1 and not loop.keeps_step:
        trial, take = in_step(trial, take)
    epochs = loop.train(config, trial)
    try:
        for epoch in epochs:
            take(epoch)
    except Ended:
        pass
    finally:
        if inspect.isgenerator(epochs):
            epochs.close()
    return None


def ended_early(loop: Loop, done: int, epochs: int) -> str:
    """Return the message for a loop that ended by itself after so many of its trial's epochs."""
    if isinstance(loop, TrainFunctionLoop):
        return (
            f"loop {loop.name!r} ended after {count_of(done, 'report')}, and the trial has {epochs} epochs; does the "
            f"function count them by config[{loop.epochs_key!r}]? register_loop(..., epochs=KEY) gives it another key"
        )
    return (
        f"loop {loop.name!r} ended after {count_of(done, 'epoch')} of the trial's {epochs}; it must go on as long as "
        "config.epochs says"
    )


def numbers_of(metrics: Mapping[str, Any], loop: str) -> dict[str, float]:
    """Return metrics as floats, but for `epoch`, which raysweep counts itself.

    Raises:
        UserError: one is no number.
    """
    numbers = {}
    for name, value in metrics.items():
        try:
            numbers[str(name)] = float(value)
        except (TypeError, ValueError, RuntimeError) as error:  # torch's, of a tensor with several elements
            raise UserError(f"loop {loop!r}: metric {name!r}: got {value!r:.60}, must be a number") from error
    numbers.pop("epoch", None)
    return numbers


def check_objective(metrics: Mapping[str, float], objective: Objective, costs: Collection[str] = ()) -> None:
    """Refuse an objective that an epoch does not measure, and that is none of the `costs` known before training.

    Raises:
        UserError: it is not among the metrics.
    """
    for name in (objective.metric, *(each.metric for each in objective.against if each.metric not in costs)):
        if name in metrics or f"{name}_ema" in metrics:
            continue
        known = [each for each in metrics if each != "epoch"]
        raise UserError(
            f"objective {name!r} is not among the metrics of epoch {metrics['epoch']:g}{did_you_mean(name, known)}; "
            f"there are {', '.join(known)} (where it is not measured every epoch, report NaN for the others)"
        )
