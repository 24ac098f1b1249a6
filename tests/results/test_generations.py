"""Generations of a search: the same ones in whatever order trials end, and what stays of them after an edit."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from played_searches import PlayedSearch, play_search

from raysweep.results.rerun import trials_of
from raysweep.results.search.generations import next_generation, proposed
from raysweep.store import RunFolder
from raysweep.store.generations import write_generation
from raysweep.sweepfile import Sweep, sweep_of
from raysweep.sweepfile.plan import Trial, first_of_search, mark_of_proposal, plan_trials, trials_of_generation

SEARCH: dict[str, Any] = {
    "name": "searched",
    "base": {"data": "digits", "model": "baseline_block", "epochs": 9},
    "search": {
        "trials": 30,
        "generation": 6,
        "space": {
            "lr": {"log_uniform": [0.001, 1]},
            "optimizer.name": {"choice": ["sgd", "adamw"]},
            "optimizer.momentum": {"uniform": [0, 0.9], "when": {"optimizer.name": "sgd"}},
        },
    },
    "scheduler": {"name": "asha", "min_survivors": 2, "rank_by": "last"},
}


def search(**changes: Any) -> dict[str, Any]:
    return {**SEARCH, "search": {**SEARCH["search"], **changes}}


def curve(trial: Trial, epoch: int) -> float:
    """Rises to a level that is best at lr 0.05 with adamw."""
    config: Any = trial.config
    level = 0.9 - 0.1 * math.log10(config.lr / 0.05) ** 2 - 0.1 * (config.optimizer.name == "sgd")
    return level * (1 - math.exp(-epoch / 3)) + random.Random(f"{trial.id} {epoch}").uniform(-0.02, 0.02)


def fates(played: PlayedSearch) -> Mapping[str, Any]:
    return {id: (status, played.histories[id]) for id, status in played.statuses.items()}


def a_slow_or_fast(luck: int) -> Any:
    return lambda trial: 10 ** random.Random(f"{luck} {trial.id}").uniform(0, 1)


def some_end(trial: Trial) -> str:
    return random.Random(f"end {trial.id}").choice(["", "", "", "", "diverged", "failed"])


@pytest.mark.parametrize("name", ["tpe", "cmaes", "random", "qmc"])
def test_generations_and_verdicts_are_the_same_in_any_order_of_arrival_and_on_any_number_of_slots(name):
    one = play_search(search(name=name), curve, slots=1, ends=some_end)
    assert [len(each.proposals) for each in one.generations] == ([6] * 5 if name in ("tpe", "cmaes") else [30])
    assert {"finished", "stopped", "diverged", "failed"} == set(one.statuses.values())
    for luck in range(20):
        other = play_search(search(name=name), curve, 1 + luck % 7, a_slow_or_fast(luck), some_end)
        assert other.generations == one.generations
        assert fates(other) == fates(one)


def test_a_generation_knows_what_has_ended_of_all_before_but_the_last():
    played = play_search(SEARCH, curve, slots=4)
    sweep, _ = sweep_of(SEARCH)
    ids = [{trial.id for own in trials_of_generation(sweep, each) for trial in own} for each in played.generations]
    for number, generation in enumerate(played.generations):
        assert set(generation.knows) == set().union(*ids[: max(0, number - 1)])


def test_a_search_comes_near_the_best_settings():
    played = play_search(search(trials=60), curve, slots=4)
    last = played.generations[-1].proposals
    assert sum(each["optimizer.name"] == "adamw" for each in last) > len(last) / 2
    assert 0.01 < sorted(each["lr"] for each in last)[len(last) // 2] < 0.25


@pytest.mark.parametrize(("scheduler", "slots"), [({"name": "none"}, 4), ({"name": "asha", "rank_by": "last"}, 2)])
def test_slots_stay_busy_across_generations_though_trials_take_ten_times_as_long_as_others(scheduler, slots):
    values = {**search(name="cmaes", trials=80, generation=8), "scheduler": scheduler}
    assert fmean(play_search(values, curve, slots, a_slow_or_fast(luck)).busy for luck in range(5)) >= 0.95


def test_seeds_of_a_proposal_are_one_config_and_are_told_together():
    played = play_search({**search(trials=12), "seeds": [0, 1]}, curve, slots=3)
    assert sum(len(each.proposals) for each in played.generations) == 12
    assert len(played.statuses) == 24


# What stays after an edit


def a_run(folder: Path, values: Mapping[str, Any]) -> RunFolder:
    """A run folder that has the first two generations of a search."""
    run, (sweep, _) = RunFolder(str(folder), "searched"), sweep_of(values)
    for generation in first_of_search(sweep):
        write_generation(run, generation, [mark_of_proposal(sweep, each) for each in generation.proposals])
    return run


def left_of(values: Mapping[str, Any], run: RunFolder) -> tuple[int, list[str]]:
    sweep, _ = sweep_of(values)
    found = proposed(sweep, run)
    return sum(len(each.proposals) for each in found.generations), found.notes


def test_what_was_made_is_read_and_not_made_again(tmp_path):
    run = a_run(tmp_path, SEARCH)
    other = sweep_of({**search(name="cmaes"), "seed": 7})[0]
    assert [trial.axes for trial in trials_of(other, run)] == [trial.axes for trial in plan_trials(sweep_of(SEARCH)[0])]
    assert proposed(other, run).made == 2


def test_a_changed_space_keeps_what_still_fits_and_says_what_does_not(tmp_path):
    run = a_run(tmp_path, SEARCH)
    lrs = [each["lr"] for made in first_of_search(sweep_of(SEARCH)[0]) for each in made.proposals]
    space = {**SEARCH["search"]["space"], "lr": {"log_uniform": [0.01, 1]}}
    count, notes = left_of(search(space=space), run)
    assert count == sum(lr >= 0.01 for lr in lrs) < len(lrs)
    assert f"{len(lrs) - count} earlier proposals no longer fit: lr" in notes[0]
    assert "lr" in notes[0]


def test_a_key_that_is_new_in_the_space_or_no_longer_in_it_keeps_the_trials_that_have_its_value(tmp_path):
    run = a_run(tmp_path, SEARCH)
    wider = {**SEARCH["search"]["space"], "batch_size": {"int": [16, 256]}}
    assert left_of(search(space=wider), run) == (12, [])
    elsewhere = {**SEARCH["search"]["space"], "batch_size": {"int": [16, 32]}}
    assert left_of(search(space=elsewhere), run)[0] == 12  # begins anew
    narrower = {key: each for key, each in SEARCH["search"]["space"].items() if "momentum" not in key}
    count, notes = left_of(search(space=narrower), run)
    assert 0 < count < 12
    assert notes


CHOICES = {
    "optimizer": ["sgd", {"name": "adamw", "weight_decay": 0.1}],
    "augment": ["none", "shift"],
    "lr_schedule": ["cosine", {"name": "step", "milestones": [3, 6]}],
    "data": ["digits", {"name": "synthetic", "image_size": 8, "classes": 3}],
}


@pytest.mark.parametrize("key", CHOICES)
def test_a_choice_of_whole_sections_is_known_again(tmp_path, key):
    space = {"lr": {"log_uniform": [0.001, 1]}, key: {"choice": CHOICES[key]}}
    run = a_run(tmp_path, search(space=space))
    assert proposed(sweep_of(search(space=space))[0], run).made == 2
    assert left_of(search(space=space), run) == (12, [])
    alone = a_run(tmp_path / "alone", search(space={"lr": space["lr"]}))
    assert left_of(search(space=space), alone) == (12, []), "the default is one of the choices"


def test_an_enqueued_config_that_is_new_is_proposed_next(tmp_path):
    run = a_run(tmp_path, SEARCH)
    added = search(enqueue=[{"lr": 0.123, "optimizer.name": "adamw"}])
    _, notes = left_of({**added, "search": {**added["search"], "trials": 12}}, run)
    assert notes == ["search: 1 enqueued config not proposed, since search.trials, 12, are; raise it"]
    sweep = sweep_of(added)[0]
    records = play_search(SEARCH, curve, slots=2).records
    following = next_generation(sweep, proposed(sweep, run).generations, records)
    assert following is not None
    assert following.proposals[0] == {"lr": 0.123, "optimizer.name": "adamw"}
    assert len(following.proposals) == 6


def test_trials_whose_proposals_were_left_out_still_compete(tmp_path):
    run = a_run(tmp_path, SEARCH)
    space = {**SEARCH["search"]["space"], "lr": {"log_uniform": [0.01, 1]}}
    before, now = sweep_of(SEARCH)[0], sweep_of(search(space=space))[0]
    all_ids = {trial.id for trial in trials_of(before, run)}
    own_ids = {trial.id for trial in trials_of(now, run)}
    assert all_ids - own_ids == {id for each in proposed(now, run).generations for id in each.knows}


def test_another_base_begins_anew_and_fewer_trials_leave_the_later_ones_out(tmp_path):
    run = a_run(tmp_path, SEARCH)
    longer = {**SEARCH, "base": {**SEARCH["base"], "epochs": 18}}
    assert left_of(longer, run)[1] == [
        "search: no earlier proposal fits the sweep file any more; the search starts over"
    ]
    count, notes = left_of(search(trials=8), run)
    assert (count, notes) == (8, ["search: 4 earlier proposals beyond search.trials, 8"])


def test_a_torn_generation_is_made_again_to_the_same(tmp_path):
    run = a_run(tmp_path, SEARCH)
    path = tmp_path / "searched" / "search" / "001.json"
    path.write_bytes(path.read_bytes()[:-40])
    sweep: Sweep = sweep_of(SEARCH)[0]
    found = proposed(sweep, run)
    assert found.made == 1
    following = next_generation(sweep, found.generations, records={})
    assert following == first_of_search(sweep)[1]
    assert "made again" in next(iter(run.damaged.values()))


@pytest.mark.parametrize("name", ["tpe", "cmaes"])
def test_proposals_made_again_from_the_records_are_those_on_record(name):
    played, (sweep, _) = play_search(search(name=name), curve, slots=3), sweep_of(search(name=name))
    for number in range(2, len(played.generations)):
        assert next_generation(sweep, played.generations[:number], played.records) == played.generations[number]
