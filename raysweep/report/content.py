"""All that the report says, gathered from a run folder: no picture or markup yet."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from raysweep.diagnose import Diagnosis, SweepDiagnosis, diagnose_sweep
from raysweep.diagnose.curves import as_number
from raysweep.diagnose.findings import Finding
from raysweep.diagnose.probed import Probe, read_probes, with_tests
from raysweep.diagnose.rules import RULES
from raysweep.diagnose.sweep import AxisEffect
from raysweep.diagnose.words import describe
from raysweep.errors import StorageError
from raysweep.halving.rungs import RungReport
from raysweep.halving.words import decisive, in_words
from raysweep.report.effects import SettingEffect, effects_of
from raysweep.report.mistakes import WhatItGetsWrong, what_it_gets_wrong
from raysweep.report.summary import summary_of
from raysweep.results.failed import error_text
from raysweep.results.hours import Hours, hours_of
from raysweep.results.ranking import RankedConfig, can_win, has_ended
from raysweep.results.run import SweepResult
from raysweep.results.settings import in_order, setting_text, setting_texts, varied_settings
from raysweep.results.settings import in_words as settings_in_words
from raysweep.results.shared import prefixes_of
from raysweep.results.verdict import Judgement, judgement_of
from raysweep.store import Record
from raysweep.store.spent import read_spent
from raysweep.sweepfile.named import Named
from raysweep.sweepfile.patch import flatten, short_labels
from raysweep.sweepfile.prefixes import Prefixes
from raysweep.terminal import count_of, format_hours, format_score

COLOURS = 8
"""As many colours as colour-blind eyes can tell apart."""
MOST_NOTES = 20


@dataclass(frozen=True)
class Row:
    """One trial."""

    number: int  # ties its row and its curves together in the page
    record: Record
    place: int | None  # its config's place in the ranking; None for trials that cannot win
    config: RankedConfig
    is_fresh: bool  # whether `confirm` trained it, on a fresh seed
    settings: Mapping[str, str]  # its values of the settings that the sweep varies
    short: Mapping[str, str]  # the same, numbers in as many digits as tell the trials apart
    diagnosis: Diagnosis
    rungs: Sequence[RungReport]
    colour: int  # the place of its value among those of `Report.colour_key`
    pull: str | None  # the command that pulls it; None unless it is its config's best seed and weights are kept

    @property
    def final_score(self) -> float | None:
        """Its score if it trained to its end."""
        return self.record.best.score if self.record.status == "finished" and self.record.best else None

    @property
    def why(self) -> str:
        """How it stood at the rung that decided, or why it failed."""
        if self.record.status in ("failed", "diverged"):
            return str((self.record.error or {}).get("message") or "")
        standing = decisive(self.rungs)
        return in_words(standing) if standing else ""

    @property
    def remarks(self) -> list[str]:
        """Whose epochs it has taken over, and how it stood at each of its rungs."""
        return [*(origin.in_words() for origin in self.record.origins), *map(in_words, self.rungs)]

    @property
    def error(self) -> str:
        """What ended it, and where in the user's code; empty if nothing did."""
        return error_text(self.record.error) if self.record.status in ("failed", "diverged") else ""

    @property
    def traceback(self) -> str:
        """The traceback of what ended it; empty if there is none."""
        return str((self.record.error or {}).get("traceback") or "")

    @property
    def config_text(self) -> str:
        """Its whole config: a dotted key and its value a line."""
        return "\n".join(f"{key}: {json.dumps(value, default=str)}" for key, value in flatten(self.record.config))

    @property
    def badges(self) -> list[str]:
        """Its findings by kind, with their number where there are several."""
        counts = Counter(finding.kind for finding in self.diagnosis.findings)
        return [kind if number == 1 else f"{kind} x{number}" for kind, number in counts.items()]

    @property
    def findings(self) -> list[str]:
        """Its findings in words."""
        return [describe(finding) for finding in self.diagnosis.findings]


