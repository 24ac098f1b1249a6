"""What tells early who will win."""

from __future__ import annotations

import math

import pytest

from raysweep.halving.scores import rung_scores, trend
from raysweep.sweepfile.schema import Objective


def test_a_trials_only_score_has_no_trend():
    assert trend([0.3]) == 0.3
    assert trend([0.1, 0.3]) == 0.3  # two thirds of two epochs, rounded up, are both


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([0.1, 0.2, 0.4], 0.4 + (0.4 - 0.2) / 2),
        ([0.0, 0.0, 0.0, 0.3, 0.9, 0.5], 0.5 + (0.5 - 0.3) / 2),
        ([0.5, 0.5, 0.5, 0.5], 0.5),
        ([3.0, 2.0, 1.0], 0.5),  # a loss falls
    ],
)
def test_trend_adds_half_of_the_rise_over_the_last_third_of_the_epochs(scores, expected):
    assert trend(scores) == pytest.approx(expected)


def test_of_equal_scores_the_one_that_rises_is_ahead():
    assert trend([0.1, 0.2, 0.4]) > trend([0.4, 0.4, 0.4])


def test_a_score_that_is_no_number_has_no_rise_taken_from_it():
    assert trend([0.1, math.nan, 0.4]) == 0.4
    assert math.isnan(trend([0.1, 0.2, math.nan]))


HISTORY = [
    {"epoch": 1.0, "val_acc": 0.3, "val_acc_ema": 0.1, "val_loss": 2.0, "val_loss_ema": 2.5},
    {"epoch": 2.0, "val_acc": 0.1, "val_acc_ema": 0.2, "val_loss": 3.0, "val_loss_ema": 2.2},
    {"epoch": 3.0, "val_acc": 0.2, "val_acc_ema": 0.4, "val_loss": 2.8, "val_loss_ema": 1.8},
]


def test_ranking_by_trend_looks_at_the_averaged_weights_and_breaks_ties_by_their_loss():
    first, second = rung_scores(HISTORY, [1, 3], Objective(), "trend")
    assert first == (0.1, 2.5)
    assert second == pytest.approx((0.4 + (0.4 - 0.2) / 2, 1.8))


def test_ranking_by_trend_looks_at_the_plain_weights_where_none_are_averaged():
    plain = [{name: value for name, value in row.items() if not name.endswith("_ema")} for row in HISTORY]
    assert rung_scores(plain, [3], Objective(), "trend") == [pytest.approx((0.2 + (0.2 - 0.1) / 2, 2.8))]


def test_ranking_by_trend_follows_a_loss_down():
    assert rung_scores(HISTORY, [3], Objective(metric="val_loss"), "trend") == [
        pytest.approx((1.8 + (1.8 - 2.2) / 2, 1.8))
    ]


def test_equal_scores_are_told_apart_by_the_loss_whatever_the_loop_calls_it():
    history = [{"epoch": 1.0, "val/acc": 0.5, "val/loss": 0.7, "train/loss": 0.1}]
    assert rung_scores(history, [1], Objective(metric="val/acc"), "last") == [(0.5, 0.7)]
    (scored,) = rung_scores([{"epoch": 1.0, "reward": 2.0}], [1], Objective(metric="reward"), "last")
    assert scored[0] == 2.0
    assert math.isnan(scored[1])
