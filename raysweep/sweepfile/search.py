"""Checks the section `search` against the trials that it may propose. In: a sweep. Out: what is wrong, with its place.

A proposal may be made hours after the run began, so that what no config accepts is found in the space itself: at the
bounds of its draws, and at each choice.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any

from raysweep.config import LoopConfig
from raysweep.errors import did_you_mean
from raysweep.sweepfile.document import Keys
from raysweep.sweepfile.messages import IS_MISSING
from raysweep.sweepfile.plan import config_of_proposal
from raysweep.sweepfile.schema import AXES, KINDS_OF_DRAWS, AshaConfig, Dimension, RayAshaConfig, Search, Sweep
from raysweep.sweepfile.space import Settings, Space, is_drawable, is_ordered, listed, value_at
from raysweep.terminal import some_of

SPACE: Keys = ("search", "space")
TYPICAL = 0.382
"""Between its bounds, a draw is tried where this share of its values lies below: no round number."""


DRAW_WHOLE = ": draw it with int or log_int"


def why_not_to_search(sweep: Sweep) -> list[str]:
    """Return what is wrong with the search of a sweep, all of it; nothing if there is no search."""
    search = sweep.search
    if search is None:
        return []
    faults = [*_beside(sweep), *_counts(sweep, search)]
    faults += (unclear := [*_conditions(search.space)])
    sound = _without(search, {str(way[len(SPACE)]) for way, _ in unclear})
    faults += (enqueued := [*_enqueued(sound)])
    problems = [sweep.source.problem(way, message) for way, message in faults]
    refused = _refused(sweep, sound)
    if not refused:
        refused = _refused_together(sweep, sound, {way[2] for way, _ in enqueued if len(way) > 2})
    # What a proposal lacks may be a key that was left out, because of its fault.
    return problems + [problem for problem in refused if not (unclear and problem.endswith(IS_MISSING))]


def _without(search: Search, keys: Collection[str]) -> Search:
    """Return a search without keys of which it cannot be told when a proposal has them, and those that need these."""
    lost = set(keys)
    while more := {key for key, each in search.space.items() if lost & {key, *(each.when or {})}} - lost:
        lost |= more
    if not lost:
        return search
    space = {key: each for key, each in search.space.items() if key not in lost}
    items = [{key: value for key, value in item.items() if key not in lost} for item in search.enqueue]
    return search.model_copy(update={"space": space, "enqueue": items})


def probes(sweep: Sweep) -> list[LoopConfig]:
    """Return configs of a sound search that together have the bounds and choices of each key of its space."""
    tried = [_probed(sweep, sweep.search, key) for key in sweep.search.space] if sweep.search else []
    return [probe.config for probe in itertools.chain(*tried) if probe.config]


@dataclass(frozen=True)
class _Probe:
    """A proposal that has a certain value of a key, and what comes of it."""

    key: str
    way: Keys  # to the value in the space; to the key, if the value is one between its bounds
    settings: Settings
    config: LoopConfig | None
    faults: list[str]  # if there is no config; each has the place in the space that gives the value


def _probed(sweep: Sweep, search: Search, key: str) -> list[_Probe]:
    """Try a proposal with each value of a key at which it may be refused."""
    space, found = Space(search.space), list[_Probe]()
    needed = {other: values[0] for other, values in needs(search.space, key).items()}
    for inner, value in _extremes(search.space[key]):
        way, faults = (*SPACE, key, *inner), list[str]()
        settings = space.fill({**needed, key: value}, _typical)
        found.append(_Probe(key, way, settings, config_of_proposal(sweep, settings, faults, {key: way}), faults))
    return found


def _refused(sweep: Sweep, search: Search) -> list[str]:
    """Return why no config accepts what may be proposed."""
    tried = {key: _probed(sweep, search, key) for key in search.space}
    own = {key: [*_refused_values(each, search.space[key]), *_same_choices(sweep, each)] for key, each in tried.items()}
    of_others: dict[str, None] = {}
    for probe in itertools.chain(*tried.values()):
        for problem in probe.faults:
            at = next((key for key in search.space if _is_at(problem, key)), None)
            if at is None:
                of_others.setdefault(_with_settings(problem, probe.settings, [*of_others]))
            elif not own[at]:  # of a key that a proposal with this value does not have
                of_others.setdefault(_with_advice(problem, search.space[at]))
    return list(dict.fromkeys([*itertools.chain(*own.values()), *filter(None, of_others)]))


def _refused_values(probes: Sequence[_Probe], dimension: Dimension) -> list[str]:
    """Return what is wrong with a key's own values; of what lies between two bounds nothing if these say enough."""
    found: list[str] = []
    for probe in probes:
        if dimension.choice is None and found and (probe.way[-1] == probe.key or found[-1].endswith(DRAW_WHOLE)):
            break
        found += (_with_advice(each, dimension) for each in probe.faults if _is_at(each, probe.key))
    return found


