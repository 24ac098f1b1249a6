"""Another tool's search becomes a sweep file that draws from the same values, and says what it cannot."""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML
from scipy import stats

from raysweep.errors import SweepFileError
from raysweep.loops import LOOPS
from raysweep.sweepfile import load_sweep
from raysweep.sweepfile.convert import Converted, convert
from raysweep.sweepfile.plan import plan_trials
from raysweep.sweepfile.schema import Draw, Sweep
from raysweep.sweepfile.space import is_ordered, value_at


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def converted(text: str, samples: int | None = None, loop: str = "") -> Converted:
    Path("wandb.yaml").write_text(text)
    return convert("wandb.yaml", samples, loop)


def planned(made: Converted) -> Sweep:
    Path("made.yaml").write_text(made.text)
    return load_sweep("made.yaml")


def problems(text: str, samples: int | None = None) -> tuple[str, ...]:
    with pytest.raises(SweepFileError) as caught:
        converted(text, samples)
    return caught.value.problems


def register(made: Converted) -> None:
    """Import the module of the loop that is to be written."""
    Path("made_loop.py").write_text(made.module)
    importlib.invalidate_caches()
    importlib.import_module("made_loop")


GRID = """\
method: grid
metric: {name: validation/accuracy, goal: maximize}
early_terminate: {type: hyperband, max_iter: 9, s: 2}
parameters:
  lr: {values: [0.1, 0.01]}
  model:
    parameters:
      width: {distribution: q_uniform, min: 8, max: 25, q: 8}
  batch_size: {min: 62, max: 64}
  epochs: {value: 9}
"""


def test_a_grid_over_settings_of_classify_is_a_grid_for_it() -> None:
    sweep = planned(converted(GRID))
    assert sweep.grid == {"lr": [0.1, 0.01], "model.width": [8, 16, 24], "batch_size": [62, 63, 64]}
    assert (sweep.objective.metric, sweep.objective.maximize) == ("val_acc", True)
    assert {trial.config.epochs for trial in plan_trials(sweep)} == {9}


def test_hyperbands_bands_are_the_rungs_of_asha() -> None:
    for bands, rungs in (
        ("max_iter: 9, s: 2", ["1/9", "1/3"]),
        ("min_iter: 2, eta: 2", ["2/9", "4/9", "8/9"]),
        ("min_iter: 1", ["1/9", "1/3"]),
    ):
        asha = planned(converted(GRID.replace("max_iter: 9, s: 2", bands))).scheduler
        assert [str(rung) for rung in asha.rungs] == rungs
    made = converted(GRID.replace("max_iter: 9, s: 2", "min_iter: 10"))
    assert planned(made).scheduler.name == "none"
    assert any("wandb.yaml:3: early_terminate: its first band" in note for note in made.notes)


def test_a_random_search_draws_as_many_configs_as_its_run_cap_or_as_are_asked_for() -> None:
    text = "method: random\nrun_cap: 7\nparameters: {lr: {min: 0.01, max: 1.0}, batch_size: {min: 1, max: 9}}\n"
    sweep = planned(converted(text))
    assert sweep.random["samples"] == 7
    assert all(0.01 <= trial.config.lr <= 1 and 1 <= trial.config.batch_size <= 9 for trial in plan_trials(sweep))
    assert len(plan_trials(planned(converted(text, samples=9)))) == 9
    assert problems(text.replace("run_cap: 7\n", "")) == (
        "wandb.yaml:1: method: random, without run_cap: say with --samples N how many configs to draw",
    )


BAYES = """\
method: bayes
metric: {name: val_loss}
parameters:
  lr: {distribution: log_uniform_values, min: 0.001, max: 1}
  optimizer: {parameters: {weight_decay: {distribution: log_normal, mu: -8, sigma: 1}}}
  batch_size: {distribution: q_log_uniform_values, min: 4, max: 64}
  augment: {values: [none, shift, hard], probabilities: [0.5, 0.5, 0]}
  epochs: {value: 5}
"""


