"""Loops of the user's own: `register_loop` makes one of a function."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel

from raysweep.config import LoopConfig, classes_of
from raysweep.errors import UserError
from raysweep.loops.checksum import checksum
from raysweep.loops.course import Course
from raysweep.loops.epoch import Epoch, TrialContext, seed_generators
from raysweep.loops.loop import Loop
from raysweep.loops.named import LOOPS
from raysweep.registry import Mode

F = TypeVar("F", bound=Callable[..., Any])


class _Registered(Loop):
    """A loop made of a function."""

    def __init__(
        self,
        name: str,
        function: Callable[..., Any],
        config: type[LoopConfig],
        metrics: Mapping[str, Mode],
        prepare: Callable[..., Mapping[str, Any]] | None,
        horizon: Sequence[str] = (),
    ) -> None:
        self.name, self.function, self.config = name, function, config
        self._metrics, self._prepare, self._horizon = dict(metrics), prepare, horizon

    @property
    def metrics(self) -> Mapping[str, Mode]:
        """Return those that it was registered with."""
        return self._metrics

    def data_key(self, config: Any) -> str:
        """Return the settings that the user's `prepare` takes."""
        values = config.model_dump(mode="json")
        return json.dumps([values[name] for name in self._of_the_data()])

    def prepare(self, config: Any, sweep_folder: Path) -> dict[str, Any]:
        """Return what the user's `prepare` returns."""
        return (
            dict(self._prepare(**{name: getattr(config, name) for name in self._of_the_data()}))
            if self._prepare
            else {}
        )

    def _of_the_data(self) -> Sequence[str]:
        return list(inspect.signature(self._prepare).parameters) if self._prepare else []

    def course(self, config: Any) -> Course | None:
        """Return the settings but for those that only say how long a trial trains; None where the user names none."""
        if not self._horizon:
            return None
        # With the defaults: one that is edited makes others of the epochs, though not of the id.
        decides = config.model_dump(mode="json", exclude={*self._horizon})
        return Course(json.dumps(decides, sort_keys=True), [""] * config.epochs)

    def conditions(self, config: Any, arrays: dict[str, Any], device: str = "auto") -> dict[str, Any]:
        """Return a checksum of the data that was prepared, if any was."""
        return {"data": checksum(arrays, self.name)} if arrays else {}


class GeneratorLoop(_Registered):
    """A loop made of a generator `train(config, trial)`."""

    def train(self, config: Any, trial: TrialContext) -> Iterator[Epoch]:
        """Train by the function; before each epoch the global generators are seeded for it."""
        done = trial.epoch
        seed_generators(trial.seed, 0)  # for the weights that every attempt begins with
        epochs = self.function(config, trial)
        if not isinstance(epochs, Iterable):
            raise UserError(
                f"loop {self.name!r}: {_name_of(self.function)} returned {epochs!r:.60}; it must yield a "
                "raysweep.Epoch after each epoch"
            )
        epochs = iter(epochs)
        try:
            for epoch in epochs:
                if not isinstance(epoch, Epoch):
                    raise UserError(f"loop {self.name!r}: yielded {epoch!r:.80}, must be a raysweep.Epoch")
                yield epoch
                if epoch.metrics:
                    done += 1
                    seed_generators(trial.seed, done)
        except SystemExit as error:
            raise RuntimeError(f"loop {self.name!r} ended its process (SystemExit: {error})") from error
        finally:
            if inspect.isgenerator(epochs):
                epochs.close()


class TrainFunctionLoop(_Registered):
    """A loop made of a Ray Train function, `train(config: dict)`; `worker/train_function` hosts it."""

    def __init__(self, *given: Any, epochs_key: str) -> None:
        super().__init__(*given)
        self.epochs_key = epochs_key

    def arguments(self, config: LoopConfig, seed: int) -> list[dict[str, Any]]:
        """Return what the function is called with: a dict of settings, number of epochs and seed; or nothing."""
        if not parameters_of(self.function):
            return []
        return [{**config.model_dump(), self.epochs_key: config.epochs, "seed": seed}]