def _same_choices(sweep: Sweep, probes: Sequence[_Probe]) -> Iterator[str]:
    first: dict[str, Keys] = {}
    for probe in probes:
        if probe.config and "choice" in probe.way[3:]:
            way = first.setdefault(json.dumps(probe.config.model_dump(mode="json"), sort_keys=True), probe.way)
            if way != probe.way:
                message = f"comes to the same config as {'.'.join(map(str, way[3:]))}; leave one out"
                yield sweep.source.problem(probe.way, message)


def _is_at(problem: str, key: str) -> bool:
    name = f": {'.'.join(map(str, SPACE))}.{key}"
    return f"{name}: " in f": {problem}" or f"{name}." in f": {problem}"


def _with_settings(problem: str, settings: Settings, told: Sequence[str]) -> str:
    """Say which proposal a config refuses as a whole; nothing if another one was told before."""
    if ": base: " not in f": {problem}":
        return problem
    if any(each.startswith(problem.partition(": base: ")[0]) and ": base: " in each for each in told):
        return ""
    values = ", ".join(f"{key} {value}" for key, value in settings.items())
    return f"{problem}, and a proposal may have {values}; narrow the draws, or keep values apart with `when`"


def _refused_together(sweep: Sweep, search: Search, faulty: Collection[int | str]) -> list[str]:
    """Return why no config has the values of what is enqueued together, each of which it may have.

    Items whose place is among the `faulty` are passed over.
    """
    space, problems = Space(search.space), list[str]()
    for index, item in enumerate(search.enqueue):
        if index in faulty:
            continue
        ways: dict[str, Keys] = {key: ("search", "enqueue", index, key) for key in item}
        config_of_proposal(sweep, space.fill(item, _typical), problems, ways)
    return list(dict.fromkeys(problems))


def needs(space: Mapping[str, Dimension], key: str) -> dict[str, list[Any]]:
    """Return which values a proposal must have of other keys so that it has this one, whose conditions are sound."""
    found: dict[str, list[Any]] = {}
    asked = [key]
    for each in asked:
        for other, values in (space[each].when or {}).items():
            allowed = values if isinstance(values, list) else [values]
            found[other] = [value for value in found.get(other, allowed) if value in allowed]
            asked.append(other)
    return found


def warnings_of(sweep: Sweep) -> list[str]:
    """Return what of a sound search is hardly meant, in words."""
    search = sweep.search
    if search is None:
        return []
    found = []
    numbers = [key for key, each in search.space.items() if is_ordered(each) and not each.when]
    if search.name == "cmaes" and len(numbers) < 2:
        only = f"only {numbers[0]}" if numbers else "none"
        found.append(
            f"search.name: cmaes models two or more numbers that every proposal has; this space has {only}, so that "
            "tpe proposes all of it"
        )
    if (all_of_it := Space(search.space).all_proposals()) and len(all_of_it) <= search.trials:
        found.append(
            f"search.trials: the space has {len(all_of_it):,} configs, so that a search of {search.trials:,} trains "
            "each of them; a grid does that without waiting for results"
        )
    grouped = sweep.scheduler.group_by if isinstance(sweep.scheduler, AshaConfig) else []
    for key in grouped:
        if key in search.space and _is_real(search.space[key]):
            found.append(
                f"scheduler.group_by: hardly any two proposals have the same {key}, so that none is stopped early"
            )
    return found


def _beside(sweep: Sweep) -> Iterator[tuple[Keys, str]]:
    for axis in (*AXES, "cases", "exclude"):
        if getattr(sweep, axis):
            yield (axis,), "cannot stand beside search: what varies is in search.space; leave one of the two out"
    if isinstance(sweep.scheduler, RayAshaConfig):
        yield ("scheduler",), "must be asha or none with search: what ray_asha stops depends on the order of arrival"


def _counts(sweep: Sweep, search: Search) -> Iterator[tuple[Keys, str]]:
    seeds, limit = len(sweep.seeds or [sweep.seed]), sweep.limits.trials
    if search.trials * seeds > limit:
        whole = f"{search.trials:,} configs with {seeds} seeds are {search.trials * seeds:,} trials, " * (seeds > 1)
        message = f"{whole or f'got {search.trials:,}, '}more than limits.trials, {limit:,}; raise it or propose fewer"
        yield ("search", "trials"), message
    if len(search.enqueue) > search.trials:
        message = (
            f"has {len(search.enqueue)} configs, more than search.trials, {search.trials}; raise it or enqueue fewer"
        )
        yield ("search", "enqueue"), message


