"""The pictures of probes: a trial's curve around an epoch, and its futures from the state before it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from raysweep.diagnose.futures import NAMES
from raysweep.diagnose.probed import DrawnLine, Probe
from raysweep.report.content import Report, Row
from raysweep.report.svg import BOTTOM, HEIGHT, LEFT, TOP, WIDTH, Chart, Scale, points
from raysweep.store.record import History
from raysweep.terminal import Metric

BEFORE, AFTER = 8, 4
"""Epochs that are shown before the one that was probed, and after the last one of its futures."""
LEGEND = 290
"""Width of the column that says which line is which."""
COLOURS = {"clipped": "c0", "smaller_lr": "c1", "averaged": "c2", "batch_norm": "c3", "control": "c4", "order": "rest"}


def draw_probes(report: Report) -> list[Chart]:
    """Draw each probe, in their order."""
    rows = {row.record.id: row for row in report.rows}
    return [_draw(probe, number, rows[probe.trial], report) for number, probe in enumerate(report.probes)]


def _draw(probe: Probe, number: int, row: Row, report: Report) -> Chart:
    last = max((epoch for line in probe.lines for epoch in line.epochs), default=probe.epoch)
    first, last = max(1, probe.epoch - BEFORE), last + AFTER
    own = [each for each in row.record.metrics if first <= each["epoch"] <= last]
    futures = [_joined(line, row.record.metrics, probe) for line in probe.lines]
    title = f"{report.named(row)}: the {probe.phenomenon} at epoch {probe.epoch}"
    chart = Chart(title, f"{probe.words} In grey other orders of batches.", f"probe{number}", WIDTH + LEGEND)
    trial = DrawnLine("", 0, [int(each["epoch"]) for each in own], [each.get(probe.metric) for each in own])
    values = [value for line in (trial, *futures) for value in _floats(line.values) if math.isfinite(value)]
    metric = Metric.of(probe.metric, values)
    x = Scale(first, max(last, first + 1), LEFT, WIDTH - 12)
    y = Scale(min(values, default=0.0), max(values, default=1.0), HEIGHT - BOTTOM, TOP + 8)
    chart.axes(x, y, "epoch", probe.metric, metric.tick)
    chart.add("line", x1=x(probe.epoch), x2=x(probe.epoch), y1=y.start, y2=y.end, class_="grid")
    _line(chart, trial, "own", x, y)  # thick, and below: some futures are the same
    for line in sorted(futures, key=lambda line: line.name != "order"):
        _line(chart, line, COLOURS[line.name], x, y)
    _legend(chart, futures)
    return chart


def _joined(line: DrawnLine, metrics: History, probe: Probe) -> DrawnLine:
    """Return a future's line, which begins at the trial's last epoch before it."""
    before = metrics[probe.epoch - 2] if 2 <= probe.epoch <= len(metrics) + 1 else None
    if before is None:
        return line
    return DrawnLine(line.name, line.seed, [probe.epoch - 1, *line.epochs], [before.get(probe.metric), *line.values])


def _floats(values: Sequence[float | None]) -> list[float]:
    return [math.nan if value is None else value for value in values]


def _line(chart: Chart, line: DrawnLine, colour: str, x: Scale, y: Scale) -> None:
    group = chart.add("g", class_=colour)
    chart.add("title", group, f"{NAMES[line.name]}, seed {line.seed}" if line.name else "the trial itself")
    kind = "averaged" if line.name == "control" else "plain"
    for stretch in points(line.epochs, _floats(line.values), x, y):
        chart.add("polyline", group, class_=kind, points=stretch)


def _legend(chart: Chart, futures: Sequence[DrawnLine]) -> None:
    names = {"": "the trial itself"} | {line.name: NAMES[line.name] for line in futures}
    for place, (name, words) in enumerate(names.items()):
        height = TOP + 14.0 + 20 * place
        group = chart.add("g", class_=COLOURS.get(name, "own"))
        kind = "averaged" if name == "control" else "plain"
        chart.add("polyline", group, class_=kind, points=f"{WIDTH + 6},{height} {WIDTH + 30},{height}")
        chart.add("text", text=words, x=WIDTH + 38, y=height + 4)