def test_a_bayesian_search_is_a_search_by_tpe_of_as_many_configs_as_its_run_cap() -> None:
    made = converted(BAYES, samples=30)
    sweep = planned(made)
    search = sweep.search
    assert search
    assert (search.name, search.trials, sweep.random) == ("tpe", 30, {})
    assert search.space["lr"].log_uniform == (0.001, 1)
    assert search.space["optimizer.weight_decay"].log_uniform == pytest.approx((3.27e-5, 3.44e-3), rel=0.01)
    assert search.space["batch_size"].log_int == (4, 64)
    assert search.space["augment"].choice == ["none", "shift"]
    said = [note.split(": ", 1) for note in made.notes]
    assert [place for place, _ in said] == [f"wandb.yaml:{line}" for line in (1, 5, 7)]
    assert "Parzen" in said[0][1]
    assert planned(converted(f"run_cap: 12\n{BAYES}")).search.trials == 12
    assert problems(BAYES)[0].endswith(
        "method: bayes, without run_cap: say with --samples N how many configs to propose"
    )


def test_probabilities_become_repetitions() -> None:
    text = "method: random\nrun_cap: 9\nparameters: {augment: {values: [none, shift], probabilities: [0.75, 0.25]}}\n"
    assert planned(converted(text)).random["augment"].choice == ["none", "none", "none", "shift"]


def test_a_parameter_named_seed_becomes_the_seeds_of_a_grid() -> None:
    made = converted(GRID + "  seed: {values: [3, 4]}\n")
    assert planned(made).seeds == [3, 4]
    assert any(note.startswith("wandb.yaml:11: parameters.seed: is `seeds` now") for note in made.notes)


def test_what_has_no_counterpart_is_said_with_its_line_in_the_file_too() -> None:
    made = converted(GRID.replace("goal: maximize", "goal: maximize, target: 0.9") + "command: [python]\nrun_cap: 2\n")
    said = {note.rpartition(": ")[0].split(": ")[0]: note for note in made.notes}
    assert {"wandb.yaml:2", "wandb.yaml:3", "wandb.yaml:11", "wandb.yaml:12"} <= said.keys()
    in_file = " ".join(line.lstrip("# -") for line in made.text.splitlines() if line.startswith("#"))
    assert all(" ".join(note.split()) in in_file for note in made.notes)


def test_all_that_is_wrong_is_said_at_once_each_with_its_line() -> None:
    found = problems(
        """\
metric: {name: a, goal: max}
mehtod: grid
early_terminate: {type: hyperband, etta: 3, min_iter: 1}
parameters:
  lr: {min: 2, max: 1}
  a: {distribution: log_unifrm, min: 1, max: 2}
  b: 3
  c: {}
  d: {parameters: {x: {value: 1, vlues: [1]}}}
  f: {values: [1, 2], probabilities: [0.5, 0.4]}
"""
    )
    assert {":".join(problem.split(": ")[:2]) for problem in found} == {
        "wandb.yaml:1:metric.goal",
        "wandb.yaml:1:method",
        "wandb.yaml:10:parameters.f",
        "wandb.yaml:2:mehtod",
        "wandb.yaml:3:early_terminate.etta",
        "wandb.yaml:5:parameters.lr",
        "wandb.yaml:6:parameters.a",
        "wandb.yaml:7:parameters.b",
        "wandb.yaml:8:parameters.c",
        "wandb.yaml:9:parameters.d.parameters.x.vlues",
    }


# ---------------------------------------------------------------------------------------------------------
# Loops of the user's own

NESTED = """\
program: train_net.py
method: random
run_cap: 20
metric: {name: val/f1, goal: maximize}
parameters:
  n_epochs: {value: 7}
  lambda: {values: [1, 2.5]}
  opt:
    parameters:
      name: {values: [adam, sgd, null]}
      inner:
        parameters:
          weight-decay: {distribution: inv_log_uniform_values, min: 0.001, max: 0.1}
"""


def test_other_parameters_are_for_a_loop_whose_settings_are_written_out() -> None:
    made = converted(NESTED)
    register(made)
    sweep = planned(made)
    assert (sweep.loop, sweep.objective.metric, sweep.objective.maximize) == ("train_net", "val/f1", True)
    for trial in plan_trials(sweep):
        config = trial.config.model_dump()
        assert config["epochs"] == 7
        assert config["lambda_"] in (1, 2.5)
        assert config["opt"]["name"] in ("adam", "sgd", None)
        assert 0.001 <= config["opt"]["inner"]["weight_decay"] <= 0.1
    assert all(f"# {line}".rstrip() in made.text.splitlines() for line in made.module.splitlines())


