"""Which cause a dip, a divergence or a plateau has: told by training the epochs again in several futures.

In: the rows of a trial, and those of its futures, which all begin from its state before epoch K (`raysweep probe`).
Out: a verdict in numbers and words. Nothing is trained here. docs/probe.md explains the method.

* futures_of   what to train (`diagnose.futures`)
* judge        the rows of the futures in, a `Verdict` out (its numbers are those of `diagnose.contrasts`)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from raysweep.diagnose.contrasts import (
    BY_LUCK,
    CERTAIN,
    MEASURED_BESIDE,
    RARE,
    Contrasts,
    Effect,
    contrasts_of,
    numbers_of,
)
from raysweep.diagnose.futures import NAMES, Future, Phenomenon, Row, futures_of
from raysweep.diagnose.verdict import CAUSES, Outcome, Verdict
from raysweep.store.metrics import CLOCK

__all__ = [
    "CAUSES",
    "NAMES",
    "Effect",
    "Future",
    "Line",
    "Phenomenon",
    "Row",
    "Verdict",
    "futures_of",
    "judge",
    "lines",
]

FEWEST_ORDERS = 3
EXPLODES = 5.0
"""Times the usual gradient norm, from which clipping may be said to have prevented something."""
FEW_STEPS = 0.2
"""Share of the steps with such gradients, below which they are the exception: else what makes them are the labels."""
RISES = 1.5
"""Times the learning rate before, from which its rise is asked about by itself, even if the level before is unsure."""
HALF = 0.5
"""The share of a fall that a change has to take away."""
BAD_BATCHES = 0.001
"""Probability of a training loss as high in another order, below which the batches are to blame."""


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
        return Verdict(phenomenon, epoch, metric, "cannot_judge", problem=problem)
    seen = contrasts_of(before, trial, futures, metric, maximize, phenomenon)
    recorded = _recorded(seen) if phenomenon != "plateau" else None
    effects = {effect.name: effect for effect in seen.effects(seen.is_shared or recorded is not None)}
    cause = _of_plateau(effects, seen.least) if phenomenon == "plateau" else _of_fall(seen, effects, recorded)
    is_chance = phenomenon != "plateau" and not seen.is_shared and not _stands_out(seen, RARE)
    outcome: Outcome = "named" if cause else "chance" if is_chance else "unexplained"
    gains = {name: seen.gain(name) for name in seen.changed}
    helps = {name: points for name, (points, luck) in gains.items() if points > seen.least and luck < CERTAIN}
    return Verdict(phenomenon, epoch, metric, outcome, cause, "", list(effects.values()), _numbers(seen), helps)


@dataclass(frozen=True)
class Line:
    """One future as a picture shows it."""

    name: str  # a key of NAMES
    seed: int
    epochs: Sequence[int]
    values: Sequence[float]  # of the metric; NaN where there is none


def lines(futures: Sequence[Future], metric: str = "val_acc") -> list[Line]:
    """Return what a picture draws of the futures: those in the trial's own order, then the other orders.

    What is measured beside in the control's rows is a line of its own.
    """
    seed = next(future.seed for future in futures if future.name == "control")
    drawn = [future for future in futures if future.seed == seed] + [each for each in futures if each.name == "order"]
    found = [_line(future, future.name, metric) for future in drawn]
    base, control = metric.removesuffix("_ema"), drawn[0]
    beside = [_line(control, name, base + suffix) for name, suffix in MEASURED_BESIDE.items()]
    return found + [line for line in beside if not np.isnan(line.values).all()]


def _line(future: Future, name: str, metric: str) -> Line:
    epochs = [int(row["epoch"]) for row in future.rows]
    return Line(name, future.seed, epochs, numbers_of(future.rows, metric).tolist())


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
    ends_early = len(control.rows) < min(len(trial), control.epochs)
    if ends_early or (diverged and len(trial) < control.epochs and not control.diverged):
        return f"The control is not the trial to the bit: it {'ended early' if ends_early else 'did not diverge'}."
    return ""


def _differences(rows: tuple[Row, Row]) -> list[str]:
    """Return the metrics of a trial's row that its control has another value of."""
    again, row = rows
    known = [name for name in row if name not in CLOCK and name in again]
    return [
        name
        for name in known
        if again[name] != row[name] and not (again[name] != again[name] and row[name] != row[name])
    ]


