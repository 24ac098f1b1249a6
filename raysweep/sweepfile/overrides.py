"""Patches overrides of the command line, such as `lr=0.1`, into a sweep file's values, in place."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from raysweep.config import is_secret
from raysweep.errors import SweepFileError
from raysweep.sweepfile.document import Source, parse_value
from raysweep.sweepfile.patch import as_section, patch
from raysweep.sweepfile.schema import AXES, KINDS_OF_DRAWS, Sweep

SPACE = ("search", "space")
NAMES = re.compile(r"""\w+(?=["']?\s*[:=])""")
"""What an override, or a mapping in it, gives a value to."""


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
        raise SweepFileError(f"override {_shown(override)!r}: must be key=value, such as lr=0.1 or scheduler.eta=2")
    try:
        value = parse_value(text, _way_to(key))
    except SweepFileError as error:
        reasons = [problem.partition(": ")[2] for problem in error.problems]
        raise SweepFileError(*(f"override {_shown(override)!r}: {reason}" for reason in reasons)) from None
    if key.partition(".")[0] not in Sweep.model_fields:
        _pin(source.values, key, value)
        key = f"base.{key}"
    way = _way_to(key)
    source.overridden[way] = _shown(override)
    *parents, last = way
    table = source.values
    for part in parents:
        table[part] = as_section(table.get(part))
        table = table[part]
    in_place_of = KINDS_OF_DRAWS if way[:2] == SPACE and last in KINDS_OF_DRAWS else (last,)
    for other in [each for each in table if each in in_place_of or each.startswith(f"{last}.")]:
        del table[other]
    table[last] = value  # inserted last, so that it prevails over the file's settings in the same section


def _shown(override: str) -> str:
    """Return an override as messages repeat it: without its value if that may hold a secret."""
    key, equals, value = override.partition("=")
    return f"{key}=***" if equals and (any(map(is_secret, NAMES.findall(override))) or "@" in value) else override


def _way_to(key: str) -> tuple[str, ...]:
    """Return the way to an override's place; in `base`, an axis table or a case, a dotted key is one key."""
    match key.split("."):
        case ["cases", _, kind, _, *_] if kind in AXES:
            splits = 3
        case ["cases", *_]:
            splits = 2
        case ["search", "space", first, *others]:
            inside = 1 if others and others[-1] in (*KINDS_OF_DRAWS, "step", "when") else 0
            names = [first, *others]
            return (*SPACE, ".".join(names[: len(names) - inside]), *names[len(names) - inside :])
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
    _pin_in_search(values, key, value)


def _pin_in_search(values: dict[str, Any], key: str, value: Any) -> None:
    """Take a key out of a search, and with it what is there only for its other values; without keys it is no search."""
    search = values.get("search")
    space, enqueue = (search.get("space"), search.get("enqueue")) if isinstance(search, dict) else (None, None)
    if not isinstance(space, dict) or not space:
        return
    items = [item for item in enqueue if isinstance(item, dict)] if isinstance(enqueue, list) else []
    pinned = {each for each in space if each in (key, f"{key}.name")}
    _pin_in(space, key, lambda given, inner: _with_in_each(given, inner, value))
    gone = set(pinned)
    while lost := [name for name, each in space.items() if _is_lost(_when(each), gone, pinned, value)]:
        for name in lost:
            del space[name]
        gone |= {*lost}
    for name, each in space.items():
        if when := _when(each):
            left = {other: wanted for other, wanted in when.items() if other not in pinned}
            space[name] = {**each, "when": left or None}
    for item in items:
        _pin_in(item, key, lambda given, inner: _with(given, inner, value))
        for name in gone & item.keys():
            del item[name]
    if not space:
        del values["search"]


def _when(dimension: Any) -> dict[str, Any]:
    when = dimension.get("when") if isinstance(dimension, dict) else None
    return when if isinstance(when, dict) else {}


def _is_lost(when: dict[str, Any], gone: set[str], pinned: set[str], value: Any) -> bool:
    """Whether a condition no longer holds: it is for a key that is gone, or for another value of the one pinned."""
    wanted = {other: each if isinstance(each, list) else [each] for other, each in when.items()}
    return any(value not in each if other in pinned else other in gone for other, each in wanted.items())


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
