"""The JSON Schema of sweep files, with which editors complete and check them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, get_origin

from raysweep.config import classes_of, kinds_of, names_of
from raysweep.loops import CLASSIFY, LOOPS, Loop, loop_named
from raysweep.sweepfile.reference import EXAMPLES
from raysweep.sweepfile.schema import MOST_OBJECTIVES, Draw, Sweep

NAMED_SECTIONS = ("data", "model", "optimizer", "lr_schedule", "scheduler", "objective")


def sweep_schema(loop_name: str = CLASSIFY) -> dict[str, Any]:
    """Return the schema (JSON Schema 2020-12) of sweep files for the loop of that name.

    `base`, axes and cases take a trial's keys, plain or dotted.

    Known names are listed, for editors to complete; where users register their own, any other text is fine, too.
    """
    loop = loop_named(loop_name)
    schema = Sweep.model_json_schema()
    trial = loop.config.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["$defs"] = {**trial.get("$defs", {}), **schema["$defs"], "Draw": Draw.model_json_schema()}
    for properties in (trial["properties"], schema["properties"]):
        for name in properties.keys() & {*NAMED_SECTIONS, *loop.names(), "loop"}:
            description = {"description": properties[name].pop("description", "")}
            properties[name] = {**description, "anyOf": [*_names(loop, name), _any_kind(properties[name])]}
    schema["properties"]["objective"]["anyOf"].append(_several_objectives(loop))
    _name_kinds(loop, schema["$defs"])
    for definition in schema["$defs"].values():
        definition.pop("required", None)  # a section without a name has its default one
    keys = {**trial["properties"], **_dotted_keys(loop)}
    axes = {name: {"type": "array", "items": value, "minItems": 1} | _said_of(value) for name, value in keys.items()}
    draws = {name: {"$ref": "#/$defs/Draw"} | _said_of(value) for name, value in keys.items()}
    samples = {"type": "integer", "minimum": 1, "description": "How many draws."}
    axis_table = _table(loop, axes, {"type": "array"})
    own_axes = {name: {**_said_of(schema["properties"][name]), **axis_table} for name in ("grid", "zip")}
    case = _table(loop, {**keys, **own_axes}, {})
    searched = schema["$defs"]["Search"]["properties"]
    dimensions = {name: {"$ref": "#/$defs/Dimension"} | _said_of(value) for name, value in keys.items()}
    searched["space"] |= _table(loop, dimensions, {"$ref": "#/$defs/Dimension"}) | {"minProperties": 1}
    searched["enqueue"]["items"] = _table(loop, keys, {})
    conditions = {name: {"anyOf": [value, {"type": "array", "items": value}]} for name, value in keys.items()}
    schema["$defs"]["Dimension"]["properties"]["when"] = {
        **_said_of(schema["$defs"]["Dimension"]["properties"]["when"]),
        **_table(loop, conditions, {}),
    }
    tables = {
        "base": _table(loop, keys, {}),
        "grid": axis_table,
        "zip": axis_table,
        "random": _table(loop, {"samples": samples, **draws}, {"$ref": "#/$defs/Draw"}),
        "cases": {"type": "object", "additionalProperties": case},
        "exclude": {"type": "array", "items": _table(loop, keys, {})},
    }
    schema["properties"] |= {name: {**_said_of(schema["properties"][name]), **table} for name, table in tables.items()}
    for name, property in schema["properties"].items():
        if example := EXAMPLES.get(name):
            property["description"] = f"{property.get('description', '')}\n\nExample: {example}".strip()
    return schema


def _any_kind(section: Mapping[str, Any]) -> dict[str, Any]:
    """Let a section without a name fit several kinds, which is no fault: which one it is, is said elsewhere."""
    return {"anyOf" if key == "oneOf" else key: value for key, value in section.items()}


def _said_of(property: Mapping[str, Any]) -> dict[str, Any]:
    return {"description": property["description"]} if "description" in property else {}


def _names(loop: Loop, section: str) -> list[dict[str, Any]]:
    """Return the schemas of a section given by its name: the known ones, and any text where users register theirs."""
    if section in loop.names():
        return [{"enum": list(loop.names()[section])}, {"type": "string"}]
    if section == "loop":
        return [{"enum": LOOPS.names()}]
    if section == "objective":
        return [{"enum": list(loop.metrics)}, {"type": "string"}] if loop.metrics else [{"type": "string"}]
    kinds = [*kinds_of(loop.config, section), *kinds_of(Sweep, section)]
    return [{"enum": [name for kind in kinds for name in names_of(kind)]}]


def _several_objectives(loop: Loop) -> dict[str, Any]:
    names = [{"enum": [*loop.metrics, *loop.tradeoffs]}] if loop.metrics or loop.tradeoffs else []
    one = {"anyOf": [*names, {"type": "string"}, {"$ref": "#/$defs/SingleObjective"}]}
    return {"type": "array", "items": one, "minItems": 2, "maxItems": MOST_OBJECTIVES}


def _name_kinds(loop: Loop, definitions: dict[str, Any]) -> None:
    """List the registered names in the sections whose `name` is any text."""
    for section in loop.names():
        for kind in kinds_of(loop.config, section):
            name = definitions.get(kind.__name__, {}).get("properties", {}).get("name")
            if name and name.get("type") == "string" and "not" not in name:
                name["anyOf"] = _names(loop, section)
                del name["type"]


def _dotted_keys(loop: Loop) -> dict[str, Any]:
    """Return the keys inside a trial's sections, such as `model.width`; of several kinds, what any of them takes."""
    found: dict[str, Any] = {}
    for section, field in loop.config.model_fields.items():
        for kind in classes_of(field.annotation) if section != "augment" else []:
            for key, property in kind.model_json_schema()["properties"].items():
                value = {"anyOf": _names(loop, section)} if key == "name" else property
                before = found.get(f"{section}.{key}")
                found[f"{section}.{key}"] = (
                    value if before in (None, value) else {**_said_of(value), **_either(before, value)}
                )
    return found


def _either(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    return {"anyOf": [*one.get("anyOf", [one]), other]}


def _table(loop: Loop, properties: dict[str, Any], free: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a mapping with these properties, and what a key inside a free mapping may have."""
    patterns = {rf"^{re.escape(key)}(\.\w+)+$": free for key in _free_mappings(loop)}
    return {"type": "object", "properties": properties, "patternProperties": patterns, "additionalProperties": False}


def _free_mappings(loop: Loop) -> list[str]:
    """Return the dotted keys of a trial's config that hold any mapping, such as `model.options`."""
    found = list(loop.config.model_fields.items())
    for name, field in [*found]:
        inner = [each for kind in classes_of(field.annotation) for each in kind.model_fields.items()]
        found += [(f"{name}.{key}", each) for key, each in inner]
    return list(dict.fromkeys(name for name, field in found if get_origin(field.annotation) is dict))
