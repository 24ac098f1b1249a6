"""The pictures and the table of the first screen: the leaders' curves, their settings, the effect of each setting."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from raysweep.diagnose.curves import Curves
from raysweep.report.content import COLOURS, Report, Row
from raysweep.report.effects import SettingEffect, ValueDifference
from raysweep.report.svg import Chart, Scale, is_log, points
from raysweep.report.table import other_objectives
from raysweep.results.settings import are_numbers, most_telling, setting_texts
from raysweep.store.metrics import EMA
from raysweep.terminal import Metric, count_of, format_difference, format_score_and_error

MOST_TOP = 10
"""Configs in the table of the first screen."""
MOST_SETTINGS = 6
"""Settings in it."""
MOST_GREY = 200
"""Curves in grey, the best; more would be one cloud, in a page of many megabytes."""
LONGEST_VALUE = 20
"""Letters of a setting's value that a picture shows."""
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 600, 310, 50, 26, 10, 40
"""Pixels of the picture of the leaders, and its margins."""
EFFECT_WIDTH, NAMES, ROW, HEAD, FOOT = 320, 142, 19, 6, 20
"""Pixels of a picture of an effect: its width, that of its labels, the height of a value, above and below them all."""
MOST_VALUES = 12
"""Values of a setting in its picture."""


@dataclass(frozen=True)
class TopRow:
    """A config in the ranking of the first screen."""

    rank: int
    row: Row  # its best seed
    score: str
    others: list[str]  # what it has of the other objectives
    seeds: int  # that have a score
    values: list[str]  # of the settings that are shown


@dataclass(frozen=True)
class Top:
    """The ranking's top rows."""

    keys: list[str]  # settings that have a column: those that tell these configs apart
    numbers: list[bool]  # whether each of them is one of numbers
    others: list[str]  # the heads of `TopRow.others`
    rows: list[TopRow]
    left_out: str  # says what is not shown; empty if all is

    @property
    def seeds(self) -> int | None:
        """How many seeds each config has, where all have as many."""
        counts = {each.seeds for each in self.rows}
        return counts.pop() if len(counts) == 1 else None


def top_of(report: Report) -> Top:
    """Return the ranking's top rows, and as many settings as fit, those first in which these configs differ."""
    ranked = [(row, config) for row, config in zip(report.best_rows, report.result.configs, strict=True) if config.best]
    shown = ranked[:MOST_TOP]
    records = [row.record for row, _ in shown]
    differ = [key for key in report.keys if len({row.settings[key] for row, _ in shown}) > 1]
    keys = most_telling(records, differ or report.keys)[:MOST_SETTINGS]
    texts = [setting_texts(records, key) for key in keys]
    other = [column for column in other_objectives(report, of_trials=False) if column.name != "dominated by"]
    rows = [
        TopRow(
            place,
            row,
            _score(report, config.ranked_by),
            [column.cell(row)[0] for column in other],
            config.ranked_by.seeds,
            [each[place - 1] for each in texts],
        )
        for place, (row, config) in enumerate(shown, 1)
    ]
    rest = (
        [f"{len(report.result.configs) - len(shown):,} more configs"] if len(report.result.configs) > len(shown) else []
    )
    same = [key for key in report.keys if key not in keys]
    rest += [f"{count_of(len(same), 'setting')} more ({', '.join(report.labels[key] for key in same)})"] if same else []
    numbers = [are_numbers(set(each) - {"-"}) for each in texts]
    return Top(keys, numbers, [column.name for column in other], rows, " and ".join(rest))


def _score(report: Report, scores: object) -> str:
    mean, error = getattr(scores, "mean", None), getattr(scores, "standard_error", None)
    return format_score_and_error(mean, error, report.result.metric)


# ---------------------------------------------------------------------------------------------------------
# The leaders' curves


def draw_leaders(report: Report) -> list[Chart]:
    """Draw score against epoch: the best seed of each leading config in colour with its rank, the rest in grey."""
    leaders = [row for row in report.best_rows[:COLOURS] if row.place and row.record.best]
    others = [row for row in report.rows if row.record.epoch and row not in leaders][:MOST_GREY]
    curves = [_curve(report, row) for row in leaders]
    values = np.concatenate([[], *(each[1] for each in curves)])
    if not len(values):
        return []
    metric, maximize = report.result.metric, report.result.objective.maximize
    grey = [_curve(report, row) for row in others]
    low, high = _range(values, [each[1] for each in grey], maximize)
    y = Scale(low, high, HEIGHT - BOTTOM, TOP, is_log((low, high)) and not metric.percent)
    title = f"{metric.name} by epoch{', on a log scale' if y.log else ''}"
    best = "; ".join(f"{place}: {report.named(row)}" for place, row in enumerate(leaders, 1))
    chart = Chart(
        title, f"{title} of the best configs, by their rank ({best}); the rest in grey.", "leaders", WIDTH, HEIGHT
    )
    x = Scale(1, max(2, *(int(each[0][-1]) for each in (*curves, *grey) if len(each[0]))), LEFT, WIDTH - RIGHT)
    chart.axes(x, y, "epoch", "", metric.tick)
    for epochs, scores in reversed(grey):
        for stretch in points(epochs, scores, x, y):
            chart.add("polyline", points=stretch, class_="rest")
    for place, (row, (epochs, scores)) in reversed(list(enumerate(zip(leaders, curves, strict=True)))):
        group = chart.add("g", class_=f"leader c{place}", data_leader=row.number)
        chart.add("title", group, f"{place + 1}: {report.named(row)}")
        for stretch in points(epochs, scores, x, y):
            chart.add("polyline", group, points=stretch)
    _number(chart, curves, x, y, upwards=not maximize)
    return [chart]


