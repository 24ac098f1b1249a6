"""The report as Markdown, with its pictures as SVG files beside it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import resources

from raysweep.report.content import Report, Row
from raysweep.report.pictures import Pictures
from raysweep.report.svg import Chart
from raysweep.report.table import Column, columns, config_columns

MOST_ROWS = 100


def as_markdown(report: Report, pictures: Pictures, folder: str) -> tuple[str, dict[str, bytes]]:
    """Return the text, and the pictures by file name; `folder` is where the text finds them, relative to it."""
    lines = [f"# {escape(report.result.name)}", ""]
    lines += [escape(report.description), ""] if report.description else []
    lines += ["**Still running.**", ""] if report.is_running else []
    if report.judgement:
        lines += [f"{escape(sentence)}\n" for sentence in report.judgement.sentences]
        lines += _pictures("Is the winner the winner?", pictures.winner, folder)
    lines += [f"- {escape(sentence)}" for sentence in report.summary]
    lines += ["", *(f"- Missing: {escape(note)}" for note in report.notes), ""]
    lines += _pictures("Learning curves", pictures.curves, folder)
    lines += [pictures.left_out, ""] if pictures.left_out else []
    lines += ["## Ranking", ""]
    lines += [*_table(config_columns(report), report.best_rows), "", "Every seed:", ""] if report.is_repeated else []
    lines += [*_table(columns(report), report.rows), ""]
    found = [row for row in report.rows if row.findings]
    lines += ["## What the curves show", ""] if found else []
    for row in found[:MOST_ROWS]:
        lines += [f"- {escape(row.record.id)}", *(f"  - {escape(text)}" for text in row.findings)]
    lines += [*_rest(found), ""] if found else []
    lines += _pictures("Settings", pictures.settings, folder)
    lines += _pictures("Which trials went on, and why", pictures.rungs, folder)
    explained = [row for row in report.rows if row.why]
    lines += [f"- {escape(row.record.id)}, {row.record.status}: {escape(row.why)}" for row in explained[:MOST_ROWS]]
    lines += [*_rest(explained), "", "## Run it again", "", *_code(f"python -m raysweep {report.command}")]
    lines += [line for row in report.rows[:MOST_ROWS] if row.pull for line in _code(row.pull)]
    if report.sweep_text:
        lines += ["The sweep file:", "", *_code(report.sweep_text, "yaml")]
    lines += [f"- {escape(name)}: {escape(value)}" for name, value in report.versions.items()]
    charts = (*pictures.winner, *pictures.curves, *pictures.settings, *pictures.rungs)
    return "\n".join(lines) + "\n", {f"{chart.name}.svg": standalone(chart) for chart in charts}


def standalone(chart: Chart) -> bytes:
    """Return a picture that carries its own style, for light and dark."""
    style = resources.files("raysweep.report").joinpath("page.css").read_text(encoding="utf-8")
    wanted = re.findall(r"^(?::root|@media \(prefers|  :root|  +--|  }|}|\.chart|\.grid|\.mark|\.c0).*$", style, re.M)
    text = chart.to_string()
    start = text.index(">") + 1
    return f"{text[:start]}<style>{' '.join(wanted)}</style>{text[start:]}".encode()


def escape(text: str) -> str:
    """Return text that Markdown and HTML take as it is."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|#~!])", r"\\\1", " ".join(text.split()))


def _table(shown: Sequence[Column], rows: Sequence[Row]) -> list[str]:
    cells = [[column.name for column in shown]]
    cells += [[column.cell(row)[0] for column in shown] for row in rows[:MOST_ROWS]]
    lines = ["| " + " | ".join(map(escape, each)) + " |" for each in cells]
    lines.insert(1, "|" + "|".join(" ---: " if column.number else " --- " for column in shown) + "|")
    if len(rows) > MOST_ROWS:
        lines += ["", f"The best {MOST_ROWS} of {len(rows)}; report.csv has all."]
    return lines


def _rest(rows: Sequence[Row]) -> list[str]:
    """Say how many trials a list leaves out."""
    return ["", f"And {len(rows) - MOST_ROWS} more trials; report.csv has all."] if len(rows) > MOST_ROWS else []


def _pictures(title: str, charts: Sequence[Chart], folder: str) -> list[str]:
    images = [f"![{escape(chart.title)}: {escape(chart.description)}]({folder}/{chart.name}.svg)" for chart in charts]
    return [f"## {title}", "", *images, ""] if images else []


def _code(text: str, language: str = "sh") -> list[str]:
    """Return a block that no line of the text can end."""
    longest = max((len(ticks) for ticks in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}{language}", text.rstrip("\n"), fence, ""]
