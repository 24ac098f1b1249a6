"""What a search proposes from results."""

import json
import math
import os
import random
import subprocess
import sys
from statistics import median
from typing import Any

import pytest
from proposing import first_of, whatever_is_new

from raysweep.errors import UserError
from raysweep.results.search import sampler
from raysweep.results.search.told import State, Told
from raysweep.sweepfile import Sweep
from raysweep.sweepfile.space import Settings, Space


def ask(sweep: Sweep, number: int, told: list[Told], count: int) -> list[Settings]:
    """What a search proposes next, whatever a loop would say of it."""
    return sampler.ask(sweep, number, told, count, whatever_is_new(each.settings for each in told))


MIXED: dict[str, Any] = {
    "lr": {"log_uniform": [0.00123456789, 1]},
    "momentum": {"uniform": [0, 0.987654321]},
    "batch_size": {"choice": [32, 64, 128]},
    "width": {"log_int": [3, 300]},
    "depth": {"int": [1, 6]},
    "augment": {"choice": [None, {"crop": 2}, {"crop": 4, "flip": True}]},
    "optimizer": {"choice": ["sgd", "adamw"]},
    "beta": {"uniform": [0.8, 0.999], "when": {"optimizer": "adamw"}},
}
NUMBERS: dict[str, Any] = {"x": {"uniform": [0, 1]}, "y": {"uniform": [0, 1]}}
samplers = pytest.mark.parametrize("name", ["tpe", "cmaes"])


def search(name: str, space: dict[str, Any] = NUMBERS, **keys: Any) -> Sweep:
    return Sweep.model_validate({"name": "search", "search": {"name": name, "trials": 1000, "space": space} | keys})


def height(settings: Settings) -> float:
    """Highest at x 0.7, y 0.2."""
    return -math.hypot(settings["x"] - 0.7, settings["y"] - 0.2)


def told_of(settings: Settings, state: State = "finished") -> Told:
    return Told(settings, state, height(settings) if state == "finished" else None, [])


def grid(side: int = 5) -> list[Settings]:
    settings = [{"x": (i + 0.5) / side, "y": (j + 0.5) / side} for i in range(side) for j in range(side)]
    return random.Random(0).sample(settings, len(settings))


def played(sweep: Sweep, generations: int) -> list[Told]:
    """A search over its first generations, each made from the results of all but the one before."""
    told = [[told_of(each) for each in generation.proposals] for generation in first_of(sweep)]
    while len(told) < generations:
        known = [each for generation in told[:-1] for each in generation]
        pending = [told_of(each.settings, "pending") for each in told[-1]]
        told.append([told_of(each) for each in ask(sweep, len(told), [*known, *pending], 8)])
    return [each for generation in told for each in generation]


@samplers
def test_proposals_lie_in_the_space(name):
    sweep = search(name, MIXED)
    assert sweep.search
    space, told = Space(sweep.search.space), list[Told]()
    for generation in first_of(sweep):
        told += [Told(each, "finished", each["lr"], [(0.1, each["lr"])]) for each in generation.proposals]
    for number in range(2, 5):
        proposals = ask(sweep, number, told, 8)
        assert [space.why_not(each) for each in proposals] == [""] * 8
        assert all(each["lr"] in (float(f"{each['lr']:.6g}"), 0.00123456789) for each in proposals)
        told += [Told(each, "finished", each["lr"], [(0.1, each["lr"])]) for each in proposals]


@samplers
def test_proposals_come_to_lie_where_results_are_good(name):
    told = played(search(name), 8)
    drawn, proposed = [each.score or 0.0 for each in told[:16]], [each.score or 0.0 for each in told[-16:]]
    assert median(proposed) > median(drawn)


ASK = """
import json, sys
from proposing import first_of, whatever_is_new
from raysweep.results.search.sampler import ask
from raysweep.results.search.told import Told
from raysweep.sweepfile import Sweep

sweep = Sweep.model_validate(json.load(sys.stdin))
first = [each for generation in first_of(sweep) for each in generation.proposals]
told = [Told(dict(reversed(each.items())), "finished", each["lr"], []) for each in first]
print(json.dumps(ask(sweep, 2, told, 8, whatever_is_new(first))))
"""


