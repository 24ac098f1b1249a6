"""What the rules look at, and what a diagnosis consists of."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from raysweep.diagnose.curves import Curves, ending
from raysweep.diagnose.thresholds import Thresholds

Kind = str
"""What was found: the `kind` of one of `rules.RULES`."""
Cause = str
"""What may have caused it: the `cause` of one of `causes.CAUSES`."""


@dataclass(frozen=True)
class Evidence:
    """One observation that speaks for or against a cause."""

    cause: Cause
    supports: bool
    text: str


@dataclass(frozen=True)
class Finding:
    """One thing that a reader of the curves would point at."""

    kind: Kind
    first: int  # the epoch in which it begins
    last: int  # the last epoch that it covers
    numbers: Mapping[str, float]  # its amounts by name; accuracies are 0..1
    evidence: tuple[Evidence, ...] = ()
    recovered: bool | None = None  # whether validation came back after a dip; None for other findings
    so_far: bool = False  # whether its trial has not trained to its end
    tested: str = ""  # what a probe found to be the cause, in words; empty where none was made
    names: Mapping[str, str] = field(default_factory=dict)  # what a loop calls `train_loss` or `val_loss` if not a loss

    @property
    def causes(self) -> tuple[Cause, ...]:
        """The causes that have evidence for them and none against, in its order; none if the finding is unexplained."""
        refuted = {item.cause for item in self.evidence if not item.supports}
        supported = dict.fromkeys(item.cause for item in self.evidence if item.supports)
        return tuple(cause for cause in supported if cause not in refuted)

    def with_evidence(self, cause: Cause, supports: bool, text: str) -> Finding:
        """Return the finding with one more piece of evidence."""
        return replace(self, evidence=(*self.evidence, Evidence(cause, supports, text)))


@dataclass(frozen=True)
class Diagnosis:
    """All findings of one trial, in order of epochs."""

    findings: tuple[Finding, ...] = ()

    def of(self, kind: Kind) -> tuple[Finding, ...]:
        """Return the findings of one kind."""
        return tuple(finding for finding in self.findings if finding.kind == kind)

    def has(self, kind: Kind) -> bool:
        """Return whether there is a finding of that kind."""
        return bool(self.of(kind))


@dataclass(frozen=True)
class Trial:
    """What the rules look at."""

    curves: Curves  # metrics under the names that the built-in loop gives them, whatever the trial's loop calls them
    epochs: int  # epochs that it was to train
    status: str
    error: Mapping[str, Any]  # the record's error; for a diverged trial it has the numbers of the epoch that was lost
    classes: int | None
    is_cross_entropy: bool = True  # whether its loss is, so that ln(classes) is that of guessing
    names: Mapping[str, str] = field(default_factory=dict)  # see `Finding.names`

    @property
    def has_accuracies(self) -> bool:
        """Whether its loop reports an accuracy of training and one of validation, whose gap tells overfitting."""
        return self.curves.has("train_acc") and self.curves.has("val_acc")

    @property
    def is_whole(self) -> bool:
        """Whether it has trained to its end. Of one that was stopped or still runs, what ends so far may not last."""
        return self.status == "finished" and int(self.curves.epochs.max(initial=0)) >= self.epochs

    def lasting(self, limits: Thresholds) -> int:
        """Return for how many epochs a state must have lasted to be a finding: one if the trial is whole."""
        return 1 if self.is_whole else max(limits.lasting_epochs, math.ceil(limits.lasting_share * self.epochs))

    def until(self, count: int) -> Trial:
        """Return the trial as it was after its first `count` epochs."""
        return replace(self, curves=self.curves.until(count))

    @property
    def guessing_acc(self) -> float:
        """The accuracy of guessing; 0 where the classes are not known."""
        return 1 / self.classes if self.classes else 0.0

    def is_above_guessing(self, accuracy: float) -> bool:
        """Return whether an accuracy is clearly above that of guessing; NaN is not."""
        return accuracy > self.guessing_acc + max(0.5 * self.guessing_acc, 0.005)

    @property
    def guessing_loss(self) -> float:
        """The cross-entropy of guessing, ln(classes); infinite where the classes or the loss are not known."""
        return math.log(self.classes) if self.classes and self.is_cross_entropy else math.inf

    @property
    def is_guessing(self) -> bool:
        """Whether no accuracy ends clearly above guessing; the loss alone can be high because of a few bad images."""
        accuracies = [ending(self.curves[name]) for name in ("train_acc", "val_acc", "val_acc_ema")]
        return not any(map(self.is_above_guessing, accuracies))
