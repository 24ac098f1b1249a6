"""Who dominates whom, the order of all, and the area that a front dominates."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysweep.halving.dominance import dominators, hypervolume, in_order

POINTS = st.lists(st.tuples(*[st.sampled_from([0.0, 1.0, 2.0, 3.0, math.inf])] * 3), max_size=12)


def test_a_point_is_dominated_by_what_is_nowhere_worse_and_somewhere_better() -> None:
    assert dominators([(1, 3), (2, 2), (3, 1), (3, 3), (2, 2), (math.inf, 1)]) == [0, 0, 0, 4, 0, 1]
    assert dominators([]) == []


@given(POINTS)
def test_the_number_of_dominators_is_that_of_the_definition(points: list[tuple[float, ...]]) -> None:
    def dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
        return one != other and all(a <= b for a, b in zip(one, other, strict=True))

    assert dominators(points) == [sum(dominates(one, other) for one in points) for other in points]


@given(POINTS)
def test_nobody_comes_before_who_dominates_it_and_the_best_in_the_first_coordinate_is_first(
    points: list[tuple[float, ...]],
) -> None:
    order = in_order(points)
    assert sorted(order) == list(range(len(points)))
    counts = dominators(points)
    assert [counts[place] for place in order] == sorted(counts)
    if points:
        assert points[order[0]][0] == min(points)[0]


def test_of_one_coordinate_it_is_the_order_by_it() -> None:
    values = random.Random(0).sample(range(100), 20)
    assert [values[place] for place in in_order([(value,) for value in values])] == sorted(values)


def test_any_number_of_the_first_is_spread_along_the_front_whatever_the_units() -> None:
    front = [(place, 10 ** (8 - place)) for place in range(9)]
    assert in_order(front)[:3] == [0, 8, 4]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=8))
def test_the_hypervolume_is_the_number_of_cells_that_a_point_dominates(points: list[tuple[int, int]]) -> None:
    cells = itertools.product(range(6), repeat=2)
    dominated = sum(any(x <= a and y <= b for x, y in points) for a, b in cells)
    assert hypervolume(points, (6, 6)) == pytest.approx(dominated)


def test_what_lies_beyond_the_reference_adds_nothing() -> None:
    assert hypervolume([(1, 1), (7, 0), (0, 9)], (4, 4)) == 9
