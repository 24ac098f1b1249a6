"""The report as one HTML page that opens offline: no request leaves it, and its policy forbids any.

The pictures are SVG that `pictures` draws; the page's script only sorts, filters and reads values off the curves.
docs/diagnosis.md says why no plotting library is used.
"""

from __future__ import annotations

import base64
import hashlib
import math
import time
from collections.abc import Iterable, Sequence
from functools import cache
from importlib import resources
from importlib.metadata import version

from jinja2 import Environment, Template
from markupsafe import Markup

from raysweep.diagnose.rules import RULES
from raysweep.diagnose.sweep import ValueEffect
from raysweep.diagnose.words import describe, evidence_lines
from raysweep.report.content import Report
from raysweep.report.first import top_of
from raysweep.report.mistakes import PAIR_COLUMNS
from raysweep.report.pictures import Pictures
from raysweep.report.table import Column, columns, config_columns
from raysweep.results.settings import in_order
from raysweep.terminal import format_difference

MOST_CHOICES = 12
"""A setting with more values is filtered by the search alone."""

MOST_PARTS = 100
"""Trials that have a part of the page each, the best."""


def as_html(report: Report, pictures: Pictures) -> str:
    """Return the page."""
    shown, spread = columns(report), report.sweep.seed_spread
    return _template().render(
        report=report,
        result=report.result,
        scheduler=report.result.resolved.get("sweep", {}).get("scheduler", {}).get("name", "none"),
        pictures=pictures,
        top=top_of(report),
        most_parts=MOST_PARTS,
        is_acc="acc" in report.result.objective.metric,
        columns=shown,
        config_columns=config_columns(report),
        choices=_choices(report, shown),
        colours=in_order(row.settings[report.colour_key] for row in report.rows) if report.colour_key else [],
        stopped=sum(row.record.status == "stopped" for row in report.rows),
        seed_spread="" if math.isnan(spread) else format_difference(spread, report.sweep.objective.metric),
        pair_columns=PAIR_COLUMNS,
        made=time.strftime("%Y-%m-%d %H:%M"),
    )


def _choices(report: Report, shown: Sequence[Column]) -> dict[str, list[str]]:
    """Return the values to filter by, of the statuses and of each setting that has few."""
    filters = [column for column in shown if column.name in ("status", *report.keys)]
    values = {column.name: in_order(column.cell(row)[1] for row in report.rows) for column in filters}
    return {name: texts for name, texts in values.items() if 1 < len(texts) <= MOST_CHOICES}


def _in_order(effects: Iterable[ValueEffect]) -> list[ValueEffect]:
    by_value = {effect.value: effect for effect in effects}
    return [by_value[value] for value in in_order(by_value)]


@cache
def _template() -> Template:
    environment = Environment(autoescape=True, trim_blocks=True)
    environment.filters |= {
        "evidence": evidence_lines,
        "describe": describe,
        "in_order": _in_order,
        "zip": zip,
        "base64": _base64,
    }
    environment.globals |= {"version": version("raysweep"), "rules": [rule for rule in RULES if rule.verb]}
    for name, file in (("style", "page.css"), ("script", "page.js")):
        text = _part(file)
        # The page's policy allows a style or script by its hash, and no other.
        digest = _base64(hashlib.sha256(text.encode()).digest())
        environment.globals |= {name: Markup(text), f"{name}_hash": Markup(f"sha256-{digest}")}
    return environment.from_string(_part("page.html"))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _part(name: str) -> str:
    return resources.files("raysweep.report").joinpath("assets", name).read_text(encoding="utf-8")
