"""W&B's distributions of a parameter. In: one as its file gives it. Out: a grid's values, or how it is drawn.

The definitions are those of W&B's own sampler (github.com/wandb/sweeps, `params.py`) and its documentation,
https://docs.wandb.ai/models/sweeps/sweep-config-keys.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from statistics import NormalDist
from typing import Annotated, Any, Literal, Protocol, TypeVar

from pydantic import Field, NonNegativeFloat, PositiveFloat
from pydantic.functional_validators import model_validator

from raysweep.config import Config
from raysweep.errors import did_you_mean
from raysweep.sweepfile.schema import MOST_STEPS

QUANTILES = 50
"""What `random` cannot draw becomes a choice of at most so many equally likely values."""
MAX_GRID_VALUES = 1000
"""A grid's range of whole numbers may have so many."""


@dataclass(frozen=True)
class DrawOf:
    """How `random` draws what W&B draws from a distribution."""

    draw: dict[str, Any]  # a `Draw` of the sweep file, as plain values
    differs: str = ""  # how that differs from what W&B draws, in words; nothing if it does not


class Distribution(Config):
    """A parameter of a W&B sweep."""

    distribution: str

    def in_grid(self) -> list[Any] | None:
        """Return the values over which W&B's grid search goes; None if it has no such parameter in a grid."""
        return None

    def drawn(self) -> DrawOf:
        """Return how `random` draws it."""
        raise NotImplementedError

    def searched(self) -> DrawOf:
        """Return how it is drawn in the space of a `search`, which learns itself what of a range is worth trying."""
        return self.drawn()


class Constant(Distribution):
    """One value."""

    distribution: Literal["constant"] = "constant"
    value: Any

    def in_grid(self) -> list[Any]:
        """Return the value."""
        return [self.value]

    def drawn(self) -> DrawOf:
        """Return a choice of the one value."""
        return DrawOf({"choice": [self.value]})


class Categorical(Distribution):
    """One of several values."""

    distribution: Literal["categorical"] = "categorical"
    values: Annotated[list[Any], Field(min_length=1)]

    def in_grid(self) -> list[Any]:
        """Return the values."""
        return self.values

    def drawn(self) -> DrawOf:
        """Return a choice of them."""
        return DrawOf({"choice": self.values})

    def searched(self) -> DrawOf:
        """Return a choice of them, each once."""
        return DrawOf({"choice": once(self.values)})


