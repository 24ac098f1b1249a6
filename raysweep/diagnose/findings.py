"""What a diagnosis consists of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["divergence", "dip", "overfitting", "underfitting", "plateau"]
Cause = Literal["exploding_gradients", "rising_lr", "high_lr", "validation_only"]


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
    first: int
    """Epoch in which it begins."""
    last: int
    """Last epoch that it covers."""
    numbers: Mapping[str, float]
    """Its amounts by name; accuracies 0..1."""
    evidence: tuple[Evidence, ...] = ()
    recovered: bool | None = None
    """Of a dip: whether validation came back."""

    @property
    def causes(self) -> tuple[Cause, ...]:
        """What is spoken for and not against, strongest evidence first; empty: unexplained."""
        refuted = {item.cause for item in self.evidence if not item.supports}
        supported = dict.fromkeys(item.cause for item in self.evidence if item.supports)
        return tuple(cause for cause in supported if cause not in refuted)


@dataclass(frozen=True)
class Diagnosis:
    """All findings of one trial, in order of epochs."""

    findings: tuple[Finding, ...] = ()
    epochs: int = 0
    noise: float = 0.0
    """Standard deviation of val_acc's noise from epoch to epoch (the median over the epochs)."""

    def of(self, kind: Kind) -> tuple[Finding, ...]:
        """The findings of one kind."""
        return tuple(finding for finding in self.findings if finding.kind == kind)

    def has(self, kind: Kind) -> bool:
        """Whether there is a finding of that kind."""
        return bool(self.of(kind))
