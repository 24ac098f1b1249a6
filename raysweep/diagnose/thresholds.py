"""What counts as a finding. Accuracies and their differences are on the scale 0..1."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from raysweep.config import Config

Share = Annotated[float, Field(gt=0, lt=1)]


class Thresholds(Config):
    """Every number that `diagnose` compares with; `docs/diagnosis.md` says what the defaults find and miss."""

    noise_factor: PositiveFloat = 4.0
    """Standard deviations of a curve's own noise that a change must exceed."""
    min_dip: NonNegativeFloat = 0.02
    """Validation accuracy that a dip must cost, however quiet the curve."""
    recovered_share: Share = 0.5
    """A dip is over once validation is back to within this share of the fall that made it one."""

    overfit_gap: NonNegativeFloat = 0.1
    """Training accuracy above validation accuracy, at the end, for overfitting to be looked for."""
    overfit_fall: NonNegativeFloat = 0.01
    """Validation accuracy lost from its peak that confirms it."""
    overfit_loss_rise: NonNegativeFloat = 0.1
    """Rise of the validation loss above its lowest, as a share of it, that confirms it."""
    memorised_gap: NonNegativeFloat = 0.25
    """A gap that is overfitting by itself, even where validation does not fall."""

    plateau_share: Share = 0.25
    """Of the trial's epochs that a plateau must last."""
    min_plateau_epochs: PositiveInt = 6
    plateau_gain: NonNegativeFloat = 0.02
    """Validation accuracy that a plateau may gain or lose over its length, the uncertainty of that included."""
    low_lr: Share = 0.1
    """Of the trial's peak learning rate; below it a plateau is the schedule's doing."""

    progress_lost: Share = 0.5
    """Of the training loss's way down that must be lost for good for a trial to count as diverged."""
    above_guessing: PositiveFloat = 1.1
    """A trial has diverged if its training loss ends above this many times that of guessing, ln(classes)."""

    underfit_train_acc: Share = 0.5
    """A finished trial underfits if its training accuracy ends below this ..."""
    underfit_gap: NonNegativeFloat = 0.05
    """... and above its validation accuracy by no more than this."""

    near_guessing: Share = 0.98
    """A finished trial has learned nothing if its training loss ends above this share of that of guessing."""

    gradient_spike: PositiveFloat = 5.0
    """Largest gradient norm before a dip, in multiples of the usual, that speaks for exploding gradients."""
    gradient_calm: PositiveFloat = 2.0
    """The same, below which it speaks against them."""
    lr_rise: PositiveFloat = 1.02
    """Learning rate over the lowest of the three epochs before, from which it counts as rising."""
    train_loss_jump: NonNegativeFloat = 0.05
    """Rise of the training loss, as a share of it, from which a dip is not one of validation only."""
    early_share: Share = 0.15
    """Of a trial's epochs; a divergence within them, near the peak learning rate, speaks for too high a one."""
