"""The ranking table, as cells and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from raysweep.halving.scores import value_of
from raysweep.report.content import Report, Row
from raysweep.results.hours import trained_hours
from raysweep.results.ranking import SeedScores
from raysweep.results.settings import are_numbers, most_telling
from raysweep.results.table import format_mean
from raysweep.results.trade_offs import value_text
from raysweep.store.record import Score
from raysweep.sweepfile.plan import short_id
from raysweep.sweepfile.schema import SingleObjective
from raysweep.terminal import Metric, count_of

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""Characters that make a spreadsheet take a cell for a formula (OWASP, "CSV injection")."""


@dataclass(frozen=True)
class Column:
    """A column of the ranking table."""

    name: str
    value: Callable[[Row], Any]  # returns a trial's value; None or "-" where it has none
    number: bool = False
    shown: Callable[[Any], str] = str  # writes a value for people

    def cell(self, row: Row) -> tuple[str, str]:
        """Return a trial's value as it is shown, and as it is sorted by and written to the CSV."""
        value = self.value(row)
        return ("-", "") if value in (None, "-") else (self.shown(value), str(value))


def columns(report: Report) -> list[Column]:
    """Return the table's columns; a setting that has the name of one of ours takes its place."""
    confirmed = any(row.is_fresh for row in report.rows)
    shares = any(row.record.origins for row in report.rows)
    averages = report.result.is_built_in or any(row.record.best and row.record.best.averaged for row in report.rows)
    own = [
        Column("rank", lambda row: row.place, True),
        Column("trial", lambda row: row.record.id, shown=short_id),
        Column(report.score_name, _best(lambda best: best.score), True, report.score_text),
        *other_objectives(report, of_trials=True),
        Column("status", lambda row: row.record.status),
    ]
    rest = [
        Column("seed", lambda row: row.record.seed, True),
        *([Column("fresh", lambda row: "yes" if row.is_fresh else "no")] if confirmed else []),
        Column("best epoch", _best(lambda best: best.epoch), True),
        *([Column("weights", _best(lambda best: "averaged" if best.averaged else "plain"))] if averages else []),
        Column("epoch", lambda row: row.record.epoch, True),
        Column("epochs", lambda row: row.record.epochs, True),
        *([Column("own epochs", lambda row: len(row.record.own_metrics), True)] if shares else []),
        Column(
            "hours", lambda row: f"{trained_hours(row.record.own_metrics):.6f}", True, lambda text: f"{float(text):.2f}"
        ),
        Column("findings", lambda row: ", ".join(row.badges) or None),
    ]
    return [*own, *_settings(report), *(column for column in rest if column.name not in report.keys)]


def config_columns(report: Report) -> list[Column]:
    """Return the columns of the table of configs, whose rows are those of their best seeds."""
    metric = report.result.metric
    fresh = [Column("fresh seeds", lambda row: _mean(row.config.fresh_scores, metric), True)]
    return [
        Column("rank", lambda row: row.place, True),
        *_settings(report),
        Column(f"mean {metric.name}", lambda row: _mean(row.config.scores, metric), True),
        *other_objectives(report, of_trials=False),
        *(fresh if any(row.is_fresh for row in report.rows) else []),
        Column("best seed", lambda row: row.record.id, shown=short_id),
        Column("its score", _best(lambda best: best.score), True, report.score_text),
    ]


def other_objectives(report: Report, of_trials: bool) -> list[Column]:
    """Return a column for each objective but the first, of trials or of configs, and one of who is dominated."""
    result = report.result
    traded = {id(each.config): each for each in result.trade_offs}

    def value(row: Row, other: SingleObjective) -> float | None:
        if of_trials:
            return value_of(row.record, other) if row.place else None
        return traded[id(row.config)].values[other.metric] if id(row.config) in traded else None

    def dominators(row: Row) -> int | None:
        return traded[id(row.config)].dominated_by if row.place and id(row.config) in traded else None

    others = [
        Column(each.metric, partial(value, other=each), True, partial(value_text, metric=metric))
        for each, metric in zip(result.objective.against, result.metrics[1:], strict=True)
        if each.metric not in report.keys
    ]
    return [*others, Column("dominated by", dominators, True)] if result.objective.against else []


def _settings(report: Report) -> list[Column]:
    """Return a column for each setting, first those that tell most trials apart: a narrow screen shows the first."""
    keys = most_telling([row.record for row in report.rows], report.keys)
    return [_setting(report, key) for key in keys]


def _mean(scores: SeedScores, metric: Metric) -> str:
    return f"{format_mean(scores, metric)} ({count_of(scores.seeds, 'seed')})" if scores.seeds else "-"


def _best(value: Callable[[Score], Any]) -> Callable[[Row], Any]:
    return lambda row: value(row.record.best) if row.record.best else None


def _setting(report: Report, key: str) -> Column:
    short = {row.settings[key]: row.short[key] for row in report.rows}
    return Column(key, lambda row: row.settings[key], are_numbers(short), short.__getitem__)


def as_csv(report: Report) -> str:
    """Return one row a trial, best first: the table, every finding in words, the error or the rung that decided."""
    shown = columns(report)
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([*(column.name for column in shown), "found", "why"])
    for row in report.rows:
        values = [*(column.cell(row)[1] for column in shown), "; ".join(row.findings), row.why]
        writer.writerow(map(_harmless, values))
    return buffer.getvalue()


def _harmless(value: str) -> str:
    """Return a cell that a spreadsheet does not take for a formula."""
    return f"'{value}" if value.startswith(FORMULA) and not are_numbers([value]) else value
