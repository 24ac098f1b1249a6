"""The report as one HTML page that opens offline: no request leaves it, and its policy forbids any.

Whoever runs no script reads it all the same: text, tables and the SVG that `pictures` draws. The script draws the
rest from the document of `data`: curves by uPlot, parallel coordinates, a table of any length. docs/page.md says why.
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
from raysweep.report.importance import importance_of
from raysweep.report.mistakes import PAIR_COLUMNS
from raysweep.report.pictures import Pictures
from raysweep.report.table import columns, config_columns
from raysweep.results.settings import in_order
from raysweep.terminal import format_difference

MOST_ROWS = 200
"""Rows of the table of trials that are in the page's HTML; its script shows all."""
SCRIPTS = ("vendor/uPlot.iife.min.js", "state.js", "table.js", "parallel.js", "curves.js", "page.js")
STYLES = ("vendor/uPlot.min.css", "page.css")
LIVE_SCRIPTS, LIVE_STYLES = ("live.js", "takeover.js"), ("live.css",)
"""What a page has besides that `raysweep watch` serves: the run now, and newer reports taken over."""


def as_html(report: Report, pictures: Pictures, live: int = 0) -> str:
    """Return the page; `live`: the number of the report, if the page is to follow a run on the server it comes from."""
    shown, spread = columns(report), report.sweep.seed_spread
    return _template("page.html", (*SCRIPTS, *LIVE_SCRIPTS) if live else SCRIPTS).render(
        live=live,
        report=report,
        result=report.result,
        scheduler=report.result.resolved.get("sweep", {}).get("scheduler", {}).get("name", "none"),
        pictures=pictures,
        top=top_of(report),
        data=_script_safe(page_data(report)),
        most_parts=MOST_PARTS,
        most_rows=MOST_ROWS,
        is_acc=report.result.metric.percent,
        columns=shown,
        colours=in_order(row.settings[report.colour_key] for row in report.rows) if report.colour_key else [],
        trials_of=_trials_of_configs(report),
        importance=importance.sentences if (importance := importance_of(report)) else "",
        config_columns=config_columns(report),
        stopped=sum(row.record.status == "stopped" for row in report.rows),
        seed_spread="" if math.isnan(spread) else format_difference(spread, report.result.metric),
        found_rules=[rule for rule in RULES if rule.verb and any(row.diagnosis.has(rule.kind) for row in report.rows)],
        pair_columns=PAIR_COLUMNS,
        made=time.strftime("%Y-%m-%d %H:%M"),
    )


def _trials_of_configs(report: Report) -> dict[str, str]:
    """Return the numbers of each config's trials, by the id of the row that stands for it."""
    numbers = {row.record.id: row.number for row in report.rows}
    configs = zip(report.best_rows, report.result.configs, strict=True)
    return {row.record.id: " ".join(str(numbers[trial.id]) for trial in config.trials) for row, config in configs}


def _script_safe(document: Mapping[str, Any]) -> Markup:
    """Return JSON that can stand in a <script>: no text in it ends the element or begins a comment."""
    return Markup(json.dumps(document, separators=(",", ":")).replace("<", "\\u003c"))


def _in_order(effects: Iterable[ValueEffect]) -> list[ValueEffect]:
    by_value = {effect.value: effect for effect in effects}
    return [by_value[value] for value in in_order(by_value)]


def as_waiting(name: str) -> str:
    """Return the page of a run whose report is not made yet: it shows how far the run is, and loads the report."""
    return _template("waiting.html", ("live.js", "waiting.js")).render(name=name)


@cache
def _template(file: str, scripts: tuple[str, ...]) -> Template:
    environment = Environment(autoescape=True, trim_blocks=True)
    environment.filters |= {
        "evidence": evidence_lines,
        "describe": describe,
        "in_order": _in_order,
        "zip": zip,
        "base64": _base64,
    }
    environment.globals |= {"version": version("raysweep"), "now": Markup(_part("live.html"))}
    licence = f"/* uPlot:\n{_part('vendor/LICENSE')}*/\n" if SCRIPTS[0] in scripts else ""
    script = "\n".join(map(_part, scripts))
    styles = STYLES if scripts == SCRIPTS else (*STYLES, *LIVE_STYLES)
    wrapped = f'{licence}(() => {{\n"use strict";\n{script}}})();'
    for name, text in (("style", "".join(map(_part, styles))), ("script", wrapped)):
        # The page's policy allows a style or script by its hash, and no other.
        digest = _base64(hashlib.sha256(text.encode()).digest())
        environment.globals |= {name: Markup(text), f"{name}_hash": Markup(f"sha256-{digest}")}
    return environment.from_string(_part(file))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _part(name: str) -> str:
    return resources.files("raysweep.report").joinpath("assets", *name.split("/")).read_text(encoding="utf-8")
