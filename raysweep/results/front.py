"""Which configs are worth having where a sweep has several objectives: configs in, their fronts and an order out.

The first front are the configs that no other one dominates: none is at least as good in every objective and better in
one. A config's value is the mean over the seeds that its score is of, each at its best epoch by the first objective,
whose weights are those that are kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from raysweep.halving.fronts import fronts_of
from raysweep.halving.scores import value_of
from raysweep.results.ranking import RankedConfig, can_win, is_whole
from raysweep.sweepfile.schema import Objective
from raysweep.terminal import Metric, count_of, format_large, format_score

LARGE = 10_000
"""Whole numbers from here on, such as FLOPs, are written with three digits and a prefix."""


@dataclass(frozen=True)
class TradeOff:
    """A config, what it has of each objective, and its front."""

    config: RankedConfig
    values: dict[str, float | None]  # by metric, the first objective first; None where a seed's is not known
    front: int  # 1: no other config dominates it; 2: only some of the first front do; and so on

    def __repr__(self) -> str:
        values = ", ".join(
            f"{name} {'unknown' if value is None else f'{value:.4g}'}" for name, value in self.values.items()
        )
        return f"<TradeOff {self.config.name}: {values}, front {self.front}>"

    def as_json(self, place: int) -> dict[str, Any]:
        """Return an entry of `front` in `--json` documents, given its place, which `pull --rank` takes."""
        best, seeds = self.config.best, self.config.scores.seeds
        return {"rank": place, "name": self.config.name, "best": best.id if best else None, "seeds": seeds} | {
            "values": self.values
        }


def trade_offs(configs: Iterable[RankedConfig], objective: Objective) -> list[TradeOff]:
    """Return the configs that have a score, front by front, each front as they come in; nothing for one objective.

    What is not known of a config counts as the worst there is.
    """
    if not objective.against:
        return []
    scored = [config for config in configs if config.best and config.scores.mean is not None]
    values = [_values(config, objective) for config in scored]
    fronts = fronts_of([_point(each, objective) for each in values])
    found = map(TradeOff, scored, values, fronts)
    return sorted(found, key=lambda each: each.front)  # which keeps the order within a front


def _values(config: RankedConfig, objective: Objective) -> dict[str, float | None]:
    judged = [each for each in config.search if can_win(each) and (is_whole(each) or not config.is_comparable)]
    values: dict[str, float | None] = {objective.metric: config.scores.mean}
    for other in objective.against:
        known = [value for each in judged if (value := value_of(each, other)) is not None]
        values[other.metric] = fmean(known) if len(known) == len(judged) else None
    return values


def _point(values: dict[str, float | None], objective: Objective) -> list[float]:
    """Return what fronts are made of: less is better."""
    found = []
    for each in (objective, *objective.against):
        value = values[each.metric]
        found.append(math.inf if value is None else -value if each.maximize else value)
    return found


def value_text(value: float | None, metric: Metric) -> str:
    """Return a value of an objective as it is shown."""
    if value is not None and abs(value) >= LARGE and value == int(value):
        return format_large(value)
    return format_score(value, metric)


def front_in_words(found: Sequence[TradeOff], objective: Objective) -> list[str]:
    """Say how many configs are on the first front, and of how many it cannot be known; nothing for one objective."""
    if not found:
        return []
    names = [each.metric for each in (objective, *objective.against)]
    together = f"{', '.join(names[:-1])} and {names[-1]}"
    first = sum(each.front == 1 for each in found)
    lines = [
        f"front 1: {first} of {count_of(len(found), 'config')}: no other is as good in {together} and better in one"
    ]
    for name in names[1:]:
        if unknown := sum(each.values[name] is None for each in found):
            lines.append(f"{name} of {count_of(unknown, 'config')} is not known, and counts as the worst")
    return lines