def register_loop(
    name: str,
    *,
    config: type[LoopConfig] = LoopConfig,
    metrics: Mapping[str, Mode] = MappingProxyType({}),
    epochs: str = "epochs",
    prepare: Callable[..., Mapping[str, Any]] | None = None,
    horizon: Sequence[str] = (),
) -> Callable[[F], F]:
    """Decorate a function that trains, or a `Loop`, so that sweep files can say `loop: NAME`.

    Args:
        name: what sweep files call it.
        config: a trial's settings, a class derived from `raysweep.Config`; its fields are what sweep files may set.
        metrics: what trials may be ranked by, with `max` or `min`; the first is the objective where a file names none.
        epochs: the key under which a Ray Train function finds the number of epochs; sweep files say `epochs`.
        prepare: makes a data set: arrays by name, which lie in the memory of each node once, where the loop finds
            them in `TrialContext.data`; where they do not fit Ray's object store, each process that trains calls it.
            Its parameters are named after the settings that the data set depends on; trials that agree in these share
            it.
        horizon: the settings that only say how long a trial trains, such as `epochs`, and change nothing about an epoch
            before its end. Trials that differ in these alone then share their first epochs, and a longer one goes on
            where a shorter one ended. Default: none, and nothing is shared.

    A function of two parameters, `train(config, trial)`, yields an `Epoch` after each epoch. One of a single parameter,
    `train(config: dict)`, or of none, is a function as Ray Train runs it: it calls `ray.train.report`.

    Raises:
        UserError: the name is taken by a built-in loop, or what is registered is no loop.
    """
    if not isinstance(name, str):
        raise UserError(f'register_loop needs a name, and got {_name_of(name)}: @raysweep.register_loop("NAME", ...)')
    _check_config(name, config)
    if not isinstance(metrics, Mapping):
        raise UserError(f"register_loop({name!r}): metrics: got {metrics!r}, must be like {{'val_loss': 'min'}}")
    unknown = [
        each for each in (inspect.signature(prepare).parameters if prepare else ()) if each not in config.model_fields
    ]
    if unknown:
        raise UserError(f"register_loop({name!r}): prepare: {config.__name__} has no field {', '.join(unknown)}")
    if wrong := [metric for metric, mode in metrics.items() if mode not in ("max", "min")]:
        raise UserError(f"register_loop({name!r}): metrics: {', '.join(wrong)}: must be 'max' or 'min'")

    if isinstance(horizon, str) or not {*horizon} <= {*config.model_fields}:
        raise UserError(
            f"register_loop({name!r}): horizon: got {horizon!r}, must be a list of {config.__name__}'s fields: "
            f"{', '.join(config.model_fields)}"
        )

    def decorate(function: F) -> F:
        LOOPS.register(name)(_factory(name, function, config, metrics, epochs, prepare, horizon))
        return function

    LOOPS.register(name)  # refuses a built-in's name, where the decorator stands
    return decorate


def _factory(
    name: str,
    function: Callable[..., Any],
    config: type[LoopConfig],
    metrics: Mapping[str, Mode],
    epochs: str,
    prepare: Any,
    horizon: Sequence[str],
) -> Callable[[], Loop]:
    if isinstance(function, type) and issubclass(function, Loop):
        if config is not LoopConfig or metrics or prepare or horizon:
            raise UserError(
                f"register_loop({name!r}): {function.__name__} says its config, metrics, data and course itself"
            )
        return function
    parameters, wanted = (
        parameters_of(function),
        "needs train(config, trial), which yields one raysweep.Epoch per epoch",
    )
    if parameters == 2:
        made: Loop = GeneratorLoop(name, function, config, metrics, prepare, horizon)
    elif parameters < 2 and not inspect.isgeneratorfunction(function):
        made = TrainFunctionLoop(name, function, config, metrics, prepare, horizon, epochs_key=epochs)
        if taken := {"seed", epochs} & (config.model_fields.keys() - {"epochs"}):
            raise UserError(
                f"register_loop({name!r}): {config.__name__} has the field {' and '.join(sorted(taken))}, which the "
                "function is given by raysweep: sweep files say `seeds` and `epochs`; take it out of the class"
            )
    else:
        raise UserError(
            f"register_loop({name!r}): {wanted}, or a Ray Train function train(config); "
            f"{_name_of(function)} has {parameters} parameters{' and yields' if parameters < 2 else ''}"
        )
    return lambda: made


def _name_of(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__name__", function))


def parameters_of(function: Callable[..., Any]) -> int:
    """Return how many parameters a function is to be called with: those without a default, or else the first one."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    given = [each for each in inspect.signature(function).parameters.values() if each.kind in kinds]
    required = sum(each.default is inspect.Parameter.empty for each in given)
    return max(required, min(1, len(given)))


def _check_config(name: str, config: type[LoopConfig]) -> None:
    """Refuse settings of which a slip in a sweep file would be ignored, or that a record could not hold."""
    where = f"register_loop({name!r})"
    if not (isinstance(config, type) and issubclass(config, LoopConfig)):
        got = getattr(config, "__name__", repr(config))
        raise UserError(
            f"{where}: config: got {got}, must be a class derived from raysweep.Config, with the same fields"
        )
    problems = [f"{where}: {each.__name__}{why}" for each in _models_in(config) for why in _faults_of(each)]
    if problems:
        raise UserError(*problems)


def _faults_of(model: type[BaseModel]) -> Iterator[str]:
    if model.model_config.get("extra") != "forbid":
        yield ": derive it from raysweep.Section, which refuses keys that it does not have"
    for key, each in model.model_fields.items():
        if each.alias or each.validation_alias or each.serialization_alias or each.exclude:
            yield f".{key}: a setting has one name, and is on record: it can have no alias, and not be excluded"
        if _has_sets(each.annotation):
            yield f".{key}: a set has no order, so the trial's id would change: make it a list"
    for key in model.model_computed_fields:
        yield f".{key}: a computed field cannot be set: make it a property"


def _has_sets(annotation: Any) -> bool:
    kinds = {annotation, get_origin(annotation)}
    return bool(kinds & {set, frozenset}) or any(map(_has_sets, get_args(annotation)))


def _models_in(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    yield model
    for each in model.model_fields.values():
        for inner in classes_of(each.annotation):
            yield from _models_in(inner)
