"""The course of a trial: equal texts where, and only where, every step of the epochs so far is the same."""

from __future__ import annotations

from itertools import takewhile
from typing import Any

import own_parts  # noqa: F401  # registers `own_schedule`
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysweep.errors import UserError
from raysweep.registry import SCHEDULES, register_schedule
from raysweep.vision.classify import Classify
from raysweep.vision.config import TrialConfig
from raysweep.vision.schedules import lr_at

FEW = st.integers(0, 2)
SCHEDULES_DRAWN = st.one_of(
    st.fixed_dictionaries({"name": st.just("constant")}),
    st.fixed_dictionaries(
        {
            "name": st.just("step"),
            "milestones": st.lists(st.integers(1, 6), min_size=1, max_size=2),
            "gamma": st.sampled_from([0.1, 0.5, 1.0]),
        }
    ),
    st.fixed_dictionaries(
        {
            "name": st.just("cosine"),
            "t_max": st.sampled_from([None, 4, 6]),
            "min_lr": st.sampled_from([0.0, 0.1]),
        }
    ),
    st.fixed_dictionaries({"name": st.just("wsd"), "decay": st.sampled_from([0.1, 0.25, 0.3, 0.5, 1.0])}),
)
CONFIGS = st.builds(
    lambda schedule, warmup, per, epochs, lr: TrialConfig.model_validate(
        {"epochs": epochs, "lr": lr, "lr_schedule": {**schedule, "warmup_epochs": warmup, "per": per}}
    ),
    SCHEDULES_DRAWN,
    FEW,
    st.sampled_from(["epoch", "step"]),
    st.sampled_from([4, 6, 10]),
    st.sampled_from([0.1, 0.05]),
)
STEPS = (1, 7, 64)


def course(**config: Any) -> list[tuple[str, str]]:
    """Return what decides each epoch."""
    course = Classify().course(TrialConfig.model_validate(config))
    return [(course.every, lrs) for lrs in course.each]


def shared(first: list[Any], second: list[Any]) -> int:
    return len(list(takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False))))


def learning_rates(config: TrialConfig) -> list[list[float]]:
    """Return those of every step of each epoch, for epochs of several numbers of steps."""
    return [
        [
            lr_at(config.lr_schedule, epoch, config.epochs, config.lr, step, steps)
            for steps in STEPS
            for step in range(steps)
        ]
        for epoch in range(config.epochs)
    ]


def test_courses_begin_alike_exactly_as_far_as_the_learning_rates_of_every_step_do() -> None:
    seen = set()

    @settings(max_examples=1000, deadline=None, database=None, derandomize=True)
    @given(CONFIGS, CONFIGS)
    def holds(one: TrialConfig, other: TrialConfig) -> None:
        same = shared(learning_rates(one), learning_rates(other))
        assert shared(course(**one.model_dump()), course(**other.model_dump())) == same
        if same > 2:
            seen.add(frozenset([one.lr_schedule.name, other.lr_schedule.name]))

    holds()
    assert seen >= {frozenset(names) for names in (["constant", "step"], ["constant", "wsd"], ["wsd"], ["cosine"])}


def test_where_an_even_stretch_per_step_ends_does_not_hang_on_rounding() -> None:
    assert 0.14 * 50 > 7
    wsd = course(epochs=50, lr_schedule={"name": "wsd", "decay": 0.14, "per": "step"})
    assert shared(wsd, course(epochs=50, lr_schedule="constant")) == 43


@pytest.mark.parametrize("per", ["epoch", "step"])
@pytest.mark.parametrize(("decays", "unique"), [([0.2], 188), ([0.1, 0.2, 0.4], 354)])
def test_lengths_of_wsd_train_their_stable_epochs_once(decays: list[float], unique: int, per: str) -> None:
    lengths = [
        course(epochs=epochs, lr_schedule={"name": "wsd", "decay": decay, "per": per})
        for epochs in (20, 40, 80, 160)
        for decay in decays
    ]
    assert len({tuple(texts[:count]) for texts in lengths for count in range(1, len(texts) + 1)}) == unique
    assert sum(map(len, lengths)) == 300 * len(decays)


@pytest.mark.parametrize(
    "other",
    [
        {"batch_size": 64},
        {"ema": False},
        {"clip_grad_norm": 1.0},
        {"data": {"name": "digits", "per_class": 3}},
        {"optimizer": {"name": "sgd", "momentum": 0.8}},
        {"lr_factors": {"layer1": 0.1}},
    ],
)
def test_trials_of_other_settings_share_nothing(other: dict[str, Any]) -> None:
    assert shared(course(), course(**other)) == 0


@pytest.mark.parametrize("same", [{"precision": "bf16"}, {"data": {"path": "elsewhere"}}, {"lr_schedule": "cosine"}])
def test_what_is_on_record_with_the_conditions_is_not_in_a_course(same: dict[str, Any]) -> None:
    assert course() == course(**same)


def test_a_schedule_of_ones_own_is_shared_where_its_learning_rates_are_and_per_step_with_its_like_alone() -> None:
    own = {"name": "own_schedule", "options": {"least": 0.5}}
    by_epoch = course(lr_schedule=own)
    assert shared(by_epoch, course(lr_schedule={"name": "cosine"}, epochs=30)) == 1
    by_step = course(lr_schedule={**own, "per": "step"})
    assert by_step == course(lr_schedule={**own, "per": "step"})
    assert shared(by_step, course(lr_schedule={**own, "per": "step"}, epochs=21)) == 0


@pytest.mark.parametrize(("optimizer", "epochs"), [("sgd", 1), ("own_optimizer", 0)])
def test_an_optimizer_of_ones_own_which_is_told_the_peak_is_not_shared_by_trials_of_another_peak(
    optimizer: str, epochs: int
) -> None:
    rising = course(optimizer=optimizer, lr=0.2, lr_schedule={"name": "constant", "warmup_epochs": 1})
    assert shared(rising, course(optimizer=optimizer, lr=0.1)) == epochs


def test_a_schedule_of_ones_own_that_fails_is_named_with_its_epoch() -> None:
    with SCHEDULES.for_now():

        @register_schedule("falls_over")
        def falls_over(epoch: float, epochs: float) -> float:
            return 1 / (2 - epoch)

        with pytest.raises(UserError, match="falls_over: it failed in epoch 3 of 5: ZeroDivisionError"):
            course(epochs=5, lr_schedule="falls_over")
