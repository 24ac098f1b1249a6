"""The trade-offs between several objectives: the first against each of the others, and the front."""

from __future__ import annotations

import math

from raysweep.report.content import Report, Row
from raysweep.report.svg import Chart, Scale, is_log, score_scale
from raysweep.results.trade_offs import LARGE, TradeOff, value_text
from raysweep.terminal import Metric, count_of, format_large

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 300, 60, 16, 14, 44
MOST_CONFIGS = 300
"""Configs in a picture: the front, then those that fewest dominate."""


def draw_front(report: Report) -> list[Chart]:
    """Draw a picture for each objective but the first; a dot is a config, a filled one is on the front.

    A line joins the front where there are two objectives: of more, what is drawn is not all by which one is better.
    """
    rows = {row.record.id: row for row in report.best_rows}
    shown = [(rows[each.config.best.id], each) for each in report.result.trade_offs[:MOST_CONFIGS] if each.config.best]
    return [_picture(report, metric, shown, number) for number, metric in enumerate(report.result.metrics[1:])]


def _picture(report: Report, metric: Metric, shown: list[tuple[Row, TradeOff]], number: int) -> Chart:
    first, objective = report.result.metric, report.result.objective
    drawn = [(row, each, *point) for row, each in shown if (point := _point(each, first, metric))]
    on_front = sum(not each.dominated_by for _, each, _, _ in drawn)
    described = (
        f"{first.name} of {count_of(len(drawn), 'config')} against {metric.name}. Filled dots, {on_front}, are on the "
        "front."
    )
    chart = Chart(f"{first.name} against {metric.name}", described, f"front{number}", WIDTH, HEIGHT)
    if not drawn:
        return chart
    costs, scores = [x for _, _, x, _ in drawn], [y for _, _, _, y in drawn]
    x = Scale(min(costs), max(costs), LEFT + 8, WIDTH - RIGHT - 8, is_log(costs))
    y = score_scale(scores, HEIGHT - BOTTOM - 8, TOP + 8, first, objective.maximize)
    for value in y.ticks(5):
        chart.add("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y(value), y2=y(value), class_="grid")
        chart.add("text", text=first.tick(value), x=LEFT - 6.0, y=y(value) + 4, class_="tick end")
    for value in x.ticks(5):
        text = format_large(value) if value >= LARGE else metric.tick(value)
        chart.add("text", text=text, x=x(value), y=HEIGHT - BOTTOM + 17.0, class_="tick middle")
    name = f"{metric.name}{', log scale' if x.log else ''}"
    chart.add("text", text=name, x=(LEFT + WIDTH - RIGHT) / 2, y=HEIGHT - 6.0, class_="tick middle")
    if len(objective.against) == 1:
        steps = _steps([(cost, score) for _, each, cost, score in drawn if not each.dominated_by])
        line = " ".join(f"{x(cost):.1f},{y.nearest(score):.1f}" for cost, score in steps)
        chart.add("polyline", points=line, class_="c0")
    for row, each, cost, score in reversed(drawn):
        group = chart.add("g", class_=f"trial c{row.colour}", data_trial=row.number)
        values = f"{report.score_text(score)}, {metric.name} {value_text(cost, metric)}"
        ended = f", dominated by {each.dominated_by}" if each.dominated_by else ""
        chart.add("title", group, f"{report.named(row)}: {values}{ended}")
        state = "out" if each.dominated_by else "went-on"
        chart.add("circle", group, class_=f"stop {state}", cx=x(cost), cy=y.nearest(score), r=3.5)
    return chart


def _point(each: TradeOff, first: Metric, metric: Metric) -> tuple[float, float] | None:
    cost, score = each.values[metric.name], each.values[first.name]
    return None if cost is None or score is None or not math.isfinite(score) else (cost, score)


def _steps(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the corners of the line between what the front dominates and the rest: nothing is had halfway."""
    ordered = sorted(points)
    corners = ordered[:1]
    for cost, score in ordered[1:]:
        corners += [(cost, corners[-1][1]), (cost, score)]
    return corners
