"""Trials that share epochs: whose they are, what they cost, and how much luck they have in common."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from run_folders import curve, make_run

import raysweep
from raysweep.cli import main
from raysweep.report.content import gather
from raysweep.results.comparison import compare
from raysweep.results.luck import Lineage, Sample, shared_luck
from raysweep.results.run import SweepResult
from raysweep.results.shared import groups_of, lineages_of
from raysweep.results.winner import judge
from raysweep.store import Record
from raysweep.store.record import Origin
from raysweep.sweepfile import sweep_of
from raysweep.sweepfile.plan import StartedFrom, plan_trials
from raysweep.sweepfile.prefixes import Prefixes

STEPS = """
name: {name}
base: {{data: synthetic, epochs: {epochs}, model: baseline_block}}
grid: {{lr: [0.5, 0.1]}}
zip:
  lr_schedule: [{{name: step, milestones: [16]}}, {{name: step, milestones: [20]}}, {{name: step, milestones: [24]}}]
seeds: [0, 1]
scheduler: {scheduler}
"""
"""Trials of one lr and seed share 16 epochs, and two of them 20."""


def twins(record: Record, place: int) -> Record:
    """Let a trial take over its shared epochs from the first one of its lr and seed."""
    milestone, lr = record.config["lr_schedule"]["milestones"][0], record.config["lr"]
    common, own = curve(record.epochs, lr, record.seed), curve(record.epochs, lr, 100 + place)
    metrics = [*common[:milestone], *own[milestone:]]
    taken = {16: 0, 20: 16, 24: 20}[milestone]
    origins = [Origin(f"trial-before-{place}", 1, taken)] if taken else []
    return record.with_(metrics=metrics, origins=origins)


def results(folder: Path, **how: Any) -> SweepResult:
    make_run(folder, text=STEPS, **{"end": twins, **how})
    return raysweep.open(folder / "runs/made")


def by_milestone(result: SweepResult, lr: float = 0.5, seed: int = 0) -> dict[int, Record]:
    return {
        record.config["lr_schedule"]["milestones"][0]: record
        for record in result.trials
        if record.config["lr"] == lr and record.seed == seed
    }


# -------------------------------------------------------------------------- what they cost


def test_epochs_and_hours_of_a_run_count_what_trials_share_once(tmp_path: Path) -> None:
    report = gather(results(tmp_path))
    assert (report.hours.epochs, report.hours.shared) == (12 * 30 - 4 * 36, 4 * 36)
    assert report.hours.trained == pytest.approx(216 * 2.5 / 3600)
    assert report.hours.in_words == "360 epochs, 216 of them trained: 144 were shared"
    assert "144 more epochs were shared: other trials had trained them." in report.summary
    assert "216 epochs in 9.0 minutes of trials (144 more shared)" in report.status


def test_stopping_twins_early_saves_the_epochs_that_they_share_once(tmp_path: Path) -> None:
    def stopped(record: Record, place: int) -> Record:
        record = twins(record, place)
        return record if record.config["lr"] == 0.1 else record.cut(10).with_(status="stopped")

    saved = gather(results(tmp_path, end=stopped)).hours
    assert saved.epochs_saved == 2 * (
        20 + 14 + 10
    )  # of each seed: from 11 on, and from 17 and 21 on for those that part later
    assert saved.saved == pytest.approx(saved.epochs_saved * 2.5 / 3600)


def test_what_is_left_of_a_plan_counts_each_shared_epoch_once_and_none_that_a_twin_has() -> None:
    text = STEPS.format(name="s", epochs=30, scheduler="none").replace("[0, 1]", "[0]").replace("[0.5, 0.1]", "[0.1]")
    trials = plan_trials(sweep_of(yaml.safe_load(text))[0])
    prefixes, (a, b, c) = Prefixes(trials), [trial.id for trial in trials]
    assert prefixes.left({}, [a, b, c]) == prefixes.unique_epochs == 30 + 14 + 10
    assert prefixes.left({a: 30}, [b, c]) == 4 + 10 + 10
    assert prefixes.left({a: 8, b: 3}, [a, b, c]) == 54 - 8
    assert prefixes.left({a: 30, b: 10}, [c]) == 14


def test_a_trial_says_whose_its_epochs_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = results(tmp_path)
    record = by_milestone(result)[20]
    said = f"epochs 1 to 16 are those of {record.origins[0].trial}"
    assert main(["status", str(tmp_path / "made.yaml"), "--why", record.id]) == 0
    assert said in capsys.readouterr().out
    assert main(["status", str(tmp_path / "made.yaml"), "--json"]) == 0
    told = {trial["id"]: trial for trial in json.loads(capsys.readouterr().out)["trials"]}[record.id]
    assert (told["epoch"], told["own_epochs"], told["origins"][0]["last"]) == (30, 14, 16)
    row = next(row for row in gather(result).rows if row.record.id == record.id)
    assert row.remarks == [said]
    table = result.to_pandas().set_index("id").loc[record.id]
    assert (table.own_epochs, table.origins) == (14, said)


# -------------------------------------------------------------------------- luck in common


def test_trials_share_the_epochs_in_which_their_metrics_are_equal_up_to_their_best(tmp_path: Path) -> None:
    trials = by_milestone(results(tmp_path))
    best = {16: 30, 20: 25, 24: 18}
    records = [replace(trial, best=replace(trial.best, epoch=best[at])) for at, trial in trials.items() if trial.best]
    lineages = lineages_of(records)
    one, two, three = (lineages[trials[at].id] for at in (16, 20, 24))
    assert one.has_in_common(two) == pytest.approx(16 / np.sqrt(30 * 25))
    assert two.has_in_common(three) == pytest.approx(18 / np.sqrt(25 * 18))
    other_seed = by_milestone(results(tmp_path), seed=1)
    assert one.has_in_common(lineages_of([*records, *other_seed.values()])[other_seed[16].id]) == 0


def test_trials_of_which_each_shares_most_of_its_epochs_with_another_are_in_one_group(tmp_path: Path) -> None:
    result = results(tmp_path)
    groups = groups_of(result.trials)
    for lr in (0.5, 0.1):
        for seed in (0, 1):
            assert len({groups[record.id] for record in by_milestone(result, lr, seed).values()}) == 1
    assert len(set(groups.values())) == 4
    short = [record.cut(10) if record.config["lr"] == 0.5 else record for record in result.trials]
    long = [record.cut(0).with_(metrics=curve(30, 0.1, place)) for place, record in enumerate(result.trials)]
    assert len(set(groups_of(short).values())) == 4
    assert len(set(groups_of(long).values())) == 12


@pytest.mark.parametrize(
    ("conditions", "taken", "groups"),
    [
        ([{"loop": "regression"}] * 2, 0, 2),  # a loop that does not say what decides its epochs
        ([{"loop": "not imported here"}] * 2, 0, 2),
        ([{"loop": "not imported here"}] * 2, 6, 1),  # the second one says whose its epochs are
        ([{"data": "0123"}, {"data": "0123"}], 0, 1),
        ([{"data": "0123"}, {"data": "4567"}], 0, 2),
    ],
)
def test_trials_whose_metrics_are_equal_share_luck_only_if_the_same_decided_their_epochs(
    conditions: list[dict[str, str]], taken: int, groups: int
) -> None:
    rows = [{"epoch": epoch, "val_acc": 0.9} for epoch in range(1, 11)]
    one, other = (
        Record(id, id, 0, {}, {"data": "digits", "model": "baseline_block"}, 10, metrics=rows, conditions=of)
        for id, of in zip(("a", "b"), conditions, strict=True)
    )
    other = other.with_(origins=[Origin("a", 1, taken)] if taken else [])
    assert len(set(groups_of([one, other]).values())) == groups


def test_epochs_that_all_trials_began_with_are_no_luck_of_theirs(tmp_path: Path) -> None:
    started = results(tmp_path).trials[0]
    before = StartedFrom("runs/x", "x", 12, "classify", started.config, 0, None, {})
    records = [record.with_(start=before) for record in by_milestone(results(tmp_path)).values()]
    one, two = list(lineages_of(records).values())[:2]
    assert len(one.shared) <= 4 + 8
    assert one.epochs == max(1, (records[0].best.epoch if records[0].best else 30) - 12)
    assert two.shared[:2] == one.shared[:2]


def test_the_interval_of_a_winner_among_twins_covers_the_truth_though_their_luck_is_the_same() -> None:
    """Ten configs that share nine tenths of their luck are hardly more evidence about it than one."""

    def covered(lineage: Callable[[int], Lineage | None], number: int) -> bool:
        rng = np.random.default_rng(number)
        luck = np.sqrt(0.9) * rng.standard_normal((1, 2)) + np.sqrt(0.1) * rng.standard_normal((10, 2))
        scores = 0.7 + 0.01 * luck
        order = np.argsort(-scores.mean(1))
        known = [each for seed in range(2) if (each := lineage(seed))]
        verdict = judge([Sample(scores[place].tolist(), lineages=known) for place in order])
        assert verdict is not None
        return verdict.low <= 0.7 <= verdict.high

    sweeps = range(80)
    blind = np.mean([covered(lambda seed: None, number) for number in sweeps])
    told = np.mean([covered(lambda seed: Lineage(tuple(range(100 * seed, 100 * seed + 90)), 100), n) for n in sweeps])
    assert blind < 0.7
    assert told > 0.82


def test_configs_whose_seeds_share_nothing_are_judged_as_ever() -> None:
    rng = np.random.default_rng(5)
    scores = 0.7 + 0.01 * rng.standard_normal((6, 3))
    plain = [Sample(each.tolist()) for each in scores]
    alone = [Sample(each.tolist(), lineages=[Lineage((), 30)] * 3) for each in scores]
    assert judge(plain) == judge(alone)
    assert (shared_luck(alone) == np.eye(6)).all()


def test_a_dip_in_epochs_that_twins_share_is_one_dip_to_the_permutation_test(tmp_path: Path) -> None:
    def alone(record: Record, place: int) -> Record:
        return record.with_(metrics=curve(record.epochs, record.config["lr"], place))

    def chance(name: str, end: Callable[[Record, int], Record]) -> float:
        (tmp_path / name).mkdir()
        axes = gather(results(tmp_path / name, end=end)).sweep.axes
        return next(axis.chance["dip"] for axis in axes if axis.key == "lr")

    assert chance("alone", alone) < 0.01  # six of six against none of six
    assert chance("twins", twins) > 0.2  # but these are two dips, one a seed


def some_alone(record: Record, place: int) -> Record:
    """Twins at the higher lr; at the lower one each trial has other numbers."""
    return twins(record, place) if record.config["lr"] == 0.5 else record


@pytest.mark.parametrize(
    ("end", "error"),
    [(twins, (0.02 - 0.01) / 2), (some_alone, math.sqrt(4 / 3 * (0.015**2 + 0.035**2 + 0.015**2 + 0.035**2)) / 6)],
)
def test_a_mean_difference_is_that_of_all_configs_and_its_error_counts_twins_as_one(
    tmp_path: Path, end: Callable[[Record, int], Record], error: float
) -> None:
    better = {0.5: {16: 0.01, 20: 0.02, 24: 0.03}, 0.1: {16: -0.02, 20: 0.0, 24: 0.05}}  # 0.015 in the mean

    def shifted(record: Record, place: int) -> Record:
        by = better[record.config["lr"]][record.config["lr_schedule"]["milestones"][0]]
        rows = end(record, place).metrics
        return record.with_(metrics=[{**row, "val_acc": row["val_acc"] + by, "val_acc_ema": 0.0} for row in rows])

    def without_ema(record: Record, place: int) -> Record:
        return end(record, place).with_(metrics=[{**row, "val_acc_ema": 0.0} for row in end(record, place).metrics])

    first = results(tmp_path, end=without_ema)
    make_run(tmp_path, text=STEPS, name="other", end=shifted)
    (pair,) = compare([first, raysweep.open(tmp_path / "runs/other")]).pairs
    assert (pair["configs"], pair["ahead"]) == (6, 4)
    assert pair["mean_difference"] == pytest.approx(0.015)
    assert pair["standard_error"] == pytest.approx(error)


def test_margins_count_twins_as_one(tmp_path: Path) -> None:
    result = results(tmp_path)
    lr = next(effect for effect in gather(result).effects if effect.key == "lr")
    assert all(value.count == 1 for value in lr.values)
