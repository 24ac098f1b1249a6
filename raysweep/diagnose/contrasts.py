"""The futures of a trial as numbers: how deep it fell, how far other orders differ, what each change takes away.

In: rows of futures (`diagnose.futures`). Out: `Contrasts`, of one metric, of which more is better.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.stats import t as student

from raysweep.diagnose.curves import Array, Curves, as_number, noise_level
from raysweep.diagnose.futures import USUAL_EPOCHS, Future, Phenomenon, Row, lr_rise, usual_gradient
from raysweep.terminal import Metric

CERTAIN = 0.01
"""A probability of a fall by chance below it rules chance out."""
RARE = 0.001
"""The same where nothing but the fall itself shows that anything was wrong: tails are heavier than a normal curve's."""
BY_LUCK = 0.05
"""The same of what a change takes away, for all changes that are tried together."""
LEAST_FALL = 0.02
"""Of an accuracy: what a fall, or what a plateau could gain, must be to matter."""
LEAST_NOISE = 0.002
"""Of an accuracy: the noise of a curve that shows none, since it is of few images."""
BEFORE = 3
"""Epochs before epoch K whose median is the level before."""
FEWEST_BEFORE = 5
"""Epochs before epoch K that tell a curve's noise."""
LOSS_RISE = 0.05
"""Of the training loss, as a share of it, from which training suffers too."""
MEASURED_BESIDE = {"averaged": "_ema", "batch_norm": "_precise"}
"""Changes that are other columns of the same rows."""


@dataclass(frozen=True)
class Effect:
    """How much one change takes away of a fall, or adds to a plateau."""

    name: str  # a key of futures.NAMES
    points: float  # by how much the metric is better with it
    removed: float  # which share of the fall that is: 1 is all of it; NaN of a plateau
    low: float  # the 95 % interval of that share; of the points of a plateau
    high: float
    chance: float  # the probability of so much without any effect
    futures: int  # how many futures have the change

    @property
    def removes(self) -> bool:
        """Whether at least half of the fall is gone, and not by chance."""
        return self.removed >= 0.5 and self.low > 0 and self.chance < BY_LUCK


@dataclass(frozen=True)
class Changed:
    """A metric of the futures that have one change."""

    own: float  # in the trial's own order of batches
    others: Array = field(default_factory=lambda: np.empty(0))  # in other orders


