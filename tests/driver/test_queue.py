"""Whose turn it is, as Tune's Searcher and TrialScheduler are told; Tune's own part is played here."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import pytest

from raysweep.driver import queue as queue_module
from raysweep.driver.queue import Stage, TrialQueue
from raysweep.driver.stop import StopRequest
from raysweep.halving.rungs import Halving, Member, Rules, Verdict
from raysweep.halving.twins import Twins

RULES = Rules(eta=2, rungs=(Fraction(1, 2),))


@dataclass
class Tune:
    """Plays Tune: what it was handed out runs at once, unless told otherwise."""

    queue: TrialQueue
    trials: dict[str, Any] = field(default_factory=dict)

    def ask(self, status: str = "RUNNING") -> str | None:
        """Ask for one more trial; return its id."""
        assignment = self.queue.hand_out(f"tune {len(self.trials)}")
        if assignment is None:
            return None
        id = assignment.record.id
        self.trials[id] = SimpleNamespace(trial_id=f"tune {len(self.trials)}", status=status, error_file=None)
        self.queue.know(self.trials[id])
        return id

    def report(self, id: str, *scores: float, status: str = "paused", epoch: int = 1) -> Verdict:
        verdict = self.queue.judge(
            self.trials[id], {"rungs": [(score, 0.0) for score in scores], "status": status, "epoch": epoch}
        )
        self.trials[id].status = {"SAFE": "RUNNING", "UNDECIDED": "PAUSED", "OUT": "TERMINATED"}[verdict.name]
        if verdict is Verdict.OUT:
            self.queue.leave(self.trials[id].trial_id, failed=False)
        return verdict

    def promote(self) -> str | None:
        trial = self.queue.promote()
        if trial is None:
            return None
        trial.status = "RUNNING"
        return next(id for id, each in self.trials.items() if each is trial)

    def take_out(self) -> set[str]:
        out = {trial.trial_id for trial in self.queue.take_out()}
        return {id for id, trial in self.trials.items() if trial.trial_id in out}


@pytest.fixture
def told() -> list[tuple[str, str]]:
    """Who had to wait and who was stopped, in order."""
    return []


def stage_of(ids: list[str], twins: Twins | None = None) -> Stage:
    assignments: Any = [SimpleNamespace(record=SimpleNamespace(id=id, has_begun=False)) for id in ids]
    return Halving(RULES, [Member(id, id, None, 4) for id in ids]), assignments, twins or Twins({}, {}, {})


def tune_of(
    told: list[tuple[str, str]],
    trials: int,
    slots: int = 1,
    max_concurrent: int | None = None,
    later: list[Stage] | None = None,
    twins: Twins | None = None,
) -> Tune:
    stages = iter(later or [])
    return Tune(
        TrialQueue(
            stage_of([f"t{number}" for number in range(trials)], twins),
            lambda is_busy: next(stages, None),
            count_slots=lambda: slots,
            max_concurrent=max_concurrent,
            retries=1,
            endings=SimpleNamespace(  # type: ignore[arg-type]
                pause=lambda id, rungs, reason="": told.append((id, "waits")),
                stop=lambda id, rungs: told.append((id, "stops")),
            ),
            stop=StopRequest(),
        )
    )


def test_once_all_trials_have_ended_the_next_stage_begins_and_none_after_a_stop(told):
    tune = tune_of(told, 1, later=[stage_of(["fresh"]), stage_of(["never"])])
    assert tune.ask() == "t0"
    assert tune.queue.is_busy
    tune.report("t0", 0.5, status="finished")
    assert tune.ask() is None
    assert not tune.queue.is_busy
    assert tune.queue.go_on()
    assert tune.ask() == "fresh"
    tune.report("fresh", 0.5, status="finished")
    tune.queue._stop.request()
    assert not tune.queue.go_on()


def test_no_more_trials_are_handed_out_than_there_are_slots(told):
    tune = tune_of(told, 4, slots=2)
    assert [tune.ask(), tune.ask(), tune.ask()] == ["t0", "t1", None]
    tune.report("t0", 0.5)
    assert tune.ask() == "t2"


def test_max_concurrent_is_less_than_the_slots(told):
    tune = tune_of(told, 4, slots=3, max_concurrent=1)
    assert [tune.ask(), tune.ask()] == ["t0", None]


def test_a_paused_trial_does_not_count_and_comes_back_before_new_ones_once_it_is_safe(told):
    tune = tune_of(told, 4, slots=1)
    for id, score in (("t0", 0.9), ("t1", 0.1), ("t2", 0.2)):
        assert tune.ask() == id
        assert tune.report(id, score) is Verdict.UNDECIDED
    assert told == [("t0", "waits"), ("t1", "waits"), ("t2", "waits")]
    assert tune.ask() is None, "t0 is due, since at most one can beat it"
    assert tune.promote() == "t0"
    assert tune.promote() is None, "there is one slot"
    assert tune.report("t0", 0.9, status="finished") is Verdict.OUT
    assert tune.ask() == "t3"


def test_a_trial_whose_place_is_sure_waits_at_its_rung_while_its_twin_trains_the_epochs_after_it(told):
    shared = {2: "two", 3: "three"}
    tune = tune_of(told, 3, slots=3, twins=Twins({"t0": shared, "t1": shared}, {"t0": (2,), "t1": (2,)}, {}))
    assert [tune.ask(), tune.ask(), tune.ask()] == ["t0", "t2", None], "t1 waits for t0, and t2 takes the slot"
    tune.report("t2", 0.1, epoch=2)
    assert tune.report("t0", 0.8, epoch=2) is Verdict.SAFE
    assert tune.ask() == "t1", "it begins from what t0 has kept"
    assert tune.report("t1", 0.9, epoch=2) is Verdict.UNDECIDED
    assert tune.promote() is None
    tune.report("t0", status="running", epoch=3)
    assert tune.promote() == "t1"


def test_who_has_no_chance_is_taken_out_once_and_told(told):
    tune = tune_of(told, 2, slots=2)
    assert [tune.ask(), tune.ask()] == ["t0", "t1"]
    tune.report("t1", 0.1)
    assert tune.report("t0", 0.9) is Verdict.SAFE
    assert tune.take_out() == set()
    tune.report("t0", 0.9, status="finished")
    assert tune.take_out() == {"t1"}
    assert tune.take_out() == set()
    assert told == [("t1", "waits"), ("t1", "stops")]


def test_a_trial_whose_process_died_for_the_last_time_leaves_its_place(told):
    tune = tune_of(told, 2, slots=2)
    assert [tune.ask(), tune.ask()] == ["t0", "t1"]
    tune.report("t1", 0.1)
    tune.report("t0", 0.9)
    tune.queue.give_up(tune.trials["t0"])
    assert tune.take_out() == {"t0"}
    assert tune.take_out() == set()
    tune.queue.leave(tune.trials["t0"].trial_id, failed=False)
    assert tune.queue.has_ended("t0")
    assert tune.promote() == "t1"


def test_a_trial_that_could_not_be_started_is_handed_out_anew_but_not_for_ever(told):
    tune = tune_of(told, 2, slots=2)
    assert [tune.ask(), tune.ask()] == ["t0", "t1"]
    tune.queue.leave(tune.trials["t1"].trial_id, failed=True)
    assert not tune.queue.has_ended("t1")
    assert tune.queue.is_busy
    assert tune.ask() == "t1"
    tune.queue.leave(tune.trials["t1"].trial_id, failed=True)
    assert tune.queue.has_ended("t1")
    assert tune.ask() is None
    tune.report("t0", 0.9)
    assert tune.report("t0", 0.9, status="finished") is Verdict.OUT
    assert not tune.queue.is_busy


def test_a_trial_that_could_not_be_started_since_its_node_went_away_is_handed_out_anew_as_often_as_it_takes(
    told, tmp_path
):
    words = tmp_path / "error.txt"
    words.write_text("Failure # 1 (occurred at 2026-01-01)\nThe actor died because its node has died.")
    tune = tune_of(told, 1)
    for _ in range(10):
        assert tune.ask() == "t0"
        tune.trials["t0"].error_file = str(words)
        tune.queue.leave(tune.trials["t0"].trial_id, failed=True)
    assert not tune.queue.has_ended("t0")


def test_a_paused_trial_that_could_not_be_started_again_is_handed_out_anew(told):
    tune = tune_of(told, 4, slots=1)
    for id, score in (("t0", 0.9), ("t1", 0.1), ("t2", 0.2)):
        assert tune.ask() == id
        tune.report(id, score)
    assert tune.promote() == "t0"
    tune.queue.leave(tune.trials["t0"].trial_id, failed=True)
    assert tune.promote() is None, "Tune does not know it any more"
    assert tune.ask() == "t0"
    assert tune.report("t0", 0.9, status="finished") is Verdict.OUT


def test_with_all_slots_taken_for_long_one_trial_is_held_in_reserve_and_takes_no_turn(told, monkeypatch):
    tune = tune_of(told, 5, slots=1)
    assert [tune.ask(), tune.ask()] == ["t0", None]
    monkeypatch.setattr(queue_module, "ASK_FOR_MORE_AFTER_S", 0.0)
    assert [tune.ask(status="PENDING"), tune.ask()] == ["t1", None]
    tune.report("t0", 0.5)
    assert tune.ask() is None, "the slot is for the one in reserve"
    tune.trials["t1"].status = "RUNNING"
    tune.report("t1", 0.4)
    assert tune.ask() == "t2"


def test_a_paused_trial_goes_before_the_one_in_reserve(told, monkeypatch):
    tune = tune_of(told, 4, slots=1)
    for id, score in (("t0", 0.9), ("t1", 0.1)):
        assert tune.ask() == id
        tune.report(id, score)
    assert tune.ask() == "t2"
    monkeypatch.setattr(queue_module, "ASK_FOR_MORE_AFTER_S", 0.0)
    assert tune.ask(status="PENDING") == "t3"
    tune.report("t2", 0.2)
    assert tune.promote() == "t0"
