"""Writes a search as a sweep file. In: a `Space`. Out: the file's text, which says itself what it has no place for."""

from __future__ import annotations

import io
import textwrap
from typing import Any

from ruamel.yaml import YAML

from raysweep.sweepfile.convert.space import Space
from raysweep.sweepfile.schema import Limits

WIDTH = 110


def sections(space: Space) -> dict[str, Any]:
    """Return the sections of a sweep file, as plain values."""
    most = Limits.model_fields["trials"].default
    found = {
        "name": space.name,
        "description": space.description,
        "loop": space.loop,
        "base": space.base,
        "grid": space.grid,
        "random": {"samples": space.samples, **space.random} if space.random and not space.search else {},
        "search": {"name": space.search, "trials": space.samples, "space": space.random}
        if space.random and space.search
        else {},
        "seeds": space.seeds,
        "objective": {"metric": space.metric, "mode": space.mode} if space.metric else {},
        "scheduler": space.scheduler,
        "limits": {"trials": space.trials} if space.trials > most else {},
    }
    return {key: value for key, value in found.items() if value}


def sweep_text(space: Space, module: str = "") -> str:
    """Return the text of the sweep file; `module` is the Python that its loop begins with, if that is to be written."""
    lines = [f"# Made of {space.source.path} by `raysweep convert`."]
    if notes := space.notes:
        lines.append("# What differs from the original, or has no counterpart:")
        lines += [line for note in notes for line in _comment(note)]
    for key, value in sections(space).items():
        if isinstance(value, dict):
            lines += [f"{key}:", *(line for each in value.items() for line in _entry(*each, indent="  "))]
        else:
            lines += _entry(key, value)
    if module:
        lines += ["", "# The loop's module begins so; name it with --import:", "#"]
        lines += [f"# {line}".rstrip() for line in module.splitlines()]
    return "\n".join(lines) + "\n"


def _comment(note: str) -> list[str]:
    return textwrap.wrap(
        " ".join(note.split()), WIDTH, initial_indent="# - ", subsequent_indent="#   ", break_long_words=False
    )


def _entry(key: str, value: Any, indent: str = "") -> list[str]:
    """Return the lines of a key and its value, which is written in YAML's flow style."""
    yaml, text = YAML(typ="safe", pure=True), io.StringIO()
    yaml.default_flow_style, yaml.width, yaml.allow_unicode = True, WIDTH - len(indent), True
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.dump({key: value}, text)
    first, *more = text.getvalue().strip()[1:-1].splitlines()
    return [f"{indent}{first}".rstrip(), *(f"{indent}    {line.strip()}" for line in more)]
