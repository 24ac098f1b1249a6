"""Reads an Optuna search space as JSON: by name, what `optuna.distributions.distribution_to_json` writes.

Optuna itself is not imported: https://optuna.readthedocs.io/en/stable/reference/distributions.html.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import PurePath
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt
from pydantic.functional_validators import model_validator

from raysweep.config import Config
from raysweep.errors import SweepFileError
from raysweep.sweepfile.convert.checked import Checker
from raysweep.sweepfile.convert.distributions import DrawOf, draw_of, once, steps
from raysweep.sweepfile.convert.space import Space, slug
from raysweep.sweepfile.document import Source

NAMES = ("FloatDistribution", "IntDistribution", "CategoricalDistribution")


class _Drawn(Config):
    def drawn(self) -> DrawOf:
        raise NotImplementedError

    def searched(self) -> DrawOf:
        return self.drawn()


class _Range(_Drawn):
    low: float
    high: float
    log: bool = False

    @model_validator(mode="after")
    def _ascends(self) -> _Range:
        if self.low > self.high:
            raise ValueError(f"low {self.low:g} must not be above high {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"low: got {self.low:g}, must be above 0 where log is true")
        return self


class _Float(_Range):
    step: PositiveFloat | None = None

    def drawn(self) -> DrawOf:
        if self.step:
            return steps(self.low, self.step, math.floor(round((self.high - self.low) / self.step, 9)) + 1)
        return DrawOf({"log_uniform" if self.log else "uniform": [self.low, self.high]})


class _Int(_Range):
    low: int
    high: int
    step: PositiveInt = 1

    def drawn(self) -> DrawOf:
        if self.log:  # Optuna, too, draws between half below and half above, and rounds
            return DrawOf({"log_int": [self.low, self.high]})
        if self.step == 1:
            return DrawOf({"int": [self.low, self.high]})
        return steps(self.low, self.step, (self.high - self.low) // self.step + 1)


class _Categorical(_Drawn):
    choices: Annotated[list[Any], Field(min_length=1)]

    def drawn(self) -> DrawOf:
        return DrawOf({"choice": once(self.choices)})


KINDS: dict[str, type[_Float | _Int | _Categorical]] = dict(zip(NAMES, (_Float, _Int, _Categorical), strict=True))


class _Named(Config):
    name: Literal["FloatDistribution", "IntDistribution", "CategoricalDistribution"]
    attributes: dict[str, Any]


def is_optuna(source: Source) -> bool:
    """Whether a file is an Optuna search space, right or wrong."""
    return any(isinstance(each, Mapping) and "attributes" in each for each in map(_decoded, source.values.values()))


def _decoded(value: Any) -> Any:
    """Return a distribution that is given as text, as `distribution_to_json` returns it, as the mapping that it is."""
    if not isinstance(value, str) or not value.lstrip().startswith("{"):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def read_optuna(source: Source, samples: int | None = None) -> Space:
    """Return the search of an Optuna space, which does not say how many configs to draw: `samples` does.

    Raises:
        SweepFileError: it is not such a space, or `samples` is not given; all faults at once.
    """
    space = Space(source, slug(PurePath(source.path).stem, "sweep"), search="tpe")  # Optuna's default sampler
    checker = Checker(source)
    for key, value in source.values.items():
        named = checker.checked(_Named, _decoded(value), (key,))
        if named and (found := checker.checked(KINDS[named.name], named.attributes, (key, "attributes"))):
            try:
                drawn = draw_of(found, is_searched=True)
                if drawn.differs:
                    space.note((key,), f"{named.name}: {drawn.differs}")
                space.take((key,), key, None, drawn.draw)
            except ValueError as error:
                checker.problem((key,), str(error))
    if samples is None:
        checker.problem((), "an Optuna space does not say how many configs to propose; say so with --samples N")
    if checker.problems:
        raise SweepFileError(*checker.problems)
    space.samples = samples or 0
    return space
