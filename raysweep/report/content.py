"""All that a report says, gathered from a run folder: no picture or markup yet."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from raysweep.diagnose import Diagnosis, SweepDiagnosis, diagnose_sweep
from raysweep.diagnose.sweep import AxisEffect, in_order, setting_text, varied_settings
from raysweep.diagnose.words import describe, sweep_sentences
from raysweep.halving.replay import replay
from raysweep.halving.rungs import RungReport
from raysweep.halving.words import decisive, in_words
from raysweep.results.hours import saved_hours, trained_hours
from raysweep.results.ranking import can_win
from raysweep.results.run import SweepResult
from raysweep.store import Record
from raysweep.store.spent import read_spent
from raysweep.sweepfile.named import Named
from raysweep.sweepfile.schema import Objective, SchedulerConfig
from raysweep.terminal import count_of, format_difference, format_hours, format_score, percent

COLOURS = 8
"""As many as stay apart for colour-blind eyes."""

MOST_NOTES = 20


@dataclass(frozen=True)
class Row:
    """One trial."""

    number: int
    """Ties its row and its curves together in the page."""
    record: Record
    place: int | None
    """In the ranking; None for those that cannot win."""
    settings: Mapping[str, str]
    """Its values of the settings that the sweep varies."""
    diagnosis: Diagnosis
    rungs: Sequence[RungReport]
    colour: int
    """The place of its value among those of `Report.colour_key`."""
    pull: str | None
    """The command that pulls it; None where no weights are kept."""

    @property
    def why(self) -> str:
        """How it stands at the rung that decided, or why it failed."""
        if self.record.status in ("failed", "diverged"):
            return str((self.record.error or {}).get("message") or "")
        report = decisive(self.rungs)
        return in_words(report) if report else ""

    @property
    def badges(self) -> list[str]:
        """Its findings, by kind, with their number where there are several."""
        counts = Counter(finding.kind for finding in self.diagnosis.findings)
        return [kind if count == 1 else f"{kind} x{count}" for kind, count in counts.items()]

    @property
    def findings(self) -> list[str]:
        """Its findings, in words."""
        return [describe(finding) for finding in self.diagnosis.findings]


@dataclass(frozen=True)
class Hours:
    """What the trials took, and what ending some early saved."""

    trained: float
    """Hours of all trials' epochs, added up."""
    gpu: float
    """GPU-hours, as the driver counted them; 0 where there was no GPU."""
    saved: float
    """Hours that the epochs which stopped trials did not train would have taken, at each one's own pace."""
    epochs: int
    epochs_saved: int

    @property
    def gpu_saved(self) -> float:
        """GPU-hours saved: the trials' share of GPUs was the same."""
        return self.gpu * self.saved / self.trained if self.trained else 0.0


@dataclass(frozen=True)
class Report:
    """What the page, the Markdown and the CSV are made from."""

    name: str
    description: str
    path: str
    objective: Objective
    scheduler: str
    rows: list[Row]
    """Best first."""
    keys: list[str]
    """Settings that the sweep varies."""
    colour_key: str | None
    """The setting that colours stand for: of those of few enough values the one that the score differs most by."""
    sweep: SweepDiagnosis
    summary: list[str]
    hours: Hours
    is_running: bool
    notes: list[str]
    """What is missing or cannot be read."""
    sweep_text: str
    """The sweep file as given."""
    versions: Mapping[str, str]
    reproduce: str
    """The command that makes this run."""

    def score_text(self, score: float | None) -> str:
        """Return a score as it is shown."""
        return format_score(score, self.objective.metric)


