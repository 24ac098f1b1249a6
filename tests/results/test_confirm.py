"""The race of `confirm`, from records alone: who gets which fresh seeds, and what is said in the end."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from run_folders import CONDITIONS, curve, make_run, scoring

import raysweep
from raysweep.results import confirm
from raysweep.results.confirm import fresh_of_last_run, plan_race
from raysweep.results.evaluation import Accuracies, Evaluation, write_evaluation
from raysweep.results.evidence import pack
from raysweep.results.rerun import keep_confirming, rerun_of
from raysweep.results.run import SweepResult
from raysweep.results.verdict import judgement_of
from raysweep.store import Record, RunFolder
from raysweep.store.record import planned_record
from raysweep.store.resolved import write_resolved
from raysweep.sweepfile import load_sweep
from raysweep.sweepfile.plan import Trial, fresh_seeds, plan_trials

LRS = (0.4, 0.3, 0.2, 0.1)
SWEEP = """
name: {name}
base: {{data: synthetic, epochs: {epochs}, model: baseline_block}}
grid: {{lr: [0.4, 0.3, 0.2, 0.1]}}
seeds: [0, 1]
scheduler: {scheduler}
confirm: {{top: 3, seeds: 4}}
"""
CLOSE = {0.4: 0.80, 0.3: 0.77, 0.2: 0.6, 0.1: 0.4}
"""What each learning rate is good for: two that are close, and two that are not."""
IMAGES = 1000


class Race:
    """A run folder whose trials end when they are told to, as good as `means` says but for what seeds add."""

    def __init__(self, folder: Path, means: Mapping[float, float], text: str = SWEEP) -> None:
        self.means = means
        folder.mkdir(exist_ok=True)
        self.path = make_run(folder, "made", 2, text=text, end=lambda record, _: scoring(record, self.score(record)))
        self.sweep = load_sweep(self.path)
        self.trials = plan_trials(self.sweep)
        self.folder = RunFolder(str(folder / "runs"), "made")
        for record in self.folder.records(self.folder.trial_ids()).values():
            assert record
            self.end(record)

    def score(self, record: Record | Trial) -> float:
        config = record.config if isinstance(record, Record) else record.config.model_dump()
        luck = random.Random(f"{config['lr']}/{record.seed}").gauss(0, 0.01)
        return round((self.means[config["lr"]] + luck) * IMAGES) / IMAGES

    def end(self, record: Record, status: str = "finished") -> None:
        """Commit a trial's end, with which images it got right: easy ones, mostly the same for all."""
        score = self.score(record)
        record = scoring(record.with_(metrics=curve(2, 0.1, 0), conditions=CONDITIONS), score)
        order = np.random.default_rng(0).permutation(IMAGES) + np.random.default_rng(record.seed).normal(0, 50, IMAGES)
        correct = np.argsort(np.argsort(order)) < round(score * IMAGES)
        self.folder.commit(record.with_(status=status), {"best": b"weights", "correct": pack(correct)})

    def plan(self, given_up: tuple[str, ...] = ()) -> list[Trial]:
        """What a driver that has just started plans."""
        search = rerun_of(self.sweep, self.trials, self.folder)
        return plan_race(self.sweep, self.trials, search, self.folder, given_up).trials

    def left(self) -> list[Trial]:
        return [trial for trial in self.plan() if self.folder.record(trial.id) is None]

    def run(self, shuffle: random.Random | None = None) -> list[Trial]:
        """Train until nobody asks for more, planning anew after each trial."""
        while left := self.left():
            if shuffle:
                shuffle.shuffle(left)
            self.end(planned_record(left[0]))
        return self.plan()

    def result(self) -> SweepResult:
        write_resolved(self.folder, self.sweep, b"", self.trials, [], self.plan())
        return raysweep.open(self.folder.path)


def seeds_of(trials: list[Trial]) -> dict[float, list[int]]:
    return {lr: [trial.seed for trial in trials if trial.config.model_dump()["lr"] == lr] for lr in LRS}


