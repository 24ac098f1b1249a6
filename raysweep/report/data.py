"""What the page's script draws from: trials, their cells, curves and parts, as one JSON-able document.

Lists hold one entry a trial, in the order of the ranking, so that a trial is its place in them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from raysweep.diagnose.curves import Curves
from raysweep.diagnose.words import evidence_lines
from raysweep.report.content import COLOURS, Report, Row
from raysweep.report.families import CurvePicture, curve_pictures, of_objective
from raysweep.report.svg import is_log
from raysweep.report.table import columns
from raysweep.results.settings import are_numbers, most_telling
from raysweep.store.metrics import EMA

MOST_CURVES = 200
"""Trials whose curves are all in the page, the best; of the others it has those of the objective."""
MOST_POINTS = 400
"""Points of a curve; of longer ones every so many epochs are in the page."""
MOST_PARTS = 100
"""Trials that have a part in the page's HTML, the best; the script makes those of the others from the document."""


def page_data(report: Report) -> dict[str, Any]:
    """Return the document."""
    rows, metric = report.rows, report.result.metric
    grid = _epochs(rows)
    curves = [Curves.of(row.record.metrics) for row in rows]
    pictures = curve_pictures(curves, report.result.objective)
    leaders = [row.number for row in report.best_rows[:COLOURS] if row.place and row.record.best]
    return {
        "metric": metric.name,
        "percent": metric.percent,  # whether its values are written in percent
        "best": "high" if report.result.objective.maximize else "low",
        "log": _is_log(report),  # whether the axis of scores is logarithmic
        "score": report.score_name,  # the column that has them
        "leaders": leaders,
        "kind": _kind(report, pictures, leaders),  # what the winner is ranked by
        "axes": _axes(report),
        "columns": _columns(report),
        "trials": {
            "id": [row.record.id for row in rows],
            "name": [report.named(row) for row in rows],
            "score": [_number(row.record.best.score) if row.place and row.record.best else None for row in rows],
        },
        "epochs": grid,
        "pictures": [_picture(each, curves, grid, metric.name) for each in pictures],
        "marks": {row.number: marks for row in rows[:MOST_CURVES] if (marks := _marks(row))},
        "parts": _parts(report, rows[MOST_PARTS:]),
    }


def _is_log(report: Report) -> bool:
    scores = [row.record.best.score for row in report.rows if row.place and row.record.best]
    return bool(scores) and not report.result.metric.percent and is_log(scores)


def _kind(report: Report, pictures: Sequence[CurvePicture], leaders: Sequence[int]) -> str:
    best = report.rows[leaders[0]].record.best if leaders else None
    objective = report.result.objective.metric
    return of_objective(pictures[0], objective, bool(best and best.averaged)) if pictures else "val"


def _number(value: float, digits: int = 5) -> float | None:
    """Return a number in so few digits as a picture shows; None unless it is finite, which JSON cannot tell."""
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None


# ---------------------------------------------------------------------------------------------------------
# The table


def _columns(report: Report) -> list[dict[str, Any]]:
    """Return the columns; `values`, which they are sorted by, is left out where the texts do."""
    found = []
    for column in columns(report):
        cells = [column.cell(row) for row in report.rows]
        texts, values = [text for text, _ in cells], [value for _, value in cells]
        known = {
            "name": column.name,
            "label": report.labels.get(column.name, column.name),
            "number": column.number,
            "texts": texts,
        }
        found.append(
            known if values == [text if text != "-" else "" for text in texts] else {**known, "values": values}
        )
    return found


def _axes(report: Report) -> list[dict[str, Any]]:
    """Return the settings that tell the trials apart, the most telling first, with the scale of each."""
    keys = most_telling([row.record for row in report.rows], report.keys)
    return [
        {"key": key, "label": report.labels[key], **_scale([row.short[key] for row in report.rows])} for key in keys
    ]


def _scale(texts: Sequence[str]) -> dict[str, bool]:
    known = set(texts) - {"-"}
    if not known or not are_numbers(known):
        return {"number": False, "log": False}
    return {"number": True, "log": is_log(map(float, known))}


# ---------------------------------------------------------------------------------------------------------
# The curves


def _epochs(rows: Sequence[Row]) -> list[int]:
    """Return the epochs that the curves have a point at: all, or every so many of a long run and the last."""
    last = max((int(metrics.get("epoch") or 0) for row in rows for metrics in row.record.metrics[-1:]), default=0)
    return sorted({*range(1, last + 1, max(1, math.ceil(last / MOST_POINTS))), *([last] if last else [])})


def _picture(picture: CurvePicture, curves: Sequence[Curves], grid: Sequence[int], objective: str) -> dict[str, Any]:
    """Return a picture: its curves by kind, a list of values a trial; None where a trial has none."""
    lines = {}
    for kind, metric in picture.metrics.items():
        several = len(curves) if metric.removesuffix(EMA) == objective.removesuffix(EMA) else MOST_CURVES
        lines[kind] = [_values(each, metric, grid) for each in curves[:several]]
    axis = {"percent": picture.percent, "log": picture.log, "marked": picture.is_marked}
    return {"name": picture.name, "words": picture.words, **axis, "lines": lines}


def _values(curves: Curves, metric: str, grid: Sequence[int]) -> list[float | None] | None:
    if not curves.has(metric):
        return None
    known = dict(zip(curves.epochs.tolist(), curves[metric].tolist(), strict=True))
    last = max(known)
    return [_number(known.get(epoch, math.nan), 4) for epoch in grid if epoch <= last]


def _marks(row: Row) -> list[tuple[str, int]]:
    """Return where findings are on a trial's curve: kind and epoch."""
    return [(each.kind, int(each.numbers.get("bottom", each.first))) for each in row.diagnosis.findings]


# ---------------------------------------------------------------------------------------------------------
# The parts


def _parts(report: Report, rows: Sequence[Row]) -> dict[str, Any]:
    """Return what the parts of these trials say; lines of the config that all share are there once."""
    configs = [row.config_text.split("\n") for row in rows]
    shared = set(configs[0]).intersection(*configs[1:]) if configs else set()
    told = [
        {
            "headline": headline,
            "error": row.error,
            "traceback": row.traceback,
            "lines": [*_found(row), *((text, ()) for text in row.remarks)],
            "config": [line for line in config if line not in shared],
            "pull": row.pull or "",
        }
        for row, config, headline in zip(rows, configs, map(report.headline, rows), strict=True)
    ]
    return {
        "first": MOST_PARTS,
        "shared": [line for line in configs[0] if line in shared] if configs else [],
        "trials": [{key: value for key, value in each.items() if value} for each in told],
    }


def _found(row: Row) -> list[tuple[str, list[str]]]:
    """Return what was found in a trial's curve, with the evidence."""
    return [(text, evidence_lines(each)) for each, text in zip(row.diagnosis.findings, row.findings, strict=True)]