def gather(result: SweepResult, named: Named | None = None, has_ended: bool = False) -> Report:
    """Gather a report.

    Args:
        result: of the run folder; may be of a run that goes on.
        named: how the run was named, for the commands; default: by the run folder's sweep.yaml.
        has_ended: whether the run is over, though its driver still holds the run folder.
    """
    records = result.trials
    sweep = diagnose_sweep(records, result.objective)
    scheduler, rungs, notes = _rungs(result)
    command = _command(result, named)
    keys = varied_settings(records)
    values = {key: in_order(setting_text(record, key) for record in records) for key in keys}
    colour_key = _colour_key(values, sweep)
    rows, place = [], 0
    for number, record in enumerate(records):
        place += can_win(record)
        rank = place if can_win(record) else None
        settings = {key: setting_text(record, key) for key in keys}
        rows.append(
            Row(
                number=number,
                record=record,
                place=rank,
                settings=settings,
                diagnosis=sweep.trials[record.id],
                rungs=rungs.get(record.id, ()),
                colour=values[colour_key].index(settings[colour_key]) if colour_key else 0,
                pull=f"python -m raysweep pull {command} --rank {rank}" if rank and "best" in record.weights else None,
            )
        )
    hours = _hours(result)
    document = result.resolved.get("sweep", {})
    return Report(
        name=result.name,
        description=str(document.get("description") or ""),
        path=result.path,
        objective=result.objective,
        scheduler=scheduler,
        rows=rows,
        keys=keys,
        colour_key=colour_key,
        sweep=sweep,
        summary=_summary(result, rows, sweep, hours),
        hours=hours,
        is_running=not has_ended and result.folder.is_driven(),
        notes=[*notes, *_damaged(result), *_gaps(records)],
        sweep_text=_sweep_text(result),
        versions=_versions(result),
        reproduce=f"python -m raysweep {command}",
    )


# ---------------------------------------------------------------------------------------------------------
# Parts


def _colour_key(values: Mapping[str, Sequence[str]], sweep: SweepDiagnosis) -> str | None:
    def range_of_scores(axis: AxisEffect) -> float:
        scores = [value.score for value in axis.values if value.configs and value.comparisons]
        return max(scores) - min(scores) if scores else 0.0

    few = [axis for axis in sweep.axes if len(values[axis.key]) <= COLOURS]
    return max(few, key=range_of_scores).key if few else None


def _rungs(result: SweepResult) -> tuple[str, dict[str, list[RungReport]], list[str]]:
    """Return the scheduler's name, how each trial stands at its rungs, and what is wrong with them."""
    document = result.resolved.get("sweep", {}).get("scheduler", {"name": "none"})
    name = str(document.get("name"))
    try:
        scheduler: Any = TypeAdapter(SchedulerConfig).validate_python(document)
        order = {trial["id"]: place for place, trial in enumerate(result.resolved["trials"])}
        records = sorted(result.trials, key=lambda record: order[record.id])
        halving = replay(records, scheduler, result.objective)
        return name, {record.id: halving.explain(record.id) for record in records}, []
    except (ValidationError, ValueError) as error:
        first = str(error).splitlines()[0]
        return name, {}, [f"Who went on at the rungs cannot be told from these records: {first}"]


def _command(result: SweepResult, named: Named | None) -> str:
    """Return the sweep file, overrides and storage, as both `raysweep` and `raysweep pull` take them."""
    words = [named.path, *named.overrides] if named else [f"{result.path}/sweep.yaml"]
    return shlex.join([*words, "--storage", result.folder.parent.uri])


def _hours(result: SweepResult) -> Hours:
    trained = saved = 0.0
    epochs = epochs_saved = 0
    for record in result.trials:
        trained += trained_hours(record.metrics)
        epochs += record.epoch
        if record.status == "stopped":
            epochs_saved += record.epochs - record.epoch
            saved += saved_hours(record.metrics, record.epochs)
    return Hours(trained, read_spent(result.folder).gpu_s / 3600, saved, epochs, epochs_saved)


