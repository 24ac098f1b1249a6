"""The findings of one trial, from its epochs alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from raysweep.diagnose.causes import CAUSES
from raysweep.diagnose.curves import Curves, median, noise_level
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
        metrics: one row an epoch, oldest first, as in a record; any metric may be missing or not finite.
        epochs: how many the trial was to train; default: as many as there are.
        status: the record's; `diverged` is a finding by itself.
        error: the record's; for a diverged trial it has the last epoch's numbers.
        classes: how many the data has, which tells what guessing would cost.
        thresholds: what counts as a finding.
    """
    curves, limits = Curves.of(metrics), thresholds or Thresholds()
    trial = Trial(curves, epochs or len(curves), status, error or {}, classes)
    _, accuracies = curves.finite("val_acc")
    found = Diagnosis((), len(curves), median(noise_level(accuracies)) if len(accuracies) else 0.0)
    for rule in RULES:
        findings = rule.find(trial, found, limits)
        if rule.has_causes:
            findings = [_with_causes(finding, trial, limits) for finding in findings]
        found = replace(found, findings=(*found.findings, *findings))
    in_order = sorted(found.findings, key=lambda finding: (finding.first, finding.kind))
    return replace(found, findings=tuple(in_order))


def _with_causes(finding: Finding, trial: Trial, limits: Thresholds) -> Finding:
    for cause in CAUSES:
        finding = cause.weigh(finding, trial, limits)
    return finding