def _curve(report: Report, row: Row) -> tuple[list[int], list[float]]:
    """Return the epochs and the scores of a trial's validation curve, that of the weights that it is ranked by."""
    plain, best = report.result.objective.metric.removesuffix(EMA), row.record.best
    curves = Curves.of(row.record.metrics)
    name = f"{plain}{EMA}" if best and best.averaged and curves.has(f"{plain}{EMA}") else report.result.metric.name
    epochs, values = curves.finite(name)
    return epochs.tolist(), values.tolist()


def _range(values: object, grey: Sequence[Sequence[float]], maximize: bool) -> tuple[float, float]:
    """Return the ends of the axis: the leaders fill it, and what is far worse than they are lies on its edge."""
    leaders, everything = np.asarray(values), np.concatenate([np.asarray(values), *map(np.asarray, grey)])
    low, high = float(everything.min()), float(everything.max())
    few, most = (float(each) for each in np.quantile(leaders, (0.05, 0.95)))
    spare = 0.1 * (most - few if not maximize else float(np.ptp(leaders)))
    return (max(low, few - spare), high) if maximize else (low, min(high, most + spare))


def _number(chart: Chart, curves: Sequence[tuple[list[int], list[float]]], x: Scale, y: Scale, upwards: bool) -> None:
    """Write each leader's rank at the end of its curve; of those that would overlap the lower moves down.

    Where leaders are at the bottom, since less is better, the higher moves `upwards`.
    """
    taken: list[tuple[float, float]] = []
    ends = [
        (y.nearest(scores[-1]), x(epochs[-1]) + 4, place) for place, (epochs, scores) in enumerate(curves) if epochs
    ]
    for down, across, place in sorted(ends, reverse=upwards):
        while any(abs(across - other) < 12 and abs(down - height) < 13 for other, height in taken):
            down += -2 if upwards else 2
        taken.append((across, down))
        chart.add("text", text=str(place + 1), x=across, y=down + 4, class_=f"rank c{place}")


# ---------------------------------------------------------------------------------------------------------
# The effects


def draw_effects(report: Report, fair_only: bool = False) -> list[Chart]:
    """Draw each setting's values as dots with intervals, all on one scale, so that settings can be compared.

    Args:
        report: the report.
        fair_only: leave out settings that no two configs differ in alone: the few trials that early stopping let
            through would be compared with each other, and what stopped the rest would not be seen.
    """
    effects = [effect for effect in report.effects if effect.is_fair or not fair_only]
    bounds = [
        bound
        for effect in effects
        for each in effect.values[:MOST_VALUES]
        if each.difference is not None
        for bound in _bounds(each)
    ]
    if not bounds:
        return []
    reach = max(map(abs, bounds))
    return [_draw_effect(report, effect, number, reach) for number, effect in enumerate(effects)]


def _bounds(each: ValueDifference) -> tuple[float, float]:
    assert each.difference is not None
    margin = each.margin or 0.0
    return each.difference - margin, each.difference + margin


def _draw_effect(report: Report, effect: SettingEffect, number: int, reach: float) -> Chart:
    metric, shown = report.result.metric, effect.values[:MOST_VALUES]
    label = report.labels[effect.key]
    how = "all else equal" if effect.is_fair else "other settings differ too"
    said = "; ".join(f"{each.value}: {_said(each, metric)}" for each in effect.values)
    height = HEAD + ROW * len(shown) + FOOT
    chart = Chart(
        f"{label}, {how}", f"{metric.name} against the mean: {said}.", f"effect{number}", EFFECT_WIDTH, height
    )
    x = Scale(-reach, reach, NAMES + 8, EFFECT_WIDTH - 10)
    bottom = HEAD + ROW * len(shown)
    chart.add("line", x1=x(0), x2=x(0), y1=HEAD, y2=bottom, class_="axis")
    for value in x.ticks(3):
        text = f"{100 * value:+.3g}" if metric.percent else f"{value:+.3g}"
        chart.add("line", x1=x(value), x2=x(value), y1=HEAD, y2=bottom, class_="grid")
        chart.add("text", text=text if value else "0", x=x(value), y=float(bottom + 14), class_="tick middle")
    for place, each in enumerate(shown):
        _draw_value(chart, each, x, HEAD + ROW * (place + 0.5), effect.is_fair, _said(each, metric))
    return chart


def _said(each: ValueDifference, metric: Metric) -> str:
    if each.difference is None:
        return "not compared with all else equal"
    margin = f" ± {format_difference(each.margin, metric)}" if each.margin is not None else ""
    return f"{format_difference(each.difference, metric, signed=True)}{margin} (mean of {each.count})"


def _draw_value(chart: Chart, each: ValueDifference, x: Scale, y: float, is_fair: bool, said: str) -> None:
    """Draw one value; it is in colour where its interval leaves out zero, and hollow where not all else was equal."""
    group = chart.add("g", class_="c0" if each.is_clear else "c7")
    chart.add("title", group, f"{each.value}: {said}")
    short = each.value if len(each.value) <= LONGEST_VALUE else f"{each.value[: LONGEST_VALUE - 1]}…"
    chart.add(
        "text", group, short, x=float(NAMES), y=y + 4, class_="end" if each.difference is not None else "end tick"
    )
    if each.difference is None:
        return
    if each.margin is not None and math.isfinite(each.margin):
        low, high = _bounds(each)
        chart.add("line", group, x1=x(low), x2=x(high), y1=y, y2=y, class_="margin")
    chart.add("circle", group, cx=x(each.difference), cy=y, r=4.0, class_="dot" if is_fair else "stop")
