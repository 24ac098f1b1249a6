"""The best of so many random configs, and how surely it is known."""

import math

import numpy as np
import pytest

from raysweep.results.tuning import tuning_curve


def test_the_median_of_the_best_of_so_many_is_that_of_brute_force():
    rng = np.random.default_rng(0)
    scores = rng.beta(5, 2, 200)
    curve = tuning_curve(scores.tolist())
    for configs in (1, 2, 5, 20):
        best = rng.choice(scores, (20_000, configs)).max(1)
        assert curve.median[configs - 1] == pytest.approx(np.median(best), abs=0.01)


def test_the_band_covers_the_whole_true_curve_as_often_as_it_says():
    rng = np.random.default_rng(1)
    truth = 0.5 ** (1 / np.arange(1, 16))  # of uniform scores
    covered = []
    for _ in range(400):
        curve = tuning_curve(rng.random(15).tolist(), best_possible=1)
        covered.append(np.all((np.array(curve.low) <= truth) & (truth <= np.array(curve.high))))
    assert 0.92 <= np.mean(covered) <= 0.99  # the levels looked at are few, so that a little more than 95 % is right


def test_a_curve_rises_and_stays_inside_its_band():
    curve = tuning_curve([0.7, 0.1, 0.9, 0.8, -math.inf, 0.85], best_possible=1)
    assert len(curve.median) == 6
    for line in (curve.low, curve.median, curve.high):
        assert line == sorted(line)
    assert all(low <= middle <= high for low, middle, high in zip(curve.low, curve.median, curve.high, strict=True))
    assert curve.high[-1] == 1


def test_nothing_tried_gives_an_empty_curve():
    assert tuning_curve([]).median == []
