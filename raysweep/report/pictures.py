"""The report's pictures: the winner and its rivals, curves, rungs, parallel coordinates. `Report` in, SVG out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeGuard
from xml.etree import ElementTree as ET

import numpy as np

from raysweep.diagnose.curves import Array, Curves
from raysweep.halving.rungs import Verdict
from raysweep.halving.words import score_text
from raysweep.report.content import Report, Row
from raysweep.report.families import CurvePicture, curve_pictures, ends_of
from raysweep.report.first import draw_effects, draw_leaders
from raysweep.report.front import draw_front
from raysweep.report.heat_map import heat_map
from raysweep.report.importance import draw_importance, importance_of
from raysweep.report.probes import draw_probes
from raysweep.report.progress import draw_progress
from raysweep.report.scatter import draw_scatter
from raysweep.report.svg import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Chart, Scale, is_log, points, score_scale
from raysweep.report.winner import draw_tuning, draw_winner
from raysweep.results.settings import are_numbers
from raysweep.store.metrics import CLOCK
from raysweep.terminal import Metric

MOST_CURVES = 200
"""Trials whose curves are drawn, the best; more would be one grey cloud, in a page of many megabytes."""
AXIS_TOP, AXIS_BOTTOM = TOP + 22, HEIGHT - 16
"""The ends of the axes of parallel coordinates."""
MOST_PANELS = 12
"""Metrics whose curves are drawn; the page has all."""
UNTOLD = {*CLOCK, "grad_norm"}
"""Metrics of the built-in loop that the page has alone: two that say nothing of training, and one told by another."""
MARKS = {
    "dip": (-5, -9, "h10l-5 8z"),  # a triangle that points down at it
    "overfitting": (-4, 0, "a4 4 0 1 0 8 0a4 4 0 1 0 -8 0"),  # a circle
    "divergence": (-4, -4, "l8 8m0 -8l-8 8"),  # a cross
}
"""Findings that are marked on the validation curves: where the mark's path begins, and the path."""


@dataclass(frozen=True)
class Pictures:
    """All pictures of a run."""

    leaders: list[Chart]  # score against epoch, the best in colour; empty without a score
    effects: list[Chart]  # a setting each; empty where nothing can be compared
    winner: list[Chart]  # what the winner and its rivals can be expected to reach; empty where that is not known
    front: list[Chart]  # the first objective against each of the others; empty with one
    progress: list[Chart]  # the score of each config in the order of proposals; of a search alone
    curves: list[Chart]
    parallel: list[Chart]  # settings and score, where anything varies
    scatter: list[Chart]  # the score against each setting of a random search, against numeric ones of another
    importance: list[Chart]  # of the settings of a random search; empty of another, or of few trials
    tuning: list[Chart]  # what the best of so many configs of a random search is
    rungs: list[Chart]  # which trials went on; empty without rungs
    probes: list[Chart]  # of each epoch that was probed: the trial's curve and its futures
    confusion: list[Chart]  # what the winner takes for what; empty where that is not known, or of too many classes
    left_out: str  # says whose curves are not drawn; empty if all are


def draw(report: Report) -> Pictures:
    """Draw a run: the curves of its best trials, its settings and its rungs."""
    begun = [row for row in report.rows if row.record.epoch]
    shown, others = begun[:MOST_CURVES], len(begun[MOST_CURVES:])
    rows = [(row, Curves.of(row.record.metrics)) for row in shown]
    left_out = f"Curves of the best {len(rows)} trials; those of the other {others} are in results.parquet."
    panels = [
        each for each in curve_pictures([each for _, each in rows], report.result.objective) if each.name not in UNTOLD
    ]
    more = f"Of {len(panels)} metrics the first {MOST_PANELS} are drawn; report.html has the others"
    importance = importance_of(report)
    return Pictures(
        leaders=draw_leaders(report),
        effects=draw_effects(report, fair_only=importance is not None),
        winner=draw_winner(report),
        front=draw_front(report),
        progress=draw_progress(report),
        curves=[chart for panel in panels[:MOST_PANELS] if (chart := _panel(panel, rows))],
        parallel=_parallel(report),
        scatter=draw_scatter(report, [each.key for each in importance.settings] if importance else None),
        importance=[draw_importance(report, importance)] if importance else [],
        tuning=draw_tuning(report),
        rungs=_rungs(report),
        probes=draw_probes(report),
        confusion=[heat_map(report.mistakes)] if report.mistakes and report.mistakes.is_drawn else [],
        left_out=" ".join([*([left_out] if others else []), *([f"{more}."] if len(panels) > MOST_PANELS else [])]),
    )