def _summary(result: SweepResult, rows: Sequence[Row], sweep: SweepDiagnosis, hours: Hours) -> list[str]:
    objective = result.objective
    counts = Counter(row.record.status for row in rows)
    sentences = [f"{len(rows)} trials: {', '.join(f'{count} {status}' for status, count in counts.items())}."]
    if result.cut_short:
        sentences.append(f"{result.cut_short}: the ranking is that of trials cut short.")
    ranked = [row for row in rows if row.place]
    if ranked:
        sentences += _winner(ranked, sweep.seed_spread, objective)
    else:
        sentences.append("No trial has a score yet.")
    evaluation = result.evaluation
    if evaluation and evaluation.test_acc is not None:
        sentences.append(f"On the test images the best trial reaches {percent(evaluation.test_acc)}.")
    sentences += sweep_sentences(sweep)
    gpu = f", {hours.gpu:.2f} GPU-hours" if hours.gpu else ""
    sentences.append(f"{hours.epochs:,} epochs took {format_hours(hours.trained)} of trials{gpu}.")
    if hours.epochs_saved:
        gpu = f", {hours.gpu_saved:.2f} GPU-hours" if hours.gpu else ""
        sentences.append(
            f"Stopping trials early saved {hours.epochs_saved:,} epochs, about {format_hours(hours.saved)} of "
            f"trials{gpu}."
        )
    return sentences


def _winner(ranked: Sequence[Row], spread: float, objective: Objective) -> list[str]:
    best = ranked[0].record.best
    assert best is not None
    settings = ", ".join(f"{key} {value}" for key, value in ranked[0].settings.items())
    weights = "the averaged weights" if best.averaged else "the plain weights"
    sentences = [
        f"Best: {ranked[0].record.id}{f' ({settings})' if settings else ''}, {objective.metric} "
        f"{format_score(best.score, objective.metric)} at epoch {best.epoch}, {weights}."
    ]
    rival = next((row for row in ranked[1:] if row.record.config != ranked[0].record.config), None)
    if rival and rival.record.best:
        lead = abs(best.score - rival.record.best.score)
        text = f"The next config, {rival.record.id}, is {format_difference(lead, objective.metric)} behind"
        if math.isnan(spread):
            text += "; how much seeds alone differ is not known (no config was repeated)"
        else:
            text += (
                f"; seeds of one config differ by {format_difference(spread, objective.metric)} (standard deviation)"
            )
            if lead < 2 * math.sqrt(2) * spread:
                text += ", so that another seed might turn the two round"
        sentences.append(f"{text}.")
    if ranked[0].findings:
        sentences.append(f"The best trial itself: {'; '.join(ranked[0].findings)}.")
    return sentences


def _damaged(result: SweepResult) -> list[str]:
    """Files of the run folder that were found damaged when it was read, and what became of them."""
    found = [f"{path}: {why}." for path, why in result.folder.damaged.items()]
    return [*found[:MOST_NOTES], *([f"And {len(found) - MOST_NOTES} more files."] if len(found) > MOST_NOTES else [])]


def _gaps(records: Sequence[Record]) -> list[str]:
    empty = sum(not record.epoch for record in records)
    broken = sum(any(not _is_number(value) for row in record.metrics for value in row.values()) for record in records)
    notes = []
    if empty:
        notes.append(f"Without a whole epoch: {count_of(empty, 'trial')}.")
    if broken:
        notes.append(f"With metrics that are no finite numbers, so that curves have gaps: {count_of(broken, 'trial')}.")
    return notes


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _sweep_text(result: SweepResult) -> str:
    try:
        return result.folder.files.read("sweep.yaml").decode(errors="replace")
    except FileNotFoundError:
        return ""


def _versions(result: SweepResult) -> dict[str, str]:
    versions = {key: str(value) for key, value in result.resolved.get("versions", {}).items()}
    conditions = next((record.conditions for record in result.trials if record.conditions), {})
    for key in ("precision", "workers", "data", "device"):
        if key in conditions:
            versions[key] = str(conditions[key])
    return versions