def test_renamed_parameters_are_said_with_their_lines() -> None:
    said = {note.split(": ")[0]: note for note in converted(NESTED).notes}
    assert "'epochs'" in said["wandb.yaml:6"]
    assert "'lambda_'" in said["wandb.yaml:7"]
    assert "'opt.inner.weight_decay'" in said["wandb.yaml:13"]
    twice = NESTED.replace("lambda:", "epochs: {value: 3}\n  lambda:")
    assert [problem.split(": ")[:2] for problem in problems(twice)] == [["wandb.yaml:7", "parameters.epochs"]]


NAMES = st.sampled_from(["a", "a_b", "b", "grid", "samples", "name", "loop", "class", "config", "any", "model", "x1"])
KEYS = st.lists(NAMES, min_size=1, max_size=3).map(".".join)
VALUES = st.one_of(st.none(), st.booleans(), st.integers(), st.sampled_from(["x", "y", "1", "on"]), st.just([1]))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(KEYS, st.lists(VALUES, min_size=1, max_size=3), min_size=1), st.booleans())
def test_whatever_parameters_are_called_the_file_can_be_planned_with_its_module_or_is_refused(
    parameters: dict[str, list[Any]], as_optuna: bool
) -> None:
    attributes = {key: {"choices": values} for key, values in parameters.items()}
    optuna = {key: {"name": "CategoricalDistribution", "attributes": each} for key, each in attributes.items()}
    wandb = {
        "method": "random",
        "run_cap": 2,
        "parameters": {f"{key}.z": {"values": parameters[key]} for key in parameters},
    }
    Path("other.json").write_text(json.dumps(optuna if as_optuna else wandb))
    if as_optuna and any(each.startswith(f"{key}.") for key in parameters for each in parameters):
        with pytest.raises(SweepFileError, match="cannot be both a value and a section"):
            convert("other.json", 2)
        return
    made = convert("other.json", 2)
    with LOOPS.for_now():
        exec(compile(made.module, "<module>", "exec", dont_inherit=True), {"__name__": "made"})
        Path("made.yaml").write_text(made.text)
        assert len(plan_trials(load_sweep("made.yaml"))) >= 1


@pytest.mark.parametrize(("first", "second"), [("model", "model.size"), ("model.size", "model")])
def test_a_parameter_that_is_also_the_section_of_another_is_refused_with_its_line_unless_the_loop_knows_it(
    first: str, second: str
) -> None:
    text = f"method: grid\nparameters:\n  {first}: {{values: [1, 2]}}\n  {second}: {{values: [3, 4]}}\n"
    line = 3 if first == "model" else 4
    (problem,) = problems(text)
    assert problem.startswith(f"wandb.yaml:{line}: parameters.model: 'model.size' is a parameter too;")
    network = text.replace("model.size", "model.width").replace(
        "[1, 2]" if first == "model" else "[3, 4]", "[baseline_block]"
    )
    assert len(plan_trials(planned(converted(network)))) == 2


def test_a_parameter_called_samples_is_renamed_and_a_program_called_classify_is_not_raysweeps() -> None:
    made = converted("method: random\nrun_cap: 3\nprogram: classify.py\nparameters: {samples: {values: [1, 2]}}\n")
    assert any("parameters.samples: is 'samples_' now" in note for note in made.notes)
    register(made)
    assert planned(made).loop == "classify_"
    assert {trial.config.model_dump()["samples_"] for trial in plan_trials(planned(made))} <= {1, 2}


@pytest.mark.parametrize("text", ["", "[1, 2]"])
def test_what_is_no_mapping_is_told_what_another_tools_file_is(text: str) -> None:
    (problem,) = problems(text)
    assert problem.startswith("wandb.yaml:1: must be a mapping: a W&B sweep file has `method`")


def test_a_value_that_quantiles_are_rounded_to_stands_as_often_as_it_is_likely_and_that_is_said() -> None:
    made = converted(NESTED.replace("{values: [1, 2.5]}", "{distribution: q_normal, sigma: 0.5}"))
    register(made)
    choice = planned(made).random["lambda_"].choice
    assert choice.count(0) > choice.count(1) > 0
    assert any("stands there once for each that is rounded to it" in note for note in made.notes)