@dataclass(frozen=True)
class Contrasts:
    """A metric of all futures, at its worst in the epochs of a fall, or at the end of a plateau."""

    phenomenon: Phenomenon
    epochs: int  # of the whole trial, out of which the fall was chosen
    level: float  # before epoch K
    before: float  # the noise of the curve before it, a standard deviation
    swings: float  # the same with the weight of its extremes: they tell how heavy the tails of chance are
    control: float
    orders: Array
    spread: float  # the standard deviation from one order to another
    freedom: int  # its degrees of freedom
    changed: Mapping[str, Changed]  # by the change's name
    gradient: float  # the control's largest gradient norm, over the usual
    gradient_of_orders: float  # the same of the other orders, their median
    exploding: float  # about the share of the epoch's steps with such gradients, where they are clipped; NaN: unknown
    lr_rise: float  # the learning rate of epoch K over that before
    suffers: bool  # whether the training loss rose as well
    disturbed: float  # the probability of a training loss as high in another order, at the smaller learning rate
    least: float  # what a fall must be to matter
    floor: float  # what noise is at least

    @property
    def noise(self) -> float:
        """What one order differs from another by: the larger of what other orders and the epochs before show."""
        return max(self.spread, self.before, self.swings)

    @property
    def fall(self) -> float:
        """By how much the trial is below the other orders."""
        return float(self.orders.mean()) - self.control

    @property
    def chance(self) -> float:
        """The probability that the deepest fall of all the trial's epochs is one like this, by chance.

        That of one more observation in a t-test, times the number of epochs (Bonferroni's bound).
        """
        error = self.noise * math.sqrt(1 + 1 / len(self.orders))
        return min(1.0, self.epochs * _tail(self.fall, error, self.freedom))

    @property
    def again(self) -> float:
        """The probability that this order falls by chance at the smaller learning rate too, where nobody chose it."""
        changed = self.changed.get("smaller_lr")
        if changed is None or not len(changed.others):
            return 1.0
        error = self.noise * math.sqrt(1 + 1 / len(changed.others))
        return _tail(float(changed.others.mean()) - changed.own, error, self.freedom)

    @property
    def shared_fall(self) -> float:
        """By how much the other orders, which nobody chose for a fall, are below the level before."""
        return self.level - float(self.orders.mean())

    @property
    def is_shared(self) -> bool:
        """Whether the other orders fall too, half as far at least: so neither chance nor these batches made it."""
        error = math.hypot(self._deviation(self.orders) / math.sqrt(len(self.orders)), self.before / math.sqrt(BEFORE))
        is_sure = _tail(self.shared_fall, error, len(self.orders) - 1) < CERTAIN
        return is_sure and self.shared_fall > max(self.least, (self.level - self.control) / 2)

    def effects(self, in_all: bool) -> list[Effect]:
        """Return what each change takes away of the fall in all orders, or else of that in this order alone."""
        if self.phenomenon == "plateau":
            return [self._of_plateau(name) for name in self.changed]
        how = self._of_all if in_all else self._of_own
        return [how(name) for name in self.changed]

    def gain(self, name: str) -> tuple[float, float]:
        """Return by how much a change makes all orders better, and the probability of that by luck (Welch's t-test)."""
        mine, base = self._in_all(name)
        points = float(mine.mean() - base.mean())
        of_base = self._deviation(base) ** 2 / len(base)
        of_mine = (self._deviation(mine) if len(mine) > 1 else self._deviation(base)) ** 2 / len(mine)
        freedom = (of_base + of_mine) ** 2 / (of_base**2 / (len(base) - 1) + of_mine**2 / max(1, len(mine) - 1))
        return points, _tail(points, math.sqrt(of_base + of_mine), freedom if len(mine) > 1 else len(base) - 1)

    def _in_all(self, name: str) -> tuple[Array, Array]:
        """Return all futures with a change, and all without."""
        changed = self.changed[name]
        return np.append(changed.others, changed.own), np.append(self.orders, self.control)

    def _deviation(self, values: Array) -> float:
        return max(float(values.std(ddof=1)), self.floor)

    def _of_all(self, name: str) -> Effect:
        """Return what a change takes away of the fall that all orders have from the level before."""
        mine, base = self._in_all(name)
        points, by_luck = self.gain(name)
        fall = max(self.level - float(base.mean()), self.floor)
        share = points / fall
        # Where the fall is gone, so is the spread that it brings: then the level's own uncertainty is all.
        errors = self.before / math.sqrt(len(mine)), share * self.before / math.sqrt(BEFORE)
        error = math.hypot(*errors, (1 - share) * self._deviation(base) / math.sqrt(len(base))) / fall
        return self._effect(name, points, share, error, by_luck, len(base) - 1, len(mine))

    def _of_own(self, name: str) -> Effect:
        """Return what a change takes away of the fall of one order below others.

        A difference of differences: what is left is the fall between this order and others where all have the change,
        so that a change which does good to any epoch does not count for that; nor is it more than this order gains.
        """
        changed = self.changed[name]
        there = changed.others if len(changed.others) else self.orders
        points = min(self.fall - (float(there.mean()) - changed.own), changed.own - self.control)
        deviation = self.noise * math.sqrt(1 + 1 / len(there))
        fall = max(self.fall, self.floor)
        by_luck, futures = _tail(points, deviation, self.freedom), 1 + len(changed.others)
        return self._effect(name, points, points / fall, deviation / fall, by_luck, self.freedom, futures)

    def _of_plateau(self, name: str) -> Effect:
        """Return what a change adds to where a plateau ends."""
        mine, base = self._in_all(name)
        points, by_luck = self.gain(name)
        deviation = self._deviation(base) * math.sqrt(1 / len(base) + 1 / len(mine))
        error = float(student.ppf(0.975, len(base) - 1)) * deviation
        chance = min(1.0, by_luck * len(self.changed))
        return Effect(name, points, math.nan, points - error, points + error, chance, len(mine))

    def _effect(
        self, name: str, points: float, share: float, deviation: float, by_luck: float, freedom: float, futures: int
    ) -> Effect:
        """Return an effect; several changes are tried, and one of them may do good by luck."""
        error = float(student.ppf(0.975, freedom)) * deviation
        return Effect(name, points, share, share - error, share + error, min(1.0, by_luck * len(self.changed)), futures)


