"""The section `search`: what it may propose, and what is wrong with it, before anything is proposed or trained."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proposing import first_of, whatever_is_new
from pydantic import model_validator
from ruamel.yaml import YAML

import raysweep
from raysweep.errors import SweepFileError
from raysweep.loops import LOOPS
from raysweep.sweepfile import Sweep, load_sweep
from raysweep.sweepfile.plan import plan_trials
from raysweep.sweepfile.proposals import drawn
from raysweep.sweepfile.schema import Dimension
from raysweep.sweepfile.search import warnings_of
from raysweep.sweepfile.space import Settings, Space, draw_value, has, is_drawable, is_ordered, share_of, value_at


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load(text: str, *overrides: str) -> Sweep:
    Path("s.yaml").write_text(f"name: a\n{text}")
    return load_sweep("s.yaml", overrides)


def problems(text: str, *overrides: str) -> tuple[str, ...]:
    with pytest.raises(SweepFileError) as caught:
        load(text, *overrides)
    return caught.value.problems


def search(space: str, **others: object) -> str:
    more = "".join(f", {key}: {value}" for key, value in {"trials": 9, **others}.items())
    return f"search: {{space: {{{space}}}{more}}}\n"


# ---------------------------------------------------------------------------------------------------------
# What is wrong, where, and what would be right


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ("lr: {uniform: [-1, 1]}", "lr.uniform.0: got -1.0, must be greater than 0"),
        ("label_smoothing: {uniform: [0, 3]}", "label_smoothing.uniform.1: got 3.0, must be less than 1"),
        ("epochs: {uniform: [1, 10]}", "epochs.uniform.0: got 1.0, must be a whole number: draw it with int"),
        ("epochs: {int: [0, 10]}", "epochs.int.0: got 0, must be at least 1"),
        ("epochs: {log_int: [0, 10]}", "epochs.log_int.0: got 0, must be greater than 0"),
        ("lr: {uniform: [1, 0.1]}", "lr: the lower bound 1.0 is above the upper bound 0.1"),
        ("lr: {uniform: [0.1, 1], int: [1, 2]}", "lr: must have exactly one of uniform,"),
        ("lr: 0.1", "lr: got 0.1; a fixed value belongs in base, {lr: 0.1}; a draw is written {choice: [...]}"),
        ("lr: {value: 0.1}", "lr: a fixed value belongs in base, {lr: 0.1}"),
        ("augment: [none, shift]", "augment: got [none, shift]; write {choice: [none, shift]}"),
        ("lr: [0.1, 1]", "lr: got [0.1, 1]; write {choice: [0.1, 1]}, or {uniform: [0.1, 1]}"),
        ("batch_size: {choice: 32}", "batch_size.choice: got 32; must be a list of values: [32, ...]"),
        ("batch_size: {int: 32}", "batch_size.int: got 32; must be a list of two bounds"),
        ("batch_size: {int: [8, 64, 8]}",
         "batch_size.int: got [8, 64, 8]; must be a list of two bounds; for steps: {int: [8, 64], step: 8}"),
        ("batch_size: {low: 8, high: 64, step: 8}", "batch_size: such a draw is written {int: [8, 64], step: 8} here"),
        ("lr_schedule.name: {choice: [cosine, step]}",
         "lr_schedule.name.choice.1: step needs lr_schedule.milestones, which is missing"),
        ("lr_schedule: {choice: [cosine, step]}",
         "lr_schedule.choice.1: step needs lr_schedule.milestones, which is missing"),
        ("model: {choice: [resnet18, resnt18]}", "model.choice.1: unknown network 'resnt18' (did you mean"),
        ("augment: {choice: [none, shift, none]}", "augment.choice.2: comes to the same config as choice.0"),
        ("lrr: {uniform: [0.1, 1]}", "lrr: unknown key (did you mean 'lr'?)"),
        ("weight_decay: {uniform: [0.1, 1]}", "weight_decay: unknown key (did you mean 'optimizer.weight_decay'?)"),
        ("optimizer.name: {choice: [sgd, adamw]}, optimizer.momentum: {uniform: [0, 0.9]}",
         "optimizer.momentum: unknown key (momentum is a key of sgd and muon)"),
        ("lr: {uniform: [0.1, 1], when: {augmnt: none}}, augment: {choice: [none, shift]}",
         "lr.when.augmnt: is no key of the space (did you mean 'augment'?); it has lr, augment"),
        ("lr: {uniform: [0.1, 1], when: {augment: [none, hard]}}, augment: {choice: [none, shift]}",
         "lr.when.augment.1: got 'hard', which augment never is; it is one of none, shift"),
        ("lr: {uniform: [0.1, 1]}, augment: {choice: [none, shift], when: {lr: 0.5}}",
         "augment.when.lr: lr is a real number, which hardly ever has a given value; name a key with a choice"),
        ("epochs: {int: [1, 3], when: {batch_size: 8}}, batch_size: {choice: [8, 9], when: {epochs: 2}}",
         "epochs.when: epochs needs batch_size which needs epochs: a circle, so that none has it"),
        ("epochs: {int: [1, 3]}, batch_size: {choice: [8, 9], when: {epochs: 1}}, "
         "augment: {choice: [none, shift], when: {epochs: 2, batch_size: 8}}",
         "augment.when: never holds: epochs would have to have two values at once"),
        ("lr: {distribution: log_uniform_values, min: 0.001, max: 1}",
         "lr: such a draw is written {log_uniform: [0.001, 1]} here"),
        ("lr: {low: 0.001, high: 1.0, log: true}", "lr: such a draw is written {log_uniform: [0.001, 1.0]} here"),
        ("lr: {values: [0.1, 1]}", "lr: such a draw is written {choice: [0.1, 1]} here"),
        ("batch_size: {distribution: q_log_uniform_values, q: 1, min: 8, max: 64}",
         "batch_size: such a draw is written {log_int: [8, 64]} here"),
        ("lr: {log_unifrom: [0.1, 1]}", "lr.log_unifrom: unknown key (did you mean 'log_uniform'?)"),
    ],
)  # fmt: skip
def test_what_no_config_can_have_is_told_with_its_place_in_the_space(space: str, message: str) -> None:
    (problem,) = problems(search(space))
    assert problem.startswith(f"s.yaml:2: search.space.{message}")


LR = "lr: {log_uniform: [0.001, 1]}"
OPTIMIZERS = (
    "optimizer.name: {choice: [sgd, adamw]}, optimizer.momentum: {uniform: [0, 0.9], when: {optimizer.name: sgd}}"
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (search(LR) + "grid: {epochs: [1]}", "s.yaml:3: grid: cannot stand beside search: what varies is"),
        (search(LR) + "cases: {b: {epochs: 1}}", "s.yaml:3: cases: cannot stand beside search"),
        (search(LR) + "exclude: [{epochs: 1}]", "s.yaml:3: exclude: cannot stand beside search"),
        (search(LR) + "random: {samples: 3, epochs: {int: [1, 2]}}", "s.yaml:3: random: cannot stand beside search"),
        (search(LR) + "scheduler: ray_asha", "s.yaml:3: scheduler: must be asha or none with search"),
        (search(LR, trials=1001), "s.yaml:2: search.trials: got 1,001, more than limits.trials, 1,000"),
        (search(LR, trials=501) + "seeds: [0, 1]", "s.yaml:2: search.trials: 501 configs with 2 seeds are 1,002"),
        ("search: {trials: 3, space: {}}", "s.yaml:2: search.space: is empty"),
        (f"search: {{space: {{{LR}}}}}", "s.yaml:2: search.trials: is missing; it says how many configs to propose"),
        ("search: {trials: 3}", "s.yaml:2: search.space: is missing; it says how to draw each key"),
        (search(LR, generation=0), "s.yaml:2: search.generation: got 0, must be greater than 0"),
        (search(LR, name="bayes"), "s.yaml:2: search.name: got 'bayes' (did you mean 'tpe'?); allowed: tpe"),
        (search(LR, population_size=4), "s.yaml:2: search.population_size: unknown key (did you mean 'generation'?)"),
        (search(LR, trials=1, enqueue="[{lr: 0.1}, {lr: 0.2}]"),
         "s.yaml:2: search.enqueue: has 2 configs, more than search.trials, 1"),
        (search(LR, enqueue="[{lr: 5}]"), "s.yaml:2: search.enqueue.0.lr: got 5, must be from 0.001 to 1"),
        (search(LR, enqueue="[{epochs: 5}]"), "s.yaml:2: search.enqueue.0.epochs: is no key of the space; it has lr"),
        (search(LR, enqueue="[{lr: 0.1}, {lr: 0.1}]"), "s.yaml:2: search.enqueue.1: is the same as enqueue.0"),
        (search(OPTIMIZERS, enqueue="[{optimizer.name: adamw, optimizer.momentum: 0.5}]"),
         "s.yaml:2: search.enqueue.0.optimizer.momentum: is there only with optimizer.name sgd, and here that"),
        (search(OPTIMIZERS, enqueue="[{optimizer.momentum: 0.5}]"),
         "s.yaml:2: search.enqueue.0.optimizer.momentum: is there only with optimizer.name sgd: give that, too"),
        (search(LR, seed=3), "s.yaml:2: search.seed: unknown key (did you mean 'seed', at the top of the file?)"),
        (search(LR, trial=3), "s.yaml:2: search.trial: unknown key (did you mean 'trials'?)"),
        (search(LR, timeout=3), "s.yaml:2: search.timeout: unknown key (did you mean 'limits.wall_hours', at the top"),
        ("timeout: 60", "s.yaml:2: timeout: unknown key (did you mean 'limits.wall_hours'?)"),
        ("run_cap: 60", "s.yaml:2: run_cap: unknown key (did you mean 'search.trials'?)"),
        ("random: {samples: 3, augment: [none, shift]}",
         "s.yaml:2: random.augment: got [none, shift]; write {choice: [none, shift]}"),
        ("n_trials: 60", "s.yaml:2: n_trials: unknown key (did you mean 'search.trials'?)"),
        ("method: bayes", "s.yaml:2: method: unknown key (did you mean 'search.name'?)"),
        ("base: {optimizer: {name: sgd, momentum: 0.8}}\n" + search("optimizer: {choice: [adamw, muon]}"),
         "s.yaml:2: base.optimizer.momentum: reaches no trial: its whole section is replaced by search.space"),
    ],
)  # fmt: skip
def test_what_is_wrong_around_the_space_is_told_with_its_line(text: str, message: str) -> None:
    (problem,) = problems(text)
    assert problem.startswith(message)


def test_a_key_that_only_some_proposals_can_have_needs_its_when() -> None:
    space = "optimizer.name: {choice: [sgd, adamw]}, optimizer.momentum: {uniform: [0, 0.9]}"
    (problem,) = problems(search(space))
    assert problem.endswith("say with `when` which proposals have it")
    assert load(search(OPTIMIZERS)).search


def test_values_that_a_loop_refuses_only_together_are_told_with_a_proposal_that_has_them() -> None:
    class Bounds(raysweep.Config):
        low: int = 0
        high: int = 1

        @model_validator(mode="after")
        def _ascend(self) -> Bounds:
            if self.low > self.high:
                raise ValueError("low is above high")
            return self

    with LOOPS.for_now():

        @raysweep.register_loop("bounded", config=Bounds, metrics={"val_acc": "max"})
        def train(config: Bounds, trial: raysweep.TrialContext) -> Iterator[raysweep.Epoch]:
            yield raysweep.Epoch({"val_acc": 1.0})

        section = search("low: {int: [0, 5]}, high: {int: [2, 7]}")
        (told,) = problems(f"loop: bounded\nbase: {{epochs: 1}}\n{section}")
    start = "s.yaml:3: base: low is above high, and a proposal may have low 5, high "
    assert told.startswith(start)
    assert told.endswith("narrow the draws, or keep values apart with `when`")


def test_all_faults_are_told_at_once() -> None:
    found = problems("""\
