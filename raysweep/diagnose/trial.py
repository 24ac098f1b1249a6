"""The findings of one trial, from its epochs alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from raysweep.diagnose.causes import explain
from raysweep.diagnose.curves import Array, Curves, ending, level, median, noise_level, smoothed
from raysweep.diagnose.findings import Diagnosis, Finding
from raysweep.diagnose.thresholds import Thresholds
from raysweep.store.record import Record


@dataclass(frozen=True)
class _Trial:
    """What the detectors look at."""

    curves: Curves
    epochs: int
    """Planned."""
    status: str
    error: Mapping[str, Any]
    classes: int | None
    thresholds: Thresholds = field(repr=False)

    @property
    def is_complete(self) -> bool:
        return len(self.curves) >= self.epochs


def diagnose_record(record: Record, thresholds: Thresholds | None = None) -> Diagnosis:
    """Diagnose a trial's record."""
    classes = len(record.conditions.get("classes") or ()) or None
    return diagnose(record.metrics, record.epochs, record.status, record.error, classes, thresholds)


def diagnose(
    metrics: Sequence[Mapping[str, Any]],
    epochs: int | None = None,
    status: str = "finished",
    error: Mapping[str, Any] | None = None,
    classes: int | None = None,
    thresholds: Thresholds | None = None,
) -> Diagnosis:
    """Say what a trial's epochs show.

    Args:
        metrics: one row an epoch, oldest first, as in a record; any metric may be missing or not finite.
        epochs: how many the trial was to train; default: as many as there are.
        status: the record's; `diverged` is a finding by itself.
        error: the record's; of a diverged trial it has the last epoch's numbers.
        classes: of the data; tells what guessing would cost.
        thresholds: what counts as a finding.
    """
    curves = Curves.of(metrics)
    trial = _Trial(curves, epochs or len(curves), status, error or {}, classes, thresholds or Thresholds())
    lost = _divergence(trial)
    fitting = [] if lost else [*_overfitting(trial), *_underfitting(trial)]
    dips = [dip for dip in _dips(trial) if not lost or dip.last < lost.first]
    learned_nothing = any("guessing" in finding.numbers for finding in fitting)
    sinking = any(finding.numbers.get("fall", 0) > trial.thresholds.overfit_fall for finding in fitting)
    plateaus = [] if lost or learned_nothing or sinking else _plateaus(trial)
    explained = [explain(finding, curves, trial.epochs, trial.error, trial.thresholds) for finding in dips]
    if lost:
        explained.append(explain(lost, curves, trial.epochs, trial.error, trial.thresholds))
    findings = sorted([*explained, *fitting, *plateaus], key=lambda finding: (finding.first, finding.kind))
    valid = curves["val_acc"][np.isfinite(curves["val_acc"])]
    noise = median(noise_level(valid)) if len(valid) else 0.0
    return Diagnosis(tuple(findings), len(curves), noise)


# ---------------------------------------------------------------------------------------------------------
# Dips


def _dips(trial: _Trial) -> list[Finding]:
    """Where validation accuracy falls below its running best by more than its noise.

    The running best is that of the running median: the largest of n noisy values is an ever more lucky one.
    """
    rules, (_, values) = trial.thresholds, _valid(trial.curves, "val_acc")
    if len(values) < 4:
        return []
    noise = noise_level(values)
    best = np.maximum.accumulate(smoothed(values))
    dips, i = [], 2
    while i < len(values):
        reference = float(best[i - 2])  # of medians that do not see this epoch
        allowed = max(rules.min_dip, rules.noise_factor * float(noise[i]))
        if reference - values[i] <= allowed:
            i += 1
            continue
        end = _end_of_dip(values, i, reference - rules.recovered_share * allowed)
        dip = _dip(trial, i, end, reference, allowed)
        if dip is not None:
            dips.append(dip)
        i = end + 1
    return dips


def _end_of_dip(values: Array, start: int, recovered_at: float) -> int:
    """Return the last place of a dip: before the first value that is good enough again, or the end."""
    back = np.flatnonzero(values[start:] >= recovered_at)
    return start + int(back[0]) - 1 if len(back) else len(values) - 1


def _dip(trial: _Trial, start: int, end: int, reference: float, allowed: float) -> Finding | None:
    """Return the dip, or None where validation only sinks slowly, as in overfitting."""
    epochs, values = _valid(trial.curves, "val_acc")
    bottom = start + int(np.argmin(values[start : end + 1]))
    recovered = end < len(values) - 1
    recent = median(values[max(0, start - 5) : start])
    is_sudden = recent - float(values[start : start + 2].min()) > allowed
    if not is_sudden and not _training_suffers(trial, int(epochs[start]), int(epochs[end]), recovered):
        return None
    numbers = {
        "depth": reference - float(values[bottom]),
        "length": float(end - start + 1),
        "from": reference,
        "to": float(values[bottom]),
        "bottom": float(epochs[bottom]),
    }
    return Finding("dip", int(epochs[start]), int(epochs[end]), numbers, recovered=recovered)


