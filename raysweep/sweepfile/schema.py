"""The sections of a sweep file around its trials, as frozen pydantic models. `Sweep` is the whole file."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeFloat,
    PlainSerializer,
    PositiveFloat,
    PositiveInt,
    WithJsonSchema,
)

from raysweep.config import Config, name_only


def _parse_fraction(value: Any) -> Any:
    if isinstance(value, Fraction):
        return value
    if isinstance(value, str) and re.fullmatch(r"\s*\d+\s*/\s*[1-9]\d*\s*", value):
        return Fraction(value.replace(" ", ""))
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return Fraction(value).limit_denominator(10_000)
    raise ValueError("must be a fraction of the epochs between 0 and 1, such as 1/9 or 0.25")


def _inside_unit_interval(value: Fraction) -> Fraction:
    if not 0 < value < 1:
        raise ValueError("must lie between 0 and 1, both excluded")
    return value


EpochFraction = Annotated[
    Fraction,
    BeforeValidator(_parse_fraction),
    Field(strict=False),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": r"^\d+/\d+$"}, {"type": "number"}]}),
]


# ---------------------------------------------------------------------------------------------------------
# The sweep around the trials


class Objective(Config):
    """What trials are ranked by."""

    metric: Literal["val_acc", "val_loss", "val_acc_ema"] = "val_acc"
    mode: Literal["max", "min"] | None = None
    """Default: max for accuracies, min for losses."""

    @property
    def maximize(self) -> bool:
        """Whether more is better."""
        return (self.mode or ("min" if self.metric.endswith("loss") else "max")) == "max"


class NoneConfig(Config):
    """Every trial runs to its end."""

    name: Literal["none"] = "none"


class RayAshaConfig(Config):
    """Ray Tune's own ASHA, to compare with: stops at equal epochs, in order of arrival."""

    name: Literal["ray_asha"]
    grace_period: PositiveInt = 1
    """Epochs no trial is stopped before."""
    eta: Annotated[float, Field(gt=1)] = 4
    """One in eta goes on at each rung (Tune: reduction_factor)."""
    brackets: PositiveInt = 1


SchedulerConfig = Annotated[NoneConfig | RayAshaConfig, BeforeValidator(name_only), Field(discriminator="name")]


class Resources(Config):
    """The slot of one trial."""

    workers: PositiveInt = 1
    """Processes (ranks) of one trial."""
    gpus: NonNegativeFloat | Literal["auto"] = "auto"
    """GPUs a worker; auto: one if the cluster has any."""
    cpus: PositiveFloat | Literal["auto"] = "auto"
    """CPUs a worker; auto: the node's CPUs a GPU, or one where there is no GPU."""


class Checkpoints(Config):
    """How often weights are committed, and whose are kept."""

    every_minutes: PositiveFloat = 5.0
    keep_best: PositiveInt = 3
    """Trials, best first, whose best weights are kept once finished."""


class Limits(Config):
    """Where a run ends by itself."""

    trials: PositiveInt = 1000
    """A plan of more trials is refused."""
    max_concurrent: PositiveInt | None = None


class Uniform(Config):
    """A real number, evenly between two bounds."""

    uniform: tuple[float, float]


class LogUniform(Config):
    """A real number whose logarithm is even between two bounds."""

    log_uniform: tuple[PositiveFloat, PositiveFloat]
    """Real bounds, not exponents."""


class IntRange(Config):
    """A whole number, evenly between two bounds."""

    int: tuple[int, int]
    """Both included."""


class Choice(Config):
    """One of a list."""

    choice: Annotated[list[Any], Field(min_length=1)]


Seed = Annotated[int, Field(ge=0, lt=2**32)]
