"""The rules, and `diagnose`, which applies them: for each kind of finding how it is found, and its words.

A new rule is two functions here, with their entry in `RULES` and their numbers, if any, in `Thresholds`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from raysweep.diagnose.causes import with_causes
from raysweep.diagnose.curves import (
    Array,
    Curves,
    Epochs,
    Places,
    ending,
    level,
    median,
    noise_beside,
    noise_level,
    smoothed,
)
from raysweep.diagnose.findings import Diagnosis, Finding, Kind, Trial
from raysweep.diagnose.thresholds import Thresholds
from raysweep.store.metrics import roles_of
from raysweep.store.record import Record
from raysweep.sweepfile.schema import Objective
from raysweep.terminal import count_of, percent, points, words_of

CROSS_ENTROPY = "cross_entropy"
"""The built-in loop's loss, unless the user brings another."""
TRAIN_GAIN = 0.02
"""Training accuracy that must be gained during a plateau to be worth a word."""
SHORT_FACTOR = 0.8
"""The least share of `noise_factor` that a dip must exceed in a short trial, whose noise few epochs tell."""
MOST_ENDS = 500
"""Epochs at which a plateau may begin or end; of a longer trial every second, third, ... epoch."""
MOST_LOOKS = 20
"""Up to twice as many of the last epochs are looked at, to see whether overfitting lasted."""
LOW_LR, HIGH_LR = 0.1, 0.5
"""Shares of the peak learning rate: a plateau below the low one is the schedule's doing, one above the high a stall."""


@dataclass(frozen=True)
class Rule:
    """One kind of finding: how it is found, and how it is put into words."""

    kind: Kind
    find: Callable[[Trial, Diagnosis, Thresholds], list[Finding]]
    """Takes a trial, what earlier rules found, the thresholds."""
    describe: Callable[[Finding], str]
    """Returns one sentence, without the trial and the cause."""
    verb: str = ""
    """The verb for trials with this finding in sentences about a sweep; if it is empty, none is written."""
    has_causes: bool = False
    """Whether the causes are weighed for it."""
    at_end: bool = False
    """Whether only a trial that trained to its end can have it, so that shares are of such trials."""


# ---------------------------------------------------------------------------------------------------------
# Divergence


def _find_divergence(trial: Trial, found: Diagnosis, limits: Thresholds) -> list[Finding]:
    """Find a loss that is not finite, progress that is lost for good, or a loss that ends above that of guessing."""
    curves = trial.curves
    broken = curves.lost("train_loss")
    if trial.status == "diverged" or len(broken):
        epoch = int(broken[0]) if len(broken) else int(curves.epochs.max(initial=0)) + 1
        return [Finding("divergence", epoch, epoch, {"train_loss": math.inf})]
    epochs, losses = curves.finite("train_loss")
    if len(losses) < limits.min_loss_epochs:
        return []
    end, lowest, first = min(level(losses), float(losses[-1])), float(smoothed(losses).min()), float(losses[0])
    numbers = {"train_loss": end, "lowest": lowest, "first": first, "guessing": trial.guessing_loss}
    lost = epochs[_lost_from(trial, losses, limits) :]
    if len(lost) >= trial.lasting(limits):
        return [Finding("divergence", int(lost[0]), int(epochs[-1]), numbers)]
    if _stays_above_guessing(trial, losses, limits):
        return [Finding("divergence", int(epochs[0]), int(epochs[-1]), numbers)]
    return []


def _lost_from(trial: Trial, losses: Array, limits: Thresholds) -> int:
    """Return the place from which on the training loss is back up, or the number of epochs if it is not.

    A small loss must have grown by a tenth, or any be back at that of guessing after it was clearly below.
    """
    end, lowest, first = min(level(losses), float(losses[-1])), float(smoothed(losses).min()), float(losses[0])
    share = limits.progress_lost if trial.is_whole else limits.progress_lost_so_far
    threshold = lowest + max(share * (first - lowest), limits.noise_factor * noise_level(losses)[-1])
    guessing = limits.near_guessing * trial.guessing_loss
    matters = end > 1.1 * lowest or (trial.is_guessing and lowest < guessing < end)
    if first <= lowest or end <= threshold or not matters:
        return len(losses)
    return int(np.flatnonzero(losses <= threshold)[-1]) + 1


