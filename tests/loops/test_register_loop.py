"""`register_loop`: what it makes of functions and classes, and what it refuses where the decorator stands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Any

import numpy as np
import pytest
import torch
from pydantic import BaseModel, Field, computed_field

import raysweep
from raysweep.errors import SweepFileError, UserError
from raysweep.loops import GeneratorLoop, Loop, TrainFunctionLoop, TrialContext, loop_named
from raysweep.loops.checksum import checksum
from raysweep.sweepfile.json_schema import sweep_schema
from raysweep.sweepfile.load import sweep_of
from raysweep.sweepfile.plan import plan_trials
from raysweep.sweepfile.reference import settings_of


class Config(raysweep.Config):
    """A trial's settings."""

    lr: float = 0.1
    layers: tuple[int, ...] = (8, 8)
    name: str = "mlp"


def generator(config: Config, trial: TrialContext) -> Iterator[raysweep.Epoch]:
    yield raysweep.Epoch({"loss": config.lr})


def generator_with_options(config: Config, trial: TrialContext, verbose: bool = False) -> Iterator[raysweep.Epoch]:
    yield raysweep.Epoch({"loss": config.lr})


def train_function(config: dict[str, Any]) -> None:
    pass


def without_config() -> None:
    pass


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (generator, GeneratorLoop),
        (generator_with_options, GeneratorLoop),
        (train_function, TrainFunctionLoop),
        (without_config, TrainFunctionLoop),
    ],
)
def test_the_number_of_parameters_tells_what_a_function_is(function: Callable[..., Any], kind: type[Loop]) -> None:
    raysweep.register_loop("own", config=Config, metrics={"loss": "min"})(function)
    assert type(loop_named("own")) is kind


def test_a_ray_train_function_is_given_its_settings_the_epochs_by_its_own_name_and_the_seed() -> None:
    raysweep.register_loop("own", config=Config, epochs="num_epochs")(train_function)
    loop = loop_named("own")
    assert isinstance(loop, TrainFunctionLoop)
    (given,) = loop.arguments(Config(epochs=7, lr=0.5), seed=3)
    assert given == {"epochs": 7, "num_epochs": 7, "lr": 0.5, "layers": (8, 8), "name": "mlp", "seed": 3}


class Lax(BaseModel):
    """A section that ignores what it does not know."""


class WithLax(raysweep.Config):
    """Settings."""

    inner: Lax = Lax()


class WithAlias(raysweep.Config):
    """Settings."""

    lr: Annotated[float, Field(alias="learning_rate")] = 0.1


class WithSet(raysweep.Config):
    """Settings."""

    parts: list[set[str]] = []


class WithComputed(raysweep.Config):
    """Settings."""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def twice(self) -> int:
        """Return a number."""
        return 2


class WithSeed(raysweep.Config):
    """Settings."""

    seed: int = 0


def yields(config: Any) -> Iterator[Any]:
    yield config


def three(config: Any, trial: Any, other: Any) -> None:
    pass


@pytest.mark.parametrize(
    ("given", "function", "message"),
    [
        ({"config": BaseModel}, generator, "must be a class derived from raysweep.Config"),
        ({"config": WithLax}, generator, "Lax: derive it from raysweep.Section"),
        ({"config": WithAlias}, generator, "WithAlias.lr: a setting has one name"),
        ({"config": WithSet}, generator, "WithSet.parts: a set has no order"),
        ({"config": WithComputed}, generator, "WithComputed.twice: a computed field cannot be set"),
        ({"config": WithSeed}, train_function, "WithSeed has the field seed, which the function is given by raysweep"),
        ({"metrics": {"loss": "lower"}}, generator, "metrics: loss: must be 'max' or 'min'"),
        ({"prepare": three}, generator, "prepare: LoopConfig has no field config, trial, other"),
        ({}, yields, "yields has 1 parameters and yields"),
        ({}, three, "three has 3 parameters"),
    ],
)
def test_what_is_no_loop_is_refused_where_it_is_registered(
    given: dict[str, Any], function: Callable[..., Any], message: str
) -> None:
    with pytest.raises(UserError, match="register_loop\\('own'\\)") as raised:
        raysweep.register_loop("own", **given)(function)
    assert message in str(raised.value)


def test_a_built_in_loops_name_is_taken() -> None:
    with pytest.raises(UserError, match="cannot register loop 'classify'"):
        raysweep.register_loop("classify")(generator)


def problems(**file: Any) -> list[str]:
    with pytest.raises(SweepFileError) as raised:
        sweep_of({"name": "s", **file})
    return list(raised.value.problems)


