"""The ranking table, as cells and as CSV."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass

from raysweep.report.content import Report, Row
from raysweep.results.hours import trained_hours


@dataclass(frozen=True)
class Column:
    """A column of the ranking table."""

    name: str
    number: bool = False


@dataclass(frozen=True)
class Cell:
    """What is shown, and what it is sorted by and written to the CSV."""

    text: str
    value: str


def columns(report: Report) -> list[Column]:
    """The table's columns; a setting that has the name of one of ours takes its place."""
    own = [Column("rank", True), Column("trial"), Column(report.objective.metric, True), Column("status")]
    varied = [Column(key, _all_numbers(report, key)) for key in report.keys]
    rest = [Column("seed", True), Column("best epoch", True), Column("weights"), Column("epoch", True)]
    rest += [Column("epochs", True), Column("hours", True), Column("findings")]
    return [*own, *varied, *(column for column in rest if column.name not in report.keys)]


def cells(report: Report, row: Row, columns: list[Column]) -> list[tuple[Column, Cell]]:
    """One trial's row."""
    record, best = row.record, row.record.best
    hours = trained_hours(record.metrics)
    known = {
        "rank": Cell(str(row.place or "-"), str(row.place or "")),
        "trial": Cell(record.id, record.id),
        "status": Cell(record.status, record.status),
        "seed": Cell(str(record.seed), str(record.seed)),
        report.objective.metric: Cell(report.score_text(best.score if best else None), str(best.score) if best else ""),
        "best epoch": Cell(str(best.epoch) if best else "-", str(best.epoch) if best else ""),
        "weights": _plain(("averaged" if best.averaged else "plain") if best else ""),
        "epoch": Cell(str(record.epoch), str(record.epoch)),
        "epochs": Cell(str(record.epochs), str(record.epochs)),
        "hours": Cell(f"{hours:.2f}", f"{hours:.6f}"),
        "findings": _plain(", ".join(row.badges)),
    }
    known |= {key: _plain(text) for key, text in row.settings.items()}
    return [(column, known[column.name]) for column in columns]


def as_csv(report: Report) -> str:
    """One row a trial, best first: the table, every finding in words, the error or the rung that decided."""
    shown = columns(report)
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([*(column.name for column in shown), "found", "why"])
    for row in report.rows:
        values = [cell.value for _, cell in cells(report, row, shown)]
        writer.writerow([_harmless(value) for value in (*values, "; ".join(row.findings), row.why)])
    return buffer.getvalue()


def _plain(text: str) -> Cell:
    return Cell(text or "-", "" if text == "-" else text)


def _all_numbers(report: Report, key: str) -> bool:
    try:
        return all(float(row.settings[key]) is not None for row in report.rows)
    except ValueError:
        return False


def _harmless(value: str) -> str:
    """A cell that a spreadsheet does not take for a formula (OWASP, "CSV injection")."""
    if value[:1] not in ("=", "+", "-", "@", "\t", "\r"):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value