def _conditions(space: Mapping[str, Dimension]) -> Iterator[tuple[Keys, str]]:
    """Yield what is wrong with `when`: keys and values that no proposal has, and keys that need each other."""
    unknown = False
    for key, dimension in space.items():
        for other, values in (dimension.when or {}).items():
            way = (*SPACE, key, "when", other)
            if other not in space:
                unknown = True
                yield way, f"is no key of the space{did_you_mean(other, space)}; it has {some_of([*space])}"
            elif _is_real(space[other]):
                yield way, f"{other} is a real number, which hardly ever has a given value; name a key with a choice"
            else:
                for index, value in enumerate(values if isinstance(values, list) else [values]):
                    if not is_drawable(value, space[other]):
                        yield (
                            (*way, index) if isinstance(values, list) else way,
                            f"got {value!r}, which {other} never is; it is {_in_words(space[other])}",
                        )
    if unknown:
        return
    try:
        TopologicalSorter({key: [*(each.when or {})] for key, each in space.items()}).prepare()
    except CycleError as error:
        first, *others = error.args[1][::-1]
        yield (*SPACE, first, "when"), f"{first} needs {' which needs '.join(others)}: a circle, so that none has it"
        return
    for key in space:
        for other, values in needs(space, key).items():
            if not values:
                yield (*SPACE, key, "when"), f"never holds: {other} would have to have two values at once"


def _enqueued(search: Search) -> Iterator[tuple[Keys, str]]:
    space = Space(search.space)
    complete: dict[str, int] = {}
    for index, item in enumerate(search.enqueue):
        for key, value in item.items():
            way = ("search", "enqueue", index, key)
            if key not in search.space:
                yield way, f"is no key of the space{did_you_mean(key, search.space)}; it has {some_of([*search.space])}"
                continue
            if not is_drawable(value, search.space[key]):
                yield way, f"got {value!r}, must be {_in_words(search.space[key])}, as in the space; or widen that"
            for other, allowed in needs(search.space, key).items():
                only = f"is there only with {other} {' or '.join(map(str, allowed))}"
                if other not in item:
                    yield way, f"{only}: give that, too"
                elif item[other] not in allowed:
                    yield way, f"{only}, and here that is {item[other]}; leave it out"
        drawn: list[str] = []
        space.fill(item, lambda key, _, drawn=drawn: drawn.append(key))  # type: ignore[misc]
        if not drawn and (first := complete.setdefault(json.dumps(item, sort_keys=True), index)) != index:
            yield ("search", "enqueue", index), f"is the same as enqueue.{first}; leave one out"


def _extremes(dimension: Dimension) -> Iterator[tuple[Keys, Any]]:
    """Yield values at which a draw may be refused, each with the way to it inside the dimension."""
    if dimension.choice is not None:
        yield from ((("choice", index), value) for index, value in enumerate(dimension.choice))
        return
    for kind in KINDS_OF_DRAWS:
        for index, bound in enumerate(getattr(dimension, kind) or ()):
            yield (kind, index), bound
    yield (), _typical("", dimension)


def _typical(_: str, dimension: Dimension) -> Any:
    return dimension.choice[0] if dimension.choice is not None else value_at(dimension, TYPICAL)


def _with_advice(problem: str, dimension: Dimension) -> str:
    """Say what to do about a value that a config refuses because of how it is drawn, not because of its size."""
    if _is_real(dimension) and problem.endswith("must be a whole number"):
        return f"{problem}{DRAW_WHOLE}"
    if " is a key of " in problem and not dimension.when:
        return f"{problem}; say with `when` which proposals have it"
    return problem


def _is_real(dimension: Dimension) -> bool:
    return (dimension.uniform is not None or dimension.log_uniform is not None) and dimension.step is None


def _in_words(dimension: Dimension) -> str:
    """Return what a draw may have."""
    if dimension.choice is not None:
        return f"one of {some_of([str(each) for each in dimension.choice])}"
    if dimension.step is not None:
        return f"one of {some_of([f'{each:g}' for each in listed(dimension).choice or []])}"
    low, high = next(filter(None, (dimension.uniform, dimension.log_uniform, dimension.int, dimension.log_int)))
    return f"{'' if _is_real(dimension) else 'a whole number '}from {low:,.10g} to {high:,.10g}"
