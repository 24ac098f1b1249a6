"""The report as Markdown, with its pictures as SVG files beside it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import resources

from raysweep.report.content import Report, Row
from raysweep.report.pictures import curve_pictures, parallel_picture, rung_picture, shown_rows
from raysweep.report.svg import Chart
from raysweep.report.table import cells, columns

MOST_ROWS = 100


def as_markdown(report: Report, pictures: str) -> tuple[str, dict[str, bytes]]:
    """Return the text, and the pictures by file name.

    Args:
        report: what it says.
        pictures: the folder that the text finds them in, relative to it.
    """
    curves, parallel, rungs = curve_pictures(report), parallel_picture(report), rung_picture(report)
    lines = [f"# {escape(report.name)}", ""]
    if report.description:
        lines += [escape(report.description), ""]
    if report.is_running:
        lines += ["**Still running.**", ""]
    lines += [f"- {escape(sentence)}" for sentence in report.summary]
    lines += ["", *(f"- Missing: {escape(note)}" for note in report.notes), ""]
    lines += _pictures("Learning curves", curves, pictures)
    drawn, begun = len(shown_rows(report)), sum(row.record.epoch > 0 for row in report.rows)
    if drawn < begun:
        lines += [f"Curves of the best {drawn} trials; those of the other {begun - drawn} are in results.parquet.", ""]
    lines += ["## Ranking", "", *_table(report), ""]
    lines += _findings(report)
    lines += _pictures("Settings", [parallel] if parallel else [], pictures)
    lines += _pictures("Who went on, and why not", [rungs] if rungs else [], pictures)
    explained = [row for row in report.rows if row.why]
    lines += [f"- {escape(row.record.id)}, {row.record.status}: {escape(row.why)}" for row in explained[:MOST_ROWS]]
    lines += _rest(explained)
    lines += ["", "## Again", "", *_code(report.reproduce)]
    lines += [line for row in report.rows[:MOST_ROWS] if row.pull for line in _code(row.pull)]
    if report.sweep_text:
        lines += ["The sweep file:", "", *_code(report.sweep_text, "yaml")]
    lines += [f"- {escape(name)}: {escape(value)}" for name, value in report.versions.items()]
    charts = [*curves, *([parallel] if parallel else []), *([rungs] if rungs else [])]
    return "\n".join(lines) + "\n", {f"{chart.name}.svg": standalone(chart) for chart in charts}


def standalone(chart: Chart) -> bytes:
    """A picture that carries its own style, for light and dark."""
    style = resources.files("raysweep.report").joinpath("page.css").read_text(encoding="utf-8")
    wanted = re.findall(r"^(?::root|@media \(prefers|  :root|  +--|  }|}|\.chart|\.grid|\.mark|\.c0).*$", style, re.M)
    text = chart.to_string()
    start = text.index(">") + 1
    return f"{text[:start]}<style>{' '.join(wanted)}</style>{text[start:]}".encode()


def escape(text: str) -> str:
    """Text that Markdown and HTML take as it is."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|#~!])", r"\\\1", " ".join(text.split()))


def _table(report: Report) -> list[str]:
    shown = columns(report)
    lines = ["| " + " | ".join(escape(column.name) for column in shown) + " |"]
    lines.append("|" + "|".join(" ---: " if column.number else " --- " for column in shown) + "|")
    for row in report.rows[:MOST_ROWS]:
        lines.append("| " + " | ".join(escape(cell.text) for _, cell in cells(report, row, shown)) + " |")
    if len(report.rows) > MOST_ROWS:
        lines += ["", f"The best {MOST_ROWS} of {len(report.rows)} trials; report.csv has all."]
    return lines


def _findings(report: Report) -> list[str]:
    found = [row for row in report.rows if row.findings]
    if not found:
        return []
    lines = ["## What the curves show", ""]
    for row in found[:MOST_ROWS]:
        lines += [f"- {escape(row.record.id)}", *(f"  - {escape(text)}" for text in row.findings)]
    return [*lines, *_rest(found), ""]


def _rest(rows: Sequence[Row]) -> list[str]:
    """Say how many trials a list leaves out."""
    return ["", f"And {len(rows) - MOST_ROWS} more trials; report.csv has all."] if len(rows) > MOST_ROWS else []


def _pictures(title: str, charts: list[Chart], folder: str) -> list[str]:
    images = [f"![{escape(chart.title)}: {escape(chart.description)}]({folder}/{chart.name}.svg)" for chart in charts]
    return [f"## {title}", "", *images, ""] if images else []


def _code(text: str, language: str = "sh") -> list[str]:
    """A block that no line of the text can end."""
    longest = max((len(ticks) for ticks in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}{language}", text.rstrip("\n"), fence, ""]
