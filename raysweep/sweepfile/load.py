"""A sweep file and overrides to a checked `Sweep`; all faults at once, each with its place."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError

from raysweep.config import Config, check_no_credentials, classes_of
from raysweep.errors import SweepFileError, did_you_mean
from raysweep.sweepfile.document import Keys, Source, parse_value, read_document
from raysweep.sweepfile.patch import patch
from raysweep.sweepfile.schema import Sweep

AXES = ("grid", "zip", "random")
IS_MISSING = "is missing"


def load_sweep(path: str | Path, overrides: Sequence[str] = ()) -> Sweep:
    """Read a sweep file, patched by overrides of the form `key=value`.

    Raises:
        SweepFileError: something is wrong, in the planned trials too; one message a fault, all of them.
    """
    source = read_document(str(path))
    wrong_overrides = _apply(source, overrides)
    sweep, problems = _validate(source)
    problems = wrong_overrides + problems
    problems += [
        format_problem(source, (axis,), "is empty; it must have at least one key with a list")
        for axis in ("grid", "zip", "random")
        if source.values.get(axis) == {}
    ]
    if sweep is not None:
        from raysweep.sweepfile.plan import plan_problems  # the plan needs this module's Sweep

        faults_so_far = bool(problems)
        for problem in plan_problems(sweep):
            if problem not in problems and not (faults_so_far and problem.endswith(IS_MISSING)):
                problems.append(problem)  # what is missing may be what was left out for another fault
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
        way = _way_in(values, detail["loc"], is_key=detail["type"] in ("extra_forbidden", "missing"))
        if detail["type"] == "extra_forbidden":
            key = str(detail["loc"][-1])
            known = _known_keys(model, values, way[:-1])
            message = f"unknown key{did_you_mean(key, known)}; allowed: {', '.join(known)}"
        elif detail["type"] == "missing":
            message = IS_MISSING
        elif detail["type"] == "union_tag_invalid":
            known = str(detail["ctx"]["expected_tags"]).replace("'", "").split(", ")
            tag = str(detail["ctx"]["tag"])
            message = f"unknown {way[-1]} {tag!r}{did_you_mean(tag, known)}; known: {', '.join(known)}"
        else:
            message = _in_words(detail)
        problems.append((way, message))
    return _one_a_value(problems)


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
    try:
        sweep = Sweep.model_validate({"name": "unnamed", **_without(source.values, [way for way, _ in found])})
    except ValidationError:
        return None, problems
    sweep._source = source
    return sweep, problems


def _without(values: Mapping[str, Any], faulty: Iterable[Keys]) -> dict[str, Any]:
    """The file's values without those at fault: single axes and cases, else whole sections."""
    rest = dict(values)
    for section, *inner in faulty:
        table = rest.get(str(section))
        if section in (*AXES, "cases") and inner and inner[0] != "samples" and isinstance(table, dict):
            rest[str(section)] = {key: value for key, value in table.items() if key != inner[0]}
        else:
            rest.pop(str(section), None)
    if set(rest.get("random") or ()) == {"samples"}:
        del rest["random"]
    return rest


# ---------------------------------------------------------------------------------------------------------
# Overrides


def _apply(source: Source, overrides: Sequence[str]) -> list[str]:
    """Patch the file's values; return the problems of the overrides that say nothing."""
    problems: list[str] = []
    for override in overrides:
        try:
            _override(source, override)
        except SweepFileError as error:
            problems += error.problems
    return problems


