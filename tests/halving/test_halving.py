"""The rules of early stopping, one by one; then all of them at once against a synchronous reference."""

from __future__ import annotations

import math
import random
import time
from collections import defaultdict
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any
from unittest.mock import Mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raysweep.halving import rungs as halving_module
from raysweep.halving.cost import chances_of
from raysweep.halving.dominance import in_order
from raysweep.halving.rungs import Halving, Member, Rival, Rules, Verdict, group_of

SAFE, OUT, UNDECIDED = Verdict.SAFE, Verdict.OUT, Verdict.UNDECIDED
NINTH, THIRD = Fraction(1, 9), Fraction(1, 3)
ONE_RUNG = Rules(eta=3, rungs=(THIRD,))


def members(count: int, epochs: int = 9, group: str = "") -> list[Member]:
    return [Member(f"{group}t{i}", f"{group}t{i}", group, epochs) for i in range(count)]


def scored(rules: Rules, scores: list[float], losses: list[float] | None = None, missing: int = 0) -> Halving:
    """Return trials t0, t1, ... with these scores at the first rung, and some more that have none yet."""
    halving = Halving(rules, members(len(scores) + missing))
    for i, score in enumerate(scores):
        halving.record(f"t{i}", 0, score, losses[i] if losses else math.nan)
    return halving


def verdicts(halving: Halving, count: int) -> list[Verdict]:
    return [halving.verdict(f"t{i}") for i in range(count)]


def safe(halving: Halving, count: int) -> list[int]:
    return [i for i, verdict in enumerate(verdicts(halving, count)) if verdict is SAFE]


# The rules


def test_rungs_are_fractions_of_a_trials_own_epochs_rounded_up():
    assert Rules(rungs=(NINTH, THIRD)).rung_epochs(70) == (8, 24)
    assert Rules(rungs=(NINTH, THIRD)).rung_epochs(27) == (3, 9)
    assert Rules(rungs=(NINTH, THIRD)).rung_epochs(2) == (1, 1)
    assert Rules(rungs=(Fraction(7, 100),)).rung_epochs(100) == (7,)  # 0.07 * 100 is 7.000000000000001


def test_epochs_that_all_trials_begin_with_are_before_the_first_rung():
    assert Rules(rungs=(NINTH, THIRD), after=30).rung_epochs(39) == (31, 33)
    assert Rules(rungs=(NINTH, THIRD), after=30).rung_epochs(100) == (38, 54)


def test_places_are_the_cohort_over_eta_rounded_up_but_at_least_min_survivors():
    assert Rules(rungs=(NINTH, THIRD)).places(25) == (9, 3)
    assert Rules(rungs=(NINTH, THIRD), min_survivors=4).places(25) == (9, 4)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"eta": 1}, "eta: got 1"),
        ({"min_survivors": 0}, "min_survivors: got 0"),
        ({"tolerance": -0.1}, "tolerance: got -0.1"),
        ({"tolerance": math.nan}, "tolerance: got nan"),
        ({"rungs": (THIRD, NINTH)}, "rungs: got .*1/3"),
        ({"rungs": (Fraction(0),)}, "rungs: got"),
        ({"tolerance": 0.1, "costs": (False,)}, "tolerance: got 0.1, must be 0 with several objectives"),
    ],
)
def test_impossible_rules_are_refused_with_what_was_given(wrong, message):
    with pytest.raises(ValueError, match=message):
        Rules(**wrong)


def test_best_third_goes_on():
    assert safe(scored(ONE_RUNG, [0.1, 0.6, 0.3, 0.5, 0.2, 0.4]), 6) == [1, 3]


def test_lower_is_better_if_the_objective_is_minimized():
    assert safe(scored(replace(ONE_RUNG, maximize=False), [0.1, 0.6, 0.3, 0.5, 0.2, 0.4]), 6) == [0, 4]


def test_nobody_is_safe_while_enough_others_could_still_be_better():
    assert verdicts(scored(ONE_RUNG, [0.9, 0.5, 0.4], missing=3), 6) == [UNDECIDED] * 3 + [SAFE] * 3


def test_a_trial_is_safe_as_soon_as_too_few_can_beat_it():
    assert verdicts(scored(ONE_RUNG, [0.9, 0.5, 0.4, 0.3, 0.2], missing=1), 5) == [SAFE] + [UNDECIDED] * 4


