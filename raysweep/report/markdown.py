"""The report as Markdown, with its pictures as SVG files beside it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from importlib import resources

from raysweep.report.content import Report, Row
from raysweep.report.mistakes import PAIR_COLUMNS, Shown, WhatItGetsWrong
from raysweep.report.pictures import Pictures
from raysweep.report.svg import Chart
from raysweep.report.table import Column, columns, config_columns

MOST_ROWS = 100
MOST_CLASSES = 30


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
    lines += _pictures("The best configs", pictures.leaders, folder)
    lines += _pictures("How the search went", pictures.progress, folder)
    lines += _pictures("Trade-offs", pictures.front, folder)
    lines += _pictures("What each setting does", pictures.effects, folder)
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
    lines += ["## What was tested", ""] if report.probes else []
    for probe, chart in zip(report.probes, pictures.probes, strict=True):
        lines += [f"{escape(chart.title)}: {escape(probe.words)}", "", _picture(chart, folder), ""]
    lines += _mistakes(report.mistakes, pictures, folder) if report.mistakes else []
    lines += _pictures(
        "Settings", [*pictures.parallel, *pictures.importance, *pictures.scatter, *pictures.tuning], folder
    )
    lines += _pictures("Which trials went on, and why", pictures.rungs, folder)
    explained = [row for row in report.rows if row.why]
    lines += [f"- {escape(row.record.id)}, {row.record.status}: {escape(row.why)}" for row in explained[:MOST_ROWS]]
    lines += [*_rest(explained), "", "## Run it again", "", *_code(f"python -m raysweep {report.command}")]
    lines += [line for row in report.rows[:MOST_ROWS] if row.pull for line in _code(row.pull)]
    if report.sweep_text:
        lines += ["The sweep file:", "", *_code(report.sweep_text, "yaml")]
    lines += [f"- {escape(name)}: {escape(value)}" for name, value in report.versions.items()]
    charts = [chart for each in fields(pictures) if each.name != "left_out" for chart in getattr(pictures, each.name)]
    images = {f"image-{image.row}.webp": image.webp for image in report.mistakes.shown} if report.mistakes else {}
    drawn = {f"{chart.name}.svg": standalone(chart) for chart in charts}
    return "\n".join(lines) + "\n", drawn | {name: data for name, data in images.items() if data}


def standalone(chart: Chart) -> bytes:
    """Return a picture that carries its own style, for light and dark."""
    style = resources.files("raysweep.report").joinpath("assets", "page.css").read_text(encoding="utf-8")
    wanted = re.findall(r"^(?::root|@media \(prefers|  :root|  +--|  }|}|\.chart|\.grid|\.mark|\.c0).*$", style, re.M)
    text = chart.to_string()
    start = text.index(">") + 1
    return f"{text[:start]}<style>{' '.join(wanted)}</style>{text[start:]}".encode()


def escape(text: str) -> str:
    """Return text that Markdown and HTML take as it is."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|#~!])", r"\\\1", " ".join(text.split()))


def _table(shown: Sequence[Column], rows: Sequence[Row]) -> list[str]:
    cells = [[column.cell(row)[0] for column in shown] for row in rows[:MOST_ROWS]]
    lines = _table_of({column.name: column.number for column in shown}, cells)
    if len(rows) > MOST_ROWS:
        lines += ["", f"The best {MOST_ROWS} of {len(rows)}; report.csv has all."]
    return lines


def _table_of(heads: Mapping[str, bool], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a table; `heads` says of each column by its name whether it has numbers."""
    lines = ["| " + " | ".join(map(escape, cells)) + " |" for cells in (list(heads), *rows)]
    lines.insert(1, "|" + "|".join(" ---: " if is_number else " --- " for is_number in heads.values()) + "|")
    return lines


def _mistakes(mistakes: WhatItGetsWrong, pictures: Pictures, folder: str) -> list[str]:
    lines = ["## What it gets wrong", "", *(f"- {escape(text)}" for text in mistakes.sentences), ""]
    lines += [*_table_of(mistakes.class_columns, mistakes.class_rows[:MOST_CLASSES]), ""]
    if len(mistakes.class_rows) > MOST_CLASSES:
        lines += [f"The worst {MOST_CLASSES} of {len(mistakes.class_rows)} classes; report.html has all.", ""]
    lines += [_picture(chart, folder) for chart in pictures.confusion]
    lines += ["", *_table_of(PAIR_COLUMNS, mistakes.pair_rows), ""] if mistakes.pair_rows else []
    for title, images in mistakes.galleries.items():
        lines += [f"### {escape(title)}", "", *(f"- {_image(image, folder)}" for image in images), ""]
    return lines


def _image(image: Shown, folder: str) -> str:
    picture = f"![{escape(image.alt)}]({folder}/image-{image.row}.webp) " if image.webp else ""
    return f"{picture}{escape('; '.join([image.truth, *image.said]))}"


def _rest(rows: Sequence[Row]) -> list[str]:
    """Say how many trials a list leaves out."""
    return ["", f"And {len(rows) - MOST_ROWS} more trials; report.csv has all."] if len(rows) > MOST_ROWS else []


def _pictures(title: str, charts: Sequence[Chart], folder: str) -> list[str]:
    images = [_picture(chart, folder) for chart in charts]
    return [f"## {title}", "", *images, ""] if images else []


def _picture(chart: Chart, folder: str) -> str:
    return f"![{escape(chart.title)}: {escape(chart.description)}]({folder}/{chart.name}.svg)"


def _code(text: str, language: str = "sh") -> list[str]:
    """Return a block that no line of the text can end."""
    longest = max((len(ticks) for ticks in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}{language}", text.rstrip("\n"), fence, ""]