def _stays_above_guessing(trial: Trial, losses: Array, limits: Thresholds) -> bool:
    """Return whether the training loss is above that of guessing, and nothing speaks for learning.

    The training loss is a mean over the epoch, whose first steps it counts; the validation loss tells how it ended.
    """
    lasting = trial.lasting(limits)
    last = losses[-lasting:]
    learns = not trial.is_guessing or ending(trial.curves["val_loss"]) < trial.guessing_loss
    falls = not trial.is_whole and last[-1] < last[0]
    stays_above = min(level(losses), *last) > limits.above_guessing * trial.guessing_loss
    return stays_above and len(last) == lasting and not learns and not falls


def _describe_divergence(finding: Finding) -> str:
    n = finding.numbers
    if math.isinf(n["train_loss"]):
        return f"diverged: {_called(finding, 'train_loss', 'the loss')} of epoch {finding.first} is not finite"
    if n["train_loss"] > n["guessing"]:
        way = f"above the {n['guessing']:.3g} of guessing"
    else:
        way = f"after {n['first']:.3g} at first and {n['lowest']:.3g} at best"
    ends = "stands" if finding.so_far else "ends"
    loss = _called(finding, "train_loss", "training loss")
    return f"diverged from epoch {finding.first} on: {loss} {ends} at {n['train_loss']:.3g}, {way}"


def _called(finding: Finding, loss: str, usual: str) -> str:
    """Return what `train_loss` or `val_loss` is called in words: as its loop calls it, unless that is a loss."""
    return finding.names.get(loss, usual)


# ---------------------------------------------------------------------------------------------------------
# Dips


def _find_dips(trial: Trial, found: Diagnosis, limits: Thresholds) -> list[Finding]:
    """Find where validation accuracy falls below its running best by more than its noise, before a divergence.

    What fell in the last epoch so far alone may be noise that later epochs show to be usual.
    """
    lost = found.of("divergence")
    dips = [_dip(trial, *fall, limits) for fall in _falls(trial, limits)]
    dips = [dip for dip in dips if dip and not (lost and dip.last >= lost[0].first - 1)]
    return [dip for dip in dips if dip and (trial.is_whole or dip.first < trial.curves.epochs[-1])]


def _falls(trial: Trial, limits: Thresholds) -> Iterator[tuple[int, int, float, float]]:
    """Yield each fall's first and last place, the running best before it, and by how much it may be missed.

    The running best is that of the running median: the largest of n noisy values grows with n by luck alone.
    """
    _, values = trial.curves.finite("val_acc")
    if len(values) < 4:
        return
    best = np.maximum.accumulate(smoothed(values))
    best = np.array([-math.inf, -math.inf, *best[:-2]])  # of the medians that do not see the epoch itself
    factor, end = _dip_factor(trial.epochs, limits), -1
    for start in np.flatnonzero(best - values > limits.min_dip).tolist():
        if start <= end:
            continue
        allowed = max(limits.min_dip, factor * noise_beside(values, start))
        if best[start] - values[start] > allowed:
            back = np.flatnonzero(values[start:] >= best[start] - limits.recovered_share * allowed)
            end = start + int(back[0]) - 1 if len(back) else len(values) - 1
            yield start, end, float(best[start]), allowed


def _dip_factor(epochs: int, limits: Thresholds) -> float:
    """Return how many deviations a dip must exceed: the more epochs, the further the lowest of them falls by chance.

    It grows as the largest of n normal values does, with the root of ln(n); `noise_factor` is that for 50 epochs.
    """
    return limits.noise_factor * max(SHORT_FACTOR, math.sqrt(math.log(max(2, epochs)) / math.log(50)))


