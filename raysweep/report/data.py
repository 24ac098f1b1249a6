"""What the page's script draws from: trials, their cells, curves and parts, as one JSON-able document.

Lists hold one entry a trial, in the order of the ranking, so that a trial is its place in them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from raysweep.diagnose.curves import Curves
from raysweep.diagnose.words import evidence_lines
from raysweep.report.content import COLOURS, Report, Row
from raysweep.report.svg import is_log
from raysweep.report.table import columns
from raysweep.results.settings import are_numbers, most_telling

MOST_CURVES = 200
"""Trials whose curves are all in the page, the best; of the others it has those of the objective."""
MOST_POINTS = 400
"""Points of a curve; of longer ones every so many epochs are in the page."""
MOST_PARTS = 100
"""Trials that have a part in the page's HTML, the best; the script makes those of the others from the document."""
KINDS = {"train": "train_{}", "val": "val_{}", "averaged": "val_{}_ema"}
"""What the curves of one picture show, by how their metrics are called."""


def page_data(report: Report) -> dict[str, Any]:
    """Return the document."""
    rows, metric = report.rows, report.result.objective.metric
    grid = _epochs(rows)
    curves = [Curves.of(row.record.metrics) for row in rows]
    leaders = [row.number for row in report.best_rows[:COLOURS] if row.place and row.record.best]
    return {
        "metric": metric,
        "leaders": leaders,
        "kind": "averaged" if leaders and _is_averaged(rows[leaders[0]]) else "val",  # what the winner is ranked by
        "axes": _axes(report),
        "columns": _columns(report),
        "trials": {
            "id": [row.record.id for row in rows],
            "name": [report.named(row) for row in rows],
            "score": [_number(row.record.best.score) if row.place and row.record.best else None for row in rows],
        },
        "epochs": grid,
        "pictures": [_picture(name, metrics, curves, grid, metric) for name, metrics in _families(curves, metric)],
        "marks": {row.number: marks for row in rows[:MOST_CURVES] if (marks := _marks(row))},
        "parts": _parts(report, rows[MOST_PARTS:]),
    }


def _is_averaged(row: Row) -> bool:
    return bool(row.record.best and row.record.best.averaged)


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


def _families(curves: Sequence[Curves], metric: str) -> list[tuple[str, dict[str, str]]]:
    """Return the pictures, the objective's first: a name and its metrics, training and validation in one by kind."""
    names = dict.fromkeys(name for each in curves for name in each.metrics)
    families: dict[str, dict[str, str]] = {}
    for name in sorted(names, key=lambda name: (name.removesuffix("_ema") != metric, not name.startswith("val_"))):
        base = name.removeprefix("val_").removeprefix("train_").removesuffix("_ema")
        kinds = {kind: pattern.format(base) for kind, pattern in KINDS.items() if pattern.format(base) in names}
        if name in kinds.values():
            families.setdefault(base, kinds)
        else:  # `acc` beside `val_acc` is another metric
            families[name if base not in families or base != name else f"{name} itself"] = {"val": name}
    return list(families.items())


def _picture(
    name: str, metrics: Mapping[str, str], curves: Sequence[Curves], grid: Sequence[int], objective: str
) -> dict[str, Any]:
    """Return a picture: its curves by kind, a list of values a trial; None where a trial has none."""
    percent = "acc" in name
    lines = {}
    for kind, metric in metrics.items():
        several = len(curves) if metric.removesuffix("_ema") == objective else MOST_CURVES
        lines[kind] = [_values(each, metric, grid) for each in curves[:several]]
    low = min(
        (value for each in lines.values() for line in each for value in line or () if value is not None), default=0
    )
    return {"name": name, "percent": percent, "log": not percent and low > 0, "lines": lines}


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
            "lines": [*_found(row), *((text, ()) for text in row.standings)],
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
