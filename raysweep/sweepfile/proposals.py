"""The proposals of a search, a generation at a time: those that depend on no results. No Optuna, no torch, no Ray."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
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


def size_of(search: Search, proposed: int) -> int:
    """Return how many proposals the next generation has, after so many."""
    return max(0, min(search.generation, search.trials - proposed))


def first_generations(sweep: Sweep) -> list[Generation]:
    """Return the generations that depend on no results: the first two or, if none ever does, all."""
    search, generations = sweep.search, list[Generation]()
    assert search is not None
    before: list[Settings] = []
    while size := size_of(search, len(before)):
        if len(generations) == WITHOUT_RESULTS and search.learns:
            break
        proposals = drawn(sweep, before, size)
        if not proposals:
            break
        generations.append(Generation(len(generations), proposals))
        before += proposals
    return generations


def drawn(sweep: Sweep, before: Collection[Settings], count: int) -> list[Settings]:
    """Return the next proposals, none of which was made `before`: enqueued ones first, then drawn ones.

    They are fewer than asked for where the space has no more.
    """
    search = sweep.search
    assert search is not None
    space, made = Space(search.space), {_text(each) for each in before}
    proposals: list[Settings] = []
    for index in range(len(before), len(before) + count):
        given = search.enqueue[index] if index < len(search.enqueue) else {}
        for settings in _tries(sweep, space, given, index):
            if _text(settings) not in made:
                made.add(_text(settings))
                proposals.append(settings)
                break
    return proposals


def _tries(sweep: Sweep, space: Space, given: Settings, index: int) -> Iterator[Settings]:
    assert sweep.search is not None
    if sweep.search.name == "qmc":
        shares = dict(zip(space.dimensions, _sobol(len(space.dimensions), index, sweep.seed), strict=True))
        yield space.fill(given, lambda key, dimension: value_at(dimension, shares[key]))
    for attempt in range(TRIES):
        tail = f"{index}/{attempt}" if attempt else str(index)
        yield space.fill(given, partial(_draw, sweep.seed, tail))
    for settings in space.all_proposals() or ():
        if given.items() <= settings.items():
            yield settings


def _draw(seed: int, tail: str, key: str, dimension: Dimension) -> Any:
    return draw_value(dimension, f"{seed}/{key}/{tail}")


def _sobol(dimensions: int, index: int, seed: int) -> list[float]:
    """Return a point of a scrambled Sobol sequence (Owen 1998), each coordinate 0 <= x < 1."""
    from scipy.stats import qmc  # takes as long to import as a plan to print

    sequence = qmc.Sobol(dimensions, scramble=True, rng=seed)
    if index:  # scipy fails at 0
        sequence.fast_forward(index)
    return [float(each) for each in sequence.random(1)[0]]


def _text(settings: Settings) -> str:
    return json.dumps(settings, sort_keys=True)