def _dip(trial: Trial, start: int, end: int, best: float, allowed: float, limits: Thresholds) -> Finding | None:
    """Return the dip, or None where validation only sinks slowly, as in overfitting."""
    epochs, values = trial.curves.finite("val_acc")
    first, last = int(epochs[start]), int(epochs[end])
    bottom = start + int(np.argmin(values[start : end + 1]))
    recovered = end < len(values) - 1
    is_sudden = median(values[max(0, start - 5) : start]) - float(values[start : start + 2].min()) > allowed
    if not is_sudden and not _training_suffers(trial, first, last, recovered, limits):
        return None
    numbers = {
        "depth": best - float(values[bottom]),
        "length": float(end - start + 1),
        "from": best,
        "to": float(values[bottom]),
        "bottom": float(epochs[bottom]),
    }
    return Finding("dip", first, last, numbers, recovered=recovered)


def _describe_dip(finding: Finding) -> str:
    n = finding.numbers
    recovered = "recovered" if finding.recovered else f"not recovered{' so far' if finding.so_far else ''}"
    return (
        f"dip of {points(n['depth'])} at epoch {finding.first} ({percent(n['from'])} to {percent(n['to'])}), "
        f"{count_of(int(n['length']), 'epoch')}, {recovered}"
    )


def _training_suffers(trial: Trial, first: int, last: int, otherwise: bool, limits: Thresholds) -> bool:
    """Return whether the training loss is higher during a dip than before, or `otherwise` if it was not recorded."""
    epochs, losses = trial.curves.finite("train_loss")
    before, during = losses[epochs < first], losses[(epochs >= first) & (epochs <= last)]
    if not len(before) or not len(during):
        return otherwise
    return median(during) > float(smoothed(before).min()) * (1 + limits.train_loss_jump)


# ---------------------------------------------------------------------------------------------------------
# Overfitting


