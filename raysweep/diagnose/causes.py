"""What may have caused a dip or a divergence, and the evidence for and against it.

An epoch's validation comes after its training, so what threw the weights off shows in the gradients and the learning
rate of that epoch or the one before, and in the training loss of that epoch or the next.

A new cause is a function here, with its entry in `CAUSES`, and its numbers, if any, in `Thresholds`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from raysweep.diagnose.curves import Array, level, median, noise_level
from raysweep.diagnose.findings import Cause, Finding, Trial
from raysweep.diagnose.thresholds import Thresholds

Weighed = tuple[bool, str] | None
"""Whether an observation speaks for a cause or against it, and the observation in words; None where there is none."""
USUAL_EPOCHS = 10
"""Epochs before a dip that tell what is usual."""


@dataclass(frozen=True)
class CauseRule:
    """One cause that a dip or a divergence may have, and how the evidence is weighed."""

    cause: Cause
    words: str  # the cause as sentences name it
    weigh: Callable[[Finding, Trial, int, Thresholds], Weighed]  # takes a finding, its trial, its first epoch's place


def with_causes(finding: Finding, trial: Trial, limits: Thresholds) -> Finding:
    """Return a finding with what speaks for and against each cause."""
    place = int(np.searchsorted(trial.curves.epochs, finding.first))  # after the last epoch where that one was lost
    ratio = _gradient_ratio(trial, place)
    if not math.isnan(ratio):
        finding = replace(finding, numbers={**finding.numbers, "gradient_ratio": ratio})
    for rule in CAUSES:
        weighed = rule.weigh(finding, trial, place, limits)
        finding = finding.with_evidence(rule.cause, *weighed) if weighed else finding
    return finding


def _weigh_exploding_gradients(finding: Finding, trial: Trial, place: int, limits: Thresholds) -> Weighed:
    ratio = finding.numbers.get("gradient_ratio", math.nan)
    if math.isnan(ratio) or limits.gradient_calm <= ratio < limits.gradient_spike:
        return None
    text = f"the largest gradient norm up to epoch {finding.first} was {ratio:.1f} times the usual one"
    return ratio >= limits.gradient_spike, text


def _gradient_ratio(trial: Trial, place: int) -> float:
    """Return the largest gradient norm of this epoch and the one before over the usual; NaN where either is unknown."""
    norms = trial.curves["grad_norm_max" if trial.curves.has("grad_norm_max") else "grad_norm"]
    since = max(0, place - 1)
    near = _and_lost(norms, trial, "grad_norm")[since : place + 1]
    usual = norms[max(0, since - USUAL_EPOCHS) : since]
    if np.isfinite(usual).sum() < 3:
        usual = np.delete(norms, slice(since, place + 1))
    near, usual = near[~np.isnan(near)], usual[np.isfinite(usual)]
    typical = median(usual) if len(usual) else math.nan
    return float(near.max() / typical) if len(near) and typical > 0 else math.nan


def _weigh_rising_lr(finding: Finding, trial: Trial, place: int, limits: Thresholds) -> Weighed:
    """See whether the learning rate was rising, as in a cyclic schedule or a warm-up."""
    rates = _and_lost(trial.curves["lr"], trial, "lr")
    now, earlier = float(rates[place]), rates[max(0, place - 3) : place]
    if math.isnan(now) or not np.isfinite(earlier).any():
        return None
    lowest = float(np.nanmin(earlier))
    if now >= limits.lr_rise * lowest:
        return True, f"lr was rising: from {lowest:.3g} to {now:.3g} within three epochs"
    how = "constant" if math.isclose(now, float(earlier[-1])) else "falling"
    return False, f"lr was {how}, at {now:.3g}"


def _weigh_validation_only(finding: Finding, trial: Trial, place: int, limits: Thresholds) -> Weighed:
    """See whether training went on undisturbed, so that only the evaluation saw the dip."""
    losses = trial.curves["train_loss"]
    before, after = losses[max(0, place - 3) : place], losses[place : place + 2]
    if finding.kind != "dip" or not (np.isfinite(before).any() and np.isfinite(after).any()):
        return None
    usual, worst = level(before), float(np.nanmax(after))
    noise = median(noise_level(losses[np.isfinite(losses)]))
    losses_then = f"{usual:.3g} before the dip, {worst:.3g} during it"
    if worst - usual > max(limits.train_loss_jump * abs(usual), limits.noise_factor * noise):
        return False, f"training loss rose too: {losses_then}"
    return True, f"training loss was undisturbed: {losses_then}{_ema_beside(finding, trial, place)}"


def _ema_beside(dip: Finding, trial: Trial, place: int) -> str:
    """Say whether the EMA weights' validation accuracy fell as well, if it was recorded."""
    values = trial.curves["val_acc_ema"]
    during = values[place : place + int(dip.numbers["length"])]
    fall = level(values[:place]) - float(np.nanmin(during)) if np.isfinite(during).any() else math.nan
    if math.isnan(fall):
        return ""
    return "; the EMA weights held" if fall < dip.numbers["depth"] / 3 else "; the EMA weights fell too"


def _weigh_high_lr(finding: Finding, trial: Trial, place: int, limits: Thresholds) -> Weighed:
    """See whether a trial was lost in its first epochs, at a learning rate near its peak."""
    rates = _and_lost(trial.curves["lr"], trial, "lr")
    finite = rates[np.isfinite(rates)]
    if finding.kind != "divergence" or not len(finite) or finite.max() <= 0:
        return None
    rate = float(rates[place] if math.isfinite(rates[place]) else finite[-1])
    if rate < 0.5 * finite.max():
        return False, f"lr was {rate:.3g}, {100 * rate / finite.max():.0f} % of its peak"
    if place >= max(2, limits.early_share * trial.epochs):
        return None
    return True, f"the trial was lost in epoch {place + 1} of {trial.epochs}, at lr {rate:.3g}, near its peak"


def _and_lost(values: Array, trial: Trial, name: str) -> Array:
    """Append the number of the epoch that was lost, or NaN. Records hold it as text, since JSON has no infinity."""
    try:
        return np.append(values, float(trial.error[name]))
    except (KeyError, TypeError, ValueError):
        return np.append(values, math.nan)


CAUSES = (
    CauseRule("exploding_gradients", "exploding gradients", _weigh_exploding_gradients),
    CauseRule("rising_lr", "a rising learning rate (cyclic schedule or warm-up)", _weigh_rising_lr),
    CauseRule(
        "validation_only", "validation alone (batch-norm statistics, or weights that swing)", _weigh_validation_only
    ),
    CauseRule("high_lr", "too high a learning rate", _weigh_high_lr),
)
"""The causes in the order in which findings name them."""
