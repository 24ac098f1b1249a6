"""How a search went: the score of each config in the order of proposals, and the best so far."""

from __future__ import annotations

import math
from itertools import islice

from raysweep.report.content import Report, Row
from raysweep.report.svg import Chart, Scale, score_scale
from raysweep.sweepfile.patch import contains
from raysweep.sweepfile.plan import config_key
from raysweep.terminal import count_of

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 260, 60, 16, 14, 44


def draw_progress(report: Report) -> list[Chart]:
    """Draw a search: a mark is a config, filled if it trained to its end, and the line is the best of these so far.

    A config's score is that of the ranking, the mean over its seeds. What the file enqueued is a square.
    """
    places = _places(report)
    scored = ((row, row.config.ranked_by.mean) for row in report.best_rows if row.record.id in places)
    drawn = [(places[row.record.id], row, mean) for row, mean in scored if mean is not None and math.isfinite(mean)]
    drawn.sort(key=lambda each: each[0])
    if len(drawn) < 2:
        return []
    metric, maximize = report.result.metric, report.result.objective.maximize
    last = max(places.values())
    best = _best_so_far(drawn, maximize)
    described = f"{metric.name} of {count_of(len(drawn), 'config')}, in the order in which they were proposed"
    described += f"; the best that trained to its end has {report.score_text(best[-1][1])}." if best else "."
    chart = Chart(f"{metric.name} by proposal", described, "progress", WIDTH, HEIGHT)
    x = Scale(1, max(2, last), LEFT + 8, WIDTH - RIGHT - 8)
    y = score_scale([score for _, _, score in drawn], HEIGHT - BOTTOM - 8, TOP + 8, metric, maximize)
    for value in y.ticks(5):
        chart.add("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y(value), y2=y(value), class_="grid")
        chart.add("text", text=metric.tick(value), x=LEFT - 6.0, y=y(value) + 4, class_="tick end")
    for number, first in _first_places(report, places).items():
        at = x(first) - (x(2) - x(1)) / 2
        chart.add("line", x1=at, x2=at, y1=TOP, y2=HEIGHT - BOTTOM, class_="grid")
        chart.add("text", text=str(number), x=at + 3, y=HEIGHT - BOTTOM + 17.0, class_="tick")
    chart.add("text", text="generation", x=(LEFT + WIDTH - RIGHT) / 2, y=HEIGHT - 6.0, class_="tick middle")
    line = [(x(place), y.nearest(score)) for place, score in best]
    steps = [f"{px:.1f},{py:.1f}" for i, (px, py) in enumerate(line) for py in ([line[i - 1][1]] if i else []) + [py]]
    if best:
        steps.append(f"{x(last):.1f},{line[-1][1]:.1f}")
        chart.add("polyline", points=" ".join(steps), class_="c0")
    enqueued = _enqueued(report, places)
    for place, row, score in drawn:
        group = chart.add("g", class_=f"trial c{row.colour}", data_trial=row.number)
        own = "enqueued, " if place in enqueued else ""
        chart.add("title", group, f"{own}generation {row.record.generation}: {report.config_headline(row)}")
        state, across, down = "went-on" if row.config.is_comparable else "out", x(place), y.nearest(score)
        if place in enqueued:
            chart.add("rect", group, class_=f"stop {state}", x=across - 4, y=down - 4, width=8, height=8)
        else:
            chart.add("circle", group, class_=f"stop {state}", cx=across, cy=down, r=3.5)
    return [chart]


def _places(report: Report) -> dict[str, int]:
    """Return the place of each proposal in their order, from 1, by the ids of its trials."""
    proposed = [each for each in report.result.resolved["trials"] if each.get("generation") is not None]
    configs = {
        key: place for place, key in enumerate(dict.fromkeys(config_key(each["config"]) for each in proposed), 1)
    }
    return {each["id"]: configs[config_key(each["config"])] for each in proposed}


def _enqueued(report: Report, places: dict[str, int]) -> set[int]:
    """Return the places of the proposals that the sweep file enqueued: for each item the first that has its values."""
    items = (report.result.resolved["sweep"].get("search") or {}).get("enqueue", [])
    configs = dict(sorted((places[row.record.id], row.record.config) for row in report.rows if row.record.id in places))
    found: set[int] = set()
    for item in items:
        own = (place for place, config in configs.items() if place not in found and contains(config, item))
        found.update(islice(own, 1))
    return found


def _first_places(report: Report, places: dict[str, int]) -> dict[int, int]:
    """Return the place of the first proposal of each generation, by its number."""
    first: dict[int, int] = {}
    for row in sorted(report.rows, key=lambda row: places.get(row.record.id, 0)):
        if row.record.generation is not None and row.record.id in places:
            first.setdefault(row.record.generation, places[row.record.id])
    return first


def _best_so_far(drawn: list[tuple[int, Row, float]], maximize: bool) -> list[tuple[int, float]]:
    """Return the places where the best score of those that trained to their end rose, each with that score."""
    best: list[tuple[int, float]] = []
    for place, row, score in drawn:
        better = not best or (score > best[-1][1] if maximize else score < best[-1][1])
        if row.config.is_comparable and better:
            best.append((place, score))
    return best
