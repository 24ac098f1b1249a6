"""The proposals of a search, a generation at a time: those that depend on no results. No Optuna, no torch, no Ray."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from raysweep.sweepfile.schema import Dimension, Search, Sweep
from raysweep.sweepfile.space import Settings, Space, draw_value, value_at

WITHOUT_RESULTS = 2
"""How many generations are made before there are results: a generation is made from those of all but the last one."""
TRIES = 100
"""How often a proposal is drawn again that was made before; then a space of few is gone through."""


@dataclass(frozen=True)
class Generation:
    """Proposals that were made together."""

    number: int  # from 0
    proposals: list[Settings]
    knows: list[str] = field(default_factory=list)
    """The ids of the trials whose results it was made from; its own trials compete with them."""


Accepts = Callable[[Settings], bool]
"""Whether a proposal can be made: its config is valid, and no proposal before had it. What is accepted is made."""


def left_to_propose(search: Search, proposed: int) -> int:
    """Return how many proposals are to come at most, after so many: a space of few may have no more."""
    there_are = Space(search.space).all_proposals()
    return max(0, min(search.trials, search.trials if there_are is None else len(there_are)) - proposed)


def size_of(search: Search, proposed: int) -> int:
    """Return how many proposals the next generation has, after so many: all that are left if none needs results."""
    left = max(0, search.trials - proposed)
    return min(search.generation, left) if search.learns else left


def first_generations(sweep: Sweep, accepts: Accepts) -> list[Generation]:
    """Return the generations that depend on no results: the first two, of a search that learns from them."""
    search, generations, before = sweep.search, list[Generation](), list[Settings]()
    assert search is not None
    for number in range(WITHOUT_RESULTS):
        proposals = drawn(sweep, before, size_of(search, len(before)), accepts)
        if proposals:
            generations.append(Generation(number, proposals))
            before += proposals
    return generations


def enqueued(search: Search, before: Iterable[Settings]) -> list[Settings]:
    """Return those of `enqueue` that no proposal of `before` has."""
    made = list(before)
    return [each for each in search.enqueue if not any(each.items() <= settings.items() for settings in made)]


def drawn(sweep: Sweep, before: Sequence[Settings], count: int, accepts: Accepts) -> list[Settings]:
    """Return the next proposals after those of `before`: enqueued ones first, then drawn ones.

    They are fewer than asked for where the space has no more.
    """
    search = sweep.search
    assert search is not None
    space, waiting = Space(search.space), enqueued(search, before)
    proposals: list[Settings] = []
    for index in range(len(before), len(before) + count):
        given = waiting.pop(0) if waiting else {}
        settings = next(filter(accepts, _tries(sweep, space, given, index)), None)
        proposals += [] if settings is None else [settings]
    return proposals


def _tries(sweep: Sweep, space: Space, given: Settings, index: int) -> Iterator[Settings]:
    assert sweep.search is not None
    if sweep.search.name == "qmc":
        for shares in _sobol(len(space.dimensions), index, sweep.seed):
            of_key = dict(zip(space.dimensions, shares, strict=True))
            yield space.fill(given, partial(_at, of_key))
    else:
        for attempt in range(TRIES):
            yield space.fill(given, partial(_draw, sweep.seed, f"{index}/{attempt}" if attempt else str(index)))
    for settings in space.all_proposals() or ():
        if given.items() <= settings.items():
            yield settings


def _at(shares: Mapping[str, float], key: str, dimension: Dimension) -> Any:
    return value_at(dimension, shares[key])


def _draw(seed: int, tail: str, key: str, dimension: Dimension) -> Any:
    return draw_value(dimension, f"{seed}/{key}/{tail}")


def _sobol(dimensions: int, index: int, seed: int) -> Iterator[list[float]]:
    """Yield points of a scrambled Sobol sequence (Owen 1998) from one of them on, each coordinate 0 <= x < 1."""
    from scipy.stats import qmc  # takes as long to import as a plan to print

    sequence = qmc.Sobol(dimensions, scramble=True, rng=seed)
    if index:  # scipy fails at 0
        sequence.fast_forward(index)
    for _ in range(TRIES):
        yield [float(each) for each in sequence.random(1)[0]]