def test_a_loop_that_is_asked_for_is_named_and_not_written_where_it_is_registered() -> None:
    assert converted(GRID, loop="mine").module.count('register_loop("mine"')
    register(converted(NESTED, loop="mine"))
    made = converted(NESTED, loop="mine")
    assert made.module == ""
    assert planned(made).loop == "mine"


# ---------------------------------------------------------------------------------------------------------
# What is drawn

EXPONENTS = st.floats(-9, 5).map(lambda each: round(each, 3))
STEPS = st.sampled_from([1, 2, 8, 0.1, 0.25])
POSITIVE = st.floats(1e-4, 100).map(lambda each: float(f"{each:.4g}"))


def pairs(numbers: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    two = st.tuples(numbers, numbers).filter(lambda each: each[0] != each[1])
    return two.map(lambda each: {"min": min(each), "max": max(each)})


LOCATED = st.fixed_dictionaries({"mu": EXPONENTS}, optional={"sigma": st.sampled_from([0.5, 2])})
SHAPED = st.fixed_dictionaries({"a": st.sampled_from([0.5, 1, 4]), "b": st.sampled_from([0.5, 1, 4])})
REFERENCES: dict[str, tuple[st.SearchStrategy[dict[str, Any]], Callable[[dict[str, Any]], Any]]] = {
    "uniform": (pairs(POSITIVE), lambda of: stats.uniform(of["min"], of["max"] - of["min"])),
    "int_uniform": (pairs(st.integers(-50, 5000)), lambda of: stats.randint(of["min"], of["max"] + 1)),
    "log_uniform": (pairs(EXPONENTS), lambda of: stats.loguniform(math.exp(of["min"]), math.exp(of["max"]))),
    "inv_log_uniform": (pairs(EXPONENTS), lambda of: stats.loguniform(math.exp(-of["max"]), math.exp(-of["min"]))),
    "log_uniform_values": (pairs(POSITIVE), lambda of: stats.loguniform(of["min"], of["max"])),
    "inv_log_uniform_values": (pairs(POSITIVE), lambda of: stats.loguniform(of["min"], of["max"])),
    "normal": (LOCATED, lambda of: stats.norm(of["mu"], of.get("sigma", 1))),
    "log_normal": (LOCATED, lambda of: stats.lognorm(of.get("sigma", 1), scale=math.exp(of["mu"]))),
    "beta": (SHAPED, lambda of: stats.beta(of["a"], of["b"])),
}
"""Parameters of each of W&B's distributions, and scipy's distribution for them."""
ROUNDED = ("uniform", "log_uniform", "log_uniform_values", "normal", "log_normal", "beta")
PARAMETERS = st.one_of(
    *(given.map(lambda of, name=name: of | {"distribution": name}) for name, (given, _) in REFERENCES.items()),
    *(
        st.builds(lambda of, q, name=name: of | {"distribution": f"q_{name}", "q": q}, REFERENCES[name][0], STEPS)
        for name in ROUNDED
    ),
)


def quantile(draw: Draw, share: float) -> float:
    """Return the value below which this share of the draws lies."""
    if draw.choice is not None:
        return sorted(draw.choice)[int(share * len(draw.choice))]
    if draw.log_int:
        return value_at(draw, share)
    low, high = draw.uniform or draw.log_uniform or draw.int or (0, 0)
    if draw.log_uniform:
        return low * (high / low) ** share
    return low + share * (high - low) if draw.uniform else math.floor(low + share * (high + 1 - low))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(PARAMETERS)
def test_drawn_values_are_those_that_wandb_draws(parameter: dict[str, Any]) -> None:
    """All of them are in its support, and as often as there; the tolerance is a step, and a choice's resolution."""
    made = converted(json.dumps({"method": "random", "run_cap": 1, "parameters": {"x": parameter}}))
    draw = Sweep.model_validate({"name": "a", "random": YAML(typ="safe", pure=True).load(made.text)["random"]}).random[
        "x"
    ]
    assert isinstance(draw, Draw)
    name, q = parameter["distribution"].removeprefix("q_"), parameter.get("q", 0)
    reference = REFERENCES[name][1](parameter)
    low, high = reference.support()
    for value in (quantile(draw, 0), quantile(draw, 0.9999)):
        assert low - q / 2 - abs(low) * 1e-5 <= value <= high + q / 2 + abs(high) * 1e-5
    for value in (draw.choice or []) if q else []:
        assert math.isclose(value / q, round(value / q), rel_tol=1e-5)
    for share in (0.1, 0.3, 0.5, 0.7, 0.9):
        least, most = reference.ppf(share - 0.02), reference.ppf(share + 0.02)
        assert least - q - abs(least) * 1e-5 <= quantile(draw, share) <= most + q + abs(most) * 1e-5


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(PARAMETERS)
def test_what_a_bayesian_search_draws_from_is_a_space_without_repetitions(parameter: dict[str, Any]) -> None:
    made = converted(json.dumps({"method": "bayes", "run_cap": 3, "parameters": {"x": parameter}}))
    search = Sweep.model_validate({"name": "a", "search": YAML(typ="safe", pure=True).load(made.text)["search"]}).search
    assert search
    draw = search.space["x"]
    assert len(set(draw.choice or ())) == len(draw.choice or ())
    reference = REFERENCES[parameter["distribution"].removeprefix("q_")][1](parameter)
    q = parameter.get("q", 0)
    for value, share in ((value_at(draw, 0), 0.01), (value_at(draw, 0.9999), 0.99)):
        if reference.std() > q:
            least, most = reference.ppf(max(share - 0.03, 0)), reference.ppf(min(share + 0.03, 1))
            assert least - q - abs(least) * 1e-3 <= value <= most + q + abs(most) * 1e-3


def test_optunas_distributions_are_drawn_from_their_own_values() -> None:
    space = {
        "lr": {"name": "FloatDistribution", "attributes": {"step": None, "low": 0.01, "high": 1.0, "log": True}},
        "batch_size": {"name": "IntDistribution", "attributes": {"log": False, "step": 8, "low": 8, "high": 36}},
        "epochs": {"name": "IntDistribution", "attributes": {"log": True, "step": 1, "low": 1, "high": 30}},
        "augment": {"name": "CategoricalDistribution", "attributes": {"choices": ["none", "shift"]}},
    }
    Path("space.json").write_text(json.dumps({key: json.dumps(each) for key, each in space.items()}))
    texts = convert("space.json", 40)
    Path("space.json").write_text(json.dumps(space))
    made = convert("space.json", 40)
    assert made.text == texts.text, "as distribution_to_json returns them, too"
    search = planned(made).search
    assert search
    assert (search.name, search.trials) == ("tpe", 40)
    assert search.space["lr"].log_uniform == (0.01, 1.0)
    assert (search.space["batch_size"].int, search.space["batch_size"].step) == ((8, 32), 8)
    assert search.space["epochs"].log_int == (1, 30)
    assert made.notes == []
    with pytest.raises(SweepFileError, match="--samples N"):
        convert("space.json")


def test_json_that_is_no_search_is_told_what_one_is() -> None:
    Path("space.json").write_text(json.dumps({"lr": {"low": 0.1, "high": 1}}))
    with pytest.raises(SweepFileError, match=r"neither a W&B sweep file.*distribution_to_json returns it; got lr"):
        convert("space.json", 4)


def test_what_a_search_has_of_rounded_numbers_ascends_and_has_both_ends() -> None:
    """So that it takes them for ordered."""
    text = BAYES.replace("min: 4, max: 64}", "min: 8, max: 512, q: 8}")
    made = converted(
        text.replace("epochs: {value: 5}", "model.width: {distribution: q_uniform, min: 2, max: 64, q: 2}"), 9
    )
    search = planned(made).search
    assert search
    sizes = search.space["batch_size"].choice
    assert sizes is not None
    assert (sizes, sizes[0], sizes[-1]) == (sorted({*sizes}), 8, 512)
    assert is_ordered(search.space["batch_size"])
    assert (search.space["model.width"].int, search.space["model.width"].step) == ((2, 64), 2)
    assert "drawn" not in made.text
    assert any("of its 64 values " in note for note in made.notes)