def _panel(panel: CurvePicture, rows: Sequence[tuple[Row, Curves]]) -> Chart | None:
    """Draw the curves of a panel, the best trial on top; None where no trial has a value."""
    values = np.concatenate([[], *(curves[metric] for _, curves in rows for metric in panel.metrics.values())])
    values = values[np.isfinite(values) & ((values > 0) | (not panel.log))]
    if not len(values):
        return None
    named = ", ".join(panel.words.values()) if len(panel.metrics) > 1 else ""
    over = f"{panel.title} of {len(rows)} trials over the epochs{f' ({named})' if named else ''}"
    chart = Chart(panel.title, f"{over}; the table below has the numbers.", panel.file)
    x = Scale(1, max(2, *(int(curves.epochs[-1]) for _, curves in rows)), LEFT, WIDTH - RIGHT)
    y = Scale(*_ends(panel, values), HEIGHT - BOTTOM, TOP + 8, panel.log)
    chart.axes(x, y, "epoch", "log scale" if panel.log else "", Metric(panel.name, panel.percent).tick)
    for row, curves in reversed(rows):
        group = _group(chart, row, row.record.id)
        for kind, metric in panel.metrics.items():
            _curve(chart, group, kind, points(curves.epochs.tolist(), curves[metric].tolist(), x, y))
        if panel.is_marked:
            _mark(chart, group, row, curves, panel.metrics["val"], x, y)
    return chart


def _ends(panel: CurvePicture, values: Array) -> tuple[float, float]:
    """Return the ends of a panel's axis; of a loss the few values far above the others do not flatten the rest."""
    if panel.percent or not panel.log:
        return (0.0, float(values.max())) if panel.percent else ends_of(values)
    top = float(values.max())
    return float(values.min()), min(top, 3 * float(np.quantile(values, 0.95))) if panel.is_loss else top


def _group(chart: Chart, row: Row, title: str) -> ET.Element:
    """Add the group of a trial's elements, with the text that shows where it is pointed at."""
    group = chart.add("g", class_=f"trial c{row.colour}", data_trial=row.number)
    chart.add("title", group, title)
    return group


def _curve(chart: Chart, group: ET.Element, kind: str, stretches: Sequence[str]) -> None:
    for stretch in stretches:
        if " " in stretch:
            chart.add("polyline", group, class_=kind, points=stretch)
        else:
            cx, cy = stretch.split(",")
            chart.add("circle", group, class_=f"dot {kind}", cx=cx, cy=cy, r=2.0)


def _mark(chart: Chart, group: ET.Element, row: Row, curves: Curves, metric: str, x: Scale, y: Scale) -> None:
    """Mark findings where they are on the validation curve, that of `metric`."""
    values = dict(zip(curves.epochs.tolist(), curves[metric].tolist(), strict=True))
    for finding, text in zip(row.diagnosis.findings, row.findings, strict=True):
        epoch = int(finding.numbers.get("bottom", min(finding.first, int(curves.epochs[-1]))))
        value = values.get(epoch, math.nan)
        if finding.kind not in MARKS or not math.isfinite(value):
            continue
        dx, dy, path = MARKS[finding.kind]
        start = f"M{x(epoch) + dx:.1f} {y.nearest(value) + dy:.1f}"
        mark = chart.add("path", group, class_=f"mark {finding.kind}", d=start + path)
        chart.add("title", mark, f"{row.record.id}: {text}")


# ---------------------------------------------------------------------------------------------------------
# Who went on


def _rungs(report: Report) -> list[Chart]:
    """Draw each trial's score at each rung: filled dots went on, hollow ones did not."""
    judged = [row for row in report.rows if row.rungs]
    rows = judged[:MOST_CURVES]
    scores = [rung.score for row in rows for rung in row.rungs if _finite(rung.score)]
    if not scores:
        return []
    last = max(rung.rung for row in rows for rung in row.rungs)
    which = f"the best {len(rows)} of {len(judged)} trials" if len(rows) < len(judged) else f"{len(rows)} trials"
    went_on = sum(row.rungs[-1].verdict is Verdict.SAFE for row in rows)
    description = (
        f"Scores of {which} at {last + 1} rungs. Filled dots went on, hollow ones were stopped, half-filled "
        f"ones wait. {went_on} trials went on from the last rung that they reached."
    )
    chart = Chart("Which trials went on, and which did not", description, "rungs")
    x = Scale(0, last + 1, LEFT + 20, WIDTH - RIGHT - 30)
    scores += [row.final_score for row in rows if row.final_score is not None]
    metric, maximize = report.result.metric, report.result.objective.maximize
    y = score_scale(scores, HEIGHT - BOTTOM, TOP + 8, metric, maximize)
    y_label = "score" if maximize else "score, less is better"
    chart.axes(
        Scale(0.25, 0.75, LEFT, WIDTH - RIGHT), y, "", f"{y_label}, log scale" if y.log else y_label, metric.tick
    )
    for rung in range(last + 2):
        label = f"rung {rung + 1}" if rung <= last else "end"
        chart.add("text", text=label, x=f"{x(rung):.0f}", y=f"{HEIGHT - BOTTOM + 18}", class_="tick middle")
    _cutoffs(chart, rows, x, y)
    for row in reversed(rows):
        _way(chart, row, x, y, last)
    return [chart]


