"""The report as one HTML page that opens offline: no request leaves it, and its policy forbids any.

Whoever runs no script reads it all the same: text, tables and the SVG that `pictures` draws. The script draws the rest
from the document that `data` makes: curves by uPlot, parallel coordinates, a table of any length. docs/page.md says why.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import time
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources
from importlib.metadata import version
from typing import Any

from jinja2 import Environment, Template
from markupsafe import Markup

from raysweep.diagnose.rules import RULES
from raysweep.diagnose.sweep import ValueEffect
from raysweep.diagnose.words import describe, evidence_lines
from raysweep.report.content import Report
from raysweep.report.data import MOST_PARTS, page_data
from raysweep.report.first import top_of
from raysweep.report.mistakes import PAIR_COLUMNS
from raysweep.report.pictures import Pictures
from raysweep.report.table import columns, config_columns
from raysweep.results.settings import in_order
from raysweep.terminal import format_difference

MOST_ROWS = 200
"""Rows of the table of trials that are in the page's HTML; its script shows all."""
SCRIPTS = ("vendor/uPlot.iife.min.js", "state.js", "table.js", "parallel.js", "curves.js", "page.js")
STYLES = ("vendor/uPlot.min.css", "page.css")


def as_html(report: Report, pictures: Pictures) -> str:
    """Return the page."""
    shown, spread = columns(report), report.sweep.seed_spread
    return _template().render(
        report=report,
        result=report.result,
        scheduler=report.result.resolved.get("sweep", {}).get("scheduler", {}).get("name", "none"),
        pictures=pictures,
        top=top_of(report),
        data=_script_safe(page_data(report)),
        most_parts=MOST_PARTS,
        most_rows=MOST_ROWS,
        is_acc="acc" in report.result.objective.metric,
        columns=shown,
        config_columns=config_columns(report),
        stopped=sum(row.record.status == "stopped" for row in report.rows),
        seed_spread="" if math.isnan(spread) else format_difference(spread, report.sweep.objective.metric),
        pair_columns=PAIR_COLUMNS,
        made=time.strftime("%Y-%m-%d %H:%M"),
    )


def _script_safe(document: Mapping[str, Any]) -> Markup:
    """Return JSON that can stand in a <script>: no text in it ends the element or begins a comment."""
    return Markup(json.dumps(document, separators=(",", ":")).replace("<", "\\u003c"))


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
    script = "\n".join(map(_part, SCRIPTS))
    licensed = f'/* uPlot:\n{_part("vendor/LICENSE")}*/\n(() => {{\n"use strict";\n{script}}})();'
    for name, text in (("style", "".join(map(_part, STYLES))), ("script", licensed)):
        # The page's policy allows a style or script by its hash, and no other.
        digest = _base64(hashlib.sha256(text.encode()).digest())
        environment.globals |= {name: Markup(text), f"{name}_hash": Markup(f"sha256-{digest}")}
    return environment.from_string(_part("page.html"))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _part(name: str) -> str:
    return resources.files("raysweep.report").joinpath("assets", *name.split("/")).read_text(encoding="utf-8")
