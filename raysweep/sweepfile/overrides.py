"""Patches overrides of the command line, such as `lr=0.1`, into a sweep file's values, in place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from raysweep.errors import SweepFileError
from raysweep.sweepfile.document import Source, parse_value
from raysweep.sweepfile.patch import as_section, patch
from raysweep.sweepfile.schema import AXES, Sweep


def apply_overrides(source: Source, overrides: Sequence[str]) -> list[str]:
    """Patch the file's values; return what is wrong with overrides that are not `key=value`."""
    problems: list[str] = []
    for override in overrides:
        try:
            _override(source, override)
        except SweepFileError as error:
            problems += error.problems
    return problems


def _override(source: Source, override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not all(key.split(".")):
        raise SweepFileError(f"override {override!r}: must be key=value, such as lr=0.1 or scheduler.eta=2")
    try:
        value = parse_value(text, _way_to(key))
    except SweepFileError as error:
        reasons = [problem.partition(": ")[2] for problem in error.problems]
        raise SweepFileError(*(f"override {override!r}: {reason}" for reason in reasons)) from None
    if key.partition(".")[0] not in Sweep.model_fields:
        _pin(source.values, key, value)
        key = f"base.{key}"
    way = _way_to(key)
    source.overridden[way] = override
    *parents, last = way
    table = source.values
    for part in parents:
        table[part] = as_section(table.get(part))
        table = table[part]
    for other in [each for each in table if each == last or each.startswith(f"{last}.")]:
        del table[other]
    table[last] = value  # inserted last, so that it prevails over the file's settings in the same section


def _way_to(key: str) -> tuple[str, ...]:
    """Return the way to an override's place; in `base`, an axis table or a case, a dotted key is one key."""
    match key.split("."):
        case ["cases", _, kind, _, *_] if kind in AXES:
            splits = 3
        case ["cases", *_]:
            splits = 2
        case [head, *_] if head in (*AXES, "base"):
            splits = 1
        case _:
            splits = -1
    return tuple(key.split(".", splits))


def _pin(values: dict[str, Any], key: str, value: Any) -> None:
    """Remove the axis of that name, so that the override alone decides.

    Where an axis has values for the whole section around the key, the key is set in each of them.
    """
    cases = values.get("cases")
    rows = [row for row in cases.values() if isinstance(row, dict)] if isinstance(cases, dict) else []
    for row in rows:
        _pin_in(row, key, lambda given, inner: _with(given, inner, value))
    for table in (values, *rows):
        for axis in AXES:
            inside = table.get(axis)
            if not isinstance(inside, dict) or not inside:
                continue
            _pin_in(inside, key, lambda given, inner: _with_in_each(given, inner, value))
            if set(inside) <= {"samples"}:
                del table[axis]


def _pin_in(table: dict[str, Any], key: str, set_inside: Callable[[Any, str], Any]) -> None:
    for other in list(table):
        if other in (key, f"{key}.name"):
            del table[other]
        elif key.startswith(f"{other}."):
            table[other] = set_inside(table[other], key.removeprefix(f"{other}."))


def _with(section: Any, key: str, value: Any) -> Any:
    holder = {"section": section}
    patch(holder, f"section.{key}", value)
    return holder["section"]


def _with_in_each(axis: Any, key: str, value: Any) -> Any:
    if isinstance(axis, dict) and isinstance(axis.get("choice"), list):
        return {**axis, "choice": _with_in_each(axis["choice"], key, value)}
    return [_with(each, key, value) for each in axis] if isinstance(axis, list) else axis
