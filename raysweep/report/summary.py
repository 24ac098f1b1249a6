"""The sentences at the top of the report."""

from __future__ import annotations

import math
from collections import Counter

from raysweep.diagnose import SweepDiagnosis
from raysweep.diagnose.sweep import setting_text, varied_settings
from raysweep.diagnose.words import describe, sweep_sentences
from raysweep.results.hours import Hours
from raysweep.results.ranking import can_win
from raysweep.results.run import SweepResult
from raysweep.terminal import count_of, format_difference, format_hours, format_score, percent


def summary_of(result: SweepResult, sweep: SweepDiagnosis, hours: Hours) -> list[str]:
    """Say who won, by how much, what goes with what, and what it cost."""
    counts = Counter(record.status for record in result.trials)
    statuses = ", ".join(f"{count} {status}" for status, count in counts.items())
    sentences = [f"{count_of(len(result.trials), 'trial')}: {statuses}."]
    if result.cut_short:
        sentences.append(f"{result.cut_short}: the ranking is that of trials cut short.")
    sentences += _winner(result, sweep) if result.best else ["No trial has a score yet."]
    evaluation = result.evaluation
    if evaluation and evaluation.test_acc is not None:
        sentences.append(f"On the test images the best trial reaches {percent(evaluation.test_acc)}.")
    return [*sentences, *sweep_sentences(sweep), *_costs(hours)]


def _winner(result: SweepResult, sweep: SweepDiagnosis) -> list[str]:
    """Say which trial is best, how far ahead it is, and what its curves show."""
    (winner, score), *rest = [(record, record.best) for record in result.trials if can_win(record) and record.best]
    metric = result.objective.metric
    settings = ", ".join(f"{key} {setting_text(winner, key)}" for key in varied_settings(result.trials))
    sentences = [
        f"Best: {winner.id}{f' ({settings})' if settings else ''}, {metric} {format_score(score.score, metric)} at "
        f"epoch {score.epoch}, {'the EMA weights' if score.averaged else 'the plain weights'}."
    ]
    rival = next(((record, best) for record, best in rest if record.config != winner.config), None)
    if rival:
        lead = abs(score.score - rival[1].score)
        behind = f"The next config, {rival[0].id}, is {format_difference(lead, metric)} behind"
        sentences.append(f"{behind}; {_beside_seeds(lead, sweep.seed_spread, metric)}.")
    findings = sweep.trials[winner.id].findings
    return [*sentences, *([f"The best trial itself: {'; '.join(map(describe, findings))}."] if findings else [])]


def _beside_seeds(lead: float, spread: float, metric: str) -> str:
    """Say whether other seeds could make up the lead."""
    if math.isnan(spread):
        return "how much seeds alone differ is not known (no config was repeated)"
    could = ", so with other seeds the order could be reversed" if lead < 2 * math.sqrt(2) * spread else ""
    return f"seeds of one config differ by {format_difference(spread, metric)} (standard deviation){could}"


def _costs(hours: Hours) -> list[str]:
    gpu, gpu_saved = (f", {value:.2f} GPU-hours" if hours.gpu else "" for value in (hours.gpu, hours.gpu_saved))
    sentences = [f"{count_of(hours.epochs, 'epoch')} took {format_hours(hours.trained)} of trials{gpu}."]
    if hours.epochs_saved:
        saved = f"{count_of(hours.epochs_saved, 'epoch')}, about {format_hours(hours.saved)} of trials{gpu_saved}"
        sentences.append(f"Stopping trials early saved {saved}.")
    return sentences