base: {epohcs: 3}
search:
  trials: 2000
  space:
    lr: {uniform: [-1, 1]}
    epochs: {min: 1, max: 3}
    model:
      choice:
        - resnet18
        - resnt18
    augment: {choice: [none, shift], when: {epochs: 1}}
  enqueue:
    - {batch_size: 3}
""")
    assert sorted(int(each.split(":")[1]) for each in found) == [2, 4, 6, 7, 11, 14]


def test_a_key_whose_condition_is_wrong_hides_no_fault_of_others() -> None:
    found = problems("""\
search:
  trials: 20
  space:
    lr: {uniform: [0.1, 1], when: {augmnt: none}}
    augment:
      choice: [none, shft]
  enqueue:
    - {augment: hard}
scheduler: ray_asha
""")
    assert sorted(int(each.split(":")[1]) for each in found) == [5, 7, 9, 10]


# ---------------------------------------------------------------------------------------------------------
# What is allowed


def test_a_key_of_base_is_a_default_that_the_space_replaces() -> None:
    sweep = load("base: {lr: 0.5, optimizer: {name: sgd, momentum: 0.8}}\n" + search(OPTIMIZERS + ", " + LR))
    assert all(trial.config.lr != 0.5 for trial in plan_trials(sweep))


def test_the_name_of_a_section_decides_which_of_its_keys_a_proposal_has_whichever_the_file_has_first() -> None:
    turned = OPTIMIZERS.split(", optimizer.momentum")
    sweep = load(search(f"optimizer.momentum{turned[1]}, {turned[0]}", name="random"))
    names = {trial.config.optimizer.name for trial in plan_trials(sweep)}
    assert names == {"sgd", "adamw"}
    assert {"optimizer.momentum" in trial.axes for trial in plan_trials(sweep)} == {True, False}


def test_every_proposal_is_trained_with_every_seed() -> None:
    trials = plan_trials(load(search(LR, name="random", trials=3) + "seeds: [0, 7]"))
    assert [trial.seed for trial in trials] == [0, 7] * 3
    assert len({trial.config.lr for trial in trials}) == 3


def test_the_first_two_generations_of_a_search_that_learns_are_planned_and_all_of_one_that_does_not() -> None:
    for name, count in [("tpe", 6), ("cmaes", 6), ("random", 9), ("qmc", 9)]:
        trials = plan_trials(load(search(LR, name=name, generation=3)))
        assert [trial.generation for trial in trials] == ([0, 0, 0, 1, 1, 1] if count == 6 else [0] * 9)


def test_what_is_enqueued_comes_first_and_what_it_leaves_out_is_drawn() -> None:
    sweep = load(search(f"{LR}, epochs: {{int: [1, 9]}}", enqueue="[{lr: 0.5, epochs: 3}, {lr: 0.25}]"))
    first, second, *_ = plan_trials(sweep)
    assert (first.config.lr, first.config.epochs) == (0.5, 3)
    assert second.config.lr == 0.25


@pytest.mark.parametrize(
    ("override", "space"),
    [
        ("search.trials=4", {"lr", "optimizer.name", "optimizer.momentum"}),
        ("search.space.lr.uniform=[0.5, 0.75]", {"lr", "optimizer.name", "optimizer.momentum"}),
        ("search.space.lr={uniform: [0.5, 0.75]}", {"lr", "optimizer.name", "optimizer.momentum"}),
        ("search.space.optimizer.momentum.uniform=[0.1, 0.2]", {"lr", "optimizer.name", "optimizer.momentum"}),
        ("lr=0.1", {"optimizer.name", "optimizer.momentum"}),
        ("optimizer.name=sgd", {"lr", "optimizer.momentum"}),
        ("optimizer=adamw", {"lr"}),
        ("optimizer.momentum=0.5", {"lr", "optimizer.name"}),
    ],
)
def test_an_override_patches_the_search_or_takes_a_key_out_of_it(override: str, space: set[str]) -> None:
    sweep = load(search(f"{LR}, {OPTIMIZERS}", enqueue="[{lr: 0.6, optimizer.name: sgd}]"), override)
    assert sweep.search
    assert set(sweep.search.space) == space
    assert sweep.search.trials == (4 if override == "search.trials=4" else 9)


def test_an_override_of_the_last_key_leaves_one_trial() -> None:
    sweep = load(search(LR), "lr=0.5")
    assert sweep.search is None
    assert [trial.config.lr for trial in plan_trials(sweep)] == [0.5]


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        (
            search("augment: {choice: [none, shift]}", name="cmaes", trials=1),
            "this space has none, so that tpe",
        ),
        (search("augment: {choice: [none, shift]}, epochs: {int: [1, 2]}"), "the space has 4 configs"),
        (search(LR) + "scheduler: {name: asha, group_by: [lr]}", "hardly any two proposals have the same lr"),
    ],
)
def test_a_search_that_is_hardly_meant_so_is_warned_of(text: str, warning: str) -> None:
    (found,) = warnings_of(load(text))
    assert warning in found
    assert warnings_of(load(search(f"{LR}, {OPTIMIZERS}"))) == []
    assert warnings_of(load(search(f"{LR}, model.width: {{choice: [4, 8]}}", name="cmaes"))) == []


# ---------------------------------------------------------------------------------------------------------
# Spaces and proposals

REALS = st.tuples(st.floats(1e-6, 1e3), st.sampled_from([1, 1.5, 1e4])).map(lambda pair: [pair[0], pair[0] * pair[1]])
WHOLES = st.tuples(st.integers(1, 500), st.integers(1, 500)).map(sorted)
FEW = st.lists(st.sampled_from(["a", "b", 1, 2.5, None]), min_size=1, max_size=4, unique=True)
DRAWS = st.one_of(
    *(st.builds(lambda bounds, kind=kind: {kind: bounds}, REALS) for kind in ("uniform", "log_uniform")),
    *(st.builds(lambda bounds, kind=kind: {kind: bounds}, WHOLES) for kind in ("int", "log_int")),
    FEW.map(lambda values: {"choice": values}),
)


@st.composite
def spaces(draw: st.DrawFn) -> dict[str, Dimension]:
    """Spaces whose keys may depend on earlier ones, in any order."""
    space: dict[str, dict[str, Any]] = {}
    for key in ("k1", "k2", "k3", "k4")[: draw(st.integers(1, 4))]:
        choices = [other for other, each in space.items() if "choice" in each]
        other = draw(st.sampled_from([None, *choices]))
        when = {"when": {other: draw(st.sampled_from(space[other]["choice"]))}} if other else {}
        space[key] = {**draw(DRAWS), **when}
    return {key: Dimension.model_validate(space[key]) for key in draw(st.permutations([*space]))}


def as_sweep(space: Mapping[str, Dimension], **others: object) -> Sweep:
    dimensions = {key: each.model_dump(exclude_none=True) for key, each in space.items()}
    return Sweep.model_validate({"name": "a", "search": {"trials": 12, "space": dimensions, **others}})


@settings(max_examples=200, deadline=None)
@given(space=spaces(), seed=st.integers(0, 99), share=st.floats(0, 1, exclude_max=True))
def test_what_is_drawn_is_of_the_space(space: dict[str, Dimension], seed: int, share: float) -> None:
    for value in (lambda key, each: draw_value(each, f"{seed}/{key}"), lambda key, each: value_at(each, share)):
        settings = Space(space).fill({}, value)
        assert Space(space).why_not(settings) == ""
        assert all(is_drawable(settings[key], space[key]) for key in settings)
        assert {key for key, each in space.items() if has(settings, each)} == settings.keys()
        assert Space(space).fill(settings, value) == settings


@settings(max_examples=100, deadline=None)
@given(space=spaces(), seed=st.integers(0, 99), data=st.data())
def test_a_proposal_that_lacks_a_key_or_has_one_too_many_is_not_of_the_space(
    space: dict[str, Dimension], seed: int, data: st.DataObject
) -> None:
    proposal = Space(space).fill({}, lambda key, each: draw_value(each, f"{seed}/{key}"))
    key = data.draw(st.sampled_from([*proposal]))
    without = {other: value for other, value in proposal.items() if other != key}
    assert Space(space).why_not(without)
    assert Space(space).why_not({**proposal, "other": 1}) == "other is no key of it"
    assert Space(space).why_not({**proposal, key: "outside"}) != ""


@settings(max_examples=60, deadline=None)
@given(space=spaces(), name=st.sampled_from(["tpe", "random", "qmc"]), seed=st.integers(0, 9))
def test_no_proposal_is_made_twice_and_a_space_of_few_is_gone_through(
    space: dict[str, Dimension], name: str, seed: int
) -> None:
    sweep = as_sweep(space, name=name, generation=4)
    made: list[Settings] = []
    for _ in range(3):
        made += drawn(sweep, made, 4, whatever_is_new(made))
    assert len({json.dumps(each, sort_keys=True) for each in made}) == len(made)
    there_are = Space(space).all_proposals()
    assert len(made) == min(12, 12 if there_are is None else len(there_are))


@settings(max_examples=60, deadline=None)
@given(space=spaces(), seed=st.integers(0, 9))
def test_a_draw_depends_on_the_seed_its_key_and_its_number_alone(space: dict[str, Dimension], seed: int) -> None:
    lr = Dimension.model_validate({"log_uniform": [1e-3, 1]})

    def lrs(**others: Dimension) -> list[Any]:
        return [each["lr"] for each in drawn(as_sweep({**others, "lr": lr}, name="random"), [], 8, whatever_is_new())]

    assert lrs(**space) == lrs()


def test_generations_go_on_where_the_last_one_ended() -> None:
    lr = {"lr": Dimension.model_validate({"log_uniform": [1e-3, 1]})}
    for name in ("random", "qmc"):
        whole = [each for one in first_of(as_sweep(lr, name=name, generation=12)) for each in one.proposals]
        parts = [each for one in first_of(as_sweep(lr, name=name, generation=5)) for each in one.proposals]
        longer = first_of(as_sweep(lr, name=name, generation=5, trials=15))
        assert parts == whole
        assert [each for one in longer for each in one.proposals][:12] == whole


def test_a_sobol_sequence_covers_each_key_evenly() -> None:
    unit = Dimension.model_validate({"uniform": [0, 1]})
    sweep = as_sweep({"a": unit, "b": unit, "c": unit}, name="qmc", trials=64)
    made = [each for one in first_of(sweep) for each in one.proposals]
    for key in "abc":
        assert sorted(int(each[key] * 64) for each in made) == [*range(64)]


@pytest.mark.parametrize(
    ("draw", "values"),
    [
        ("{int: [8, 32], step: 8}", [8, 16, 24, 32]),
        ("{uniform: [0, 0.3], step: 0.1}", [0.0, 0.1, 0.2, 0.3]),
        ("{int: [3, 3], step: 8}", [3]),
    ],
)
def test_a_draw_with_a_step_has_its_bounds_and_what_lies_so_far_apart_between_them(
    draw: str, values: list[Any]
) -> None:
    dimension = Dimension.model_validate(YAML(typ="safe").load(draw))
    assert is_ordered(dimension)
    assert [value_at(dimension, (place + 0.5) / len(values)) for place in range(len(values))] == values
    assert [share_of(dimension, each) for each in values] == [
        (place + 0.5) / len(values) for place in range(len(values))
    ]
    assert {draw_value(dimension, str(seed)) for seed in range(100)} == {*values}
    assert [each["x"] for each in Space({"x": dimension}).all_proposals() or ()] == values
    assert not is_drawable(4, dimension)


def test_a_step_is_patched_and_drawn_from() -> None:
    text = "search: {trials: 8, generation: 8, space: {batch_size: {int: [8, 24], step: 8}}}\n"
    assert {trial.config.model_dump()["batch_size"] for trial in plan_trials(load(text))} == {8, 16, 24}
    sizes = {
        trial.config.model_dump()["batch_size"] for trial in plan_trials(load(text, "search.space.batch_size.step=16"))
    }
    assert sizes == {8, 24}
    text = "random: {samples: 20, batch_size: {int: [8, 24], step: 8}}\n"
    assert {trial.config.model_dump()["batch_size"] for trial in plan_trials(load(text))} == {8, 16, 24}


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        ("{int: [8, 60], step: 8}", "steps of 8 from 8 end at 56; got the upper bound 60"),
        ("{int: [8, 64], step: 0.5}", "step: got 0.5, must be a whole number for int"),
        ("{log_int: [8, 64], step: 8}", "step is of uniform and int; list the values instead: {choice: [8, 16, 32]}"),
        ("{int: [0, 100000], step: 1}", "step: 1 makes 100,001 values; at most 10,000 can be listed"),
    ],
)
def test_a_step_that_is_none_is_refused(draw: str, message: str) -> None:
    text = f"search: {{trials: 8, space: {{batch_size: {draw}}}}}\n"
    assert problems(text) == (f"s.yaml:2: search.space.batch_size: {message}",)
