"""A sweep file and overrides to a checked `Sweep`; all faults at once, each with its place."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError

from raysweep.config import Config
from raysweep.errors import SweepFileError, did_you_mean
from raysweep.sweepfile.document import Keys, Source, parse_value, read_document
from raysweep.sweepfile.patch import patch
from raysweep.sweepfile.schema import Sweep, check_no_credentials

AXES = ("grid", "zip", "random")


def load_sweep(path: str | Path, overrides: Sequence[str] = ()) -> Sweep:
    """Read a sweep file, patched by overrides of the form `key=value`.

    Raises:
        SweepFileError: something is wrong, in the planned trials too; one message a fault, all of them.
    """
    source = read_document(str(path))
    for override in overrides:
        _override(source, override)
    sweep, problems = _validate(source)
    if sweep is not None:
        from raysweep.plan import plan_problems  # the plan needs this module's Sweep

        problems += [problem for problem in plan_problems(sweep) if problem not in problems]
    if problems or sweep is None:
        raise SweepFileError(*problems)
    return sweep


def storage_of(sweep: Sweep, sweep_path: str | Path, override: str | None = None) -> str:
    """Where the sweep's run folder lies: `override`, else $RAYSWEEP_STORAGE, else the sweep file's, relative to it.

    Raises:
        SweepFileError: a URL that holds credentials.
    """
    chosen = override or os.environ.get("RAYSWEEP_STORAGE")
    if chosen:
        try:
            check_no_credentials(chosen)
        except ValueError as error:
            raise SweepFileError(f"storage: {error}") from error
        return chosen if "://" in chosen else str(Path(chosen).absolute())
    if "://" in sweep.storage:
        return sweep.storage
    return str(Path(os.path.normpath(Path(sweep_path).absolute().parent / Path(sweep.storage).expanduser())))


def describe_errors(error: ValidationError, model: type[BaseModel], values: Any) -> list[tuple[Keys, str]]:
    """Turn pydantic's errors into (way to the value, message) pairs.

    Args:
        error: of validating `values` as `model`.
        model: the section's class.
        values: as given.
    """
    problems = []
    for detail in error.errors(include_url=False):
        way = _way_in(values, detail["loc"])
        if detail["type"] == "extra_forbidden":
            key = str(detail["loc"][-1])
            known = _known_keys(model, values, way[:-1])
            message = f"unknown key{did_you_mean(key, known)}; allowed: {', '.join(known)}"
        elif detail["type"] == "missing":
            message = "is missing"
        else:
            message = _in_words(detail)
        problems.append((way, message))
    return problems


def format_problem(source: Source | None, way: Sequence[str | int], message: str) -> str:
    """One line: place, key, what is wrong."""
    key = ".".join(map(str, way))
    place = source.place(way) if source else "sweep"
    return f"{place}: {key}: {message}" if key else f"{place}: {message}"


def _validate(source: Source) -> tuple[Sweep | None, list[str]]:
    """Validate the sections; with faults in some, return the sweep without these, for what else can be said."""
    try:
        sweep = Sweep.model_validate(source.values)
        sweep._source = source
        return sweep, []
    except ValidationError as error:
        found = describe_errors(error, Sweep, source.values)
    problems = [format_problem(source, way, message) for way, message in found]
    faulty = {way[0] for way, _ in found if way}
    rest = {key: value for key, value in source.values.items() if key not in faulty}
    try:
        sweep = Sweep.model_validate({"name": "unnamed", **rest})
    except ValidationError:
        return None, problems
    if faulty & {*AXES, "cases", "base"}:
        return None, problems
    sweep._source = source
    return sweep, problems


# ---------------------------------------------------------------------------------------------------------
# Overrides


def _override(source: Source, override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key or any(not part for part in key.split(".")):
        raise SweepFileError(f"override {override!r}: must be key=value, such as lr=0.1 or scheduler.eta=2")
    try:
        value = parse_value(text)
    except SweepFileError as error:
        reasons = [problem.partition(": ")[2] for problem in error.problems]
        raise SweepFileError(*(f"override {override!r}: {reason}" for reason in reasons)) from None
    head = key.split(".")[0]
    if head not in Sweep.model_fields:
        _pin(source.values, key)
        key = f"base.{key}"
    patch(source.values, key, value)
    source.overridden[tuple(key.split("."))] = override


def _pin(values: dict[str, Any], key: str) -> None:
    """Remove the axis of that name, so that the override alone decides."""
    rows = values.get("cases")
    for table in (values, *(rows.values() if isinstance(rows, Mapping) else ())):
        if not isinstance(table, dict):
            continue
        for place in (*(table.get(axis) for axis in AXES), *([table] if table is not values else [])):
            if isinstance(place, dict):
                place.pop(key, None)
        for axis in AXES:
            if table.get(axis) == {} or (axis == "random" and set(table.get(axis) or {}) == {"samples"}):
                table.pop(axis)


# ---------------------------------------------------------------------------------------------------------
# pydantic's errors in our words


def _way_in(values: Any, loc: Iterable[str | int]) -> Keys:
    """Pydantic's location without the union tags that it puts between."""
    way: list[str | int] = []
    *inner, last = loc
    for part in inner:
        if isinstance(values, Mapping) and part in values:
            values = values[str(part)]
        elif isinstance(values, list) and isinstance(part, int) and part < len(values):
            values = values[part]
        else:
            continue
        way.append(part)
    inside = isinstance(values, Mapping) and not str(last).startswith(("function-", "literal["))
    if inside or (isinstance(values, list) and isinstance(last, int)):
        way.append(last)
    return tuple(way)


def _in_words(detail: Mapping[str, Any]) -> str:
    message = str(detail["msg"]).removeprefix("Value error, ")
    if detail["type"] == "union_tag_invalid":
        known = str(detail["ctx"]["expected_tags"]).replace("'", "").split(", ")
        tag = str(detail["ctx"]["tag"])
        return f"name: unknown {tag!r}{did_you_mean(tag, known)}; known: {', '.join(known)}"
    if detail["type"] == "literal_error" and isinstance(detail["input"], str):
        known = [part.strip("' ") for part in str(detail["ctx"]["expected"]).replace(" or ", ", ").split(",")]
        return f"got {detail['input']!r}{did_you_mean(detail['input'], known)}; allowed: {', '.join(known)}"
    if detail["type"] == "value_error":
        return message
    given = repr(detail["input"])
    given = given if len(given) <= 60 else f"{given[:57]}..."
    return f"got {given}, {message[:1].lower()}{message[1:]}"


def _known_keys(model: type[BaseModel], values: Any, way: Keys) -> list[str]:
    """The keys allowed in the section at `way`."""
    for part in way:
        values = values.get(part) if isinstance(values, Mapping) else values[int(part)]
        field = model.model_fields.get(str(part))
        classes = _classes(field.annotation) if field else [model]
        name = values.get("name") if isinstance(values, Mapping) else None
        named = [each for each in classes if name in _names(each)] or [each for each in classes if _names(each)]
        model = (named or classes or [model])[0]
    return list(model.model_fields)


def _classes(annotation: Any) -> list[type[Config]]:
    if isinstance(annotation, type) and issubclass(annotation, Config):
        return [annotation]
    return [found for inner in get_args(annotation) for found in _classes(inner)]


def _names(model: type[BaseModel]) -> tuple[Any, ...]:
    field = model.model_fields.get("name")
    return get_args(field.annotation) if field and get_origin(field.annotation) is Literal else ()
