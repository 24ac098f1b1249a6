"""A search as another tool's file has it, in the terms of a sweep file: what its readers make and `write` writes."""

from __future__ import annotations

import keyword
import math
import re
from dataclasses import dataclass, field
from typing import Any

from raysweep.config import LoopConfig
from raysweep.sweepfile.document import Keys, Source

EPOCHS = ("num_epochs", "n_epochs", "max_epochs", "num_train_epochs", "epoch")
"""What other loops call `epochs`."""
SEEDS = ("seed", "random_seed")
"""What other loops call the seed of a trial."""


@dataclass
class Space:
    """A search; its keys are dotted where they are nested."""

    source: Source  # the file it was read from
    name: str  # a sweep's name
    loop: str = ""  # the loop that trains; empty: `classify`
    description: str = ""
    base: dict[str, Any] = field(default_factory=dict)  # settings that do not vary
    grid: dict[str, list[Any]] = field(default_factory=dict)
    random: dict[str, dict[str, Any]] = field(default_factory=dict)  # a `Draw` by key, as plain values
    search: str = ""  # who proposes what these draws come to; empty: they are the section `random`
    samples: int = 0  # how many configs are drawn or proposed
    seeds: list[int] = field(default_factory=list)
    metric: str = ""  # what trials are ranked by; empty: what the loop says
    mode: str = "min"  # or max
    scheduler: dict[str, Any] = field(default_factory=dict)
    noted: list[tuple[Keys, str]] = field(default_factory=list)  # what has no counterpart, each with the way to it
    ways: dict[str, Keys] = field(default_factory=dict)  # where each key comes from

    def note(self, way: Keys, message: str) -> None:
        """Say of a value of the file that it has no counterpart, or another one."""
        self.noted.append((way, message))

    @property
    def notes(self) -> list[str]:
        """What has no counterpart, each with its place in the file, in the file's order."""
        in_order = sorted(self.noted, key=lambda noted: self.source.lines.get(noted[0], 0))
        return [self.source.problem(way, message) for way, message in in_order]

    @property
    def axes(self) -> dict[str, list[Any]]:
        """What each key may be: its value, its values, or the bounds of its draw."""
        drawn = {key: next(iter(draw.values())) for key, draw in self.random.items()}
        return {**{key: [value] for key, value in self.base.items()}, **self.grid, **drawn}

    @property
    def trials(self) -> int:
        """How many trials there are, duplicates counted."""
        drawn = self.samples if self.random else 1
        return math.prod(map(len, self.grid.values())) * drawn * max(1, len(self.seeds))

    @property
    def epochs(self) -> tuple[int, str]:
        """The most epochs that a trial trains, and how that is known, in words."""
        given = [each for each in self.axes.get("epochs", []) if type(each) is int and each > 0]
        if len(given) == 1:
            return given[0], ""
        if given:
            return max(given), ", the most that one trains"
        return LoopConfig.model_fields["epochs"].default, ", the default of `epochs`, which no parameter sets"

    def take(self, way: Keys, key: str, values: list[Any] | None, draw: dict[str, Any] | None) -> None:
        """Take a parameter in: the values of a grid, or a draw.

        Keys that no setting of a trial can have are renamed, and a trial's seed becomes one of `seeds`.
        """
        if key in SEEDS:
            return self._take_seed(way, key, values)
        renamed = "epochs" if key in EPOCHS else ".".join(map(_field_name, key.split(".")))
        renamed = re.sub(r"^samples(?=\.|$)", "samples_", renamed)  # `random.samples` says how many configs to draw
        if renamed in self.axes:
            raise ValueError(f"becomes {renamed!r}, which is there already; rename one of them")
        if renamed != key:
            why = "raysweep's name for it" if key in EPOCHS else "since a setting cannot have its name"
            self.note(way, f"is {renamed!r} now, {why}")
        if renamed == "epochs" and not all(type(each) is int and each > 0 for each in _numbers(values, draw)):
            raise ValueError("must be whole numbers above 0: a trial trains so many epochs")
        self.ways[renamed] = way
        if draw is not None:
            self.random[renamed] = draw
        elif values and len(values) == 1:
            self.base[renamed] = values[0]
        else:
            self.grid[renamed] = values or []
        return None

    def both_value_and_section(self) -> list[str]:
        """Return what is wrong with keys that begin others: `model` beside `model.size`, each with its line."""
        pairs = ((key, next((each for each in self.axes if each.startswith(f"{key}.")), "")) for key in self.axes)
        problem = "{!r} is a parameter too; a setting cannot be both a value and a section: rename one of them"
        return [self.source.problem(self.ways[key], problem.format(inner)) for key, inner in pairs if inner]

    def _take_seed(self, way: Keys, key: str, values: list[Any] | None) -> None:
        if values and all(type(each) is int and 0 <= each < 2**32 for each in values):
            self.seeds = list(dict.fromkeys(values))
            self.note(
                way, "is `seeds` now: a loop finds its trial's in `trial.seed`, and seeds of a config are averaged"
            )
        else:
            self.note(way, "is left out: each trial has raysweep's own; `seeds: [0, 1, 2]` trains a config thrice")


def _numbers(values: list[Any] | None, draw: dict[str, Any] | None) -> list[Any]:
    return values or [] if draw is None else next(iter(draw.values()))


def _field_name(part: str) -> str:
    """Return a name that a field of a config may have: none of Python's words, and no method of the config."""
    name = re.sub(r"\W", "_", part).lstrip("_") or "parameter"
    name = f"p{name}" if name[0].isdigit() else name
    taken = keyword.iskeyword(name) or (name not in LoopConfig.model_fields and hasattr(LoopConfig, name))
    return f"{name}_" if taken else name


def slug(text: str, otherwise: str) -> str:
    """Return a text as the name of a sweep."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("._-")[:100] or otherwise
