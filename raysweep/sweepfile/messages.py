"""What is wrong with a sweep file, in words. In: pydantic's errors. Out: for each, the way to a value and a message."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from raysweep.config import kind_named, kinds_of, names_of
from raysweep.errors import did_you_mean
from raysweep.sweepfile.document import Keys
from raysweep.sweepfile.hints import IS_MISSING_IN, NAMES, as_draw, as_text, hint, wrong_draw
from raysweep.sweepfile.schema import Sweep

IS_MISSING = "is missing"


def describe_errors(
    error: ValidationError, model: type[BaseModel], values: Any, trial: type[BaseModel] | None = None
) -> list[tuple[Keys, str]]:
    """Turn the error of validating `values` as `model` into (way to the value, message) pairs.

    `trial` is the class of a trial's config, for hints; default: `model`.
    """
    problems = []
    for detail in error.errors(include_url=False):
        loc = _in_a_list_of_objectives(values, detail["loc"])
        way = _way_in(values, loc, is_key=detail["type"] in ("extra_forbidden", "missing"))
        if detail["type"] == "extra_forbidden":
            known = _known_keys(model, values, way[:-1])
            if "log_uniform" in known:
                given = _at(values, way[:-1])
                if "value" in given:
                    problems.append((way[:-1], wrong_draw(way[:-1], given["value"])))
                    continue
                if written := as_draw(given):
                    problems.append((way[:-1], f"such a draw is written {written} here"))
                    continue
            problems.append((way, f"unknown key{hint(model, trial or model, way, known)}; allowed: {', '.join(known)}"))
        elif way in IS_MISSING_IN and detail["type"] == "missing" and model is Sweep:
            problems.append((way, f"{IS_MISSING}; it says {IS_MISSING_IN[way]}"))
        elif model is Sweep and detail["type"] != "value_error" and (instead := wrong_draw(way, detail["input"])):
            problems.append((way, f"got {as_text(detail['input'])}; {instead}"))
        else:
            problems.append((way, in_words(detail, way)))
    return _one_a_value(problems)


def objective_way(values: Mapping[str, Any], place: int) -> Keys:
    """Return the way to the metric of an objective of a sweep file, given its place among several."""
    if isinstance(given := values.get("objective"), list):
        return ("objective", place, "metric") if isinstance(given[place], Mapping) else ("objective", place)
    return ("objective", "metric") if place == 0 else ("objective", "against", place - 1, "metric")


def _in_a_list_of_objectives(values: Any, loc: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """Return pydantic's location as the file has it: of a list of objectives, the others are the first's `against`."""
    if loc[:1] != ("objective",) or len(loc) == 1 or not isinstance(values.get("objective"), list):
        return loc
    if loc[1] == "against" and len(loc) > 2:
        return ("objective", int(loc[2]) + 1, *loc[3:])
    return ("objective", 0, *loc[1:])


def _way_in(values: Any, loc: Iterable[str | int], is_key: bool) -> Keys:
    """Return pydantic's location without its union tags; `is_key` says that the last part cannot be one."""
    way: list[str | int] = []
    if not loc:  # a fault of the whole
        return ()
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


def in_words(detail: ErrorDetails, way: Keys) -> str:
    """Return one of pydantic's errors, of the value at `way`, as a message."""
    kind, value, message, context = detail["type"], detail["input"], detail["msg"], detail.get("ctx", {})
    if kind == "missing":
        return IS_MISSING
    if kind == "value_error":
        return message.removeprefix("Value error, ")
    if kind == "union_tag_invalid":
        known = context["expected_tags"].replace("'", "").split(", ")
        return f"unknown {way[-1]} {context['tag']!r}{did_you_mean(context['tag'], known)}; known: {', '.join(known)}"
    if kind == "literal_error" and isinstance(value, str):
        known = [part.strip("' ") for part in context["expected"].replace(" or ", ", ").split(",")]
        meant = did_you_mean(NAMES[value] if NAMES.get(value) in known else value, known)
        return f"got {value!r}{meant}; allowed: {', '.join(known)}"
    given = repr(value) if len(repr(value)) <= 60 else f"{repr(value)[:57]}..."
    if kind in MUST_BE:
        return f"got {given}, must be {MUST_BE[kind]}"
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
    """Keep one problem for each value: pydantic reports every branch of `list | name`, and the deepest says most."""
    joined: dict[Keys, str] = {}
    for way, message in problems:
        if any(other != way and other[: len(way)] == way for other, _ in problems):
            continue
        wanted = message.partition("must be ")[2] or message.partition("; allowed: ")[2]
        before = joined.get(way)
        joined[way] = message if before is None else f"{before}, or {wanted}" if wanted else before
    return list(joined.items())


def _at(values: Any, way: Keys) -> Any:
    for part in way:
        values = values[part]
    return values


def _known_keys(model: type[BaseModel], values: Any, way: Keys) -> list[str]:
    """Return the keys allowed in the section at `way`."""
    for part in way:
        values = values.get(part) if isinstance(values, Mapping) else values[int(part)]
        classes = kinds_of(model, str(part)) or [model]
        name = values.get("name") if isinstance(values, Mapping) else None
        chosen = kind_named(classes, name) if name is not None else None
        model = chosen or next((each for each in classes if names_of(each)), classes[0])
    return list(model.model_fields)
