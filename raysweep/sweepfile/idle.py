"""What a sweep file says in vain. In: a sweep and its trials. Out: messages about what would change nothing.

An override may take away what gave a setting its effect (`epochs=1` for a quick try), so that only the file itself is
held to it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from raysweep.sweepfile.document import Keys, Source
from raysweep.sweepfile.patch import get
from raysweep.sweepfile.plan import Trial
from raysweep.sweepfile.schema import Sweep


def what_is_idle(sweep: Sweep, trials: Sequence[Trial]) -> list[str]:
    """Return a problem for each value given twice, exclusion that matches nothing, and setting without effect."""
    problems = list(_given_twice(sweep))
    if sweep.source.overridden:
        return problems
    return [*problems, *_idle_exclusions(sweep), *_idle_settings(sweep, trials)]


def _given_twice(sweep: Sweep) -> Iterator[str]:
    cases = ((("cases", name, "grid"), case.get("grid") or {}) for name, case in sweep.cases.items())
    grids = [(("grid",), sweep.grid), *cases]
    lists = [((*way, key), values) for way, grid in grids for key, values in grid.items()]
    for way, values in [*lists, (("seeds",), sweep.seeds or [])]:
        first: dict[str, int] = {}
        for index, value in enumerate(values):
            if first.setdefault(json.dumps(value, sort_keys=True, default=str), index) != index:
                yield sweep.source.problem((*way, index), f"{value!r} is in the list twice; leave one out")


def _idle_exclusions(sweep: Sweep) -> Iterator[str]:
    for index in sweep._idle_exclusions:
        if not sweep.exclude[index].keys() & sweep.random.keys():  # a draw may miss it by chance
            message = "matches no trial; correct it, or leave it out"
            yield sweep.source.problem(("exclude", index), message)


def _idle_settings(sweep: Sweep, trials: Sequence[Trial]) -> Iterator[str]:
    """Yield a problem for each value that has no effect in any of the trials that have it."""
    trials = sorted(trials, key=lambda trial: trial.config.epochs)  # the longest one tells why, in the end
    reasons = [trial.config.idle_settings() for trial in trials]
    for key in dict.fromkeys(key for each in reasons for key in each):
        values = [get(trial.config.model_dump(mode="json"), key) for trial in trials]
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