@dataclass(frozen=True)
class Report:
    """What the page, the Markdown and the CSV are made from."""

    result: SweepResult
    rows: list[Row]  # the trials, best first
    keys: list[str]  # settings that the sweep varies
    colour_key: str | None  # the setting shown in colour: the one of few values whose mean scores differ most
    sweep: SweepDiagnosis
    hours: Hours
    is_running: bool
    notes: list[str]  # what is missing or cannot be read
    mistakes: WhatItGetsWrong | None  # of the winner; None where that is not known
    command: str  # the sweep file, overrides and storage, as both `raysweep` and `raysweep pull` take them
    judgement: Judgement | None  # what can be said of the winner
    probes: list[Probe]  # what was tested by training epochs again
    effects: list[SettingEffect]  # what each setting does to the score, the largest first

    @cached_property
    def labels(self) -> dict[str, str]:
        """What each setting that varies is called: the shortest end of its key that tells it from the others."""
        return short_labels(self.keys)

    @property
    def score_name(self) -> str:
        """The column of the scores: the objective's metric, unless a setting is called that."""
        metric = self.result.metric.name
        return f"best {metric}" if metric in self.keys else metric

    @property
    def verdict(self) -> list[str]:
        """The report in a sentence or two."""
        if self.judgement:
            return self.judgement.brief
        best = next((row for row in self.best_rows[:1] if row.record.best), None)
        if best is None:
            return ["No trial has a score yet."]
        settings = settings_in_words({self.labels[key]: best.short[key] for key in self.keys})
        scores = self.result.configs[0].ranked_by
        so_far = "" if all(map(has_ended, self.result.trials)) else " so far"
        on = f" on {count_of(scores.seeds, 'seed')}" if scores.seeds > 1 else ""
        return [f"Best{so_far}: {settings or best.record.id}, {self.score_text(scores.mean)}{on}."]

    @property
    def status(self) -> str:
        """How far the run is and what it cost, in one line."""
        counts = Counter(row.record.status for row in self.rows)
        hours = self.hours
        saved = f"{count_of(hours.epochs_saved, 'epoch')} saved by stopping early" if hours.epochs_saved else ""
        gpu = f"{hours.gpu:.2f} GPU-hours" if hours.gpu else ""
        said = [count_of(len(self.rows), "trial"), ", ".join(f"{count:,} {status}" for status, count in counts.items())]
        time = f" in {format_hours(hours.trained)} of trials" if hours.trained else ""
        took = f"{count_of(hours.epochs, 'epoch')}{time}" if hours.epochs else ""
        took += f" ({hours.shared:,} more shared)" if hours.shared else ""
        return " · ".join(filter(None, [*said, took, gpu, saved]))

    @property
    def description(self) -> str:
        """What the sweep file says of itself."""
        return str(self.result.resolved.get("sweep", {}).get("description") or "")

    @property
    def summary(self) -> list[str]:
        """The sentences at the top, after those about the winner."""
        return summary_of(self.result, self.sweep, self.hours, self.judgement)

    @cached_property
    def is_repeated(self) -> bool:
        """Whether a config has several seeds."""
        return any(len(config.trials) > 1 for config in self.result.configs)

    @property
    def best_rows(self) -> list[Row]:
        """The row of each config's best seed, or of its first where no seed has a score."""
        by_id = {row.record.id: row for row in self.rows}
        return [by_id[(config.best or config.trials[0]).id] for config in self.result.configs]

    @property
    def sweep_text(self) -> str:
        """The sweep file as given."""
        try:
            return self.result.folder.files.read("sweep.yaml").decode(errors="replace")
        except FileNotFoundError:
            return ""

    @property
    def versions(self) -> dict[str, str]:
        """The versions of what the run was made with, and under which conditions it trained."""
        conditions = next((record.conditions for record in self.result.trials if record.conditions), {})
        names = ("precision", "workers", "data", "device")
        known = {**self.result.resolved.get("versions", {})} | {k: conditions[k] for k in names if k in conditions}
        return {name: str(value) for name, value in known.items()}

    def named(self, row: Row) -> str:
        """Return what a trial is called: its settings, and its seed where configs have several."""
        seed = {"seed": str(row.record.seed)} if self.is_repeated else {}
        return settings_in_words({self.labels[key]: row.short[key] for key in self.keys} | seed) or row.record.id

    def headline(self, row: Row) -> str:
        """Return a trial's rank, settings, score and how it ended, if not at its end, in a line."""
        record = row.record
        rank = f"{row.place} " if row.place else ""
        score = f": {self.score_text(record.best.score)}" if record.best else ""
        ended = f", {record.status} after {record.epoch} of {record.epochs} epochs"
        return f"{rank}{self.named(row)}{score}{ended if record.status != 'finished' else ''}"

    def config_headline(self, row: Row) -> str:
        """Return the headline of a config whose best seed the row is; of several seeds, with the mean that it has."""
        scores = row.config.ranked_by
        if scores.seeds < 2:
            return self.headline(row)
        settings = settings_in_words({self.labels[key]: row.short[key] for key in self.keys})
        rank = f"{row.place} " if row.place else ""
        return f"{rank}{settings}: {self.score_text(scores.mean)}, the mean of {scores.seeds} seeds"

    @property
    def grouped_findings(self) -> list[tuple[str, str, list[tuple[Row, list[Finding]]]]]:
        """What was found: its kind, a headline, and each trial that shows it with its findings of that kind."""
        groups = list[Any]()
        for rule in RULES:
            found = [(row, list(row.diagnosis.of(rule.kind))) for row in self.rows if row.diagnosis.has(rule.kind)]
            verb = f"{rule.verb}{'s' if len(found) == 1 else ''}" if rule.verb else f"with a {rule.kind}"
            groups += [(rule.kind, f"{count_of(len(found), 'trial')} {verb}", found)] if found else []
        return groups

    def score_text(self, score: float | None) -> str:
        """Return a score as it is shown."""
        return format_score(score, self.result.metric)


