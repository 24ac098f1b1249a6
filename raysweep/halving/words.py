"""How a trial stands at its rungs, in words."""

from __future__ import annotations

import math
from collections.abc import Sequence

from raysweep.halving.rungs import RungReport, Verdict
from raysweep.terminal import significant


def decisive(reports: Sequence[RungReport]) -> RungReport | None:
    """Return how a trial stands where its way ends for now: the first rung where its place is not sure, or the last."""
    return next((report for report in reports if report.verdict is not Verdict.SAFE), reports[-1] if reports else None)


def in_words(report: RungReport) -> str:
    """Return how a trial stands at a rung, in one line."""
    where = f"rung {report.rung + 1} (epoch {report.epoch})"
    if report.score is None:
        return f"{where}: waiting for the other seeds of its config"
    score = "no finite score" if math.isnan(report.score) else f"score {score_text(report.score)}"
    if report.objectives > 1 and report.missing:
        return f"{where}: {score}, compared once all are there; at most {report.missing} to come, {report.places} go on"
    if report.rank is None:
        return f"{where}: {score}, not ranked, since its place at the rung before is not sure"
    rank = f"{score} is number {report.rank} of {report.arrived}"
    if report.dominated_by is not None:
        by = f"dominated by {report.dominated_by}" if report.dominated_by else "on the front"
        return f"{where}: {rank} by {report.objectives} objectives, {by}; {report.places} go on"
    if report.missing:
        return f"{where}: {rank} so far, at most {report.missing} to come; {report.places} go on"
    cutoff = "" if report.cutoff is None else f", the last with {score_text(report.cutoff)}"
    return f"{where}: {rank}; {report.places} go on{cutoff}"


def score_text(score: float) -> str:
    """Return a score with four decimals, or with four digits where these would say nothing or too much."""
    return f"{score:.4f}" if not score or 0.01 <= abs(score) < 1000 else significant(score)
