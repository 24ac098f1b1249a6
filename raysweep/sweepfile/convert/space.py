"""A search as another tool's file has it, in the terms of a sweep file: what its readers make and `text` writes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Space:
    """A search, whose keys are dotted where they are nested."""

    name: str  # a sweep's name
    loop: str  # a name for the loop that it trains with, should that be the user's own
    description: str = ""
    base: dict[str, Any] = field(default_factory=dict)  # settings that do not vary
    grid: dict[str, list[Any]] = field(default_factory=dict)
    random: dict[str, dict[str, Any]] = field(default_factory=dict)  # a `Draw` by key, as plain values
    samples: int = 0  # how many configs `random` draws
    seeds: list[int] = field(default_factory=list)
    metric: str = ""  # what trials are ranked by; the loop's own choice if the file does not say
    mode: str = "min"  # `min` or `max`
    scheduler: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)  # what has no counterpart, each with its place in the file

    def values_of(self, key: str) -> list[Any]:
        """Return what a key may be: its values, or the bounds of its draw."""
        if key in self.base:
            return [self.base[key]]
        return self.grid[key] if key in self.grid else next(iter(self.random[key].values()))

    def keys(self) -> list[str]:
        """Return the keys of a trial's config that it sets."""
        return [*self.base, *self.grid, *self.random]

    def sections(self) -> dict[str, Any]:
        """Return the sweep file's sections that say which trials there are."""
        drawn = {"samples": self.samples, **self.random} if self.random else {}
        found = {"name": self.name, "base": self.base, "grid": self.grid, "random": drawn, "seeds": self.seeds}
        return {key: value for key, value in found.items() if value}
