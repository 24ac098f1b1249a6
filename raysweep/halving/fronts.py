"""Points compared in several objectives at once: which dominate which, and who comes first among the rest.

In: points of equal length, less being better in each coordinate; infinity where one is not known. Out: the front of
each point, counted from 1, or all of them in an order. Plain functions.

A point dominates another if it is nowhere worse and somewhere better. The first front is what nothing dominates; the
second what only points of the first dominate, and so on (non-dominated sorting: Goldberg 1989; Deb et al. 2002, "A fast
and elitist multiobjective genetic algorithm: NSGA-II").
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence

Point = Sequence[float]


def dominates(one: Point, other: Point) -> bool:
    """Whether a point is nowhere worse than another one, and somewhere better."""
    return all(a <= b for a, b in zip(one, other, strict=True)) and tuple(one) != tuple(other)


def fronts_of(points: Sequence[Point]) -> list[int]:
    """Return the front of each point; equal points share one.

    A point can be dominated only by those before it in lexicographic order, so each looks for the first front none of
    which dominates it (Zhang et al. 2015, "An efficient approach to nondominated sorting").
    """
    fronts: list[list[Point]] = []
    found = [0] * len(points)
    for place in sorted(range(len(points)), key=lambda place: tuple(points[place])):
        point = points[place]
        # Whoever is dominated by a front is dominated by all before it, so the fronts can be bisected.
        front = bisect_left(fronts, True, key=lambda members: not any(dominates(each, point) for each in members))
        if front == len(fronts):
            fronts.append([])
        fronts[front].append(point)
        found[place] = front + 1
    return found


def in_order(points: Sequence[Point]) -> list[int]:
    """Return the places of all points, front by front, and within a front so that any number of the first is spread.

    Within a front the first is the best in the first coordinate, and each next one the farthest from all before it
    (farthest-point order; Salinas et al. 2021, "A multi-objective perspective on jointly tuning hardware and
    hyperparameters", call it epsilon-net). Distances are between ranks, so that neither units nor logarithms matter.
    Of equals the earlier in `points` comes first.
    """
    ranks = _ranks(points)
    fronts = fronts_of(points)
    return [
        place
        for front in range(1, max(fronts, default=0) + 1)
        for place in _spread([place for place, own in enumerate(fronts) if own == front], points, ranks)
    ]


def _ranks(points: Sequence[Point]) -> list[list[float]]:
    """Return the points with each coordinate replaced by its rank among all: 0 is best, 1 is worst."""
    columns = []
    for column in zip(*points, strict=True):
        values = sorted({*column})
        columns.append([bisect_left(values, value) / max(1, len(values) - 1) for value in column])
    return [list(row) for row in zip(*columns, strict=True)]


def _spread(places: Sequence[int], points: Sequence[Point], ranks: Sequence[Point]) -> list[int]:
    left = sorted(places, key=lambda place: points[place][0])
    chosen: list[int] = []
    distance = dict.fromkeys(left, math.inf)
    while left:
        nearest = max(left, key=distance.__getitem__)
        left.remove(nearest)
        chosen.append(nearest)
        for place in left:
            distance[place] = min(distance[place], math.dist(ranks[place], ranks[nearest]))
    return chosen


def hypervolume(points: Sequence[Point], reference: Point) -> float:
    """Return the area that points of two coordinates dominate, up to a reference point that is worse than they are."""
    area, best = 0.0, reference[1]
    for x, y in sorted((x, y) for x, y, *_ in points):
        if x < reference[0] and y < best:
            area += (reference[0] - x) * (best - y)
            best = y
    return area