def _tail(difference: float, deviation: float, freedom: float) -> float:
    """Return the probability of such a difference, or a larger one, where there is none."""
    return float(student.sf(difference / deviation, freedom))


def contrasts_of(
    before: Sequence[Row],
    trial: Sequence[Row],
    futures: Sequence[Future],
    metric: str,
    maximize: bool,
    phenomenon: Phenomenon,
) -> Contrasts:
    """Return the futures as numbers; those of one control and some other orders must be among them."""
    curve = (1.0 if maximize else -1.0) * numbers_of(before, metric)
    curve = curve[np.isfinite(curve)]
    is_accuracy = Metric.of(metric, curve).percent
    floor = LEAST_NOISE if is_accuracy else 1e-3 * abs(float(np.median(curve)))
    control = next(future for future in futures if future.name == "control")
    orders = [future for future in futures if future.name == "order"]
    values = _Values(futures, metric, maximize, phenomenon, 0.0 if is_accuracy else float(curve.min()))
    spread, freedom = values.spread(orders)
    spread = max(spread, floor)
    # Of a few epochs the noise of a curve cannot be told.
    at_least = floor if len(curve) >= FEWEST_BEFORE else spread
    return Contrasts(
        phenomenon=phenomenon,
        epochs=len(before) + len(trial),
        level=float(np.median(curve[-BEFORE:])),
        before=max(float(noise_level(curve)[-1]), at_least),
        swings=_swings(curve),
        control=values.of(control),
        orders=np.array([values.of(each) for each in orders]),
        spread=spread,
        freedom=freedom,
        changed=_changed(futures, control, orders, values),
        gradient=_gradient(before, control, values.last),
        gradient_of_orders=float(np.median([_gradient(before, each, values.last) for each in orders])),
        exploding=_exploding(before, futures, control.seed, values.last),
        lr_rise=lr_rise([*before, *trial], len(before) + 1),
        suffers=_suffers(before, control, values.last),
        disturbed=_disturbed(futures, control.seed),
        least=LEAST_FALL if is_accuracy else 0.0,
        floor=floor,
    )


def numbers_of(rows: Sequence[Row], name: str) -> Array:
    """Return a column of rows as floats: NaN where there is no number."""
    return np.array([as_number(row.get(name)) for row in rows])


class _Values:
    """What each future amounts to: its worst value in the epochs in which the control falls, or a plateau's end."""

    def __init__(
        self, futures: Sequence[Future], metric: str, maximize: bool, phenomenon: Phenomenon, worst: float
    ) -> None:
        self._sign, self._metric, self._phenomenon = (1.0 if maximize else -1.0), metric, phenomenon
        self._epochs = max(1, *(len(future.rows) for future in futures))
        seen = np.concatenate([self._sign * numbers_of(future.rows, metric) for future in futures])
        self._worst = float(np.nanmin([worst, *seen]))
        control = next(future for future in futures if future.name == "control")
        self.last = int(np.argmin(self.column(control, metric))) + 1  # epochs until the control is at its worst

    def column(self, future: Future, name: str) -> Array:
        """Return a metric by epoch; where the future is lost, or has no number, it is the worst of all."""
        values = self._sign * numbers_of(future.rows, name)
        values = np.append(values, np.full(self._epochs - len(values), np.nan))
        return np.nan_to_num(values, nan=self._worst)

    def of(self, future: Future, suffix: str = "") -> float:
        """Return what a future amounts to, by the metric or by what is measured beside it."""
        name = (self._metric.removesuffix("_ema") + suffix) if suffix else self._metric
        values = self.column(future, name)
        return float(values[-2:].mean() if self._phenomenon == "plateau" else values[: self.last].min())

    def spread(self, orders: Sequence[Future]) -> tuple[float, int]:
        """Return the standard deviation from one order to another, over all epochs, and its degrees of freedom."""
        by_epoch = np.array([self.column(each, self._metric) for each in orders])
        return float(np.sqrt(by_epoch.var(axis=0, ddof=1).mean())), by_epoch.size - by_epoch.shape[1]


