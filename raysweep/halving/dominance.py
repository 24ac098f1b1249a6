"""Points compared in several objectives at once: how many dominate each, and who comes first among the rest.

In: points of equal length, less being better in each coordinate; infinity where one is not known. Plain functions.

A point dominates another if it is nowhere worse and somewhere better; the front is what nothing dominates.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

Point = Sequence[float]


def dominators(points: Sequence[Point]) -> list[int]:
    """Return how many of the points dominate each; 0 on the front. Equal points do not dominate one another."""
    import numpy as np

    rows = np.array(points, float)  # without any, the loop below has nothing to do
    return [int(((rows <= row).all(axis=1) & (rows < row).any(axis=1)).sum()) for row in rows]


def in_order(points: Sequence[Point]) -> list[int]:
    """Return the places of all points in the order of how many dominate them, and of those with as many, spread out.

    The number of dominators is the rank of Fonseca and Fleming (1993), "Genetic algorithms for multiobjective
    optimization". Among equals in it the best in the first coordinate comes first, and each next one is the farthest
    from all before it, as in the epsilon-net of Salinas et al. (2021), "A multi-objective perspective on jointly tuning
    hardware and hyperparameters"; so any number of the first is spread along the front. Distances are between ranks,
    and neither units nor logarithms matter. Of equals the earlier in `points` comes first.
    """
    counts, ranks = dominators(points), _ranks(points)
    return [
        place
        for count in sorted({*counts})
        for place in _spread([place for place, own in enumerate(counts) if own == count], points, ranks)
    ]


def _ranks(points: Sequence[Point]) -> list[list[float]]:
    """Return the points with each coordinate replaced by its rank among all: 0 is best, 1 is worst."""
    columns = []
    for column in zip(*points, strict=True):
        values = sorted({*column})
        columns.append([bisect_left(values, value) / max(1, len(values) - 1) for value in column])
    return [list(row) for row in zip(*columns, strict=True)]


def _spread(places: Sequence[int], points: Sequence[Point], ranks: Sequence[Point]) -> list[int]:
    import numpy as np

    left = sorted(places, key=lambda place: points[place][0])
    rows = np.array([ranks[place] for place in left])
    distance, chosen = np.full(len(left), np.inf), list[int]()
    for _ in left:
        farthest = int(distance.argmax())  # the first of equals
        chosen.append(left[farthest])
        distance = np.minimum(distance, np.linalg.norm(rows - rows[farthest], axis=1))
        distance[farthest] = -1
    return chosen


def hypervolume(points: Sequence[Point], reference: Point) -> float:
    """Return the area that points of two coordinates dominate, up to a reference point that is worse than they are."""
    area, lowest = 0.0, reference[1]
    for x, y in sorted((x, y) for x, y in points):
        if x < reference[0] and y < lowest:
            area += (reference[0] - x) * (lowest - y)
            lowest = y
    return area
