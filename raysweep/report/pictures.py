"""The report's pictures: curves, rungs, parallel coordinates. `Report` in, SVG out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree as ET

import numpy as np

from raysweep.diagnose.curves import Curves
from raysweep.halving.rungs import RungReport, Verdict
from raysweep.report.content import Report, Row
from raysweep.report.svg import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Chart, Scale, points

MOST_CURVES = 200
"""Of the best trials; more would be one grey cloud, in a page of many megabytes."""


@dataclass(frozen=True)
class Panel:
    """One picture of curves: which metrics, by the class of their lines."""

    name: str
    title: str
    metrics: dict[str, str]
    percent: bool = False
    log: bool = False
    marks: bool = False
    """Whether dips, overfitting and divergence are marked."""
    cut: bool = False
    """Whether the few values far above the others are drawn at the edge, so that they do not flatten the rest."""


PANELS = (
    Panel(
        "accuracy",
        "Accuracy",
        {"val_acc": "val", "train_acc": "train", "val_acc_ema": "averaged"},
        percent=True,
        marks=True,
    ),
    Panel("loss", "Loss", {"val_loss": "val", "train_loss": "train", "val_loss_ema": "averaged"}, log=True, cut=True),
    Panel("lr", "Learning rate", {"lr": "val"}, log=True),
    Panel("gradient", "Largest gradient norm of an epoch", {"grad_norm_max": "val"}, log=True),
)


@dataclass(frozen=True)
class Pictures:
    """All pictures of a run."""

    curves: list[Chart]
    settings: list[Chart]
    """Parallel coordinates; empty where nothing varies."""
    rungs: list[Chart]
    """Which trials went on; empty without rungs."""
    left_out: str
    """Says whose curves are not drawn; empty if all are."""


def draw(report: Report) -> Pictures:
    """Draw a run: the curves of its best trials, its settings and its rungs."""
    begun = [row for row in report.rows if row.record.epoch]
    rows, others = begun[:MOST_CURVES], len(begun[MOST_CURVES:])
    curves = {row.record.id: Curves.of(row.record.metrics) for row in rows}
    left_out = f"Curves of the best {len(rows)} trials; those of the other {others} are in results.parquet."
    return Pictures(
        curves=[chart for panel in PANELS if (chart := _panel(panel, rows, curves))],
        settings=_parallel(report),
        rungs=_rungs(report),
        left_out=left_out if others else "",
    )


def _panel(panel: Panel, rows: Sequence[Row], curves: dict[str, Curves]) -> Chart | None:
    every = [curves[row.record.id][metric] for row in rows for metric in panel.metrics]
    values = np.concatenate([*every, np.array([])])
    values = values[np.isfinite(values) & ((values > 0) | (not panel.log))]
    if not len(values):
        return None
    names = " and ".join({"val": "validation", "train": "training", "averaged": "EMA weights"}[kind]
                         for kind in panel.metrics.values()) if len(panel.metrics) > 1 else "by epoch"  # fmt: skip
    description = f"{panel.title} of {len(rows)} trials over the epochs ({names}); the table below has the numbers."
    chart = Chart(panel.title, description, panel.name)
    longest = max(int(curves[row.record.id].epochs[-1]) for row in rows)
    x = Scale(1, max(2, longest), LEFT, WIDTH - RIGHT)
    low = 0.0 if panel.percent else float(values.min())
    y = Scale(low, _top(values, panel.cut), HEIGHT - BOTTOM, TOP + 8, panel.log)
    chart.axes(x, y, "epoch", "log scale" if panel.log else "", panel.percent)
    for row in reversed(rows):  # the best on top
        group = chart.add("g", class_=f"trial c{row.colour}", data_trial=row.number)
        chart.text_element("title", row.record.id, group)
        for metric, kind in panel.metrics.items():
            known = curves[row.record.id]
            for stretch in points(known.epochs.tolist(), known[metric].tolist(), x, y):
                if " " in stretch:
                    chart.add("polyline", group, class_=kind, points=stretch)
                else:
                    cx, cy = stretch.split(",")
                    chart.add("circle", group, class_=f"dot {kind}", cx=cx, cy=cy, r=2.0)
        if panel.marks:
            _mark(chart, group, row, curves[row.record.id], x, y)
    return chart


def _top(values: np.ndarray[tuple[int], np.dtype[np.float64]], cut: bool) -> float:
    return float(min(values.max(), 3 * np.quantile(values, 0.95)) if cut else values.max())


def _mark(chart: Chart, group: ET.Element, row: Row, curves: Curves, x: Scale, y: Scale) -> None:
    """Mark findings where they are on the validation curve: v a dip, o overfitting begins, x divergence."""
    values = dict(zip(curves.epochs.tolist(), curves["val_acc"].tolist(), strict=True))
    for finding, text in zip(row.diagnosis.findings, row.findings, strict=True):
        epoch = int(finding.numbers.get("bottom", min(finding.first, int(curves.epochs[-1]))))
        value = values.get(epoch, math.nan)
        if finding.kind not in ("dip", "overfitting", "divergence") or not math.isfinite(value):
            continue
        cx, cy = x(epoch), y(min(max(value, y.low), y.high))
        shape = {
            "dip": f"M{cx - 5:.1f} {cy - 9:.1f}h10l-5 8z",
            "overfitting": f"M{cx - 4:.1f} {cy:.1f}a4 4 0 1 0 8 0a4 4 0 1 0 -8 0",
            "divergence": f"M{cx - 4:.1f} {cy - 4:.1f}l8 8m0 -8l-8 8",
        }[finding.kind]
        mark = chart.add("path", group, class_=f"mark {finding.kind}", d=shape)
        chart.text_element("title", f"{row.record.id}: {text}", mark)


# ---------------------------------------------------------------------------------------------------------
# Who went on


def _rungs(report: Report) -> list[Chart]:
    """Draw each trial's score at each rung: filled dots went on, hollow ones did not."""
    rows = [row for row in report.rows if row.rungs]
    scores = [rung.score for row in rows for rung in row.rungs if _finite(rung.score)]
    if not scores:
        return []
    last = max(rung.rung for row in rows for rung in row.rungs)
    went_on = sum(row.rungs[-1].verdict is Verdict.SAFE for row in rows)
    description = (
        f"Scores of {len(rows)} trials at {last + 1} rungs. Filled dots went on, hollow ones were stopped, half-filled "
        f"ones wait. {went_on} trials went on from the last rung that they reached."
    )
    chart = Chart("Which trials went on, and which did not", description, "rungs")
    x = Scale(0, last + 1, LEFT + 20, WIDTH - RIGHT - 30)
    numbers = [float(score) for score in scores if score is not None]
    ends = [row.record.best.score for row in rows if row.record.status == "finished" and row.record.best]
    y = Scale(min(numbers + ends), max(numbers + ends), HEIGHT - BOTTOM, TOP + 8)
    percent = "acc" in report.sweep.objective.metric
    chart.axes(Scale(0.25, 0.75, LEFT, WIDTH - RIGHT), y, "", "score", percent)
    for rung in range(last + 2):
        label = f"rung {rung + 1}" if rung <= last else "end"
        chart.text_element("text", label, x=f"{x(rung):.0f}", y=f"{HEIGHT - BOTTOM + 18}", class_="tick middle")
    _cutoffs(chart, rows, x, y)
    for row in reversed(rows):
        _way(chart, row, x, y, last)
    return [chart]


