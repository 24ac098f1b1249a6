"""Which cause a dip, a divergence or a plateau has: told by training the epochs again in several futures.

In: the rows of a trial, and those of its futures, which all begin from its state before epoch K (`raysweep probe`).
Out: a verdict in numbers and words. Nothing is trained here. docs/probe.md explains the method.

* futures_of   what to train (`diagnose.futures`)
* judge        the rows of the futures in, a `Verdict` out (its numbers are those of `diagnose.contrasts`)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from raysweep.diagnose.contrasts import BY_LUCK, CERTAIN, Contrasts, Effect, contrasts_of
from raysweep.diagnose.futures import NAMES, Future, Phenomenon, Row, futures_of
from raysweep.store.metrics import CLOCK
from raysweep.terminal import count_of, percent, points

__all__ = ["CAUSES", "NAMES", "Effect", "Future", "Phenomenon", "Row", "Verdict", "futures_of", "judge"]

Outcome = Literal["named", "chance", "unexplained", "cannot_judge"]
CAUSES = {
    "exploding_gradients": "exploding gradients",
    "high_lr": "too high a learning rate",
    "batch_norm": "batch-norm statistics that do not fit the weights",
    "batches": "the batches of this epoch: bad labels or images among them",
}
FEWEST_ORDERS = 3
EXPLODES = 5.0
"""Times the usual gradient norm, from which clipping may be said to have prevented something."""
FEW_STEPS = 0.2
"""Share of the steps with such gradients, below which they are the exception: else what makes them are the labels."""
RISES = 1.5
"""Times the learning rate before, from which its rise is asked about by itself, even if the level before is unsure."""
BAD_BATCHES = 0.001
"""Probability of a training loss as high in another order, below which the batches are to blame."""
UNCHOSEN = 0.05
"""Probability of such a fall in one epoch, not in the deepest of all: enough where its batches are bad anyway."""


@dataclass(frozen=True)
class Verdict:
    """What the futures say."""

    phenomenon: Phenomenon
    epoch: int  # K
    metric: str
    outcome: Outcome
    cause: str | None  # a key of CAUSES if the outcome is "named"
    why: str  # in two or three sentences
    effects: Sequence[Effect] = ()
    numbers: Mapping[str, float] = field(default_factory=dict)  # level, fall, chance, noise, ...: see docs/probe.md

    def in_words(self) -> str:
        """Return the verdict in two or three sentences."""
        return self.why

    def as_json(self) -> dict[str, Any]:
        """Return all of it as JSON takes it: null for what is not finite."""
        plain: dict[str, Any] = _finite(asdict(self))
        return plain


def judge(
    before: Sequence[Row],
    trial: Sequence[Row],
    futures: Sequence[Future],
    metric: str = "val_acc",
    maximize: bool = True,
    phenomenon: Phenomenon = "dip",
    diverged: bool = False,
) -> Verdict:
    """Return which cause the futures leave standing.

    `before` are the trial's rows up to epoch K - 1, `trial` those from K on, after the last of which its loss was not
    finite if it `diverged`. Each of the futures has its rows.
    """
    epoch = len(before) + 1
    problem = _problem(before, trial, futures, metric, diverged)
    if problem:
        return Verdict(phenomenon, epoch, metric, "cannot_judge", None, problem)
    seen = contrasts_of(before, trial, futures, metric, maximize, phenomenon)
    effects = {effect.name: effect for effect in seen.effects()}
    outcome, cause = _plateau(effects, seen.least) if phenomenon == "plateau" else _fall(seen, effects)
    numbers = _numbers(seen)
    return Verdict(phenomenon, epoch, metric, outcome, cause, "", list(effects.values()), numbers)


def _problem(
    before: Sequence[Row], trial: Sequence[Row], futures: Sequence[Future], metric: str, diverged: bool
) -> str:
    """Return why nothing can be said; nothing if it can."""
    control = next((future for future in futures if future.name == "control"), None)
    orders = sum(future.name == "order" for future in futures)
    if control is None or orders < FEWEST_ORDERS:
        return f"It takes a control and {FEWEST_ORDERS} other orders of batches; there are {orders}."
    if not any(isinstance(row.get(metric), int | float) for row in before):
        return f"No epoch before epoch {len(before) + 1} has a {metric}, so that nobody knows what was usual."
    again = zip(control.rows, trial, strict=False)
    differing = next((names for names in map(_differences, again) if names), None)
    if differing:
        return f"The control is not the trial to the bit: it has another {', '.join(differing)}."
    lasted = len(trial) >= control.epochs
    if len(control.rows) < min(len(trial), control.epochs) or (diverged and not lasted and not control.diverged):
        ended = "did not diverge" if diverged else "ended early"
        return f"The control is not the trial to the bit: it {ended}."
    return ""


def _differences(rows: tuple[Row, Row]) -> list[str]:
    """Return the metrics of a trial's row that its control has another value of."""
    again, row = rows
    return [name for name, value in row.items() if name not in CLOCK and name in again and again[name] != value]