def _find_overfitting(trial: Trial, found: Diagnosis, limits: Thresholds) -> list[Finding]:
    """Find a gap between training and validation that is very large, or confirmed by validation getting worse.

    Without the accuracies of both no gap tells: the loss must rise, by more than is asked for beside a gap.
    Overfitting begins where the validation loss is lowest, or else where accuracy peaks, or where the gap opens.
    """
    if found.has("divergence"):
        return []
    count, lasting = len(trial.curves), trial.lasting(limits)
    ends = range(count, count - lasting, -max(1, lasting // MOST_LOOKS))
    if not all(end > 0 and _gap(trial.until(end), limits) for end in ends):
        return []
    numbers = {**_gap(trial, limits), **_gap_since(trial, limits)}
    first = next(numbers[name] for name in ("lowest_loss", "peak", "gap_since") if name in numbers)
    epochs, *_ = trial.curves.finite(*(("val_acc", "train_acc") if trial.has_accuracies else ("val_loss",)))
    return [Finding("overfitting", int(first), int(epochs[-1]), numbers)]


def _gap_since(trial: Trial, limits: Thresholds) -> dict[str, float]:
    """Return since which epoch training accuracy is far above that of validation, where there are both."""
    epochs, val, train = trial.curves.finite("val_acc", "train_acc")
    if not len(epochs):
        return {}
    narrow = np.flatnonzero(smoothed(train) - smoothed(val) < limits.overfit_gap)
    return {"gap_since": float(epochs[min(narrow[-1] + 1, len(epochs) - 1) if len(narrow) else 0])}


def _gap(trial: Trial, limits: Thresholds) -> Mapping[str, float]:
    """Return the gap at the end and what confirms it, or nothing if that is not overfitting.

    A gap by itself can close as long as the learning rate falls, so that it counts only if the trial is whole.
    """
    epochs, val, train = trial.curves.finite("val_acc", "train_acc")
    if not trial.has_accuracies:
        alone = _loss_rise(trial, limits, limits.noise_factor)
        return alone if "loss_rise" in alone else {}
    if len(val) < 4:
        return {}
    gap = ending(train) - ending(val)
    worse = _fall_from_peak(epochs, val, train, limits) | _loss_rise(trial, limits, limits.noise_factor / 2)
    gets_worse = "peak" in worse or "loss_rise" in worse
    if not (gap >= limits.overfit_gap and gets_worse) and not (gap >= limits.memorised_gap and trial.is_whole):
        return {}
    return {"gap": gap, "train_acc": ending(train), "val_acc": ending(val), **worse}


def _describe_overfitting(finding: Finding) -> str:
    n = finding.numbers
    ends = "is so far" if finding.so_far else "ends"
    parts = [f"training accuracy {ends} {points(n['gap'])} above validation"] if "gap" in n else []
    if "peak" in n:
        peak = f"{percent(n['peak_val_acc'])} at epoch {n['peak']:.0f}"
        parts.append(f"validation accuracy fell {points(n['fall'])} from {peak}")
    if "loss_rise" in n:
        lowest = f"its lowest at epoch {n['lowest_loss']:.0f}"
        val, train = _called(finding, "val_loss", "validation loss"), _called(finding, "train_loss", "training loss")
        while_training = "" if "gap" in n else f", while {train} fell"
        parts.append(f"{val} rose {100 * n['loss_rise']:.0f} % from {lowest}{while_training}")
    return f"overfits from epoch {finding.first}: {', '.join(parts)}"


def _fall_from_peak(epochs: Epochs, val: Array, train: Array, limits: Thresholds) -> dict[str, float]:
    """Return how far validation accuracy ends below its peak; and the peak, if that is a fall and training went on."""
    smooth = smoothed(val)
    place = int(smooth[:-2].argmax())  # not at the very end, where nothing can have fallen from it
    peak = min(range(max(0, place - 1), place + 2), key=lambda near: abs(float(val[near] - smooth[place])))
    fall = float(val[peak]) - ending(val)
    if fall <= max(limits.overfit_fall, noise_level(val)[-1] * limits.noise_factor / 2) or ending(train) < train[peak]:
        return {"fall": fall}
    return {"fall": fall, "peak": float(epochs[peak]), "peak_val_acc": float(val[peak])}


def _loss_rise(trial: Trial, limits: Thresholds, noises: float) -> dict[str, float]:
    """Return how far the validation loss ends above its lowest, as a share, if training loss fell; and that epoch.

    It must be by so many standard deviations of its noise.
    """
    epochs, losses = trial.curves.finite("val_loss")
    if len(losses) < 4:
        return {}
    smooth, train = smoothed(losses), trial.curves["train_loss"]
    place = int(smooth.argmin())
    lowest, at_lowest = float(smooth[place]), train[trial.curves.epochs == epochs[place]][0]
    rise, noise = ending(losses) - lowest, float(noise_level(losses)[-1])
    needed = max(noises * noise, limits.overfit_loss_rise * lowest)
    if rise <= needed or lowest <= 0 or not ending(train) < at_lowest:
        return {}
    return {"loss_rise": rise / lowest, "lowest_loss": float(epochs[place])}


# ---------------------------------------------------------------------------------------------------------
# Underfitting


def _find_underfitting(trial: Trial, found: Diagnosis, limits: Thresholds) -> list[Finding]:
    """Find a finished trial that does not fit even the images that it was trained on.

    Of one that fits those of validation the training images are only harder to tell, as mixed ones are.
    """
    curves = trial.curves
    if found.has("divergence") or not len(curves) or not trial.is_whole:
        return []
    train, val, loss = (ending(curves[name]) for name in ("train_acc", "val_acc", "train_loss"))
    numbers = {"train_acc": train, "val_acc": val, "still_gaining": _still_gaining(trial, limits)}
    if loss >= limits.near_guessing * trial.guessing_loss and trial.is_guessing:
        numbers |= {"train_loss": loss, "guessing": trial.guessing_loss}
    elif not (max(train, val) < limits.underfit_train_acc and train - val <= limits.underfit_gap):
        return []
    return [Finding("underfitting", int(curves.epochs[0]), int(curves.epochs[-1]), numbers)]


def _describe_underfitting(finding: Finding) -> str:
    n = finding.numbers
    if "guessing" in n:
        loss, guessing = n["train_loss"], n["guessing"]
        return f"learns next to nothing: training loss ends at {loss:.2f}; guessing would cost {guessing:.2f}"
    more = ", still gaining at the end" if n["still_gaining"] > 0.01 else ""
    ends = f"training accuracy ends at {percent(n['train_acc'])}, validation at {percent(n['val_acc'])}"
    return f"underfits: {ends}{more}"


def _still_gaining(trial: Trial, limits: Thresholds) -> float:
    """Return the training accuracy gained over the last quarter of the epochs, or 0 where it may be noise."""
    _, accuracies = trial.curves.finite("train_acc")
    if not len(accuracies):
        return 0.0
    last = accuracies[-max(4, len(accuracies) // 4) :]
    gain, noise = float(last[-1] - last[0]), float(noise_level(accuracies)[-1])
    return gain if gain > limits.noise_factor / 2 * math.sqrt(2) * noise else 0.0


# ---------------------------------------------------------------------------------------------------------
# Plateaus


def _find_plateau(trial: Trial, found: Diagnosis, limits: Thresholds) -> list[Finding]:
    """Find the longest stretch in which validation accuracy, above guessing, neither rises nor falls."""
    if found.has("divergence"):
        return []
    curves, (epochs, values) = trial.curves, trial.curves.finite("val_acc")
    start, end = _longest_flat(values, trial, limits)
    if end == start:
        return []
    first, last = int(epochs[start]), int(epochs[end - 1])
    during = (curves.epochs >= first) & (curves.epochs <= last)
    peak = float(np.nanmax(curves["lr"])) if curves.has("lr") else math.nan
    numbers = {
        "length": float(end - start),
        "val_acc": median(values[start:end]),
        "lr_share": median(curves["lr"][during]) / peak if peak else math.nan,
        "to_the_end": float(end == len(values)),
        "train_gain": _gain(curves["train_acc"][during]),
    }
    return [Finding("plateau", first, last, numbers)]


def _describe_plateau(finding: Finding) -> str:
    n = finding.numbers
    text = f"validation flat at {percent(n['val_acc'])} from epoch {finding.first} to {finding.last}"
    beside = f", while training accuracy rose by {points(n['train_gain'])}" if n["train_gain"] > TRAIN_GAIN else ""
    if math.isnan(n["lr_share"]):
        return text + beside
    if n["lr_share"] < LOW_LR:
        low = "lr was below a tenth of its peak for half of it"
        return f"{text}{beside}; {low}" if beside else f"{text}: {low}, so the schedule ended it"
    share = f"lr at {100 * n['lr_share']:.0f} % of its peak"
    return f"{text}, {'stalled ' if n['lr_share'] >= HIGH_LR else ''}with {share}{beside}"


def _longest_flat(values: Array, trial: Trial, limits: Thresholds) -> tuple[int, int]:
    """Return the first place of the longest flat stretch and the place after its last; both 0 if there is none."""
    shortest = max(limits.min_plateau_epochs, math.ceil(limits.plateau_share * trial.epochs))
    grid = np.arange(0, len(values) + 1, 1 + len(values) // MOST_ENDS)
    starts, ends = (grid[places] for places in np.triu_indices(len(grid), 1))
    starts, ends = starts[ends - starts >= shortest], ends[ends - starts >= shortest]
    changes, noises = _lines(values, starts, ends)
    level_enough = np.flatnonzero(changes <= limits.plateau_gain)
    for i in level_enough[np.argsort(starts[level_enough] - ends[level_enough], kind="stable")].tolist():
        if _is_flat(values[starts[i] : ends[i]], float(changes[i]), float(noises[i]), trial, limits):
            return int(starts[i]), int(ends[i])
    return 0, 0


def _lines(values: Array, starts: Places, ends: Places) -> tuple[Array, Array]:
    """Fit a line to each stretch; return how far it rises or falls plus one standard error, and its noise."""
    sums, squares, moments = (
        np.concatenate([[0.0], np.cumsum(terms)]) for terms in (values, values**2, values * np.arange(len(values)))
    )
    count = ends - starts
    total = sums[ends] - sums[starts]
    spread = count * (count**2 - 1.0) / 12
    covariance = moments[ends] - moments[starts] - total * (starts + ends - 1) / 2
    rest = squares[ends] - squares[starts] - total**2 / count - covariance**2 / spread
    noise = np.sqrt(np.maximum(rest, 0) / (count - 2))
    return (np.abs(covariance) / spread + noise / np.sqrt(spread)) * (count - 1), noise


def _is_flat(values: Array, change: float, noise: float, trial: Trial, limits: Thresholds) -> bool:
    """Return whether a stretch changes by no more than is allowed at its height, which is above guessing.

    A stretch too short or too noisy to tell a plateau from a slope is not flat. Nor is one that is bent: its thirds
    must agree as well.
    """
    third, height = len(values) // 3, median(values)
    allowed = min(limits.plateau_gain, limits.plateau_rise * (height - trial.guessing_acc))
    if not trial.is_above_guessing(height) or change > allowed:
        return False
    levels = [median(part) for part in (values[:third], values[third:-third], values[-third:])]
    return max(levels) - min(levels) <= allowed + 2 * noise * math.sqrt(math.pi / third)


def _gain(values: Array) -> float:
    """Return how far the last third of a stretch lies above its first; NaN where either has no value."""
    third = len(values) // 3
    return level(values[-third:], third) - level(values[:third], third)


# ---------------------------------------------------------------------------------------------------------
# All of them together

RULES = (
    Rule("divergence", _find_divergence, _describe_divergence, "diverge", has_causes=True),
    Rule("dip", _find_dips, _describe_dip, "dip", has_causes=True),
    Rule("overfitting", _find_overfitting, _describe_overfitting, "overfit"),
    Rule("underfitting", _find_underfitting, _describe_underfitting, "underfit", at_end=True),
    Rule("plateau", _find_plateau, _describe_plateau),
)
"""The rules in the order in which they look at a trial."""


def diagnose_record(
    record: Record, thresholds: Thresholds | None = None, objective: Objective | None = None
) -> Diagnosis:
    """Diagnose a trial's record."""
    classes = len(record.conditions.get("classes") or ()) or None
    loss = record.config.get("loss", CROSS_ENTROPY)
    name = loss.get("name") if isinstance(loss, Mapping) else loss
    return diagnose(
        record.metrics, record.epochs, record.status, record.error, classes, thresholds, objective, str(name)
    )


def diagnose(
    metrics: Sequence[Mapping[str, Any]],
    epochs: int | None = None,
    status: str = "finished",
    error: Mapping[str, Any] | None = None,
    classes: int | None = None,
    thresholds: Thresholds | None = None,
    objective: Objective | None = None,
    loss: str = CROSS_ENTROPY,
) -> Diagnosis:
    """Say what a trial's epochs show.

    Args:
        metrics: one row an epoch, oldest first; any metric may be missing or not finite.
        epochs: how many the trial was to train; default: as many as there are.
        status: the record's; `diverged` is a finding by itself.
        error: the record's; for a diverged trial it has the last epoch's numbers.
        classes: how many the data has, which tells what guessing would cost.
        thresholds: what counts as a finding.
        objective: what the trial is ranked by: the loss, where no metric is called one and less of it is better.
        loss: the setting; what guessing costs by a loss of the user's own is not known.
    """
    curves, limits, ranked = Curves.of(metrics), thresholds or Thresholds(), objective or Objective()
    roles = roles_of(tuple(curves.metrics), ranked.metric, ranked.maximize)
    names = {role: name for role, name in roles.items() if role.endswith("loss") and "loss" not in words_of(name)}
    is_cross_entropy = loss == CROSS_ENTROPY
    trial = Trial(curves.known_as(roles), epochs or len(curves), status, error or {}, classes, is_cross_entropy, names)
    found: list[Finding] = []
    for rule in RULES:
        findings = [
            replace(one, so_far=not trial.is_whole, names=names)
            for one in rule.find(trial, Diagnosis(tuple(found)), limits)
        ]
        found += [with_causes(finding, trial, limits) for finding in findings] if rule.has_causes else findings
    return Diagnosis(tuple(sorted(found, key=lambda finding: (finding.first, finding.kind))))