def _training_suffers(trial: _Trial, first: int, last: int, otherwise: bool) -> bool:
    """Whether the training loss is higher during a dip than before; `otherwise` where it was not recorded."""
    epochs, losses = _valid(trial.curves, "train_loss")
    before, during = losses[epochs < first], losses[(epochs >= first) & (epochs <= last)]
    if not len(before) or not len(during):
        return otherwise
    return median(during) > float(smoothed(before).min()) * (1 + trial.thresholds.train_loss_jump)


# ---------------------------------------------------------------------------------------------------------
# Divergence, overfitting, underfitting


def _divergence(trial: _Trial) -> Finding | None:
    """A loss that is not finite, progress that is lost for good, or a loss that ends above that of guessing."""
    curves, rules = trial.curves, trial.thresholds
    losses = curves["train_loss"]
    broken = np.flatnonzero(~np.isfinite(losses)) if curves.has("train_loss") else np.array([], int)
    if trial.status == "diverged" or len(broken):
        epoch = int(curves.epochs[broken[0]]) if len(broken) else _next_epoch(curves)
        return Finding("divergence", epoch, epoch, {"train_loss": math.inf})
    epochs, losses = _valid(curves, "train_loss")
    if not len(losses):
        return None
    end, noise = min(level(losses), float(losses[-1])), noise_level(losses)
    lowest, highest = float(smoothed(losses).min()), float(losses[0])
    guessing = math.log(trial.classes) if trial.classes else math.inf
    numbers = {"train_loss": end, "lowest": lowest, "first": highest, "guessing": guessing}
    threshold = lowest + max(rules.progress_lost * (highest - lowest), rules.noise_factor * float(noise[-1]))
    if len(losses) >= 4 and highest > lowest and end > max(threshold, 1.1 * lowest):
        since = int(np.flatnonzero(losses <= threshold)[-1]) + 1
        return Finding("divergence", int(epochs[min(since, len(epochs) - 1)]), int(epochs[-1]), numbers)
    if end > rules.above_guessing * guessing and _guesses(trial):
        return Finding("divergence", int(epochs[0]), int(epochs[-1]), numbers)
    return None


def _guesses(trial: _Trial) -> bool:
    """Whether no accuracy ends clearly above that of guessing; a loss alone can be that high on a few bad images."""
    guessing = 1 / (trial.classes or 1)
    accuracies = [ending(trial.curves[name]) for name in ("train_acc", "val_acc", "val_acc_ema")]
    return not any(accuracy > guessing + max(0.5 * guessing, 0.005) for accuracy in accuracies)


def _overfitting(trial: _Trial) -> list[Finding]:
    """A gap between training and validation, confirmed by validation getting worse, or large enough by itself."""
    curves, rules = trial.curves, trial.thresholds
    both = np.isfinite(curves["val_acc"]) & np.isfinite(curves["train_acc"])
    if both.sum() < 4:
        return []
    epochs, val, train = curves.epochs[both], curves["val_acc"][both], curves["train_acc"][both]
    gap = ending(train) - ending(val)
    smooth = smoothed(val)
    peak = _peak(val, smooth)
    fall = float(val[peak]) - ending(val)
    numbers = {"gap": gap, "train_acc": ending(train), "val_acc": ending(val), "fall": fall}
    falls = fall > max(rules.overfit_fall, noise_level(val)[-1] * rules.noise_factor / 2)
    falls = falls and ending(train) >= train[peak]
    if falls:
        numbers |= {"peak": float(epochs[peak]), "peak_val_acc": float(val[peak])}
    loss_rise, lowest = _loss_rise(trial)
    rises = loss_rise > rules.overfit_loss_rise
    if rises:
        numbers |= {"loss_rise": loss_rise, "lowest_loss": float(lowest)}
    if gap >= rules.memorised_gap or (gap >= rules.overfit_gap and (falls or rises)):
        narrow = np.flatnonzero(smoothed(train) - smooth < rules.overfit_gap)
        wide_from = int(epochs[min(narrow[-1] + 1, len(epochs) - 1)]) if len(narrow) else int(epochs[0])
        first = lowest if rises else int(epochs[peak]) if falls else wide_from
        return [Finding("overfitting", first, int(epochs[-1]), numbers | {"gap_since": float(wide_from)})]
    return []


def _peak(values: Array, smooth: Array) -> int:
    """Return the place of the largest running median; not at the very end, where nothing can have fallen from it."""
    place = int(smooth[:-2].argmax())
    around = range(max(0, place - 1), place + 2)
    return min(around, key=lambda near: abs(float(values[near] - smooth[place])))


