"""What a sweep file says in vain. In: a sweep and its trials. Out: messages about what would change nothing.

An override may take away what gave a setting its effect (`epochs=1` for a quick try), so that only the file itself is
held to it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from raysweep.sweepfile.document import Keys, Source
from raysweep.sweepfile.patch import get
from raysweep.sweepfile.plan import Trial
from raysweep.sweepfile.replaced import replaced_values
from raysweep.sweepfile.schema import Sweep
from raysweep.sweepfile.search import probes


def what_is_idle(sweep: Sweep, trials: Sequence[Trial]) -> list[str]:
    """Return a problem for each value given twice or replaced, idle exclusion, and setting without effect."""
    problems = list(_given_twice(sweep))
    if sweep.source.overridden:
        return problems
    return [*problems, *replaced_values(sweep), *_idle_exclusions(sweep), *_idle_settings(sweep, trials)]


def _given_twice(sweep: Sweep) -> Iterator[str]:
    for way, values in _lists(sweep):
        first: dict[str, int] = {}
        for index, value in enumerate(values):
            if first.setdefault(json.dumps(_with_whole_numbers(value), sort_keys=True, default=str), index) != index:
                yield sweep.source.problem((*way, index), f"{value!r} is in the list twice; leave one out")


def _lists(sweep: Sweep) -> Iterator[tuple[Keys, Sequence[Any]]]:
    """Yield each list of values, and the way to it; of a zip its rows, at its first key."""
    yield ("seeds",), sweep.seeds or []
    whole: Mapping[str, Any] = {"grid": sweep.grid, "zip": sweep.zip}
    for way, axes in [((), whole), *((("cases", name), case) for name, case in sweep.cases.items())]:
        for key, values in (axes.get("grid") or {}).items():
            yield (*way, "grid", key), values
        if zipped := axes.get("zip"):
            rows = [dict(zip(zipped, row, strict=True)) for row in zip(*zipped.values(), strict=True)]
            yield (*way, "zip", next(iter(zipped))), rows


def _with_whole_numbers(value: Any) -> Any:
    """Return a value whose equal numbers are written alike, 1.0 as 1."""
    if isinstance(value, Mapping):
        return {key: _with_whole_numbers(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_with_whole_numbers(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _idle_exclusions(sweep: Sweep) -> Iterator[str]:
    for index in sweep._idle_exclusions:
        if not sweep.exclude[index].keys() & sweep.random.keys():  # a draw may miss it by chance
            message = "matches no trial; correct it, or leave it out"
            yield sweep.source.problem(("exclude", index), message)


def _idle_settings(sweep: Sweep, trials: Sequence[Trial]) -> Iterator[str]:
    """Yield a problem for each value that has no effect in any of the trials that have it.

    Of a search the first trials alone are known: those that it may propose count too, and what it draws is no fault.
    """
    configs = [*(trial.config for trial in trials), *probes(sweep)]
    configs.sort(key=lambda config: config.epochs)  # the longest one tells why, in the end
    reasons = [config.idle_settings() for config in configs]
    drawn = sweep.search.space if sweep.search else ()
    for key in dict.fromkeys(key for each in reasons for key in each if key not in drawn):
        values = [get(config.model_dump(mode="json"), key) for config in configs]
        for value in [value for index, value in enumerate(values) if value not in values[:index]]:
            whys = [each.get(key) for each, other in zip(reasons, values, strict=True) if other == value]
            if all(whys):
                yield sweep.source.problem(_where(sweep.source, key, value), str(whys[-1]))


def _where(source: Source, key: str, value: Any) -> Keys:
    """Return the way to where the file gives a trial's key this value."""
    for way in source.lines:
        names = ".".join(part for part in way if isinstance(part, str))
        if f".{names}".endswith(f".{key}") and _value(source, way) == value:
            return way
    return ("base", key)


def _value(source: Source, way: Keys) -> Any:
    value: Any = source.values
    for part in way:
        value = value[part]
    return value