@samplers
def test_equal_results_give_equal_proposals_in_another_process_and_for_another_order_of_keys(name):
    values = {"name": "search", "search": {"name": name, "trials": 1000, "space": dict(reversed(MIXED.items()))}}
    environment = os.environ | {"PYTHONHASHSEED": "17", "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.run(
        [sys.executable, "-c", ASK], input=json.dumps(values), capture_output=True, text=True, env=environment
    )
    sweep = search(name, MIXED)
    first = [each for generation in first_of(sweep) for each in generation.proposals]
    told = [Told(each, "finished", each["lr"], []) for each in first]
    assert json.loads(process.stdout) == ask(sweep, 2, told, 8), process.stderr


@samplers
def test_another_generation_or_seed_gives_other_proposals(name):
    sweep, told = search(name), [told_of(each) for each in grid()]
    proposals = ask(sweep, 2, told, 8)
    assert ask(sweep, 3, told, 8) != proposals
    assert ask(sweep.model_copy(update={"seed": 1}), 2, told, 8) != proposals


@samplers
def test_a_space_of_few_configs_is_used_up_without_a_repeat(name):
    sweep = search(name, {"x": {"choice": [0, 1]}, "y": {"int": [0, 9]}}, generation=4)
    told = [told_of(each) for generation in first_of(sweep) for each in generation.proposals]
    rest = ask(sweep, 2, told, 100)
    everything = [(each["x"], each["y"]) for each in [*(one.settings for one in told), *rest]]
    assert sorted(everything) == [(x, y) for x in (0, 1) for y in range(10)]
    assert ask(sweep, 3, [*told, *(told_of(each) for each in rest)], 4) == []


@samplers
def test_enqueued_configs_come_first_however_many_they_are(name):
    enqueue = [{"x": x / 100} for x in range(20)]
    sweep = search(name, enqueue=enqueue)
    told = played(sweep, 3)
    assert [each.settings["x"] for each in told[:20]] == [each["x"] for each in enqueue]
    assert len({each.settings["x"] for each in told}) == 24


def test_a_stopped_proposal_does_not_count_as_finished_by_its_score_at_a_rung():
    bad = [Told(each, "stopped", 0.9, [(1 / 9, 0.9)]) for each in grid() if height(each) < -0.4]
    good = [told_of(each) for each in grid() if height(each) >= -0.4]
    proposals = ask(search("tpe"), 2, [*bad, *good], 8)
    assert median(height(each) for each in proposals) > -0.4


@samplers
def test_where_proposals_failed_few_are_made(name):
    told = [told_of(each, "failed" if each["x"] > 0.5 else "finished") for each in grid(8)]
    proposals = ask(search(name), 2, told, 8)
    assert sum(each["x"] > 0.5 for each in proposals) <= 3


def test_the_best_of_what_is_to_be_small_is_small():
    sweep = search("tpe").model_copy(update={"objective": Sweep.model_validate({"name": "a"}).objective})
    smallest = sweep.model_copy(update={"objective": sweep.objective.model_copy(update={"mode": "min"})})
    told = [Told(each, "finished", -height(each), []) for each in grid()]
    assert median(height(each) for each in ask(smallest, 2, told, 8)) > -0.4


def test_reading_a_sweep_and_asking_where_nothing_is_to_be_asked_imports_no_optuna():
    code = "import sys, raysweep.results.search.sampler; print('optuna' in sys.modules, 'cmaes' in sys.modules)"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.split() == ["False", "False"]


@pytest.mark.parametrize(("name", "package"), [("tpe", "optuna"), ("cmaes", "cmaes")])
def test_a_missing_package_is_named_in_one_sentence(name, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    told = [told_of(each) for each in grid()]
    with pytest.raises(UserError, match=f"search.name: {name} needs the package {package}, .* pip install {package}$"):
        ask(search(name), 2, told, 8)