def _loss_rise(trial: _Trial) -> tuple[float, int]:
    """Return how far the validation loss ends above its lowest while training loss fell, as a share; and that epoch."""
    epochs, losses = _valid(trial.curves, "val_loss")
    if len(losses) < 4:
        return 0.0, 0
    smooth = smoothed(losses)
    lowest = int(smooth.argmin())
    rise = ending(losses) - float(smooth[lowest])
    train = trial.curves["train_loss"]
    at_lowest = train[np.flatnonzero(trial.curves.epochs == epochs[lowest])[0]]
    noise = float(noise_level(losses)[-1])
    if rise <= trial.thresholds.noise_factor / 2 * noise or not ending(train) < at_lowest or smooth[lowest] <= 0:
        return 0.0, 0
    return rise / float(smooth[lowest]), int(epochs[lowest])


def _underfitting(trial: _Trial) -> list[Finding]:
    """A finished trial that does not fit even the images that it was trained on."""
    curves, rules = trial.curves, trial.thresholds
    train, val = ending(curves["train_acc"]), ending(curves["val_acc"])
    loss, guessing = ending(curves["train_loss"]), math.log(trial.classes) if trial.classes else math.inf
    learned_nothing = loss >= rules.near_guessing * guessing and _guesses(trial)
    low = train < rules.underfit_train_acc and train - val <= rules.underfit_gap
    if not (trial.is_complete and len(curves) and (low or learned_nothing)):
        return []
    numbers = {"train_acc": train, "val_acc": val, "still_gaining": _still_gaining(trial)}
    if learned_nothing:
        numbers |= {"train_loss": loss, "guessing": guessing}
    return [Finding("underfitting", int(curves.epochs[0]), int(curves.epochs[-1]), numbers)]


def _still_gaining(trial: _Trial) -> float:
    """Training accuracy gained over the last quarter of the epochs; 0 where it may be noise."""
    _, accuracies = _valid(trial.curves, "train_acc")
    if not len(accuracies):
        return 0.0
    last = accuracies[-max(4, len(accuracies) // 4) :]
    gain, noise = float(last[-1] - last[0]), float(noise_level(accuracies)[-1])
    return gain if gain > trial.thresholds.noise_factor / 2 * math.sqrt(2) * noise else 0.0


# ---------------------------------------------------------------------------------------------------------
# Plateaus


def _plateaus(trial: _Trial) -> list[Finding]:
    """The longest stretch in which validation accuracy neither rises nor falls, beyond its noise."""
    rules, (epochs, values) = trial.thresholds, _valid(trial.curves, "val_acc")
    shortest = max(rules.min_plateau_epochs, math.ceil(rules.plateau_share * trial.epochs))
    if len(values) < shortest:
        return []
    noise = noise_level(values)
    longest = (0, 0)
    end = 0
    for start in range(len(values) - shortest + 1):
        end = max(end, start + shortest)
        while end <= len(values) and _is_flat(values[start:end], median(noise[start:end]), rules):
            longest = max(longest, (start, end), key=lambda stretch: stretch[1] - stretch[0])
            end += 1
    start, end = longest
    if end == start:
        return []
    lr = trial.curves["lr"]
    is_flat = (trial.curves.epochs >= epochs[start]) & (trial.curves.epochs <= epochs[end - 1])
    during = lr[is_flat]
    peak = float(np.nanmax(lr)) if trial.curves.has("lr") else math.nan
    numbers = {
        "length": float(end - start),
        "val_acc": median(values[start:end]),
        "lr_share": median(during) / peak if peak else math.nan,
        "to_the_end": float(end == len(values)),
        "train_gain": _gain(trial.curves["train_acc"][is_flat]),
    }
    return [Finding("plateau", int(epochs[start]), int(epochs[end - 1]), numbers)]


def _gain(values: Array) -> float:
    """How far the last third of a stretch lies above its first; NaN where either has no value."""
    third = len(values) // 3
    return level(values[-third:], third) - level(values[:third], third)


def _is_flat(values: Array, noise: float, rules: Thresholds) -> bool:
    """Whether the line through a stretch rises or falls by no more than is allowed, its uncertainty included.

    A stretch too short or too noisy to tell a plateau from a slope is none. Nor is one that is bent: its thirds must
    agree as well.
    """
    count, third = len(values), len(values) // 3
    places = np.arange(count) - (count - 1) / 2
    spread = float(places @ places)
    change = abs(float(places @ values)) / spread * (count - 1)
    uncertainty = 1.5 * noise / math.sqrt(spread) * (count - 1)
    if change + uncertainty > rules.plateau_gain:
        return False
    levels = [median(part) for part in (values[:third], values[third:-third], values[-third:])]
    return max(levels) - min(levels) <= rules.plateau_gain + 2 * noise * math.sqrt(math.pi / third)


def _valid(curves: Curves, name: str) -> tuple[Any, Array]:
    """Return the epochs that have a finite value of a metric, and the values."""
    finite = np.isfinite(curves[name])
    return curves.epochs[finite], curves[name][finite]


def _next_epoch(curves: Curves) -> int:
    return int(curves.epochs[-1]) + 1 if len(curves) else 1
