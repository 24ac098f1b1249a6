"""Accuracy by class, confusion, and two networks on the same images."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from raysweep.results.by_class import accuracy_by_class, confusion_matrix, duel, most_confused, wilson

TRUTH = np.array([0, 0, 0, 0, 1, 1, 3, 3, 3, 3])
ANSWERS = np.array([0, 0, 1, 1, 1, 0, 3, 0, 0, 0])


def test_the_worst_class_comes_first_and_one_without_images_is_left_out() -> None:
    classes = accuracy_by_class(TRUTH, TRUTH == ANSWERS)
    assert [(each.label, each.right, each.images) for each in classes] == [(3, 1, 4), (0, 2, 4), (1, 1, 2)]
    assert all(each.low < each.accuracy < each.high for each in classes)


@pytest.mark.parametrize(("right", "images"), [(0, 10), (3, 10), (50, 50)])
def test_wilsons_interval_is_that_of_its_formula(right: int, images: int) -> None:
    z, share = 1.959964, right / images
    middle = (share + z**2 / (2 * images)) / (1 + z**2 / images)
    half = z / (1 + z**2 / images) * np.sqrt(share * (1 - share) / images + z**2 / (4 * images**2))
    assert wilson(right, images) == pytest.approx((middle - half, middle + half), abs=1e-6)


def test_rows_of_the_matrix_are_classes_and_its_columns_answers() -> None:
    matrix = confusion_matrix(TRUTH, ANSWERS, 4)
    assert matrix.tolist() == [[2, 2, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [3, 0, 0, 1]]
    assert matrix.sum() == len(TRUTH)


def test_the_pair_that_is_confused_most_comes_first_and_right_answers_are_none() -> None:
    pairs = most_confused(confusion_matrix(TRUTH, ANSWERS, 4), most=2)
    assert [(pair.truth, pair.answer, pair.images, pair.of) for pair in pairs] == [(3, 0, 3, 4), (0, 1, 2, 4)]
    assert len(most_confused(confusion_matrix(TRUTH, ANSWERS, 4), most=99)) == 3
    assert most_confused(confusion_matrix(TRUTH, TRUTH, 4), most=9) == []


def test_two_networks_are_compared_by_the_images_that_only_one_gets_right() -> None:
    first = np.array([True] * 60 + [True] * 9 + [False] * 1 + [False] * 30)
    second = np.array([True] * 60 + [False] * 9 + [True] * 1 + [False] * 30)
    found = duel(first, second)
    assert (found.both, found.first, found.second, found.neither) == (60, 9, 1, 30)
    assert found.p == pytest.approx(2 * binom.cdf(1, 10, 0.5))
    assert duel(first, first).p == 1
