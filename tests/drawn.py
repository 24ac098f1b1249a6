"""Values that a sweep file may hold, drawn by hypothesis from the models that check it; and the kinds in a config."""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin

import own_parts  # noqa: F401  # registers names of one's own
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from raysweep.config import Config, classes_of
from raysweep.vision.augment.operations import AUGMENT_PRESETS
from raysweep.vision.names import DATA_SOURCES, MODELS

EXACTLY_ONE = ("AugmentStep", "Draw")
"""Sections of which just one key has a value."""
NARROWER: dict[str, SearchStrategy[Any]] = {
    "DataConfig.name": st.sampled_from(DATA_SOURCES.names()),
    "ModelConfig.name": st.sampled_from(MODELS.names()),
    "ModelConfig.weights": st.sampled_from(["weights.pt", "some/where"]),
    "LossConfig.name": st.sampled_from(["cross_entropy", "own_loss"]),
    "OwnOptimizer.name": st.just("own_optimizer"),
    "OwnSchedule.name": st.just("own_schedule"),
    "TrialConfig.metrics": st.sampled_from([[], ["own_metric"]]),
    "TrialConfig.freeze": st.sampled_from([[], ["conv1", "layer*.bn?"]]),
    "TrialConfig.lr_factors": st.sampled_from([{}, {"layer1": 0.1, "layer1.0.conv1": 2}]),
    "ResizedCrop.scale": st.sampled_from([[0.08, 1], [0.5, 0.5]]),
    "ResizedCrop.ratio": st.sampled_from([[0.75, 1.25], [1, 1]]),
    "Blur.kernel": st.integers(1, 15).map(lambda reach: 2 * reach + 1),
    "Sweep.start": st.sampled_from([None, {"run": "r", "trial": "t", "epoch": 3}, {"weights": "some/where"}]),
    "Search.trials": st.integers(2, 40),
    "Search.space": st.dictionaries(
        st.sampled_from(["lr", "label_smoothing", "optimizer.weight_decay"]),
        st.just({"log_uniform": [0.01, 0.5]}),
        min_size=1,
    ).map(lambda numbers: {**numbers, "augment": {"choice": ["none", "shift"]}})
    | st.just({"ema": {"choice": [False]}, "epochs": {"log_int": [2, 9], "when": {"ema": [False]}}}),
    "Search.enqueue": st.sampled_from([[], [{}], [{}, {}]]),
    "Objective.metric": st.sampled_from(["val_acc", "val_loss", "a"]),
    "Objective.against": st.sampled_from([[], [{"metric": "flops"}, {"metric": "images_per_s", "mode": "max"}]]),
    "AshaConfig.rungs": st.sampled_from([[0.07, 0.5], ["1/9", "2/9"], ["1 / 3"]]),
    "AshaConfig.group_by": st.sampled_from([[], ["model.name", "augment"]]),
}
"""What the schema does not tell of a key, by section and name."""
TEXTS = st.sampled_from(["", "a", "some/where", "Größe", "1", "null"])
LEAVES = st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS
ANYTHING = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner), max_leaves=4)


def values_of(model: type[Config]) -> SearchStrategy[Any]:
    """Values for a section, most of which are valid: those of its JSON Schema."""
    schema = model.model_json_schema()
    return _drawn(schema, schema.get("$defs", {}))


def _drawn(schema: dict[str, Any], definitions: dict[str, Any]) -> SearchStrategy[Any]:
    match schema:
        case {"$ref": reference}:
            return _drawn(definitions[reference.rpartition("/")[2]], definitions)
        case {"anyOf": kinds} | {"oneOf": kinds}:
            return st.one_of([_drawn(kind, definitions) for kind in kinds])
        case {"const": value}:
            return st.just(value)
        case {"enum": values}:
            return st.sampled_from(values)
        case {"type": "array", "prefixItems": items}:
            return st.tuples(*(_drawn(item, definitions) for item in items)).map(list)
        case {"type": "array"}:
            return st.lists(_drawn(schema["items"], definitions), min_size=schema.get("minItems", 0), max_size=3)
        case {"type": "object"}:
            return _section(schema, definitions)
        case {"type": kind}:
            plain = {"null": st.none(), "boolean": st.booleans(), "string": TEXTS}
            return plain[kind] if kind in plain else _numbers(kind, schema)
    return ANYTHING


def _section(schema: dict[str, Any], definitions: dict[str, Any]) -> SearchStrategy[Any]:
    if "properties" not in schema:
        return st.dictionaries(TEXTS, ANYTHING, max_size=2)
    title, needed = schema["title"], schema.get("required", ())
    keys = {
        key: NARROWER.get(f"{title}.{key}", _drawn(value, definitions)) for key, value in schema["properties"].items()
    }
    if title == "TrialConfig":
        rows = _one_each(definitions["AugmentStep"]["properties"], definitions)
        all_of_them = st.tuples(*rows).flatmap(st.permutations)
        keys["augment"] = st.one_of(
            all_of_them, st.lists(st.one_of(rows), max_size=3), st.sampled_from([*AUGMENT_PRESETS])
        )
    if title in EXACTLY_ONE:
        return st.one_of(_one_each(schema["properties"], definitions))
    required = {key: value for key, value in keys.items() if key in needed}
    return st.fixed_dictionaries(required, optional={key: keys[key] for key in keys.keys() - required.keys()})


def _one_each(keys: dict[str, Any], definitions: dict[str, Any]) -> list[SearchStrategy[Any]]:
    """For each key, mappings that have a value for it alone."""
    nothing = st.dictionaries(st.sampled_from([*keys]), st.none(), max_size=2)
    of_each = {key: _drawn(value, definitions) for key, value in keys.items()}
    return [st.builds(lambda empty, value, key=key: empty | {key: value}, nothing, of_each[key]) for key in keys]


def _numbers(kind: str, schema: dict[str, Any]) -> SearchStrategy[Any]:
    """Numbers within the bounds; a whole one may stand for a real one."""
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    low, high = schema.get("minimum", above), schema.get("maximum", below)
    least = None if low is None else int(low) + (above is not None)
    most = None if high is None else int(high) - (below is not None)
    whole = st.integers(least, (least or 0) + 99 if most is None else most)
    if kind == "integer":
        return whole
    exclude = {"exclude_min": above is not None, "exclude_max": below is not None}
    real = st.floats(low, high, allow_nan=False, allow_infinity=False, **exclude)
    return real | whole if most is None or (least or 0) <= most else real


Kind = tuple[str, str, Any]
"""A value that a key may have from a fixed list: section, key, value; or a section's class: its name alone."""


def kinds_that_can_be(model: type[Config]) -> set[Kind]:
    """All kinds below a section."""
    found: set[Kind] = {(model.__name__, "", None)}
    for name, field in model.model_fields.items():
        found |= {(model.__name__, name, value) for value in _literals(field.annotation)}
        found = found.union(*map(kinds_that_can_be, classes_of(field.annotation)))
    return found


def kinds_in(config: Any) -> set[Kind]:
    """The kinds that a config's values are of."""
    if isinstance(config, list | dict):
        return set().union(*map(kinds_in, config.values() if isinstance(config, dict) else config))
    if not isinstance(config, Config):
        return set()
    section = type(config)
    found: set[Kind] = {(section.__name__, "", None)}
    for name, value in config:
        allowed = _literals(section.model_fields[name].annotation)
        found |= {(section.__name__, name, each) for each in allowed if each is value or each == value} | kinds_in(
            value
        )
    return found


def _literals(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    return [found for inner in get_args(annotation) for found in _literals(inner)]
