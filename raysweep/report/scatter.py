"""The score against each setting: a dot for each trial."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from raysweep.report.content import Report, Row
from raysweep.report.svg import Chart, Scale, is_log, score_scale
from raysweep.results.settings import are_numbers, in_order
from raysweep.terminal import count_of

FEWEST = 5
"""Values of a number that have an axis; fewer lie beside each other, as names do."""
MOST_VALUES = 8
"""Names that can be told apart beside each other."""
MOST_DOTS = 300
"""Trials in a picture; of more every so many in the order of the ranking."""
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 320, 190, 46, 10, 8, 24


def draw_scatter(report: Report, keys: Sequence[str] | None = None) -> list[Chart]:
    """Draw a picture for each of these settings; default: for the numeric ones of several values."""
    scored = [row for row in report.rows if row.place and row.record.best]
    scored = scored[:: max(1, math.ceil(len(scored) / MOST_DOTS))]
    shown = [key for key in (report.keys if keys is None else keys) if _is_drawn(scored, key, keys is None)]
    return [
        _scatter(report, key, [row for row in scored if row.settings[key] != "-"], n) for n, key in enumerate(shown)
    ]


def _is_drawn(rows: Sequence[Row], key: str, numeric: bool) -> bool:
    known = {row.settings[key] for row in rows} - {"-"}
    return _has_axis(known) or (not numeric and 1 < len(known) <= MOST_VALUES)


def _has_axis(texts: set[str]) -> bool:
    return len(texts) >= FEWEST and are_numbers(texts) and all(map(math.isfinite, map(float, texts)))


def _scatter(report: Report, key: str, rows: Sequence[Row], number: int) -> Chart:
    metric, label = report.result.metric, report.labels[key]
    x, ticks, scale = _axis([row.short[key] for row in rows])
    described = (
        f"{metric.name} of {count_of(len(rows), 'trial')} against {key}{scale}. Filled dots trained to their end."
    )
    chart = Chart(label, described, f"scatter{number}", WIDTH, HEIGHT)
    scores = [row.record.best.score for row in rows if row.record.best]
    y = score_scale(scores, HEIGHT - BOTTOM - 6, TOP + 4, metric, report.result.objective.maximize)
    for value in y.ticks(5):
        chart.add("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y(value), y2=y(value), class_="grid")
        chart.add("text", text=metric.tick(value), x=LEFT - 6.0, y=y(value) + 4, class_="tick end")
    for text, at in ticks:
        chart.add("text", text=text, x=at, y=HEIGHT - 7.0, class_="tick middle")
    for place, row in reversed(list(enumerate(rows))):
        assert row.record.best
        group = chart.add("g", class_=f"trial c{row.colour}", data_trial=row.number)
        chart.add("title", group, f"{report.named(row)}: {report.score_text(row.record.best.score)}")
        state = "went-on" if row.final_score is not None else "out"
        down = y.nearest(row.record.best.score)
        chart.add("circle", group, class_=f"stop {state}", cx=x(row.short[key], place), cy=down, r=3.0)
    return chart


def _axis(texts: Sequence[str]) -> tuple[Callable[[str, int], float], list[tuple[str, float]], str]:
    """Return where a trial lies by its value and its place, the labels with theirs, and what kind of axis it is."""
    start, end = LEFT + 6, WIDTH - RIGHT - 4
    if not _has_axis(set(texts)):
        values = in_order(texts)
        step = (end - start) / len(values)
        middle = {value: start + step * (place + 0.5) for place, value in enumerate(values)}
        longest = max(3, int(step / 6.5))
        labels = [(value if len(value) <= longest else f"{value[: longest - 1]}…", at) for value, at in middle.items()]
        # Trials of one value are spread by the golden ratio, so that neighbours in the ranking lie apart.
        return lambda text, place: middle[text] + step * 0.6 * (place * 0.618034 % 1 - 0.5), labels, ""
    numbers = list(map(float, texts))
    log = is_log(numbers)
    scale = Scale(min(numbers), max(numbers), start, end, log)
    labels = [(f"{value:.3g}", scale(value)) for value in scale.ticks(4)]
    return lambda text, _: scale(float(text)), labels, ", on a log scale" if log else ""
