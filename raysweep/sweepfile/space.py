"""The space of a search: which keys a proposal has, and how each is drawn. Pure; no Optuna, no torch, no Ray."""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Callable, Mapping, Sequence
from graphlib import TopologicalSorter
from typing import Any, TypeVar

from raysweep.sweepfile.schema import Dimension, Draw

Settings = dict[str, Any]
"""A proposal: those keys of the space that it has, with their values."""


class Space:
    """The keys of a space, each after those that decide whether a proposal has it."""

    def __init__(self, dimensions: Mapping[str, Dimension]) -> None:
        needs = {key: [*(each.when or {})] for key, each in dimensions.items()}
        self.dimensions = {key: listed(dimensions[key]) for key in TopologicalSorter(needs).static_order()}

    def fill(self, given: Mapping[str, Any], value: Callable[[str, Dimension], Any]) -> Settings:
        """Return a proposal: what is `given`, and the `value` of each other key that it has."""
        settings: Settings = {}
        for key, dimension in self.dimensions.items():
            if has(settings, dimension):
                settings[key] = given[key] if key in given else value(key, dimension)
        return settings

    def why_not(self, settings: Mapping[str, Any]) -> str:
        """Return why a proposal is not of this space, in words; nothing if it is."""
        for key, dimension in self.dimensions.items():
            if not has(settings, dimension):
                if key in settings:
                    return f"{key} is not asked for"
            elif key not in settings:
                return f"{key} is missing"
            elif not is_drawable(settings[key], dimension):
                return f"{key} {settings[key]} is outside"
        unknown = [key for key in settings if key not in self.dimensions]
        return f"{unknown[0]} is no key of it" if unknown else ""

    def all_proposals(self) -> list[Settings] | None:
        """Return every proposal there can be; None if they are endless, or more than `COUNTABLE`."""
        values = [_values(each) for each in self.dimensions.values()]
        if any(each is None for each in values) or math.prod(len(each or ()) for each in values) > COUNTABLE:
            return None
        found: dict[str, Settings] = {}
        for chosen in itertools.product(*(each or () for each in values)):
            settings = self.fill(dict(zip(self.dimensions, chosen, strict=True)), _never)
            found.setdefault(json.dumps(settings, sort_keys=True), settings)
        return list(found.values())


AnyDraw = TypeVar("AnyDraw", bound=Draw)


def listed(draw: AnyDraw) -> AnyDraw:
    """Return a draw with a step as the choice that it is, of ascending numbers; any other as it is."""
    bounds, step = draw.int or draw.uniform, draw.step
    if step is None or bounds is None:
        return draw
    low, high = bounds
    inner = [low + place * step for place in range(1, round((high - low) / step))]
    values = [
        low,
        *(inner if draw.int else [float(f"{value:.12g}") for value in inner]),
        *([high] if low < high else []),
    ]
    return draw.model_copy(update={"choice": values, "int": None, "uniform": None, "step": None})


COUNTABLE = 10_000
"""A space of at most so many combinations of values is gone through."""


def _values(draw: Draw) -> Sequence[Any] | None:
    """Return all values that a draw can have; None if they are endless, or too many by themselves."""
    draw = listed(draw)
    whole, real = draw.int or draw.log_int, draw.uniform or draw.log_uniform
    if real:
        return real[:1] if real[0] == real[1] else None
    if whole:
        return range(whole[0], whole[1] + 1) if whole[1] - whole[0] < COUNTABLE else None
    return draw.choice


def _never(key: str, dimension: Dimension) -> Any:
    raise AssertionError(key)


def has(settings: Mapping[str, Any], dimension: Dimension) -> bool:
    """Whether a proposal with these settings has a key of this dimension."""
    return all(
        other in settings and (settings[other] in values if isinstance(values, list) else settings[other] == values)
        for other, values in (dimension.when or {}).items()
    )


def is_drawable(value: Any, draw: Draw) -> bool:
    """Whether a draw can have this value."""
    draw = listed(draw)
    if draw.choice is not None:
        return value in draw.choice
    whole = draw.int or draw.log_int
    low, high = whole or draw.uniform or draw.log_uniform or (math.nan, math.nan)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and low <= value <= high and (not whole or value == int(value))


def is_ordered(draw: Draw) -> bool:
    """Whether what a draw can have are numbers, or choices of ascending or descending ones: near ones are alike."""
    values = draw.choice
    if values is None:  # with a step, too
        return True
    if len(values) < 2 or not all(isinstance(each, (int, float)) and not isinstance(each, bool) for each in values):
        return False
    return values in (sorted(set(values)), sorted(set(values), reverse=True))


def draw_value(draw: Draw, seed: str) -> Any:
    """Draw a value from a seed alone, that of (sweep seed, key, index): so no key or draw changes another."""
    generator, draw = random.Random(seed), listed(draw)
    if draw.choice is not None:
        return generator.choice(draw.choice)
    if draw.int is not None:
        return generator.randint(*draw.int)
    return _real_or_log(draw, generator.random())


def value_at(draw: Draw, share: float) -> Any:
    """Return the value below which a share of what a draw can have lies, 0 <= share < 1."""
    draw = listed(draw)
    if draw.choice is not None:
        return draw.choice[int(share * len(draw.choice))]
    if draw.int is not None:
        low, high = draw.int
        return low + int(share * (high - low + 1))
    return _real_or_log(draw, share)


def share_of(draw: Draw, value: Any) -> float:
    """Return a share at which `value_at` has a value; of a choice or a whole number, the middle of them."""
    draw = listed(draw)
    if draw.choice is not None:
        return (draw.choice.index(value) + 0.5) / len(draw.choice)
    whole = draw.int or draw.log_int
    low, high = whole or draw.uniform or draw.log_uniform or (math.nan, math.nan)
    low, high = (low - 0.5, high + 0.5) if whole else (low, high)
    if draw.log_int or draw.log_uniform:
        low, high, value = math.log(low), math.log(high), math.log(value)
    return float((value - low) / (high - low)) if high > low else 0.5


def _real_or_log(draw: Draw, share: float) -> Any:
    if draw.log_int is not None:  # each whole number has the room from half below to half above it
        low, high = math.log(draw.log_int[0] - 0.5), math.log(draw.log_int[1] + 0.5)
        return min(draw.log_int[1], max(draw.log_int[0], round(math.exp(low + share * (high - low)))))
    if draw.log_uniform is not None:
        low, high = draw.log_uniform
        value = math.exp(math.log(low) + (math.log(high) - math.log(low)) * share)
    else:
        assert draw.uniform is not None
        low, high = draw.uniform
        value = low + (high - low) * share
    return min(high, max(low, float(f"{value:.6g}")))  # what is rounded may lie outside