def _cutoffs(chart: Chart, rows: Sequence[Row], x: Scale, y: Scale) -> None:
    """A short line at the score of the last place of each rung; each group of trials has its own."""
    cutoffs = {(rung.rung, rung.cutoff) for row in rows for rung in row.rungs if _finite(rung.cutoff)}
    for rung, cutoff in sorted(cutoffs, key=str):
        if cutoff is not None:
            line = chart.add("line", x1=x(rung) - 16, x2=x(rung) + 16, y1=y(cutoff), y2=y(cutoff), class_="cutoff")
            chart.text_element("title", f"the last place of rung {rung + 1}: {cutoff:.4f}", line)


def _way(chart: Chart, row: Row, x: Scale, y: Scale, last: int) -> None:
    group = chart.add("g", class_=f"trial c{row.colour}", data_trial=row.number)
    chart.text_element("title", f"{row.record.id}: {row.why}", group)
    places = [
        (x(rung.rung), y(rung.score), rung) for rung in row.rungs if rung.score is not None and _finite(rung.score)
    ]
    stops: list[tuple[float, float, RungReport | None]] = list(places)
    best = row.record.best
    if row.record.status == "finished" and best:
        stops.append((x(last + 1), y(best.score), None))
    if len(stops) > 1:
        chart.add("polyline", group, class_="val", points=" ".join(f"{px:.1f},{py:.2f}" for px, py, _ in stops))
    for px, py, rung in stops:
        state = "went-on" if rung is None or rung.verdict is Verdict.SAFE else rung.verdict.value
        chart.add("circle", group, class_=f"stop {state}", cx=px, cy=py, r=4.0)


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