def test_the_best_configs_get_the_same_fresh_seeds_round_by_round_and_who_cannot_win_leaves(tmp_path: Path) -> None:
    race = Race(tmp_path, CLOSE)
    assert seeds_of(race.plan()) == {0.4: [1000], 0.3: [1000], 0.2: [1000], 0.1: []}, "the first round"
    seeds = seeds_of(race.run())
    assert all(each == fresh_seeds(race.sweep)[: len(each)] for each in seeds.values())
    assert 0 < len(seeds[0.2]) < len(seeds[0.3]) <= len(seeds[0.4]) <= 4
    assert not seeds[0.1]


@pytest.mark.parametrize("order", range(3))
def test_the_rounds_do_not_depend_on_the_order_in_which_trials_end_nor_on_restarts(tmp_path: Path, order: int) -> None:
    expected, race = Race(tmp_path / "a", CLOSE), Race(tmp_path / "b", CLOSE)
    ids = [trial.id for trial in expected.run()]
    assert [trial.id for trial in race.run(random.Random(order))] == ids
    one, other = (judgement_of(each.result(), "made.yaml") for each in (expected, race))
    assert one
    assert other
    assert other.as_json() == one.as_json()


def test_there_is_no_race_before_the_sweep_itself_has_ended(tmp_path: Path) -> None:
    race = Race(tmp_path, CLOSE)
    record = race.folder.record(race.trials[-1].id)
    assert record
    race.folder.commit(record.with_(status="paused"), {})
    assert race.plan() == []
    race.folder.commit(record.with_(status="failed"), {})
    assert race.plan() == [], "it is to be tried again"
    assert race.plan(given_up=(record.id,)) != []


def test_a_round_waits_for_its_last_trial_and_goes_on_without_one_that_failed_for_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confirm, "still_racing", lambda *_: [0, 1, 2])
    race = Race(tmp_path, CLOSE)
    first, *others = race.plan()
    for trial in others:
        race.end(planned_record(trial))
    assert race.plan() == [first, *others]
    race.end(planned_record(first), status="failed")
    assert race.plan() == [first, *others], "to be tried again"
    assert seeds_of(race.plan(given_up=(first.id,)))[0.3] == [1000, 1001]


def test_a_clear_winner_is_called_one_and_equals_are_not(tmp_path: Path) -> None:
    clear = Race(tmp_path / "clear", {0.4: 0.9, 0.3: 0.6, 0.2: 0.5, 0.1: 0.4})
    assert len(clear.run()) < 3 * 4, "seeds are saved"
    judgement = judgement_of(clear.result(), "made.yaml")
    assert judgement
    assert judgement.verdict
    assert judgement.verdict.is_clear
    who, than, chosen_on = judgement.sentences
    assert who.startswith("Winner: lr 0.4, 89.")
    assert than == "It is clearly better than the 3 other configs."
    assert repr(judgement) == "<Judgement of 4 configs: winner lr 0.4>"
    assert re.fullmatch(r"<Verdict: config 0, clear, 0\.89\d+ \(0\.\d+ to 0\.\d+\)>", repr(judgement.verdict))
    assert chosen_on == (
        "Epochs, settings and winner were chosen on the same 1,000 validation images; there are no test images."
    )
    equal = Race(tmp_path / "equal", dict.fromkeys(LRS, 0.7))
    equal.run()
    judgement = judgement_of(equal.result(), "made.yaml")
    assert judgement
    assert judgement.verdict
    assert not judgement.verdict.is_clear
    assert judgement.sentences[0].startswith("Probable winner: ")
    assert "and cannot be told from lr" in judgement.sentences[1]
    best = equal.result().configs[0]
    assert judgement.configs[judgement.verdict.winner].name == best.name, "the ranking's first"


def test_with_one_seed_each_it_is_said_that_it_cannot_be_known_and_how_to_find_out(tmp_path: Path) -> None:
    race = Race(tmp_path, CLOSE, SWEEP.replace("seeds: [0, 1]\n", "").replace("confirm: {{top: 3, seeds: 4}}", ""))
    judgement = judgement_of(race.result(), "made.yaml")
    assert judgement
    assert judgement.verdict is None
    assert repr(judgement).endswith(" configs: winner unknown, one seed each>")
    assert "cannot be known" in judgement.sentences[0]
    assert judgement.sentences[0].endswith("To find out: python -m raysweep confirm made.yaml")