def _of_fall(seen: Contrasts, effects: Mapping[str, Effect], recorded: str | None) -> str | None:
    """Return what is left to be the cause of a dip or a divergence, if anything is."""
    removing = {name for name, effect in effects.items() if effect.removes}
    if seen.is_shared:
        return _of_shared(seen, removing)
    if recorded:
        return recorded
    if not _stands_out(seen, CERTAIN):
        return _of_training_loss(seen, effects) if seen.fall > seen.least else None
    if "smaller_lr" in removing and seen.lr_rise >= RISES:
        return "high_lr"
    if "clipped" in removing and _few_steps_explode(seen):
        return "exploding_gradients"
    if "batch_norm" in removing and not seen.suffers and _stands_out(seen, RARE):
        return "batch_norm"
    return _of_training_loss(seen, effects)


def _of_training_loss(seen: Contrasts, effects: Mapping[str, Effect]) -> str | None:
    """Return what the training loss of this order tells, where it is higher than others' beyond doubt.

    That its batches are to blame is sure then. Few steps with huge gradients are an explosion, if clipping takes half
    of the fall away: what remains to be told is not whether anything happened, but which of two things did.
    """
    if not seen.disturbed < BAD_BATCHES:
        return None
    clipped = effects.get("clipped")
    explodes = _few_steps_explode(seen) and clipped is not None and (clipped.removed or 0.0) >= HALF
    return "exploding_gradients" if explodes else "batches"


def _few_steps_explode(seen: Contrasts) -> bool:
    """Return whether gradients of this order were huge, in a few of its steps."""
    return seen.gradient >= EXPLODES and not seen.exploding >= FEW_STEPS


def _stands_out(seen: Contrasts, chance: float) -> bool:
    """Return whether this order falls below others, and not by chance: deeper than any epoch would, or again."""
    return seen.fall > seen.least and (seen.chance < chance or seen.again < CERTAIN)


def _recorded(seen: Contrasts) -> str | None:
    """Return the cause that the records show by themselves, in all orders, if all are better where it is taken away.

    Then it does not matter how well the level before is known, which a fall in all orders is told by otherwise.
    """
    if seen.lr_rise >= RISES and _helps(seen, "smaller_lr"):
        return "high_lr"
    explodes = seen.gradient_of_orders >= EXPLODES and _helps(seen, "clipped")
    return "exploding_gradients" if explodes else None


def _helps(seen: Contrasts, name: str) -> bool:
    """Return whether a change makes all orders better."""
    points, by_luck = seen.gain(name) if name in seen.changed else (0.0, 1.0)
    return points > seen.least and by_luck < BY_LUCK


def _of_shared(seen: Contrasts, removing: set[str]) -> str | None:
    """Return what is left to be the cause of a fall that all orders of batches have."""
    if "clipped" in removing and ("smaller_lr" not in removing or seen.gradient >= EXPLODES):
        return "exploding_gradients"
    if "smaller_lr" in removing:  # statistics gathered anew may do as well: those of slower weights keep up
        return "high_lr"
    return "batch_norm" if "batch_norm" in removing and not seen.suffers else None


def _of_plateau(effects: Mapping[str, Effect], least: float) -> str | None:
    """Return what keeps a plateau from rising: what the change that adds most takes away, if that is no luck."""
    adding = [each for each in effects.values() if each.points > least and each.chance < CERTAIN]
    causes = {"smaller_lr": "high_lr", "averaged": "high_lr", "clipped": "exploding_gradients"}
    best = max(adding, key=lambda effect: effect.points, default=None)
    return causes.get(best.name, best.name) if best else None


def _numbers(seen: Contrasts) -> dict[str, float]:
    """Return what a picture and a table need beside the effects."""
    return {
        "epochs": float(seen.epochs),
        "other_orders": float(len(seen.orders)),
        "level": seen.level,
        "control": seen.control,
        "orders": float(seen.orders.mean()),
        "fall": seen.fall,
        "shared_fall": seen.shared_fall,
        "spread": seen.spread,
        "before": seen.before,
        "chance": seen.chance,
        "again": seen.again,
        "gradient_ratio": seen.gradient,
        "exploding": seen.exploding,
        "lr_rise": seen.lr_rise,
        "disturbed": seen.disturbed,
        "gradient_of_orders": seen.gradient_of_orders,
        "is_shared": float(seen.is_shared),
        "is_recorded": float(not seen.is_shared and _recorded(seen) is not None),
        "suffers": float(seen.suffers),
    }
