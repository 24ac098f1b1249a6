"""What a trial's process commits and when: the function that Tune runs, without Ray."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest
import torch
from running import curves
from torch.optim.optimizer import register_optimizer_step_post_hook

from raysweep.driver.board import Board
from raysweep.driver.endings import Endings
from raysweep.driver.failures import Failure
from raysweep.loops import CLASSIFY, loop_named
from raysweep.results.evidence import read_correct
from raysweep.store import Record, RunFolder
from raysweep.store.record import LAST_WORDS
from raysweep.sweepfile.plan import StartedFrom
from raysweep.sweepfile.schema import Objective
from raysweep.worker import trial
from raysweep.worker.tasks import Assignment

TRIAL = "net-1a2b3c4d"
CONFIG: dict[str, Any] = {
    "data": {"name": "synthetic", "image_size": 8, "classes": 3, "per_class": 40},
    "model": {"name": "baseline_block", "width": 4},
    "epochs": 2,
    "batch_size": 8,
    "precision": "fp32",
}


class Killed(BaseException):
    """Stands for SIGKILL."""


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No Ray, no Tune, and one thread."""
    monkeypatch.setattr(trial, "run_ranks", lambda run, *_: run())
    monkeypatch.setattr(trial, "_nodes_of_this_slot", lambda workers: ["here"])
    monkeypatch.setattr(trial.notices, "watch", lambda nodes: SimpleNamespace(since=None))
    monkeypatch.setattr(trial._Run, "_wait_for_data", lambda run, reference: reference)
    monkeypatch.setattr(trial.tune, "report", lambda metrics: None)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Trial:
    """A trial in a run folder, on a clock that moves by a second a step."""

    def __init__(self, folder: Path, commit_every_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = RunFolder(str(folder), "run")
        loop = loop_named(CLASSIFY)
        self.config = loop.config.model_validate(CONFIG)
        self.data = loop.prepare(self.config, folder)
        self.data_key = loop.data_key(self.config)
        conditions = loop.conditions(self.config, self.data)
        planned = Record(TRIAL, "net", 0, {}, CONFIG, CONFIG["epochs"])
        self.assignment = Assignment(planned, str(folder), "run", Objective(), 0, commit_every_s, 1, conditions)
        self.steps, self.committed_before = 0, list[int]()
        self._patch = monkeypatch

    def run(self, is_to_stop: Callable[[int], bool] = lambda step: False) -> Record:
        """Train until the end, or until `is_to_stop` after so many steps, counted over all calls.

        Returns what is committed; `committed_before` gets the steps before which the trial committed.
        """
        run = self.begin(is_to_stop)
        counting = register_optimizer_step_post_hook(self._count)
        try:
            run.to_the_end()
        finally:
            counting.remove()
        committed = self.folder.record(TRIAL)
        assert committed is not None
        return committed

    def begin(self, is_to_stop: Callable[[int], bool] = lambda step: False) -> trial._Run:
        """Make what a process that begins the trial makes."""
        self._patch.setattr(trial, "time", SimpleNamespace(monotonic=lambda: float(self.steps)))
        run = trial._Run(self.assignment, {self.data_key: self.data}, lambda: is_to_stop(self.steps))
        run.committed_at = self.steps
        return run

    def _count(self, *_: Any) -> None:
        record = self.folder.record(TRIAL)
        if record is not None and (not self.committed_before or record != self._last):
            self.committed_before.append(self.steps)
            self._last = record
        self.steps += 1


@pytest.fixture
def make_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Trial]:
    return lambda name, commit_every_s=1e9: Trial(tmp_path / name, commit_every_s, monkeypatch)


def numbers(record: Record) -> tuple[Any, dict[str, str]]:
    """What may not depend on interruptions: the curve, and the checksums of the weights."""
    (curve,) = curves({TRIAL: {"metrics": record.metrics}}).values()
    return curve, {kind: entry.sha256 for kind, entry in record.weights.items()}


def test_in_an_epoch_longer_than_the_interval_a_trial_commits_each_time_that_it_is_over(
    make_trial: Callable[..., Trial],
) -> None:
    often = make_trial("often", commit_every_s=5)
    record = often.run()
    assert often.steps // 2 > 10, "an epoch is longer than two intervals"
    gaps = [after - before for before, after in pairwise([0, *often.committed_before])]
    assert max(gaps) == 5
    assert numbers(record) == numbers(make_trial("whole").run())


