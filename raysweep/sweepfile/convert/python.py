"""The Python that a loop of the user's own begins with: its settings, typed by the values that a sweep sets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from raysweep.sweepfile.convert.space import Space

HEAD = """\
from collections.abc import Iterator
from typing import Any, Literal

import raysweep


"""
LOOP = """


{comment}@raysweep.register_loop({loop}, config=Config, metrics={metrics})
def train(config: Config, trial: raysweep.TrialContext) -> Iterator[raysweep.Epoch]:
    ...  # train as before, from `trial.state` on; after each epoch yield raysweep.Epoch(metrics={{...}}, state=...)
"""
MAX_LITERALS = 12
"""A setting with more texts to choose from may be any text."""


def loop_module(space: Space) -> str:
    """Return a module that registers the loop of a search, all but what it trains."""
    settings: dict[str, Any] = {}
    for key, values in space.axes.items():
        *sections, last = key.split(".")
        inner = settings
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[last] = values
    classes = _classes("Config", "raysweep.Config", settings, {"Any", "Config", "Iterator", "Literal"})
    comment = "" if space.metric else "# the metrics that it reports, by which trials may be ranked; the first does\n"
    metrics = f"{{{_text(space.metric or 'val_loss')}: {_text(space.mode)}}}"
    return HEAD + "\n\n\n".join(classes) + LOOP.format(comment=comment, loop=_text(space.loop), metrics=metrics)


def _classes(name: str, base: str, settings: Mapping[str, Any], taken: set[str]) -> list[str]:
    """Return a class of settings, after those of its sections, whose names are none of those taken."""
    before, lines = [], []
    for key, values in settings.items():
        if isinstance(values, Mapping):
            section = f"{'' if name == 'Config' else name}{key.title().replace('_', '')}"
            while section in taken:
                section += "_"
            taken.add(section)
            before += _classes(section, "raysweep.Section", values, taken)
            lines.append(f"    {key}: {section}")
        elif key != "epochs" or base == "raysweep.Section":
            lines.append(f"    {key}: {_annotation(values)}")
        elif len(values) == 1:
            lines.append(f"    epochs: int = {values[0]!r}")
    return [*before, "\n".join([f"class {name}({base}):", *(lines or ["    pass"])])]


def _annotation(values: list[Any]) -> str:
    """Return the type of all these values."""
    kinds = {type(value) for value in values} - {type(None)}
    optional = " | None" if None in values else ""
    if kinds == {str}:
        texts = list(dict.fromkeys(value for value in values if value is not None))
        return (f"Literal[{', '.join(map(_text, texts))}]" if 1 < len(texts) <= MAX_LITERALS else "str") + optional
    plain = {frozenset({bool}): "bool", frozenset({int}): "int", frozenset({float}): "float"}
    named = {
        **plain,
        frozenset({int, float}): "float",
        frozenset({list}): "list[Any]",
        frozenset({dict}): "dict[str, Any]",
    }
    return named[frozenset(kinds)] + optional if frozenset(kinds) in named else "Any"


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
