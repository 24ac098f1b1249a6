"""Who waits for whom, one by one; then whole sweeps on slots: no epoch twice, nothing stuck, the same decisions."""

from __future__ import annotations

import random
from collections.abc import Iterator
from fractions import Fraction

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from played_slots import Plan, play

from raysweep.config import LoopConfig
from raysweep.driver.sharing import Sharing
from raysweep.halving.twins import Twins
from raysweep.loops import Course, Loop
from raysweep.loops.named import LOOPS
from raysweep.store.record import planned_record
from raysweep.sweepfile.plan import Trial
from raysweep.sweepfile.schema import AshaConfig, NoneConfig, Objective, SchedulerConfig

# Who waits

STOPS = {"short": {4: "4", 6: "6a"}, "long": {4: "4", 9: "9b"}, "other": {4: "4x"}}


def twins(rungs: dict[str, tuple[int, ...]] | None = None, **epochs: int) -> Twins:
    """Two trials that share four epochs, and one that shares none with them."""
    return Twins(STOPS, rungs or {}, {"short": 0, "long": 0, "other": 0} | epochs)


def waiting(twins: Twins) -> set[str]:
    return {id for id in STOPS if twins.waits(id)}


def test_a_trial_waits_for_its_twin_until_they_part_and_others_do_not():
    both = twins()
    assert waiting(both) == set()
    both.start("long")
    assert waiting(both) == {"short"}
    both.note("long", 3)
    assert waiting(both) == {"short"}
    both.note("long", 4)
    assert waiting(both) == set()


def test_a_trial_waits_no_longer_once_its_twin_gives_up_its_slot():
    both = twins()
    both.start("long")
    both.release("long")
    assert waiting(both) == set()


def test_a_trial_that_is_ahead_of_its_twin_does_not_wait_for_it():
    both = twins(short=2)
    both.start("long")
    assert waiting(both) == set()


def test_a_trial_waits_only_up_to_its_next_rung_whose_state_is_kept():
    stops = {"short": {1: "1", 2: "2", 4: "4"}, "long": {1: "1", 2: "2", 4: "4"}}
    both = Twins(stops, {"short": (1, 2), "long": (2,)}, {})
    both.start("long")
    both.note("long", 1)
    assert not both.waits("short"), "it is compared at its rung, and takes the state over that is there"
    both.note("short", 1)
    assert both.waits("short")


def test_a_trial_counts_as_far_as_the_state_that_it_is_about_to_take_over():
    both = Twins({"a": {2: "2", 4: "4"}, "b": {2: "2", 4: "4"}}, {}, {"a": 2}, kept=["2"])
    both.start("b")
    assert both.waits("a")


def test_a_trial_arrives_at_its_next_rung_without_training_once_the_state_there_is_kept():
    stops = {"short": {1: "1", 2: "2", 4: "4"}, "long": {1: "1", 2: "2", 4: "4"}}
    both = Twins(stops, {"short": (1, 2), "long": (2,)}, {}, kept=["1"])
    assert both.arriving == {"short"}
    both.start("long")
    both.note("long", 2)
    assert both.arriving == {"short"}
    both.start("short")
    both.note("short", 1)
    assert both.arriving == {"short"}, "at its second rung, now"
    both.note("short", 2)
    assert both.arriving == set(), "it has no further rung"


# Whole sweeps


class Letters(LoopConfig):
    """The settings of a trial: what decides each of its epochs is a letter."""

    letters: str = ""


class Spelled(Loop):
    """A loop whose trials share epochs as words share letters."""

    name, config = "spelled", Letters

    def course(self, config: Letters) -> Course:
        return Course("", config.letters)


@pytest.fixture(scope="module", autouse=True)
def _spelled() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LOOPS, "_registered", dict(LOOPS._registered))
        LOOPS.register("spelled")(Spelled)
        yield


def trials_of(words: list[str], seeds: int) -> list[Trial]:
    return [
        Trial(f"{word}-{seed}", word, Letters(epochs=len(word), letters=word), seed, loop="spelled")
        for word in words
        for seed in range(seeds)
    ]


