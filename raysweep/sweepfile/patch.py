"""Dotted keys: reads and writes values inside nested mappings."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def patch(config: dict[str, Any], key: str, value: Any) -> None:
    """Set `key` (dotted) in a nested mapping, in place.

    A section given by name alone (`model: resnet18`) becomes a mapping when a key inside it is set. A mapping without a
    `name` is merged into the section; anything else replaces it.
    """
    *parents, last = key.split(".")
    for part in parents:
        config[part] = as_section(config.get(part))
        config = config[part]
    before = config.get(last)
    merges = isinstance(value, Mapping) and "name" not in value and isinstance(before, Mapping | str)
    config[last] = {**as_section(before), **copy.deepcopy(dict(value))} if merges else copy.deepcopy(value)


def as_section(value: Any) -> dict[str, Any]:
    """Return a section as a mapping, which a name alone may stand for; anything else is an empty one."""
    return {"name": value} if isinstance(value, str) else dict(value) if isinstance(value, Mapping) else {}


def get(config: Mapping[str, Any], key: str) -> Any:
    """Return the value at a dotted key, or None."""
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def flatten(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each value that is no mapping, with its dotted key."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def contains(config: Any, partial: Any) -> bool:
    """Whether a config has every value of a partial one, in which a name may stand for its section."""
    if isinstance(partial, Mapping):
        return isinstance(config, Mapping) and all(contains(get(config, key), value) for key, value in partial.items())
    if isinstance(config, Mapping) and isinstance(partial, str):
        return bool(config.get("name") == partial)
    if isinstance(config, list) and isinstance(partial, list):
        return len(config) == len(partial) and all(map(contains, config, partial))
    return bool(config == partial)


COLUMNS = {
    "rank",
    "trial",
    "status",
    "seed",
    "epoch",
    "epochs",
    "generation",
    "rungs",
    "weights",
    "hours",
    "findings",
    "curve",
    "best",
}
"""What tables of trials call columns that are no settings."""


def short_labels(keys: Sequence[str]) -> dict[str, str]:
    """Return for each dotted key the shortest end that no other of the keys has: `width` for `model.width`.

    The name of a section goes by its section: `model` for `model.name`. No setting goes by what tables call a column of
    their own: it is `data.seed`, not `seed`.
    """
    parts = {key: key.removesuffix(".name").split(".") for key in keys}
    labels = {}
    for key, words in parts.items():
        ends = [".".join(words[-count:]) for count in range(1, len(words) + 1)]
        others = [other for other in parts if other != key]
        free = (end for end in ends if end not in COLUMNS)
        unique = (end for end in free if not any(_ends_with(parts[other], end) for other in others))
        labels[key] = next(unique, key)
    return labels


def _ends_with(words: Sequence[str], end: str) -> bool:
    return f".{'.'.join(words)}".endswith(f".{end}")