def test_a_round_counts_once_all_its_trials_have_ended(tmp_path: Path) -> None:
    race = Race(tmp_path, CLOSE)
    race.end(planned_record(race.plan()[1]))
    first_alone = judgement_of(race.result(), "made.yaml")
    assert first_alone
    assert race.result().configs[0].name == "baseline_block-lr0.4", "by the search: the round is not over"
    assert first_alone.sentences[0].startswith("Probable winner: lr 0.4, 80.")
    assert "on 2 seeds. Expect" in first_alone.sentences[0], "it has no fresh one yet"
    assert first_alone.sentences[1].endswith("2 trials with fresh seeds have not ended yet.")


def test_a_fresh_seed_that_diverges_does_not_put_its_config_out(tmp_path: Path) -> None:
    race = Race(tmp_path, CLOSE)
    for place, trial in enumerate(race.plan()):
        race.end(planned_record(trial), status="finished" if place else "diverged")
    assert seeds_of(race.plan())[0.4] == [1000, 1001]


def test_the_fresh_seeds_of_the_last_run_are_known_though_a_trial_of_the_sweep_is_left(tmp_path: Path) -> None:
    race = Race(tmp_path, CLOSE)
    planned = race.run()
    write_resolved(race.folder, race.sweep, b"", race.trials, [], planned)
    assert [trial.id for trial in fresh_of_last_run(race.trials, race.folder)] == [trial.id for trial in planned]
    without_best = [trial for trial in race.trials if trial.config.model_dump()["lr"] != 0.4]
    assert seeds_of(fresh_of_last_run(without_best, race.folder))[0.4] == []


def test_it_is_said_how_often_the_test_images_were_looked_at(tmp_path: Path) -> None:
    race = Race(tmp_path, CLOSE)
    race.run()

    def chosen_on() -> str:
        judgement = judgement_of(race.result(), "made.yaml")
        assert judgement
        return judgement.sentences[2].partition("; ")[2]

    best = race.result().best
    assert best
    race.folder.commit(best.with_(conditions={**best.conditions, "test_images": 500}), {})
    assert chosen_on() == "the test images were not looked at."
    evaluation = Evaluation(best.id, 2, False, best.weights["best"].sha256, [Accuracies(0, 0.8, 0.7)])
    write_evaluation(race.folder, evaluation)
    assert chosen_on() == "on the test images, looked at once, it reaches 70.0 %."
    write_evaluation(race.folder, replace(evaluation, before=["those of another"]))
    assert chosen_on() == "on the test images, looked at for 2 networks, it reaches 70.0 %."
    write_evaluation(race.folder, replace(evaluation, id="another", weights="its weights"))
    assert chosen_on() == "the test images, looked at once, were not looked at for the winner."


def test_losses_are_judged_by_seeds_alone(tmp_path: Path) -> None:
    race = Race(tmp_path, CLOSE, SWEEP + "objective: val_loss\n")
    race.run()
    judgement = judgement_of(race.result(), "made.yaml")
    assert judgement
    assert judgement.verdict
    assert judgement.verdict.images is None
    document = judgement.as_json()
    assert 0 < document["low"] < document["score"] < document["high"], "losses again, not less than nothing"


def test_the_confirm_of_the_last_run_stays_unless_the_file_says_otherwise(tmp_path: Path) -> None:
    plain = SWEEP.replace("confirm: {{top: 3, seeds: 4}}", "")
    race = Race(tmp_path, CLOSE, plain)
    assert keep_confirming(race.sweep, race.folder).confirm is None
    asked = keep_confirming(race.sweep, race.folder, is_asked_for=True)
    assert asked.confirm
    assert (asked.confirm.top, asked.confirm.seeds) == (5, 5)
    write_resolved(race.folder, load_sweep(race.path, ["confirm.top=2"]), b"", race.trials, [])
    kept = keep_confirming(load_sweep(race.path), race.folder)
    assert kept.confirm
    assert kept.confirm.top == 2
    assert keep_confirming(load_sweep(race.path, ["confirm=null"]), race.folder).confirm is None


def test_fresh_seeds_are_none_of_the_sweeps_own(tmp_path: Path) -> None:
    race = Race(tmp_path, CLOSE)
    sweep = load_sweep(race.path, ["seeds=[1000, 1002]", "seed=7"])
    assert fresh_seeds(sweep) == [1001, 1003, 1004, 1005]