def gather(result: SweepResult, named: Named | None = None, is_over: bool = False) -> Report:
    """Gather a report; `write_report` says what the arguments are."""
    probes = read_probes(result.folder)
    sweep = diagnose_sweep(result.trials, result.objective)
    sweep = replace(sweep, trials=with_tests(sweep.trials, probes))
    command = result.in_words(named)
    judgement = judgement_of(result, named.in_words() if named else None)
    keys = varied_settings(result.trials)
    colour_key = _colour_key(result.trials, sweep)
    rungs, notes = _rungs(result)
    return Report(
        result=result,
        rows=_rows(result, keys, colour_key, sweep, rungs, command),
        keys=keys,
        colour_key=colour_key,
        sweep=sweep,
        hours=hours_of(result.trials, read_spent(result.folder), _prefixes(result)),
        is_running=not is_over and result.is_driven,
        notes=[*notes, *_damaged(result), *_gaps(result.trials)],
        mistakes=what_it_gets_wrong(result),
        command=command,
        judgement=judgement,
        probes=[probe for probe in probes if probe.trial in sweep.trials],
        effects=effects_of(result, keys, sweep.seed_spread),
    )


def _prefixes(result: SweepResult) -> Prefixes | None:
    """Return which epochs the trials share, if any has taken over those of another one."""
    return prefixes_of(result.trials, result.loop) if any(record.origins for record in result.trials) else None


def _colour_key(records: Sequence[Record], sweep: SweepDiagnosis) -> str | None:
    few = [axis for axis in sweep.axes if len({setting_text(record, axis.key) for record in records}) <= COLOURS]
    return max(few, key=_range_of_scores).key if few else None


def _range_of_scores(axis: AxisEffect) -> float:
    scores = [value.score for value in axis.values if value.configs and value.comparisons]
    return max(scores, default=0.0) - min(scores, default=0.0)


def _rungs(result: SweepResult) -> tuple[dict[str, list[RungReport]], list[str]]:
    """Return how each trial stands at its rungs, and what is wrong with them."""
    try:
        halving = result.halving()
    except (StorageError, ValueError, KeyError) as error:
        first = str(error).splitlines()[0]
        return {}, [f"These records do not tell which trials went on at the rungs: {first}"]
    compared = (record for config in result.configs for record in config.search)
    return {record.id: halving.explain(record.id) for record in compared}, []


def _rows(
    result: SweepResult,
    keys: Sequence[str],
    colour_key: str | None,
    sweep: SweepDiagnosis,
    rungs: Mapping[str, Sequence[RungReport]],
    command: str,
) -> list[Row]:
    colours = in_order(setting_text(record, colour_key) for record in result.trials) if colour_key else []
    texts = {key: _shortened(result.trials, key) for key in keys}
    rows: list[Row] = []
    for rank, config in enumerate(result.configs, 1):
        for record in config.trials:
            place = rank if can_win(record) else None
            is_kept = record is config.best and "best" in record.weights
            pull = f"python -m raysweep pull {command} --rank {rank}" if is_kept else None
            settings = {key: setting_text(record, key) for key in keys}
            short = {key: texts[key][text] for key, text in settings.items()}
            colour = colours.index(settings[colour_key]) if colour_key else 0
            known = (sweep.trials[record.id], rungs.get(record.id, ()), colour, pull)
            rows.append(Row(len(rows), record, place, config, record.id in config.fresh_ids, settings, short, *known))
    return rows


def _shortened(records: Sequence[Record], key: str) -> dict[str, str]:
    """Return each value of a setting, and what is shown of it."""
    full = (setting_text(record, key) for record in records)
    return dict(zip(full, setting_texts(records, key), strict=True))


def _damaged(result: SweepResult) -> list[str]:
    """Name the files of the run folder that were damaged when it was read, and say what became of them."""
    found = [f"{path}: {why}." for path, why in result.folder.damaged.items()]
    return [*found[:MOST_NOTES], *([f"And {len(found) - MOST_NOTES} more files."] if len(found) > MOST_NOTES else [])]


def _gaps(records: Sequence[Record]) -> list[str]:
    empty = sum(not record.epoch for record in records)
    broken = sum(
        any(not math.isfinite(as_number(value)) for row in record.metrics for value in row.values())
        for record in records
    )
    notes = {
        f"Trials without a whole epoch: {empty}.": empty,
        f"Curves with gaps, where metrics are not finite numbers: {count_of(broken, 'trial')}.": broken,
    }
    return [note for note, count in notes.items() if count]