def _cutoffs(chart: Chart, rows: Sequence[Row], x: Scale, y: Scale) -> None:
    """Draw a short line at the score of the last place of each rung; each group of trials has its own."""
    cutoffs = {(rung.rung, rung.cutoff) for row in rows for rung in row.rungs if _finite(rung.cutoff)}
    for rung, cutoff in sorted(cutoffs, key=str):
        line = chart.add(
            "line", x1=x(rung) - 16, x2=x(rung) + 16, y1=y.nearest(cutoff), y2=y.nearest(cutoff), class_="cutoff"
        )
        chart.add("title", line, f"the last place of rung {rung + 1}: {score_text(cutoff)}")


def _way(chart: Chart, row: Row, x: Scale, y: Scale, last: int) -> None:
    """Draw one trial's way through the rungs, to its end if it came there."""
    group = _group(chart, row, f"{row.record.id}: {row.why}")
    stops = [(x(rung.rung), y.nearest(rung.score), rung.verdict) for rung in row.rungs if _finite(rung.score)]
    if row.final_score is not None:
        stops.append((x(last + 1), y.nearest(row.final_score), Verdict.SAFE))
    if len(stops) > 1:
        chart.add("polyline", group, class_="val", points=" ".join(f"{px:.1f},{py:.2f}" for px, py, _ in stops))
    for px, py, verdict in stops:
        state = "went-on" if verdict is Verdict.SAFE else verdict.value
        chart.add("circle", group, class_=f"stop {state}", cx=px, cy=py, r=4.0)


def _finite(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)


# ---------------------------------------------------------------------------------------------------------
# Parallel coordinates


def _parallel(report: Report) -> list[Chart]:
    """Draw one line for each scored trial, through its settings to its score."""
    scored = [(row, row.record.best.score) for row in report.rows if row.place and row.record.best]
    shown = scored[:MOST_CURVES]
    keys = [key for key in report.keys if len({row.settings[key] for row, _ in shown}) > 1]
    if not keys:
        return []
    which = f"{len(shown)} trials" if len(shown) == len(scored) else f"the best {len(shown)} of {len(scored)} trials"
    description = f"One line for each of {which}, through its {', '.join(keys)} to its score on the right."
    chart = Chart("Settings and score", description, "parallel", width=max(WIDTH, 110 * (len(keys) + 1)))
    gap = (chart.width - LEFT - 70) / len(keys)
    axes = [LEFT + gap * place for place in range(len(keys) + 1)]
    labels = {key: _labels([row.settings[key] for row, _ in shown]) for key in keys}
    up = report.result.objective.maximize  # the better, the higher, whatever that is
    start, end = (AXIS_BOTTOM, AXIS_TOP) if up else (AXIS_TOP, AXIS_BOTTOM)
    y = score_scale([score for _, score in shown], start, end, report.result.metric, up)
    for row, score in reversed(shown):
        ys = [*(labels[key][row.settings[key]] for key in keys), y.nearest(score)]
        group = _group(chart, row, f"{row.record.id}: {report.score_text(score)}")
        line = " ".join(f"{px:.1f},{py:.1f}" for px, py in zip(axes, ys, strict=True))
        chart.add("polyline", group, class_="val", points=line)
    scores = {report.score_text(value): y(value) for value in y.ticks(4)}
    named = [*labels.items(), (report.result.metric.name, scores)]
    for axis, (name, texts) in zip(axes, named, strict=True):
        _draw_axis(chart, axis, name, texts)
    return [chart]


def _labels(texts: Sequence[str]) -> dict[str, float]:
    """Return where a setting's values lie on their axis: numbers by size, others evenly."""
    if not are_numbers(texts):
        names = sorted(set(texts))
        step = (AXIS_BOTTOM - AXIS_TOP) / max(1, len(names) - 1)
        return {name: AXIS_BOTTOM - step * place for place, name in enumerate(names)}
    numbers = {text: float(text) for text in texts}
    low, high = min(numbers.values()), max(numbers.values())
    scale = Scale(low, high, AXIS_BOTTOM, AXIS_TOP, log=is_log((low, high)))
    return {text: scale(number) for text, number in numbers.items()}


def _draw_axis(chart: Chart, x: float, name: str, labels: Mapping[str, float]) -> None:
    """Draw an axis with its name, and those of its labels that do not overlap."""
    chart.add("line", x1=x, x2=x, y1=AXIS_TOP, y2=AXIS_BOTTOM, class_="axis")
    chart.add("text", text=name, x=f"{x:.0f}", y=f"{TOP}", class_="tick middle strong")
    taken = -math.inf
    for text, y in sorted(labels.items(), key=lambda item: item[1]):
        if y - taken >= 13:
            taken = y
            short = text if len(text) <= 18 else f"{text[:17]}…"
            chart.add("text", text=short, x=f"{x + 5:.0f}", y=f"{y + 4:.1f}", class_="tick")