def _swings(curve: Array) -> float:
    """Return the root mean square of the last pseudo-residuals, whose median is `noise_level`'s estimate."""
    residuals = np.diff(curve, 2)[-USUAL_EPOCHS:] / math.sqrt(6)
    return float(np.sqrt(np.mean(residuals**2))) if len(residuals) else 0.0


def _changed(
    futures: Sequence[Future], control: Future, orders: Sequence[Future], values: _Values
) -> dict[str, Changed]:
    """Return the futures with a change, by its name; those beside first."""
    changed: dict[str, Changed] = {}
    for name, suffix in MEASURED_BESIDE.items():
        if any(key.endswith(suffix) for row in control.rows[:1] for key in row):
            changed[name] = Changed(values.of(control, suffix), np.array([values.of(each, suffix) for each in orders]))
    for name in ("clipped", "smaller_lr"):
        own, others = _own_and_others(futures, name, control.seed)
        if own:
            changed[name] = Changed(values.of(own[0]), np.array([values.of(each) for each in others]))
    return changed


def _own_and_others(futures: Sequence[Future], name: str, seed: int) -> tuple[list[Future], list[Future]]:
    of_name = [each for each in futures if each.name == name]
    return [each for each in of_name if each.seed == seed], [each for each in of_name if each.seed != seed]


def _gradient(before: Sequence[Row], future: Future, last: int) -> float:
    """Return a future's largest gradient norm over the usual; infinite where the loss is, NaN if none is recorded."""
    usual = usual_gradient(before, len(before) + 1)
    if future.diverged and len(future.rows) < last:
        return math.inf
    name = "grad_norm_max" if any("grad_norm_max" in row for row in before) else "grad_norm"
    norms = numbers_of(future.rows[:last], name)
    return float(np.nanmax(norms) / usual) if usual > 0 and np.isfinite(norms).any() else math.nan


def _exploding(before: Sequence[Row], futures: Sequence[Future], seed: int, last: int) -> float:
    """Return about which share of the steps have gradients as large as the largest, by how far the mean is up as well.

    It is of the future with clipped gradients, whose norms are those before clipping: where nothing is thrown off by a
    large step, no other gradients grow in its wake.
    """
    own, _ = _own_and_others(futures, "clipped", seed)
    usual = Curves.of(before[-USUAL_EPOCHS:])
    if not own or not own[0].rows or not (usual.has("grad_norm_max") and usual.has("grad_norm")):
        return math.nan
    largest, mean = (
        numbers_of(own[0].rows[:last], name) / float(np.nanmedian(usual[name]))
        for name in ("grad_norm_max", "grad_norm")
    )
    worst = int(np.nanargmax(largest))
    return float((mean[worst] - 1) / (largest[worst] - 1)) if largest[worst] > 1 else math.nan


def _suffers(before: Sequence[Row], control: Future, last: int) -> bool:
    """Return whether the training loss is above that of before, by more than its noise; so it is if it is infinite."""
    losses = numbers_of(before, "train_loss")
    losses = losses[np.isfinite(losses)]
    during = numbers_of(control.rows[:last], "train_loss")
    if not len(losses) or len(during) < last:
        return len(during) < last
    usual = float(np.median(losses[-BEFORE:]))
    allowed = max(LOSS_RISE * abs(usual), BEFORE * float(noise_level(losses)[-1]))
    return not float(during.max()) <= usual + allowed


def _disturbed(futures: Sequence[Future], seed: int) -> float:
    """Return the probability of a training loss in epoch K as high as this order's by chance; 1 where none tells.

    It is that at the smaller learning rate, where the weights hardly move: so what is seen are the batches.
    """
    own, others = _own_and_others(futures, "smaller_lr", seed)
    orders = [each for each in futures if each.name == "order"]
    here, there, usual = (
        numbers_of([each.rows[0] for each in some if each.rows], "train_loss") for some in (own, others, orders)
    )
    if not (len(here) and len(there) and len(usual) > 1 and np.isfinite([*here, *there, *usual]).all()):
        return 1.0
    spread = max(float(usual.std(ddof=1)), 0.005 * float(usual.mean()))
    excess = float(here[0] - there.mean())
    return float(student.sf(excess / (spread * math.sqrt(1 + 1 / len(there))), len(usual) - 1))