def test_a_trial_is_out_once_all_places_are_taken_by_trials_that_cannot_fail_there_any_more():
    halving = scored(ONE_RUNG, [0.9, 0.5, 0.4])
    assert verdicts(halving, 3) == [SAFE, UNDECIDED, UNDECIDED]
    halving.finish("t0")
    assert verdicts(halving, 3) == [SAFE, OUT, OUT]


@pytest.mark.parametrize("end", ["fail", "diverge"])
def test_a_survivor_that_fails_or_diverges_gives_its_place_to_the_next_in_rank(end):
    halving = scored(ONE_RUNG, [0.9, 0.5, 0.4])
    getattr(halving, end)("t0")
    assert verdicts(halving, 3) == [OUT, SAFE, UNDECIDED]


def test_a_diverged_trials_scores_stand_at_the_rungs_that_it_passed():
    halving = scored(Rules(rungs=(NINTH, THIRD)), [0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    halving.record("t0", 1, 0.9)
    halving.record("t1", 1, 0.8)
    halving.diverge("t0")
    assert verdicts(halving, 3) == [OUT, SAFE, OUT]  # t1 gets its place at the second rung, t2 none at the first


def costing(scores: list[float], flops: list[float], missing: int = 0, **rules: Any) -> Halving:
    """Return trials t0, t1, ... with these scores and costs at the first rung, and some more that have none yet."""
    halving = Halving(replace(ONE_RUNG, costs=(False,), **rules), members(len(scores) + missing))
    for i, (score, cost) in enumerate(zip(scores, flops, strict=True)):
        halving.record(f"t{i}", 0, score, costs=[cost])
    return halving


def test_with_several_objectives_the_front_goes_on_before_what_it_dominates():
    halving = costing([0.9, 0.8, 0.5, 0.7, 0.4, 0.3], [9, 9, 1, 8, 2, 3], eta=2)
    assert safe(halving, 6) == [0, 2, 3]  # t1 has a better score than t2 and t3, and t0 dominates it
    assert [report.dominated_by for i in range(6) for report in halving.explain(f"t{i}")] == [0, 1, 0, 0, 1, 2]


def test_of_a_front_that_is_larger_than_the_places_the_ends_go_on_first():
    assert safe(costing([0.9, 0.8, 0.7, 0.6, 0.5, 0.4], [6, 5, 4, 3, 2, 1], eta=3), 6) == [0, 5]


def test_with_several_objectives_nobody_is_safe_or_out_while_one_is_missing():
    scores, flops = [0.9, 0.8, 0.5, 0.4], [1, 9, 9, 9]
    assert verdicts(costing(scores, flops, missing=1), 4) == [UNDECIDED] * 4
    halving = costing(scores, flops, missing=1, eta=4)
    halving.fail("t4")
    assert verdicts(halving, 4) == [SAFE, SAFE, UNDECIDED, UNDECIDED]


def test_who_has_no_finite_score_is_behind_all_others_however_little_it_costs():
    assert safe(costing([math.nan, 0.8, 0.5], [1, 9, 5], eta=2), 3) == [1, 2]


def test_trials_that_end_before_the_first_rung_leave_the_places_to_the_others():
    halving = scored(ONE_RUNG, [0.1, 0.2], missing=4)
    for id in ("t2", "t3", "t4", "t5"):
        halving.fail(id)
    assert safe(halving, 6) == [0, 1]


def test_equal_scores_are_ranked_by_lower_val_loss():
    assert safe(scored(ONE_RUNG, [0.5, 0.5, 0.5], [2.0, 1.0, math.nan]), 3) == [1]


def test_equal_scores_and_losses_are_ranked_by_id():
    assert safe(scored(ONE_RUNG, [0.5, 0.5, 0.5], [1.0, 1.0, 1.0]), 3) == [0]


def test_nan_ranks_behind_every_score():
    assert safe(scored(ONE_RUNG, [math.nan, -5.0, math.inf]), 3) == [1]


def test_trials_within_the_tolerance_of_the_last_place_go_on_too():
    assert safe(scored(replace(ONE_RUNG, tolerance=0.1), [0.5, 0.45, 0.3]), 3) == [0, 1]


def test_the_tolerance_lets_no_nan_go_on():
    assert safe(scored(replace(ONE_RUNG, tolerance=0.1), [math.nan, math.nan, math.nan]), 3) == [0]


def test_groups_are_cohorts_of_their_own():
    halving = Halving(ONE_RUNG, members(3, group="a") + members(3, group="b"))
    for group, scores in (("a", [0.9, 0.8, 0.7]), ("b", [0.1, 0.2, 0.3])):
        for i, score in enumerate(scores):
            halving.record(f"{group}t{i}", 0, score)
    assert [m.id for m in members(3, group="a") + members(3, group="b") if halving.verdict(m.id) is SAFE] == [
        "at0",
        "bt2",
    ]


def test_a_missing_key_is_a_group_of_its_own():
    keys = ["lr", "optimizer.momentum"]
    configs = [{"lr": 0.1}, {"lr": None}, {}, {"lr": 0.1, "optimizer": {"momentum": 0.9}}, {"lr": ""}]
    assert len({group_of(config, keys) for config in configs}) == 5
    assert group_of({"lr": 0.1, "model": "a"}, keys) == group_of({"lr": 0.1, "model": "b"}, keys)


def test_seeds_are_ranked_by_their_mean_and_go_on_together():
    seeds = [Member(f"{config}{seed}", config, None, 9) for config in "abc" for seed in (0, 1)]
    halving = Halving(ONE_RUNG, seeds)
    for id, score in {"a0": 0.9, "a1": 0.1, "b0": 0.6, "b1": 0.6, "c0": 0.8}.items():
        halving.record(id, 0, score)
    assert {halving.verdict(id) for id in ("a0", "b0", "b1", "c0")} == {UNDECIDED}
    halving.record("c1", 0, 0.3)
    assert [m.id for m in seeds if halving.verdict(m.id) is SAFE] == ["b0", "b1"]


def test_a_config_goes_on_with_its_other_seeds_if_one_fails():
    halving = Halving(ONE_RUNG, [Member(f"{config}{seed}", config, None, 9) for config in "abc" for seed in (0, 1)])
    for id, score in {"a0": 0.9, "b0": 0.6, "b1": 0.6, "c0": 0.5, "c1": 0.5}.items():
        halving.record(id, 0, score)
    halving.fail("a1")
    assert [halving.verdict(id) for id in ("a0", "a1", "b0")] == [SAFE, OUT, UNDECIDED]


def test_rungs_that_fall_on_one_epoch_stay_two_rungs():
    halving = Halving(Rules(rungs=(NINTH, THIRD)), members(9, epochs=2))
    for i in range(9):
        halving.record(f"t{i}", 0, i)
        halving.record(f"t{i}", 1, i)
    assert verdicts(halving, 9) == [OUT] * 6 + [UNDECIDED] * 2 + [SAFE]


def test_a_free_slot_takes_the_safe_trial_of_the_highest_rung():
    halving = scored(Rules(rungs=(NINTH, THIRD), min_survivors=2), [0.9, 0.8, 0.7])
    assert halving.next_trial() == "t0"
    halving.record("t1", 1, 0.5)  # two go on from there, and no more than two come
    assert halving.next_trial() == "t1"
    halving.start("t1")
    assert halving.next_trial() == "t0"


def test_a_free_slot_takes_the_longest_unstarted_trial_if_none_is_safe():
    halving = Halving(ONE_RUNG, [Member("a", "a", None, 10), Member("b", "b", None, 30), Member("c", "c", None, 30)])
    order = []
    while (id := halving.next_trial()) is not None:
        order.append(id)
        halving.start(id)
    assert order == ["b", "c", "a"]
    halving.release("c")  # to be tried again
    assert halving.next_trial() == "c"


def test_a_trial_that_comes_to_its_first_rung_without_training_goes_before_safe_ones():
    halving = scored(Rules(rungs=(NINTH, THIRD), min_survivors=3), [0.9, 0.8, 0.7], missing=1)
    assert halving.next_trial() == "t0"
    assert halving.next_trial(arriving={"t0", "t3"}) == "t3"
    assert halving.next_trial(arriving={"t3"}, waits=lambda id: id == "t3") == "t0"
    halving.start("t3")
    assert halving.next_trial(arriving={"t3"}) == "t0"


def test_a_score_recorded_twice_stands_as_it_was():
    halving = scored(ONE_RUNG, [0.9, 0.5, 0.4])
    halving.record("t1", 0, 1.0)
    assert safe(halving, 3) == [0]


def test_an_end_noted_twice_counts_once():
    halving = scored(ONE_RUNG, [0.9, 0.5, 0.4])
    halving.fail("t0")
    halving.fail("t0")
    assert verdicts(halving, 3) == [OUT, SAFE, UNDECIDED]
    with pytest.raises(ValueError, match="'t0' cannot be finished: it is failed"):
        halving.finish("t0")


def test_a_skipped_rung_and_a_record_after_the_end_are_refused():
    halving = Halving(Rules(rungs=(NINTH, THIRD)), members(3))
    with pytest.raises(ValueError, match="'t0' cannot record rung 1: 0 of 2 recorded"):
        halving.record("t0", 1, 0.5)
    with pytest.raises(ValueError, match="'t0' cannot finish"):
        halving.finish("t0")
    halving.fail("t0")
    with pytest.raises(ValueError, match="failed"):
        halving.record("t0", 0, 0.5)
    with pytest.raises(ValueError, match="two members have the id 't0'"):
        Halving(ONE_RUNG, members(2) + members(1))


def test_explain_names_score_rank_cutoff_and_who_was_better():
    halving = scored(ONE_RUNG, [0.9, 0.8, 0.7, 0.6], missing=2)
    (report,) = halving.explain("t2")
    assert (report.epoch, report.score, report.rank, report.places, report.cutoff) == (3, 0.7, 3, 2, 0.8)
    assert (report.beaten_by, report.arrived, report.missing, report.verdict) == (("t1", "t0"), 4, 2, UNDECIDED)
    assert halving.explain("t5") == []


def test_explain_shows_scores_in_the_objectives_own_sign():
    (report,) = scored(replace(ONE_RUNG, maximize=False), [0.9, 0.2, 0.7]).explain("t0")
    assert (report.score, report.rank, report.cutoff) == (0.9, 3, 0.2)


def test_expected_epochs_weighs_each_part_by_the_share_that_goes_on():
    def expected(rules, trials):
        return [each.expected_epochs for each in chances_of(rules, trials).values()]

    assert sum(expected(Rules(rungs=(NINTH, THIRD)), members(9, epochs=9))) == pytest.approx(9 * 1 + 3 * 2 + 1 * 6)
    assert set(expected(Rules(rungs=(NINTH, THIRD), min_survivors=9), members(9, epochs=9))) == {9}
    assert set(expected(Rules(rungs=()), members(4, epochs=10))) == {10}


def test_without_rungs_everybody_trains_to_the_end():
    halving = Halving(Rules(rungs=()), members(2))
    assert halving.next_trial() == "t0"
    halving.finish("t0")
    assert halving.next_trial() == "t1"


def test_after_additions_the_trained_set_is_a_superset_of_what_a_fresh_run_would_train():
    halving = scored(ONE_RUNG, [0.5, 0.4, 0.3], missing=0)
    halving.finish("t0")
    larger = Halving(ONE_RUNG, members(6))  # the plan's second edition has two places
    for i, score in enumerate([0.5, 0.4, 0.3, 0.9, 0.8, 0.1]):
        larger.record(f"t{i}", 0, score)
    larger.finish("t0")
    assert safe(larger, 6) == [3, 4]


def test_records_read_in_another_order_give_the_same_decisions():
    events = {f"t{i}": [("record", 0, 1 - i / 10)] for i in range(6)}
    events["t0"] += [("record", 1, 0.9), ("diverge",)]
    events["t1"] += [("record", 1, 0.8)]
    for order in (list(events), list(reversed(events)), ["t3", "t0", "t5", "t1", "t4", "t2"]):
        halving = Halving(Rules(rungs=(NINTH, THIRD)), members(6))
        for id in order:
            for event, *values in events[id]:
                getattr(halving, event)(id, *values)
        assert verdicts(halving, 6) == [OUT, SAFE, OUT, OUT, OUT, OUT]
        assert halving.next_trial() == "t1"


def test_an_event_computes_what_its_own_config_is_sorted_by_and_each_cohorts_standings_once(monkeypatch):
    calls = {}
    for name in ("_key_at", "_standings_of"):
        calls[name] = Mock(wraps=getattr(halving_module, name))
        monkeypatch.setattr(halving_module, name, calls[name])
    halving = Halving(Rules(rungs=(NINTH, THIRD)), members(300) + members(300, group="other"))
    for i in range(100):
        halving.start(halving.next_trial())
        halving.record(f"t{i}", 0, i)
        halving.verdict(f"t{i}")
        halving.release(f"t{i}")
    assert calls["_key_at"].call_count == 2 * 100  # the second time to see that the next rung is not known yet
    assert calls["_standings_of"].call_count == 2 + 100


def test_a_decision_among_5000_configs_takes_less_than_2_ms():
    count = 5_000
    halving = Halving(Rules(rungs=(NINTH, THIRD)), members(count))
    scores = list(range(count))
    random.Random(0).shuffle(scores)
    for i, score in enumerate(scores):
        halving.record(f"t{i}", 0, score)
    going_on = safe(halving, count)
    times = []
    for i in going_on:
        began = time.thread_time()
        halving.record(f"t{i}", 1, scores[i])
        halving.verdict(f"t{i}")
        halving.next_trial()
        times.append(time.thread_time() - began)
    assert len(going_on) == 1_667
    assert min(times[-100:]) < 0.002  # the fastest, since the machine may be busy


# All rules at once


@dataclass(frozen=True)
class Fate:
    """What would become of a trial if it trained to its end."""

    member: Member
    scores: tuple[tuple[float, float], ...]
    """At each rung: score, val_loss."""
    death: int | None
    """The epoch in which it ends, if it does."""
    diverges: bool
    costs: tuple[float, ...] = ()
    """Of the other objectives, in their own sign."""

    def rungs_reached(self, rules: Rules) -> int:
        epochs = rules.rung_epochs(self.member.epochs)
        return sum(self.death is None or epoch < self.death for epoch in epochs)

    def marks(self, rules: Rules) -> int:
        """Rungs reached, and one more for the end."""
        return self.rungs_reached(rules) + (self.death is None)


def synchronous(rules: Rules, fates: list[Fate], rivals: list[Rival]) -> list[set]:
    """Return the configs that go on from each rung when everybody waits for everybody."""
    sign = -1 if rules.maximize else 1
    seeds = defaultdict(list)
    for fate in fates:
        seeds[fate.member.config_key].append(fate)

    def mean(values):
        return math.fsum(v / len(values) for v in values) if all(map(math.isfinite, values)) else math.inf

    def key(config, r):
        there = [fate.scores[r] for fate in seeds[config] if fate.rungs_reached(rules) > r]
        ids = [fate.member.id for fate in seeds[config]]
        return mean([sign * score for score, _ in there]), mean([loss for _, loss in there]), min(ids)

    def signed(costs):
        return [-cost if more else cost for cost, more in zip(costs, rules.costs, strict=True)]

    def rival(id):
        return next(each for each in rivals if each.id == id)

    def point(config, r):
        came = any(fate.rungs_reached(rules) > r for fate in seeds[config])
        score = key(config, r)[0] if came else math.inf
        return (score, *signed(seeds[config][0].costs)) if math.isfinite(score) else worst

    worst = (math.inf,) * (1 + len(rules.costs))

    contestants, going_on = set(seeds), []
    for r, places in enumerate(rules.places(len(seeds) + len(rivals))):
        lasting = [c for c in contestants if c in seeds and max(fate.marks(rules) for fate in seeds[c]) > r + 1]
        others = [
            ((mean([sign * rival.scores[r][0]]), mean([rival.scores[r][1]]), rival.id), rival.id)
            for rival in rivals
            if len(rival.scores) > r
        ]
        ranked = sorted([*((key(c, r), c) for c in lasting), *others])
        if rules.costs:  # by all objectives among all that came to the rung, though some of them got no further
            points = {c: (key(c, r), point(c, r)) for c in contestants if c in seeds}
            points |= {
                id: (at, (at[0], *signed(rival(id).costs)) if math.isfinite(at[0]) else worst) for at, id in others
            }
            came = sorted(points, key=lambda c: points[c][0])
            order = [came[place] for place in in_order([points[c][1] for c in came])]
            ranked = [(points[c][0], c) for c in order if c in lasting or c not in seeds]
        contestants = {c for _, c in ranked[:places]}
        if len(ranked) > places and rules.tolerance and math.isfinite(ranked[places - 1][0][0]):
            limit = ranked[places - 1][0][0] + rules.tolerance
            contestants |= {c for k, c in ranked if k[0] <= limit}
        going_on.append(contestants)
    return going_on


SCORES = st.sampled_from([0.1, 0.2, 0.25, 0.3, 0.5, 0.7, 0.9, math.nan, math.inf, -math.inf])
LOSSES = st.sampled_from([0.5, 1.0, 2.0, math.nan])
RUNGS = st.integers(0, 3)
ALL_COSTS = st.sampled_from([(), (), (False,), (True,), (False, True)])
ALL_RULES = st.builds(
    lambda tolerance, costs, **others: Rules(tolerance=0.0 if costs else tolerance, costs=costs, **others),
    costs=ALL_COSTS,
    eta=st.sampled_from([2, 3, 4]),
    rungs=st.sampled_from([(NINTH, THIRD), (THIRD,), (), (Fraction(1, 27), NINTH, THIRD), (THIRD, Fraction(1))]),
    min_survivors=st.sampled_from([1, 1, 2, 4]),
    tolerance=st.sampled_from([0.0, 0.0, 0.05, 0.2]),
    maximize=st.booleans(),
)


@st.composite
def sweeps(draw) -> tuple[Rules, list[Fate], list[Rival]]:
    rules = draw(ALL_RULES)
    fates = []
    seeds = draw(st.sampled_from([1, 1, 2, 3]))
    mortality = draw(st.sampled_from([0, 2, 9]))
    for config in range(draw(st.integers(1, 14))):
        group, epochs = draw(st.sampled_from("ab")), draw(st.sampled_from([1, 2, 5, 9, 20]))
        costs = tuple(draw(st.sampled_from([1, 2, 3, 5])) for _ in rules.costs)
        for seed in range(draw(st.integers(1, seeds))):
            fates.append(
                Fate(
                    Member(f"{(config * 7) % 13:02}.{config}-{seed}", config, group, epochs),
                    tuple((draw(SCORES), draw(LOSSES)) for _ in rules.rungs),
                    draw(st.integers(1, epochs)) if draw(st.integers(0, 9)) < mortality else None,
                    draw(st.booleans()),
                    costs,
                )
            )
    rivals = [
        Rival(
            f"r{i}",
            draw(st.sampled_from("ab")),
            [(draw(SCORES), draw(LOSSES)) for _ in rules.rungs][: draw(RUNGS)],
            [draw(st.sampled_from([1, 2, 3])) for _ in rules.costs],
        )
        for i in range(draw(st.sampled_from([0, 0, 1, 5])))
    ]
    return rules, fates, rivals


class Simulation:
    """A cluster of some slots on which trials reach their next rung in random order."""

    def __init__(self, rules: Rules, fates: list[Fate], rivals: list[Rival], slots: int, rng: random.Random) -> None:
        self.rules, self.rivals, self.rng, self.slots = rules, rivals, rng, slots
        self.fates = {fate.member.id: fate for fate in fates}
        self.halving = Halving(rules, [fate.member for fate in fates], rivals)
        self.history: dict[str, list[tuple]] = {id: [] for id in self.fates}
        self.running: set[str] = set()

    def run(self, faults: bool) -> None:
        for _ in range(50 * len(self.fates) + 50):
            self.fill_slots()
            if not self.running:
                return
            id = self.rng.choice(sorted(self.running))
            accident = self.rng.random() if faults else 1.0
            if accident < 0.1:
                self.stop(id)  # tried again
            elif accident < 0.2:
                self.restart()
            else:
                self.advance(id)
        raise AssertionError("the run does not end")

    def fill_slots(self) -> None:
        while len(self.running) < self.slots and (id := self.halving.next_trial()) is not None:
            assert id not in self.running
            self.halving.start(id)
            self.running.add(id)
        if len(self.running) < self.slots:
            assert not [id for id in self.fates if self.could_run(id)], "a slot idles"

    def could_run(self, id: str) -> bool:
        ended = self.history[id] and self.history[id][-1][0] != "record"
        return not ended and id not in self.running and self.halving.verdict(id) is SAFE

    def advance(self, id: str) -> None:
        """Train to the next epoch with a rung, or to the end."""
        fate, rungs = self.fates[id], len(self.history[id])
        epochs = self.rules.rung_epochs(fate.member.epochs)
        if rungs < fate.rungs_reached(self.rules):
            for r in [r for r in range(rungs, len(epochs)) if epochs[r] == epochs[rungs]]:
                self.note(id, "record", r, *fate.scores[r], fate.costs)
        elif fate.death is not None:
            self.note(id, "diverge" if fate.diverges else "fail")
        else:
            self.note(id, "finish")
        if self.history[id][-1][0] != "record" or self.halving.verdict(id) is not SAFE:
            self.stop(id)

    def note(self, id: str, event: str, *values) -> None:
        self.history[id].append((event, *values))
        getattr(self.halving, event)(id, *values)

    def stop(self, id: str) -> None:
        self.running.remove(id)
        self.halving.release(id)

    def restart(self) -> None:
        """Rebuild all decisions from the records, in any order."""
        before = {id: self.halving.verdict(id) for id in self.fates}
        reports = {id: self.halving.explain(id) for id in self.fates}
        self.halving = Halving(self.rules, [fate.member for fate in self.fates.values()], self.rivals)
        waiting = {id: list(events) for id, events in self.history.items() if events}
        while waiting:
            id = self.rng.choice(sorted(waiting))
            event, *values = waiting[id].pop(0)
            getattr(self.halving, event)(id, *values)
            if not waiting[id]:
                del waiting[id]
        self.running = set()
        assert {id: self.halving.verdict(id) for id in self.fates} == before
        assert repr({id: self.halving.explain(id) for id in self.fates}) == repr(reports)


def check_against_reference(simulation: Simulation) -> None:
    rules, groups = simulation.rules, defaultdict(list)
    for fate in simulation.fates.values():
        groups[fate.member.group].append(fate)
    for group, fates in groups.items():
        going_on = synchronous(rules, fates, [rival for rival in simulation.rivals if rival.group == group])
        for fate in fates:
            id, config = fate.member.id, fate.member.config_key
            history = simulation.history[id]
            epochs = rules.rung_epochs(fate.member.epochs)
            marks = len(history)
            if fate.death is not None and history and history[-1][0] != "record":
                marks -= 1
            recorded = sum(event[0] == "record" for event in history)
            for r in range(len(rules.rungs)):
                merged = r + 1 < len(epochs) and epochs[r + 1] == epochs[r]
                if r < fate.rungs_reached(rules) and recorded > r and not merged:
                    passes = all(config in going_on[q] for q in range(r + 1))
                    assert (marks > r + 1) == (passes and fate.marks(rules) > r + 1), (id, r)
            if not history or history[-1][0] in ("fail", "diverge"):
                assert history
                assert simulation.halving.verdict(id) is OUT
            else:
                passes = all(config in going_on[q] for q in range(recorded))
                assert simulation.halving.verdict(id) is (SAFE if passes else OUT), id


MODERATE = settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@MODERATE
@given(sweeps(), st.integers(1, 16), st.randoms(use_true_random=False), st.booleans())
def test_decisions_are_those_of_synchronous_halving_whatever_the_order_slots_faults_and_restarts(
    sweep, slots, rng, faults
):
    simulation = Simulation(*sweep, slots, rng)
    simulation.run(faults)
    check_against_reference(simulation)


@MODERATE
@given(sweeps(), st.randoms(use_true_random=False))
def test_a_verdict_once_given_is_never_taken_back(sweep, rng):
    simulation = Simulation(*sweep, 4, rng)
    given_verdicts: dict[tuple[str, int], Verdict] = {}
    for _ in range(50 * len(simulation.fates)):
        simulation.fill_slots()
        if not simulation.running:
            break
        simulation.advance(rng.choice(sorted(simulation.running)))
        for id, history in simulation.history.items():
            if history and history[-1][0] != "record":
                continue
            verdict = simulation.halving.verdict(id)
            earlier = given_verdicts.setdefault((id, len(history)), verdict)
            assert earlier in (verdict, UNDECIDED)
            given_verdicts[id, len(history)] = verdict