def test_a_sweep_of_ones_own_loop_is_planned_by_its_config_and_all_faults_are_told_at_once() -> None:
    raysweep.register_loop("own", config=Config, metrics={"loss": "min", "acc": "max"})(generator)
    sweep, _ = sweep_of({"name": "s", "loop": "own", "grid": {"layers": [[4], [4, 4]], "lr": [0.1, 1]}})
    trials = plan_trials(sweep)
    assert [(trial.config.layers, trial.config.lr) for trial in trials] == [  # type: ignore[attr-defined]
        ((4,), 0.1),
        ((4,), 1.0),
        ((4, 4), 0.1),
        ((4, 4), 1.0),
    ]
    assert (sweep.objective.metric, sweep.objective.maximize) == ("loss", False)
    told = problems(
        loop="own", objective="los", base={"epoch": 3}, grid={"lr": ["fast"]}, scheduler={"group_by": ["l"]}
    )
    assert len(told) == 4
    assert "objective.metric: got 'los' (did you mean 'loss'?); allowed: loss, acc; any other needs its mode" in told[0]
    assert any(
        "base.epoch: unknown key (did you mean 'epochs'?); allowed: epochs, lr, layers, name" in each for each in told
    )


def test_editors_and_readers_are_told_the_settings_of_ones_own_loop() -> None:
    raysweep.register_loop("own", config=Config, metrics={"loss": "min"})(generator)
    schema = sweep_schema("own")
    base = schema["properties"]["base"]["properties"]
    assert list(base) == ["epochs", "lr", "layers", "name"]
    assert {"enum": ["loss"]} in schema["properties"]["objective"]["anyOf"]
    assert "| `lr` | a number | `0.1` |" in settings_of("own")


def test_an_unknown_loop_is_the_only_thing_that_is_told() -> None:
    (told,) = problems(loop="owm", base={"whatever": 1}, objective="anything")
    assert "loop: unknown loop 'owm'; known: classify" in told
    assert "one of your own: --import the module that registers it" in told


def test_an_undeclared_objective_needs_its_mode() -> None:
    raysweep.register_loop("own", config=Config)(generator)
    (told,) = problems(loop="own")
    assert "loop 'own' says of no metric what is better: name one with its mode" in told
    sweep, _ = sweep_of({"name": "s", "loop": "own", "objective": {"metric": "f1", "mode": "max"}})
    assert sweep.objective.maximize


def test_loops_of_the_same_settings_have_trials_of_other_ids() -> None:
    for name in ("one", "other"):
        raysweep.register_loop(name, config=Config, metrics={"loss": "min"})(generator)
    one, other = (plan_trials(sweep_of({"name": "s", "loop": name})[0])[0].id for name in ("one", "other"))
    assert one != other


def test_prepared_data_is_shared_by_the_trials_that_agree_in_what_it_depends_on() -> None:
    def prepare(layers: tuple[int, ...]) -> dict[str, Any]:
        return {"x": np.zeros(layers)}

    raysweep.register_loop("own", config=Config, metrics={"loss": "min"}, prepare=prepare)(generator)
    loop = loop_named("own")
    assert loop.data_key(Config(lr=1.0)) == loop.data_key(Config(lr=2.0)) != loop.data_key(Config(layers=(1,)))


@pytest.mark.parametrize(
    "other",
    [
        {"x": np.arange(9999) % 7, "y": [1, "a", None]},
        {"x": np.arange(10000) % 7, "y": [1, "b", None]},
        {"x": (np.arange(10000) % 7).astype("int32"), "y": [1, "a", None]},
        {"x": (np.arange(10000) % 7).reshape(100, 100), "y": [1, "a", None]},
        {"x": {"inner": np.arange(10000) % 7}, "y": [1, "a", None]},
        {"x": np.where(np.arange(10000) == 5000, 9, np.arange(10000) % 7), "y": [1, "a", None]},
    ],
)
def test_a_checksum_tells_any_change_of_the_data(other: dict[str, Any]) -> None:
    data = {"x": np.arange(10000) % 7, "y": [1, "a", None]}
    assert checksum(data, "own") == checksum({"y": [1, "a", None], "x": torch.arange(10000) % 7}, "own")
    assert checksum(data, "own") != checksum(other, "own")


def test_a_checksum_takes_dates_and_refuses_objects() -> None:
    dates = np.array(["2020-01-01", "2020-01-02"], dtype="datetime64[D]")
    assert checksum({"when": dates}, "own") != checksum({"when": dates[::-1]}, "own")
    with pytest.raises(UserError, match=r"x\.0 is of type object; it may return arrays"):
        checksum({"x": [object()]}, "own")