# ---------------------------------------------------------------------------------------------------------
# Parallel coordinates


def _parallel(report: Report) -> list[Chart]:
    """Draw one line for each scored trial, through its settings to its score."""
    scored = [row for row in report.rows if row.place and row.record.best]
    rows = scored[:MOST_CURVES]
    keys = [key for key in report.keys if len({row.settings[key] for row in rows}) > 1]
    if not rows or not keys:
        return []
    which = f"{len(rows)} trials" if len(rows) == len(scored) else f"the best {len(rows)} of {len(scored)} trials"
    description = f"One line for each of {which}, through its {', '.join(keys)} to its score on the right."
    chart = Chart("Settings and score", description, "parallel", width=max(WIDTH, 110 * (len(keys) + 1)))
    gap = (chart.width - LEFT - 70) / len(keys)
    axes = [LEFT + gap * place for place in range(len(keys) + 1)]
    tops, bottom = TOP + 22, HEIGHT - 16
    places = [_axis_places(rows, key, bottom, tops) for key in keys]
    scores = [row.record.best.score for row in rows if row.record.best]
    y = Scale(min(scores), max(scores), bottom, tops)
    for row in reversed(rows):
        best = row.record.best
        assert best is not None
        ends = [*(place[row.record.id] for _, place in places), y(best.score)]
        group = chart.add("g", class_=f"trial c{row.colour}", data_trial=row.number)
        chart.text_element("title", f"{row.record.id}: {report.score_text(best.score)}", group)
        line = " ".join(f"{px:.1f},{py:.1f}" for px, py in zip(axes, ends, strict=True))
        chart.add("polyline", group, class_="val", points=line)
    for axis, key, (values, _) in zip(axes, keys, places, strict=False):
        _draw_axis(chart, axis, key, values, tops, bottom)
    shown = {report.score_text(value): y(value) for value in y.ticks(4)}
    _draw_axis(chart, axes[-1], report.sweep.objective.metric, shown, tops, bottom)
    return [chart]


def _axis_places(rows: Sequence[Row], key: str, bottom: float, top: float) -> tuple[dict[str, float], dict[str, float]]:
    """Return the labels of an axis, and where each trial crosses it: numbers by size, others evenly."""
    texts = {row.record.id: row.settings[key] for row in rows}
    values = list(dict.fromkeys(texts.values()))
    try:
        numbers = {text: float(text) for text in values}
    except ValueError:
        numbers = {}
    if numbers:
        low, high = min(numbers.values()), max(numbers.values())
        scale = Scale(low, high, bottom, top, log=low > 0 and high / low > 20)
        where = {text: scale(number) for text, number in numbers.items()}
    else:
        step = (bottom - top) / max(1, len(values) - 1)
        where = {text: bottom - step * place for place, text in enumerate(sorted(values))}
    return where, {trial: where[text] for trial, text in texts.items()}


def _draw_axis(chart: Chart, x: float, name: str, labels: dict[str, float], top: float, bottom: float) -> None:
    chart.add("line", x1=x, x2=x, y1=top, y2=bottom, class_="axis")
    chart.text_element("text", name, x=f"{x:.0f}", y=f"{TOP}", class_="tick middle strong")
    taken: list[float] = []
    for text, y in sorted(labels.items(), key=lambda item: item[1]):
        if all(abs(y - other) >= 13 for other in taken):
            taken.append(y)
            short = text if len(text) <= 18 else f"{text[:17]}…"
            chart.text_element("text", short, x=f"{x + 5:.0f}", y=f"{y + 4:.1f}", class_="tick")
