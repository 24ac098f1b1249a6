"""Every number that the rules and the causes compare with. Accuracies and their differences are 0..1."""

from __future__ import annotations

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from raysweep.config import Config, Fraction01


class Thresholds(Config):
    """What decides whether something is a finding; `docs/diagnosis.md` says what the defaults find and miss."""

    noise_factor: PositiveFloat = 4.0
    """Standard deviations of a curve's own noise that a change must exceed; for dips that is in 50 epochs."""
    train_loss_jump: NonNegativeFloat = 0.05
    """Rise of the training loss during a dip, as a share of it, from which training suffers too."""

    lasting_share: Fraction01 = 0.15
    """Share of its epochs for which a finding must have held in a trial that has not trained to its end."""
    lasting_epochs: PositiveInt = 4
    """Epochs for which it must have held, however short the trial."""

    progress_lost: Fraction01 = 0.5
    """Share of the training loss's way down that must be lost for good for a trial to count as diverged."""
    progress_lost_so_far: Fraction01 = 0.9
    """The same share for a trial that has not trained to its end, and might make it up."""
    min_loss_epochs: PositiveInt = 4
    """Epochs with a loss below which only one that is not finite is divergence."""
    above_guessing: PositiveFloat = 1.1
    """A trial has diverged if its training loss ends above this many times that of guessing, ln(classes)."""

    min_dip: NonNegativeFloat = 0.02
    """Validation accuracy that a dip must cost, however quiet the curve."""
    recovered_share: Fraction01 = 0.5
    """Share of the fall that made a dip; the dip is over once validation is back to within it."""

    overfit_gap: NonNegativeFloat = 0.1
    """Training accuracy above validation accuracy, at the end, for overfitting to be looked for."""
    overfit_fall: NonNegativeFloat = 0.01
    """Validation accuracy lost from its peak that confirms overfitting."""
    overfit_loss_rise: NonNegativeFloat = 0.1
    """Rise of the validation loss above its lowest, as a share of it, that confirms overfitting."""
    memorised_gap: NonNegativeFloat = 0.25
    """A gap that is overfitting by itself, even where validation does not fall."""

    underfit_train_acc: Fraction01 = 0.5
    """Training accuracy at the end, below which a finished trial may underfit."""
    underfit_gap: NonNegativeFloat = 0.05
    """Training accuracy above validation accuracy, at the end, up to which such a trial underfits."""
    near_guessing: Fraction01 = 0.98
    """A finished trial has learned nothing if its training loss ends above this share of that of guessing."""

    plateau_share: Fraction01 = 0.25
    """Share of the trial's epochs that a plateau must last."""
    min_plateau_epochs: PositiveInt = 6
    """Epochs that a plateau must last, however short the trial."""
    plateau_gain: NonNegativeFloat = 0.02
    """Validation accuracy that a plateau may gain or lose over its length, the standard error of that included."""
    plateau_rise: Fraction01 = 0.2
    """The same as a share of what validation has gained over guessing; the smaller of both counts."""

    gradient_spike: PositiveFloat = 5.0
    """Largest gradient norm before a dip that speaks for exploding gradients, in multiples of the usual one."""
    gradient_calm: PositiveFloat = 2.0
    """The same multiple, below which it speaks against them."""
    lr_rise: PositiveFloat = 1.02
    """Learning rate over the lowest of the three epochs before, from which it counts as rising."""
    early_share: Fraction01 = 0.15
    """Share of a trial's epochs; a divergence within them, near the peak lr, speaks for too high an lr."""