@pytest.mark.parametrize(("done", "left"), [((0, 0), 4 + 2 + 1), ((3, 1), 1 + 2 + 1), ((4, 0), 2 + 1), ((6, 0), 1)])
def test_of_what_is_left_shared_epochs_count_once_while_a_twin_goes_on_and_from_then_on_by_its_states(
    done: tuple[int, int], left: int
) -> None:
    trials = trials_of(["aaaabb", "aaaac"], seeds=1)
    records = [planned_record(trial) for trial in trials]
    one, other = (trial.id for trial in trials)
    conditions = {one: {}, other: {}}
    sharing = Sharing(trials, records, conditions, lambda record: (), keeps_last=False, kept={}, objective=Objective())
    epochs = dict(zip((one, other), done, strict=True))
    assert sharing.left(epochs, {id for id in (one, other) if id == other or done[0] < 6}) == left
    assert sharing.left(epochs | {one: 3}, {other}) == 5 - done[1], "one that diverged at 3 has left no state"


WORDS = st.lists(
    st.tuples(st.integers(0, 6), st.text("ab", max_size=5)).map(lambda word: "a" * word[0] + word[1]).filter(bool),
    min_size=1,
    max_size=9,
    unique=True,
)
RUNGS = st.lists(st.sampled_from([Fraction(n, 12) for n in range(1, 12)]), min_size=1, max_size=3, unique=True)
ASHA = st.builds(
    lambda rungs, eta, survivors: AshaConfig(
        name="asha", eta=eta, rungs=[str(rung) for rung in sorted(rungs)], min_survivors=survivors
    ),
    RUNGS,
    st.integers(2, 4),
    st.integers(1, 3),
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    WORDS,
    st.integers(1, 2),
    st.one_of(st.just(NoneConfig()), ASHA),
    st.integers(1, 5),
    st.sampled_from([0.0, 0.3, 5.0]),
    st.integers(),
)
def test_no_epoch_is_trained_twice_on_any_number_of_slots_and_all_ends_as_it_would_unshared(
    words: list[str], seeds: int, scheduler: SchedulerConfig, slots: int, visit_s: float, luck: int
) -> None:
    plan = Plan(trials_of(words, seeds), scheduler, lambda epoch: random.Random(luck + epoch).random(), visit_s=visit_s)
    shared, alone = play(plan, slots), play(plan, slots, shared=False)
    assert shared.statuses.keys() == {trial.id for trial in plan.trials}, "some are stuck"
    assert (shared.statuses, shared.histories) == (alone.statuses, alone.histories)
    assert set(shared.trained.values()) == {1}
    assert shared.trained.keys() == alone.trained.keys()


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    WORDS,
    st.one_of(st.just(NoneConfig()), ASHA),
    st.integers(1, 5),
    st.sampled_from(["diverged", "failed"]),
    st.integers(),
)
def test_trials_that_diverge_or_fail_end_as_unshared_and_what_a_twin_has_found_out_is_trained_once(
    words: list[str], scheduler: SchedulerConfig, slots: int, end: str, luck: int
) -> None:
    ends = lambda epoch: end if random.Random(f"{luck}/{epoch}").random() < 0.2 else ""  # noqa: E731
    score = lambda epoch: random.Random(luck + epoch).random()  # noqa: E731
    plan = Plan(trials_of(words, 2), scheduler, score, ends=ends)
    shared, alone = play(plan, slots), play(plan, slots, shared=False)
    assert (shared.statuses, shared.histories) == (alone.statuses, alone.histories)
    assert shared.trained.keys() == alone.trained.keys()
    assert end == "failed" or set(shared.trained.values()) == {1}


def test_twins_that_fail_are_tried_side_by_side_once_the_first_one_has():
    lengths = trials_of(["a" * length for length in (10, 11, 12, 13)], seeds=1)
    plan = Plan(lengths, NoneConfig(), lambda epoch: 0.5, ends=lambda epoch: "failed" if epoch == 5 else "")
    assert play(plan, slots=4).makespan == 12


def test_a_trial_that_an_earlier_run_began_goes_first_so_that_a_new_and_longer_one_goes_on_from_it():
    stops = {"new": {7: "7"}, "begun": {7: "7"}}
    both = Twins(stops, {}, {"begun": 2})
    both.start("begun")
    assert both.waits("new")
    both.note("begun", 7)
    assert not both.waits("new")


def test_a_state_counts_as_kept_only_if_a_trial_has_passed_its_epoch_in_this_run():
    stops = {id: {3: "3", 9: "9"} for id in ("resumed", "behind", "last")}
    three = Twins(stops, {}, {"resumed": 6})
    three.start("resumed")
    three.start("behind")  # from the beginning: no state of epoch 3 is there
    assert three.waits("last")