def _override(source: Source, override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key or any(not part for part in key.split(".")):
        raise SweepFileError(f"override {override!r}: must be key=value, such as lr=0.1 or scheduler.eta=2")
    try:
        value = parse_value(text)
    except SweepFileError as error:
        reasons = [problem.partition(": ")[2] for problem in error.problems]
        raise SweepFileError(*(f"override {override!r}: {reason}" for reason in reasons)) from None
    head, _, inner = key.partition(".")
    if head not in Sweep.model_fields:
        _pin(source.values, key, value)
        head, inner = "base", key
    way = _way_to(head, inner)
    source.overridden[way] = override
    *parents, last = way
    table = source.values
    for part in map(str, parents):
        before = table.get(part)
        table[part] = {"name": before} if isinstance(before, str) else before if isinstance(before, dict) else {}
        table = table[part]
    for other in [each for each in table if each == last or each.startswith(f"{last}.")]:
        del table[other]
    table[str(last)] = value  # last, so that it is over what the file says of the same section


def _way_to(head: str, inner: str) -> Keys:
    """The way to an override's place: what is below `base`, an axis table or a case is one key, dots and all."""
    if not inner:
        return (head,)
    if head in (*AXES, "base"):
        return (head, inner)
    if head != "cases":
        return (head, *inner.split("."))
    case, _, key = inner.partition(".")
    if not key:
        return (head, case)
    kind, _, axis = key.partition(".")
    return (head, case, kind, axis) if kind in AXES and axis else (head, case, key)


def _pin(values: dict[str, Any], key: str, value: Any) -> None:
    """Remove the axis of that name, so that the override alone decides; where an axis replaces the section around
    the key, set the key in each of its values.
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


# ---------------------------------------------------------------------------------------------------------
# pydantic's errors in our words


def _way_in(values: Any, loc: Iterable[str | int], is_key: bool) -> Keys:
    """Pydantic's location without the union tags that it puts between; `is_key`: its last part is a key for sure."""
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
    inside = isinstance(values, Mapping) and last in values
    if is_key or inside or (isinstance(values, list) and isinstance(last, int)):
        way.append(last)
    return tuple(way)


def _in_words(detail: Mapping[str, Any]) -> str:
    message = str(detail["msg"]).removeprefix("Value error, ")
    if detail["type"] == "literal_error" and isinstance(detail["input"], str):
        known = [part.strip("' ") for part in str(detail["ctx"]["expected"]).replace(" or ", ", ").split(",")]
        return f"got {detail['input']!r}{did_you_mean(detail['input'], known)}; allowed: {', '.join(known)}"
    if detail["type"] == "value_error":
        return message
    given = repr(detail["input"])
    given = given if len(given) <= 60 else f"{given[:57]}..."
    if detail["type"] in MUST_BE:
        return f"got {given}, must be {MUST_BE[detail['type']]}"
    for long, short in SHORTER:
        message = message.replace(long, short)
    return f"got {given}, {message[:1].lower()}{message[1:]}"


MUST_BE = {
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "dict_type": "a mapping",
    "list_type": "a list",
    "tuple_type": "a list",
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
}
SHORTER = (
    ("Input should be ", "must be "),
    ("greater than or equal to ", "at least "),
    ("less than or equal to ", "at most "),
    ("should have ", "must have "),
    (" after validation", ""),
)


def _one_a_value(problems: list[tuple[Keys, str]]) -> list[tuple[Keys, str]]:
    """One problem a value: pydantic reports each branch of `list | name`; a fault deeper in says more than these."""
    joined: dict[Keys, str] = {}
    for way, message in problems:
        if any(other != way and other[: len(way)] == way for other, _ in problems):
            continue
        _, must, wanted = message.partition("must be ")
        before = joined.get(way)
        joined[way] = message if before is None else f"{before}, or {wanted}" if must else before
    return list(joined.items())


def _known_keys(model: type[BaseModel], values: Any, way: Keys) -> list[str]:
    """The keys allowed in the section at `way`."""
    for part in way:
        values = values.get(part) if isinstance(values, Mapping) else values[int(part)]
        field = model.model_fields.get(str(part))
        classes = classes_of(field.annotation) if field else [model]
        name = values.get("name") if isinstance(values, Mapping) else None
        named = [each for each in classes if name in names_of(each)] or [each for each in classes if names_of(each)]
        model = (named or classes or [model])[0]
    return list(model.model_fields)


def kinds_of(model: type[BaseModel], section: str) -> list[type[Config]]:
    """The classes that a section may be, such as one for each optimizer."""
    field = model.model_fields.get(section)
    return classes_of(field.annotation) if field else []


def names_of(model: type[BaseModel]) -> tuple[Any, ...]:
    """The `name`s that choose this class; none for a section of one kind."""
    field = model.model_fields.get("name")
    return get_args(field.annotation) if field and get_origin(field.annotation) is Literal else ()
