"""The score against each numeric setting: a dot for each trial."""

from __future__ import annotations

import math

import numpy as np

from raysweep.report.content import Report, Row
from raysweep.report.svg import Chart, Scale
from raysweep.results.settings import are_numbers
from raysweep.terminal import count_of

FEWEST = 5
"""Values of a setting that are worth a scatter; fewer are told by its effects."""
MOST_DOTS = 300
"""Trials in a picture; of more every so many in the order of the ranking."""
LOG_FROM = 20
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 340, 230, 54, 12, 10, 40


def draw_scatter(report: Report) -> list[Chart]:
    """Draw a picture for each numeric setting of several values."""
    scored = [row for row in report.rows if row.place and row.record.best]
    scored = scored[:: max(1, math.ceil(len(scored) / MOST_DOTS))]
    keys = [key for key in report.keys if _is_drawn([row.settings[key] for row in scored])]
    return [
        _scatter(report, key, [row for row in scored if row.settings[key] != "-"], place)
        for place, key in enumerate(keys)
    ]


def _is_drawn(texts: list[str]) -> bool:
    known = set(texts) - {"-"}
    return len(known) >= FEWEST and are_numbers(known) and all(map(math.isfinite, map(float, known)))


def _scatter(report: Report, key: str, rows: list[Row], place: int) -> Chart:
    metric, label = report.result.objective.metric, report.labels[key]
    xs = [float(row.settings[key]) for row in rows]
    scores = np.array([row.record.best.score for row in rows if row.record.best])
    log = min(xs) > 0 and max(xs) / min(xs) > LOG_FROM
    described = f"{metric} of {count_of(len(rows), 'trial')} against {key}{', on a log scale' if log else ''}."
    chart = Chart(
        label,
        f"{described} Filled dots trained to their end; hollow ones were stopped or still train.",
        f"scatter{place}",
        WIDTH,
        HEIGHT,
    )
    x = Scale(min(xs), max(xs), LEFT + 6, WIDTH - RIGHT, log)
    # A score that blew up must not flatten the others.
    low, high = np.quantile(scores, (0.0, 1.0)) if "acc" in metric else np.quantile(scores, (0.0, 0.95))
    y = Scale(float(low), float(high), HEIGHT - BOTTOM - 6, TOP + 4)
    _axes(chart, x, y, label, "acc" in metric)
    for row, value in zip(reversed(rows), reversed(xs), strict=True):
        assert row.record.best
        group = chart.add("g", class_=f"trial c{row.colour}", data_trial=row.number)
        chart.add("title", group, f"{report.named(row)}: {report.score_text(row.record.best.score)}")
        state = "went-on" if row.final_score is not None else "out"
        at = y(min(max(row.record.best.score, y.low), y.high))
        chart.add("circle", group, class_=f"stop {state}", cx=x(value), cy=at, r=3.0)
    return chart


def _axes(chart: Chart, x: Scale, y: Scale, label: str, percent: bool) -> None:
    for value in y.ticks(5):
        chart.add("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y(value), y2=y(value), class_="grid")
        text = f"{100 * value:.4g} %" if percent else f"{value:.4g}"
        chart.add("text", text=text, x=LEFT - 6.0, y=y(value) + 4, class_="tick end")
    for value in x.ticks(4):
        chart.add("text", text=f"{value:.3g}", x=x(value), y=HEIGHT - BOTTOM + 15.0, class_="tick middle")
    chart.add("text", text=label, x=(LEFT + WIDTH - RIGHT) / 2, y=HEIGHT - 8.0, class_="tick middle")
