"""The findings of one trial, from its epochs alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from raysweep.diagnose.causes import with_causes
from raysweep.diagnose.curves import Curves
from raysweep.diagnose.findings import Diagnosis, Finding, Trial
from raysweep.diagnose.rules import RULES, Thresholds
from raysweep.store.record import Record


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
        metrics: one row an epoch, oldest first; any metric may be missing or not finite.
        epochs: how many the trial was to train; default: as many as there are.
        status: the record's; `diverged` is a finding by itself.
        error: the record's; for a diverged trial it has the last epoch's numbers.
        classes: how many the data has, which tells what guessing would cost.
        thresholds: what counts as a finding.
    """
    curves, limits = Curves.of(metrics), thresholds or Thresholds()
    trial = Trial(curves, epochs or len(curves), status, error or {}, classes)
    found: list[Finding] = []
    for rule in RULES:
        findings = rule.find(trial, Diagnosis(tuple(found)), limits)
        found += [with_causes(finding, trial, limits) for finding in findings] if rule.has_causes else findings
    return Diagnosis(tuple(sorted(found, key=lambda finding: (finding.first, finding.kind))))