def test_a_trial_killed_in_the_middle_of_an_epoch_goes_on_from_there_to_the_same_bits(
    make_trial: Callable[..., Trial],
) -> None:
    whole = make_trial("whole")
    expected = numbers(whole.run())
    killed = make_trial("killed", commit_every_s=3)

    def kill(step: int) -> bool:
        if step in (8, 20):
            raise Killed
        return False

    with pytest.raises(Killed):
        killed.run(kill)
    first = killed.folder.record(TRIAL)
    assert first is not None
    assert (first.status, first.epoch, set(first.weights)) == ("running", 0, {"last"})
    assert first.has_begun, "or a rerun would not compare its conditions"
    with pytest.raises(Killed):
        killed.run(kill)
    assert numbers(killed.run()) == expected
    assert killed.steps <= whole.steps + 2 * 3, "what was committed was trained again"


def test_a_trial_that_begins_with_another_ones_epoch_may_have_another_optimizer_and_resumes_with_its_own(
    make_trial: Callable[..., Trial],
) -> None:
    def made(name: str) -> Trial:
        of_another = StartedFrom("/runs/other", "net-5e6f", 1, CLASSIFY, {**CONFIG, "optimizer": {"name": "adamw"}}, 7)
        trial = make_trial(name, commit_every_s=1)
        trial.assignment = replace(trial.assignment, record=trial.assignment.record.with_(start=of_another))
        return trial

    whole = made("whole")
    expected, again = whole.run(), made("again")
    assert expected.status == "finished"
    for until in (whole.steps // 2, whole.steps // 2 + 3):  # at the end of the other one's epoch, and inside the next
        again.run(lambda step, until=until: step >= until)  # type: ignore[misc]
    assert numbers(again.run()) == numbers(expected)


def test_a_commit_of_another_optimizer_fails_the_trial_aloud(make_trial: Callable[..., Trial]) -> None:
    trial = make_trial("run", commit_every_s=1)
    trial.run(lambda step: step >= 3)
    record = trial.assignment.record
    other = record.with_(config={**CONFIG, "optimizer": {"name": "sgd", "momentum": 0.5}})
    trial.assignment = replace(trial.assignment, record=other)
    failed = trial.run()
    assert failed.status == "failed"
    assert "the last commit is of another optimizer" in failed.error["message"]  # type: ignore[index]


def test_damaged_weights_of_the_first_epoch_fall_back_to_the_commit_before(make_trial: Callable[..., Trial]) -> None:
    expected = numbers(make_trial("whole").run())
    killed = make_trial("killed", commit_every_s=3)

    def kill(step: int) -> bool:
        if step == 9:
            raise Killed
        return False

    with pytest.raises(Killed):
        killed.run(kill)
    record = killed.folder.record(TRIAL)
    assert record is not None
    assert set(record.previous) == {"last"}
    path = f"trials/{TRIAL}/{record.weights['last'].file}"
    killed.folder.files.write(path, killed.folder.files.read(path)[:-9])
    point = RunFolder(killed.folder.parent.path, "run").resume_point(TRIAL)
    assert point is not None
    assert point[1] is not None, "it began anew"
    assert numbers(killed.run()) == expected


def test_which_images_the_best_epoch_got_right_is_committed_with_its_weights(make_trial: Callable[..., Trial]) -> None:
    trial = make_trial("whole")
    record = trial.run()
    assert set(record.weights) == {"best", "correct"}
    assert record.best is not None
    correct = read_correct(trial.folder, record)
    assert correct is not None
    assert correct.mean() == record.best.val_acc


def test_a_trial_goes_on_though_its_evidence_is_damaged_and_loses_no_training(make_trial: Callable[..., Trial]) -> None:
    expected = numbers(make_trial("whole").run())
    stopped = make_trial("stopped")
    steps = len(stopped.data["train_labels"]) // CONFIG["batch_size"]
    record = stopped.run(lambda step: step > steps)
    assert set(record.weights) == {"last", "best", "correct"}
    stopped.folder.files.write(f"trials/{TRIAL}/{record.weights['correct'].file}", b"torn")
    assert read_correct(stopped.folder, record) is None
    before = stopped.steps
    assert numbers(stopped.run()) == expected
    assert stopped.steps == 2 * before - 2, "what was committed was trained again"


def test_a_trial_told_to_stop_commits_where_it_is(make_trial: Callable[..., Trial]) -> None:
    whole = make_trial("whole")
    expected = numbers(whole.run())
    stopped = make_trial("stopped")
    record = stopped.run(lambda step: step >= 6)
    assert (record.status, record.epoch) == ("running", 0)
    assert stopped.steps == 6
    assert numbers(stopped.run()) == expected
    assert stopped.steps == whole.steps


def test_under_notice_that_its_node_goes_away_a_trial_commits_at_once_and_then_often_and_trains_on(
    make_trial: Callable[..., Trial], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "COMMIT_UNDER_NOTICE_EVERY_S", 4)
    told = SimpleNamespace(since=None)
    monkeypatch.setattr(trial.notices, "watch", lambda nodes: told)
    noticed = make_trial("noticed")

    def look(step: int) -> bool:
        told.since = 7 if step >= 7 else None
        return False

    record = noticed.run(look)
    assert noticed.committed_before[:3] == [7, 11, 15]
    assert numbers(record) == numbers(make_trial("whole").run())


def test_a_process_that_was_ended_leaves_in_the_record_what_was_raised_and_not_that_it_died(
    make_trial: Callable[..., Trial],
) -> None:
    ended = make_trial("ended")
    run = ended.begin()
    run._remember(ArithmeticError("rank 1 broke down"), attempt=1, last_words=True)
    died = {"type": "ProcessDied", "message": "its process died", "traceback": ""}
    failing = Endings(ended.folder, Board([ended.assignment.record], maximize=True))
    failing.fail(ended.assignment.record, Failure("ProcessDied", "its process died", ""))
    failing.finish()
    failed = ended.folder.record(TRIAL)
    assert failed is not None
    assert failed.error is not None
    assert failed.error["message"] == "rank 1 broke down"
    run._remember(ArithmeticError("rank 1 broke down"), attempt=1, last_words=True)
    ended.assignment = replace(ended.assignment, past_error=died)
    record = ended.run()
    assert record.error is not None
    assert (record.status, record.error["type"]) == ("finished", "ArithmeticError")
    assert LAST_WORDS not in record.error, "or a later death would be taken for it"
    assert record.ended_by(died) == died


@pytest.mark.parametrize(
    ("edited", "stops", "taken"),
    [
        ("min", {1: "one", 2: "two"}, [2]),
        ("max", {1: "one", 2: "two"}, [2]),  # the best weights of the first state, then the history of the second
        ("max", {2: "two"}, []),
    ],
)
def test_a_longer_trial_has_the_best_weights_that_it_would_have_unshared_whatever_objective_chose_those_of_a_state(
    make_trial: Callable[..., Trial], edited: Literal["min", "max"], stops: dict[int, str], taken: list[int]
) -> None:
    """By its least training loss the last epoch is the best one, by its largest the first."""

    def train(run: Trial, epochs: int, objective: Objective, stops: dict[int, str]) -> Record:
        config = {**CONFIG, "ema": False, "lr_schedule": "constant", "epochs": epochs}
        record = Record(f"net-{epochs}", "net", 0, {}, config, epochs)
        run.assignment = replace(run.assignment, record=record, objective=objective, stops=stops)
        run.begin().to_the_end()
        committed = run.folder.record(record.id)
        assert committed
        return committed

    shared, objective = make_trial("shared"), Objective(metric="train_loss", mode=edited)
    assert train(shared, 2, Objective(metric="train_loss", mode="min"), stops).weights["best"].epoch == 2
    alone = train(make_trial("alone"), 3, objective, {})
    longer = train(shared, 3, objective, stops)
    assert (numbers(longer), longer.best) == (numbers(alone), alone.best)
    assert [origin.last for origin in longer.origins] == taken
    assert len(train(shared, 4, objective, stops).own_metrics) == 2, "a state of the new objective is there by now"