class Weighted(Distribution):
    """One of several values, not equally likely."""

    distribution: Literal["categorical_w_probabilities"] = "categorical_w_probabilities"
    values: Annotated[list[Any], Field(min_length=1)]
    probabilities: list[NonNegativeFloat]

    @model_validator(mode="after")
    def _one_probability_a_value(self) -> Weighted:
        if len(self.probabilities) != len(self.values):
            raise ValueError(f"has {len(self.values)} values and {len(self.probabilities)} probabilities")
        if not math.isclose(sum(self.probabilities), 1, abs_tol=1e-6):
            raise ValueError(f"probabilities: must add up to 1; they add up to {sum(self.probabilities):g}")
        return self

    def drawn(self) -> DrawOf:
        """Return a choice in which each value stands as often as it is likely, in hundredths if need be."""
        exact = [Fraction(str(each)) for each in self.probabilities]
        parts = math.lcm(*(each.denominator for each in exact))
        counts = [max(round(each * min(parts, 100)), each > 0) for each in exact]
        shared = reduce(math.gcd, counts)
        choice = [value for value, count in zip(self.values, counts, strict=True) for _ in range(count // shared)]
        return DrawOf({"choice": choice}, "its probabilities are rounded to hundredths" if parts > 100 else "")

    def searched(self) -> DrawOf:
        """Return a choice of those that are likely at all."""
        likely = [value for value, each in zip(self.values, self.probabilities, strict=True) if each]
        return DrawOf(
            {"choice": likely}, "its probabilities have no counterpart: a search learns which values are good"
        )


class IntUniform(Distribution):
    """A whole number between two bounds, both included."""

    distribution: Literal["int_uniform"] = "int_uniform"
    min: int
    max: int

    @model_validator(mode="after")
    def _ascends(self) -> IntUniform:
        return _ascending(self)

    def in_grid(self) -> list[Any]:
        """Return all of them."""
        return _not_too_many(range(self.min, self.max + 1))

    def drawn(self) -> DrawOf:
        """Return the same."""
        return DrawOf({"int": [self.min, self.max]})


class Uniform(Distribution):
    """A real number between two bounds."""

    distribution: Literal["uniform"] = "uniform"
    min: float
    max: float

    @model_validator(mode="after")
    def _ascends(self) -> Uniform:
        return _ascending(self)

    def drawn(self) -> DrawOf:
        """Return the same."""
        return DrawOf({"uniform": [self.min, self.max]})


Exponent = Annotated[float, Field(ge=-700, le=700)]


class LogUniform(Distribution):
    """The exponential of a number between two bounds, which are exponents of e."""

    distribution: Literal["log_uniform"]
    min: Exponent
    max: Exponent

    @model_validator(mode="after")
    def _ascends(self) -> LogUniform:
        return _ascending(self)

    def bounds(self) -> tuple[float, float]:
        """Return the least and the greatest value."""
        return math.exp(self.min), math.exp(self.max)

    def drawn(self) -> DrawOf:
        """Return the same, with the values themselves for bounds."""
        low, high = map(_short, self.bounds())
        slip = f"min and max are exponents of e, so these are values from {low:g} to {high:g}, as in W&B; bounds that "
        slip += "are values are log_uniform_values there"
        return DrawOf({"log_uniform": [low, high]}, slip if 0 < self.min < self.max <= 1 else "")


class InvLogUniform(LogUniform):
    """A number whose inverse is drawn as `log_uniform` draws: so it is itself, with the exponents negated."""

    distribution: Literal["inv_log_uniform"]  # type: ignore[assignment]

    def bounds(self) -> tuple[float, float]:
        """Return the least and the greatest value."""
        return math.exp(-self.max), math.exp(-self.min)


class LogUniformValues(Distribution):
    """A number between two bounds, uniform in its logarithm; so is its inverse, and the two are the same."""

    distribution: Literal["log_uniform_values", "inv_log_uniform_values"]
    min: PositiveFloat
    max: float

    @model_validator(mode="after")
    def _ascends(self) -> LogUniformValues:
        return _ascending(self)

    def drawn(self) -> DrawOf:
        """Return the same."""
        return DrawOf({"log_uniform": [self.min, self.max]})


class QUniform(Uniform):
    """A real number between two bounds, rounded to a multiple of q."""

    distribution: Literal["q_uniform"]  # type: ignore[assignment]
    q: PositiveFloat = 1.0

    def in_grid(self) -> list[Any]:
        """Return the numbers from `min` on in steps of q, without `max`, as W&B's grid search has them."""
        count = math.ceil(round((self.max - self.min) / self.q, 9))
        return [_whole_if(self.q, self.min + step * self.q) for step in _not_too_many(range(count))]

    def drawn(self) -> DrawOf:
        """Return the multiples of q."""
        found = self.searched()
        return DrawOf(found.draw, found.differs or LESS_OFTEN)

    def searched(self) -> DrawOf:
        """Return the multiples of q between the bounds; W&B rarely rounds to those beyond them."""
        first, last = _first_and_last(self.min, self.max, self.q)
        return steps(first * self.q, self.q, last - first + 1)


LESS_OFTEN = "W&B, which rounds, draws the first and the last value less often than is done here"


class QLogUniform(LogUniform):
    """As `log_uniform`, rounded to a multiple of q."""

    distribution: Literal["q_log_uniform"]  # type: ignore[assignment]
    q: PositiveFloat = 1.0

    def drawn(self) -> DrawOf:
        """Return whole numbers, or quantiles."""
        return _rounded_logs(*self.bounds(), self.q)

    def searched(self) -> DrawOf:
        """Return whole numbers, or multiples of q."""
        return _multiples_by_logs(*self.bounds(), self.q)


class QLogUniformValues(LogUniformValues):
    """As `log_uniform_values`, rounded to a multiple of q."""

    distribution: Literal["q_log_uniform_values"]  # type: ignore[assignment]
    q: PositiveFloat = 1.0

    def drawn(self) -> DrawOf:
        """Return whole numbers, or quantiles."""
        return _rounded_logs(self.min, self.max, self.q)

    def searched(self) -> DrawOf:
        """Return whole numbers, or multiples of q."""
        return _multiples_by_logs(self.min, self.max, self.q)


class _Unbounded(Distribution):
    """What a search has no counterpart for but the range in which nearly all of its draws lie."""

    def quantile(self, share: float) -> float:
        """Return the value below which this share of the draws lies."""
        raise NotImplementedError

    def searched(self) -> DrawOf:
        """Return the range in which 98 % of its draws lie."""
        low, high = _short(self.quantile(0.01)), _short(self.quantile(0.99))
        kind = "log_uniform" if isinstance(self, LogNormal) and low > 0 else "uniform"
        q = getattr(self, "q", None)
        if q == 1 and round(low) < round(high):
            whole = "log_int" if kind == "log_uniform" and round(low) >= 1 else "int"
            return DrawOf({whole: [round(low), round(high)]}, IN_RANGE)
        if low == high or q is not None:
            several = quantiles(self.quantile, q).draw["choice"]
            return DrawOf({"choice": once(several)}, "has no counterpart: one of its quantiles is chosen")
        return DrawOf({kind: [low, high]}, IN_RANGE)


IN_RANGE = "has no counterpart: the range in which 98 % of its draws lie is searched"


class Normal(_Unbounded):
    """A normally distributed number."""

    distribution: Literal["normal"]
    mu: float = 0.0
    sigma: NonNegativeFloat = 1.0

    def quantile(self, share: float) -> float:
        """Return the value below which this share of the draws lies."""
        return NormalDist(self.mu, self.sigma).inv_cdf(share) if self.sigma else self.mu

    def drawn(self) -> DrawOf:
        """Return quantiles."""
        return quantiles(self.quantile)


class QNormal(Normal):
    """As `normal`, rounded to a multiple of q."""

    distribution: Literal["q_normal"]  # type: ignore[assignment]
    q: PositiveFloat = 1.0

    def drawn(self) -> DrawOf:
        """Return quantiles."""
        return quantiles(self.quantile, self.q)


class LogNormal(Normal):
    """The exponential of a normally distributed number."""

    distribution: Literal["log_normal"]  # type: ignore[assignment]

    def quantile(self, share: float) -> float:
        """Return the value below which this share of the draws lies."""
        return math.exp(super().quantile(share))


class QLogNormal(LogNormal):
    """As `log_normal`, rounded to a multiple of q."""

    distribution: Literal["q_log_normal"]  # type: ignore[assignment]
    q: PositiveFloat = 1.0

    def drawn(self) -> DrawOf:
        """Return quantiles."""
        return quantiles(self.quantile, self.q)


class Beta(_Unbounded):
    """A number from 0 to 1 of the beta distribution."""

    distribution: Literal["beta"]
    a: PositiveFloat = 1.0
    b: PositiveFloat = 1.0

    def quantile(self, share: float) -> float:
        """Return the value below which this share of the draws lies."""
        from scipy.special import betaincinv  # takes a third of a second to import

        return float(betaincinv(self.a, self.b, share))

    def drawn(self) -> DrawOf:
        """Return quantiles."""
        return quantiles(self.quantile)


class QBeta(Beta):
    """As `beta`, rounded to a multiple of q."""

    distribution: Literal["q_beta"]  # type: ignore[assignment]
    q: PositiveFloat = 1.0

    def drawn(self) -> DrawOf:
        """Return quantiles."""
        return quantiles(self.quantile, self.q)


DISTRIBUTIONS: dict[str, type[Distribution]] = {
    "constant": Constant,
    "categorical": Categorical,
    "categorical_w_probabilities": Weighted,
    "int_uniform": IntUniform,
    "uniform": Uniform,
    "q_uniform": QUniform,
    "log_uniform": LogUniform,
    "q_log_uniform": QLogUniform,
    "inv_log_uniform": InvLogUniform,
    "log_uniform_values": LogUniformValues,
    "q_log_uniform_values": QLogUniformValues,
    "inv_log_uniform_values": LogUniformValues,
    "normal": Normal,
    "q_normal": QNormal,
    "log_normal": LogNormal,
    "q_log_normal": QLogNormal,
    "beta": Beta,
    "q_beta": QBeta,
}


def kind_of(given: Mapping[str, Any]) -> type[Distribution]:
    """Return the distribution that W&B takes a parameter to be of; raise ValueError if there is none."""
    if "distribution" in given:
        name = given["distribution"]
        if not isinstance(name, str) or name not in DISTRIBUTIONS:
            near = did_you_mean(str(name), DISTRIBUTIONS)
            raise ValueError(f"unknown distribution {name!r}{near}; known: {', '.join(DISTRIBUTIONS)}")
        return DISTRIBUTIONS[name]
    if "values" in given:
        return Weighted if "probabilities" in given else Categorical
    if "value" in given:
        return Constant
    if {"min", "max"} & given.keys():
        whole = all(type(given.get(key)) is int for key in ("min", "max"))
        return IntUniform if whole else Uniform
    raise ValueError("must have value, values, min and max, a distribution, or parameters inside it")


class Drawable(Protocol):
    """What is to be drawn."""

    def drawn(self) -> DrawOf:
        """Return how `random` draws it."""

    def searched(self) -> DrawOf:
        """Return how it is drawn in the space of a `search`."""


def draw_of(found: Drawable, is_searched: bool = False) -> DrawOf:
    """Return how `random`, or `search`, draws it; raise ValueError if its numbers are larger than there are."""
    try:
        drawn = found.searched() if is_searched else found.drawn()
    except OverflowError:
        raise ValueError("draws numbers that are too large") from None
    if any(isinstance(each, float) and not math.isfinite(each) for each in next(iter(drawn.draw.values()))):
        raise ValueError("draws numbers that are too large, or too small")
    return drawn


# ---------------------------------------------------------------------------------------------------------
# Numbers


Bounded = TypeVar("Bounded", IntUniform, Uniform, LogUniform, LogUniformValues)


def _ascending(self: Bounded) -> Bounded:
    if self.min >= self.max:
        raise ValueError(f"min {self.min:g} must be below max {self.max:g}")
    return self


def _not_too_many(numbers: range) -> list[Any]:
    if len(numbers) > MAX_GRID_VALUES:
        raise ValueError(f"a grid over {len(numbers):,} values; at most {MAX_GRID_VALUES:,} can be converted")
    return list(numbers)


def once(values: Sequence[Any]) -> list[Any]:
    """Return values without those that equal an earlier one."""
    told = [(isinstance(value, bool), value) for value in values]  # True == 1
    return [value for index, value in enumerate(values) if told[index] not in told[:index]]


MOST_AT_AN_END = 0.02
"""Whole numbers stand for rounded ones if the first and the last are at most this likelier than those."""


def _rounded_logs(low: float, high: float, q: float) -> DrawOf:
    """Return whole numbers about uniform in their logarithm or, where these are not what is rounded to, quantiles."""
    first, last = math.ceil(low - 1e-9), math.floor(high + 1e-9)
    logs = math.log(low), math.log(high)
    if q == 1 and low >= 1 and first < last:
        ends = math.log(low / (first - 0.5)), math.log((last + 0.5) / high)
        if max(map(abs, ends)) / (logs[1] - logs[0]) <= MOST_AT_AN_END:
            return DrawOf({"log_int": [first, last]})
    return quantiles(lambda share: math.exp(logs[0] + share * (logs[1] - logs[0])), q)


def _multiples_by_logs(low: float, high: float, q: float) -> DrawOf:
    """Return multiples of q for a search: about uniform in their logarithm, in order, the first and the last included.

    A search takes ascending choices for ordered numbers.
    """
    first, last = _first_and_last(low, high, q)
    if q == 1 and 1 <= first < last:
        return DrawOf({"log_int": [first, last]})
    logs = math.log(low), math.log(high)
    shares = (place / (QUANTILES - 1) for place in range(QUANTILES))
    rounded = (round(math.exp(logs[0] + share * (logs[1] - logs[0])) / q) for share in shares)
    chosen = sorted({first, last, *(min(last, max(first, each)) for each in rounded)})
    count, differs = last - first + 1, ""
    if count > len(chosen):
        differs = (
            f"has no counterpart: of its {count:,} values {len(chosen)} are searched, evenly spread in the logarithm"
        )
    return DrawOf({"choice": [_multiple(each, q) for each in chosen]}, differs)


def _first_and_last(low: float, high: float, q: float) -> tuple[int, int]:
    """Return the first and the last multiple of q between bounds, or else what these are rounded to, divided by q."""
    first, last = math.ceil(low / q - 1e-9), math.floor(high / q + 1e-9)
    return (first, last) if first <= last else (round(low / q), round(high / q))


def steps(low: float, step: float, count: int) -> DrawOf:
    """Return `low`, `low + step` and so on, so many; all between the first and the last where they are too many."""
    numbers = [float(f"{each:.12g}") for each in (step, low, low + (count - 1) * step)]
    is_whole = all(each.is_integer() for each in numbers)
    size, *bounds = map(int, numbers) if is_whole else numbers
    kind = "int" if is_whole else "uniform"
    if count <= 1:
        return DrawOf({"choice": bounds[:1]})
    if is_whole and size == 1:
        return DrawOf({kind: bounds})
    if count > MOST_STEPS:
        return DrawOf({kind: bounds}, f"steps have no counterpart where they are more than {MOST_STEPS:,}")
    return DrawOf({kind: bounds, "step": size})


def quantiles(quantile: Callable[[float], float], q: float | None = None) -> DrawOf:
    """Return a choice of the middles of equally likely parts, rounded to a multiple of q as W&B rounds."""
    middles = [quantile((part + 0.5) / QUANTILES) for part in range(QUANTILES)]
    values = [_short(each) if q is None else _multiple(round(each / q), q) for each in middles]
    kinds = len(set(values))
    weighted = "; a value stands there once for each that is rounded to it" if 1 < kinds < len(values) else ""
    return DrawOf(
        {"choice": values if kinds > 1 else values[:1]},
        f"has no counterpart: one of its {QUANTILES} equally likely quantiles is drawn{weighted}",
    )


def _multiple(count: int, q: float) -> float:
    return _whole_if(q, count * q)


def _whole_if(q: float, value: float) -> float:
    """Return a multiple of q: a whole number if q is one and it is."""
    return int(value) if float(q).is_integer() and float(value).is_integer() else _short(value)


def _short(value: float) -> float:
    return float(f"{value:.6g}")