def _fall(seen: Contrasts, effects: Mapping[str, Effect]) -> tuple[Outcome, str | None]:
    """Return what is left to be the cause of a dip or a divergence."""
    removing = {name for name, effect in effects.items() if effect.removes}
    if seen.is_shared:
        return _shared(seen, removing)
    if seen.lr_rise >= RISES and _helps(seen, "smaller_lr"):
        return "named", "high_lr"
    if seen.gradient_of_orders >= EXPLODES and _helps(seen, "clipped"):
        return "named", "exploding_gradients"
    if seen.chance >= CERTAIN or seen.fall < seen.least:
        are_bad = seen.disturbed < BAD_BATCHES and seen.fall > seen.least and seen.tail < UNCHOSEN
        return ("named", "batches") if are_bad else ("chance", None)
    if "batch_norm" in removing and not seen.suffers:
        return "named", "batch_norm"
    if "clipped" in removing and seen.gradient >= EXPLODES and not seen.exploding >= FEW_STEPS:
        return "named", "exploding_gradients"
    return ("named", "batches") if seen.disturbed < BAD_BATCHES else ("unexplained", None)


def _helps(seen: Contrasts, name: str) -> bool:
    """Return whether a change makes all orders better.

    It is asked where the records show by themselves what the change takes away, whatever the level before was.
    """
    if name not in seen.changed:
        return False
    points, by_luck = seen.gain(name)
    return points > seen.least and by_luck < BY_LUCK


def _shared(seen: Contrasts, removing: set[str]) -> tuple[Outcome, str | None]:
    """Return what is left to be the cause of a fall that all orders of batches have."""
    if "clipped" in removing and ("smaller_lr" not in removing or seen.gradient >= EXPLODES):
        return "named", "exploding_gradients"
    if "smaller_lr" in removing:  # statistics gathered anew may do as well: those of slower weights keep up
        return "named", "high_lr"
    return ("named", "batch_norm") if "batch_norm" in removing and not seen.suffers else ("unexplained", None)


def _plateau(effects: Mapping[str, Effect], least: float) -> tuple[Outcome, str | None]:
    """Return what keeps a plateau from rising: the change that adds most, if that is no chance."""
    adding = [each for each in effects.values() if each.points > least and each.chance < CERTAIN]
    causes = {"smaller_lr": "high_lr", "averaged": "high_lr", "clipped": "exploding_gradients"}
    best = max(adding, key=lambda effect: effect.points, default=None)
    return ("named", causes.get(best.name, best.name)) if best else ("unexplained", None)


def _numbers(seen: Contrasts) -> dict[str, float]:
    """Return what a picture and a table need beside the effects."""
    return {
        "level": seen.level,
        "control": seen.control,
        "orders": float(seen.orders.mean()),
        "fall": seen.fall,
        "shared_fall": seen.shared_fall,
        "spread": seen.spread,
        "before": seen.before,
        "chance": seen.chance,
        "gradient_ratio": seen.gradient,
        "exploding": seen.exploding,
        "lr_rise": seen.lr_rise,
        "disturbed": seen.disturbed,
        "is_shared": float(seen.is_shared),
        "suffers": float(seen.suffers),
    }


def _finite(value: Any) -> Any:
    """Return what JSON can hold."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list | tuple) else value
