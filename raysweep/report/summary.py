"""The sentences of the report that follow those about the winner."""

from __future__ import annotations

from collections import Counter

from raysweep.diagnose import SweepDiagnosis
from raysweep.diagnose.words import describe, sweep_sentences
from raysweep.results.hours import Hours
from raysweep.results.ranking import has_ended
from raysweep.results.run import SweepResult
from raysweep.results.table import format_mean
from raysweep.results.verdict import Judgement
from raysweep.terminal import count_of, format_hours, percent


def summary_of(result: SweepResult, sweep: SweepDiagnosis, hours: Hours, judgement: Judgement | None) -> list[str]:
    """Say how the trials ended, what goes with what, and what it cost; who leads, where there is no judgement yet."""
    counts = Counter(record.status for record in result.trials)
    statuses = ", ".join(f"{count} {status}" for status, count in counts.items())
    sentences = [f"{count_of(len(result.trials), 'trial')}: {statuses}."]
    if result.cut_short:
        sentences.append(f"{result.cut_short}: the ranking is that of trials cut short.")
    if result.best is None:
        sentences.append("No trial has a score yet.")
    elif judgement is None:
        score = format_mean(result.configs[0].ranked_by, result.metric)
        so_far = "" if all(map(has_ended, result.trials)) else " so far"
        sentences.append(f"Best{so_far}: {result.best.id}, {result.objective.metric} {score}.")
        if (evaluation := result.evaluation) and evaluation.test_acc is not None:
            sentences.append(f"On the test images it reaches {percent(evaluation.test_acc)}.")
    if result.best and (findings := sweep.trials[result.best.id].findings):
        sentences.append(f"The best trial itself: {'; '.join(map(describe, findings))}.")
    return [*sentences, *sweep_sentences(sweep), *_costs(hours)]


def _costs(hours: Hours) -> list[str]:
    gpu, gpu_saved = (f", {value:.2f} GPU-hours" if hours.gpu else "" for value in (hours.gpu, hours.gpu_saved))
    took = f"took {format_hours(hours.trained)} of trials{gpu}" if hours.trained else "were trained"
    sentences = [f"{count_of(hours.epochs, 'epoch')} {took}."]
    if hours.shared:
        sentences.append(f"{count_of(hours.shared, 'more epoch')} were shared: other trials had trained them.")
    if hours.epochs_saved:
        about = f", about {format_hours(hours.saved)} of trials{gpu_saved}" if hours.saved else ""
        saved = f"{count_of(hours.epochs_saved, 'epoch')}{about}"
        sentences.append(f"Stopping trials early saved {saved}.")
    return sentences
