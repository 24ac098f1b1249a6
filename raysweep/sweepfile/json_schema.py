"""The JSON Schema of sweep files, with which editors complete and check them."""

from __future__ import annotations

from typing import Any

from raysweep.loops import loop
from raysweep.sweepfile.schema import Draw, Sweep

NAMED_SECTIONS = ("data", "model", "optimizer", "lr_schedule", "scheduler", "objective")
DOTTED = r"^\w+(\.\w+)+$"


def sweep_schema() -> dict[str, Any]:
    """Return the schema (JSON Schema 2020-12): `base`, axes and cases take a trial's keys, plain or dotted."""
    schema = Sweep.model_json_schema()
    trial = loop().config.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["$defs"] = {**trial["$defs"], **schema["$defs"], "Draw": Draw.model_json_schema()}
    for properties in (trial["properties"], schema["properties"]):
        for name in NAMED_SECTIONS:
            if name in properties:
                properties[name] = {"anyOf": [{"type": "string"}, properties[name]]}
    for definition in schema["$defs"].values():
        definition.pop("required", None)  # a section without a name has its default one
    keys = trial["properties"]
    axes = {name: {"type": "array", "items": value, "minItems": 1} for name, value in keys.items()}
    draws = {name: {"$ref": "#/$defs/Draw"} for name in keys}
    axis_table = _table(axes, {"type": "array"})
    schema["properties"] |= {
        "base": _table(keys, {}),
        "grid": axis_table,
        "zip": axis_table,
        "random": _table({"samples": {"type": "integer", "minimum": 1}, **draws}, {"$ref": "#/$defs/Draw"}),
        "cases": {
            "type": "object",
            "additionalProperties": _table({**keys, "grid": axis_table, "zip": axis_table}, {}),
        },
        "exclude": {"type": "array", "items": _table(keys, {})},
    }
    return schema


def _table(properties: dict[str, Any], dotted: dict[str, Any]) -> dict[str, Any]:
    patterns = {DOTTED: dotted}
    return {"type": "object", "properties": properties, "patternProperties": patterns, "additionalProperties": False}
