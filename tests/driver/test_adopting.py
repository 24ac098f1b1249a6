"""What a sweep that begins from another run's trial takes over of that run's states."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from run_folders import CONDITIONS, make_run

import raysweep
from raysweep.driver.adopting import adopt
from raysweep.results.start import find_start
from raysweep.store import Record, RunFolder
from raysweep.store.record import Origin
from raysweep.store.states import StateStore
from raysweep.sweepfile import load_sweep
from raysweep.sweepfile.plan import Trial, plan_trials
from raysweep.sweepfile.prefixes import Prefixes
from raysweep.sweepfile.schema import Objective
from raysweep.worker.sharing import take_over

OTHER = "name: {name}\nbase: {{data: synthetic, epochs: {epochs}, lr_schedule: constant}}\nscheduler: {scheduler}\n"
NEXT = """
name: next
base: {data: synthetic, epochs: 20}
grid: {clip_grad_norm: [1, 2]}
start: {run: runs/made, trial: baseline, epoch: 6}
"""
FILES = {"last": b"to go on from", "best": b"the best weights", "correct": b"what these get right"}


@raysweep.register_loop("unsaid", metrics={"loss": "min"})
def unsaid(config: raysweep.Config, trial: raysweep.TrialContext) -> Iterator[raysweep.Epoch]:
    yield raysweep.Epoch({"loss": 1.0})


class Two:
    """Another run with one trial of 9 epochs, and a sweep of two that begin after its sixth."""

    def __init__(self, folder: Path) -> None:
        make_run(folder, epochs=9, text=OTHER)
        (folder / "next.yaml").write_text(NEXT)
        self.other, self.own = (RunFolder(str(folder / "runs"), name) for name in ("made", "next"))
        self.trials: list[Trial] = plan_trials(load_sweep(folder / "next.yaml", find_start=find_start))
        (self.id,) = self.other.trial_ids()

    @property
    def record(self) -> Record:
        record = self.other.record(self.id)
        assert record
        return record

    def key(self, epoch: int) -> str:
        """That of all trials here after an epoch."""
        return Prefixes(self.trials).key(self.trials[1].id, epoch, CONDITIONS)

    def leave(self, *epochs: int) -> None:
        """Have the other run keep its states after some epochs."""
        for epoch in epochs:
            kept = self.record.cut(epoch).with_(status="running", former_metrics=[])
            StateStore(self.other).keep(self.key(epoch), kept, FILES)

    def adopt(self) -> str:
        return adopt(StateStore(self.own), self.trials[0], CONDITIONS)

    def has(self) -> list[int]:
        """The epochs after which there are states here."""
        return sorted(record.epoch for record in StateStore(self.own).all().values())


@pytest.fixture
def two(tmp_path: Path) -> Two:
    return Two(tmp_path)


def test_the_deepest_state_is_taken_over_with_the_name_of_who_trained_it(two: Two) -> None:
    two.leave(2, 6, 8)
    assert two.adopt() == ""
    assert two.has() == [6]
    found = StateStore(two.own).find(two.key(6))
    assert found
    assert found[1] == FILES
    record = take_over(Record(two.trials[0].id, "a", 0, {}, {}, 20), found[0], Objective())
    assert record.origins == [Origin(two.id, 1, 6, two.other.path)]
    assert record.metrics == two.record.metrics[:6]
    assert record.own_metrics == []


def test_what_another_trial_of_that_run_trained_keeps_its_name_too(two: Two) -> None:
    two.other.commit(two.record.with_(origins=[Origin("first", 1, 2, "/far"), Origin("second", 3, 4)]), {})
    two.leave(6)
    two.adopt()
    (state,) = StateStore(two.own).all().values()
    owners = [
        Origin("first", 1, 2, "/far"),
        Origin("second", 3, 4, two.other.path),
        Origin(two.id, 5, 6, two.other.path),
    ]
    assert state.origins == owners


def test_a_damaged_state_gives_way_to_the_next_deepest_and_the_rest_is_said_to_be_trained_again(two: Two) -> None:
    two.leave(3, 6)
    (file,) = (Path(two.other.path) / "states" / two.key(6)).glob("last.*")
    file.write_bytes(b"torn")
    assert (
        two.adopt()
        == f"of the first 6 epochs, those of {two.id}, not all are there to go on from: epochs 4 to 6 are trained again"
    )
    assert two.has() == [3]


def test_states_that_are_here_are_not_fetched_again(two: Two) -> None:
    two.leave(6)
    two.adopt()
    shutil.rmtree(two.other.path)
    assert two.adopt() == ""


def test_a_run_that_is_gone_or_has_no_states_costs_training_alone(two: Two) -> None:
    again = (
        f"of the first 6 epochs, those of {two.id}, not all are there to go on from: epochs 1 to 6 are trained again"
    )
    assert two.adopt() == again
    shutil.rmtree(two.other.path)
    assert two.adopt() == again
    assert two.has() == []


@pytest.mark.parametrize(("status", "taken"), [("paused", [4]), ("running", [])])
def test_the_commit_of_a_trial_is_a_state_only_where_it_is_surely_the_end_of_an_epoch(
    status: str, taken: list[int], two: Two
) -> None:
    """One of a trial that ran may be from inside of the next epoch."""
    record = two.record.with_(metrics=two.record.metrics[:4])
    two.other.commit(record.with_(status=status), FILES)  # type: ignore[arg-type]
    two.adopt()
    assert two.has() == taken


def test_a_loop_that_does_not_say_what_decides_its_epochs_trains_them_again(tmp_path: Path) -> None:
    start = Two(tmp_path).trials[0].start
    trial = Trial("a", "a", raysweep.Config(epochs=9), 0, loop="unsaid", start=start)
    said = adopt(StateStore(RunFolder(str(tmp_path), "own")), trial, {})
    assert said.startswith(
        "loop 'unsaid' does not say what decides its epochs (horizon): each trial trains the first 6"
    )
