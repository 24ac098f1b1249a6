"""Evidence for and against each cause of a dip or a divergence.

An epoch's validation comes after its training, so what threw the weights off shows in the gradients and the learning
rate of that epoch or the one before, and in the training loss of that epoch or the next.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from raysweep.diagnose.curves import Array, Curves, level, median, noise_level, number
from raysweep.diagnose.findings import Evidence, Finding
from raysweep.diagnose.thresholds import Thresholds

USUAL_EPOCHS = 10
"""Epochs before a dip that tell what is usual."""


def explain(finding: Finding, curves: Curves, epochs: int, error: Mapping[str, Any], rules: Thresholds) -> Finding:
    """Return the dip or divergence with its evidence.

    Args:
        finding: of these curves.
        curves: of the trial.
        epochs: how many the trial was to train.
        error: of a diverged trial's record; it has the numbers of the epoch that was lost.
        rules: what counts as a spike, a rise, a jump.
    """
    place = int(np.searchsorted(curves.epochs, finding.first))
    lost = {name: number(_as_number(error.get(name))) for name in ("lr", "grad_norm")}
    ratio = _gradient_ratio(curves, place, lost["grad_norm"])
    evidence = [*_gradient_evidence(ratio, finding.first, rules), *_lr_evidence(curves, place, lost["lr"], rules)]
    if finding.kind == "dip":
        evidence += _validation_evidence(finding, curves, place, rules)
    else:
        evidence += _early_evidence(curves, place, epochs, lost["lr"], rules)
    numbers = dict(finding.numbers)
    if not math.isnan(ratio):
        numbers["gradient_ratio"] = ratio
    return replace(finding, numbers=numbers, evidence=tuple(evidence))


def _gradient_ratio(curves: Curves, place: int, lost: float) -> float:
    """Largest gradient norm of this epoch and the one before, over the usual one; NaN where neither is known."""
    norms = curves["grad_norm_max" if curves.has("grad_norm_max") else "grad_norm"]
    before = [*norms[max(0, place - 1) : place + 1], *([lost] if place >= len(curves) else [])]
    largest = max((math.inf if math.isinf(norm) else norm for norm in before if not math.isnan(norm)), default=math.nan)
    usual = norms[max(0, place - 1 - USUAL_EPOCHS) : max(0, place - 1)]
    if np.isfinite(usual).sum() < 3:
        usual = np.delete(norms, np.arange(max(0, place - 1), min(place + 1, len(norms))))
    finite = usual[np.isfinite(usual)]
    typical = median(finite) if len(finite) else math.nan
    return largest / typical if typical > 0 else math.nan


def _gradient_evidence(ratio: float, epoch: int, rules: Thresholds) -> Iterator[Evidence]:
    if math.isnan(ratio):
        return
    text = f"largest gradient norm up to epoch {epoch} x{ratio:.1f} its usual"
    if ratio >= rules.gradient_spike:
        yield Evidence("exploding_gradients", True, text)
    elif ratio < rules.gradient_calm:
        yield Evidence("exploding_gradients", False, text)


def _lr_evidence(curves: Curves, place: int, lost: float, rules: Thresholds) -> Iterator[Evidence]:
    """Whether the learning rate was rising, as in a cyclic schedule or a warm-up."""
    rates = curves["lr"]
    now = float(rates[place]) if place < len(rates) else lost
    earlier = rates[max(0, place - 3) : place]
    if math.isnan(now) or not np.isfinite(earlier).any():
        return
    lowest = float(np.nanmin(earlier))
    if now >= rules.lr_rise * lowest:
        yield Evidence("rising_lr", True, f"lr was rising: {lowest:.3g} to {now:.3g} within three epochs")
    else:
        how = "constant" if math.isclose(now, float(earlier[-1])) else "falling"
        yield Evidence("rising_lr", False, f"lr was {how}, at {now:.3g}")


def _validation_evidence(dip: Finding, curves: Curves, place: int, rules: Thresholds) -> Iterator[Evidence]:
    """Whether training went on undisturbed, so that only the evaluation saw the dip."""
    losses = curves["train_loss"]
    before = losses[max(0, place - 3) : place]
    after = losses[place : place + 2]
    if not (np.isfinite(before).any() and np.isfinite(after).any()):
        return
    usual, worst = level(before), float(np.nanmax(after))
    jump = max(rules.train_loss_jump * abs(usual), rules.noise_factor * float(_noise(losses)))
    numbers = f"{usual:.3g} before, {worst:.3g} then"
    if worst - usual > jump:
        yield Evidence("validation_only", False, f"training loss rose too: {numbers}")
        return
    averaged = _averaged_fall(dip, curves, place)
    beside = ""
    if not math.isnan(averaged):
        held = averaged < dip.numbers["depth"] / 3
        beside = "; the averaged weights held" if held else "; the averaged weights fell too"
    yield Evidence("validation_only", True, f"training loss undisturbed: {numbers}{beside}")


def _averaged_fall(dip: Finding, curves: Curves, place: int) -> float:
    """How far the averaged weights' validation accuracy fell during the dip; NaN if it was not recorded."""
    values = curves["val_acc_ema"]
    before = level(values[:place])
    during = values[place : place + int(dip.numbers["length"])]
    return before - float(np.nanmin(during)) if np.isfinite(during).any() else math.nan


def _early_evidence(curves: Curves, place: int, epochs: int, lost: float, rules: Thresholds) -> Iterator[Evidence]:
    """Whether a trial was lost in its first epochs, at a learning rate near its peak."""
    known = [*curves["lr"], lost]
    finite = [rate for rate in known if math.isfinite(rate)]
    if not finite or max(finite) <= 0:
        return
    rate = known[place] if place < len(known) and math.isfinite(known[place]) else finite[-1]
    near_peak = rate >= 0.5 * max(finite)
    if place < max(2, rules.early_share * epochs) and near_peak:
        yield Evidence("high_lr", True, f"lost in epoch {place + 1} of {epochs}, at lr {rate:.3g}, near its peak")
    elif not near_peak:
        yield Evidence("high_lr", False, f"lr was {rate:.3g}, {100 * rate / max(finite):.0f} % of its peak")


def _noise(losses: Array) -> float:
    finite = losses[np.isfinite(losses)]
    return median(noise_level(finite)) if len(finite) else 0.0


def _as_number(value: Any) -> Any:
    """Records hold the numbers of a divergence as text, since JSON has no infinity."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan
