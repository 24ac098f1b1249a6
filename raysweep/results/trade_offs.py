"""Which configs are worth having where a sweep has several objectives: configs in, the front and an order out.

The front are the configs that no other one dominates: none is at least as good in every objective, and better in one. A
config's value is the mean over the seeds that its score is of, each at its best epoch by the first objective, whose
weights are those that are kept.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from raysweep.halving.dominance import dominators
from raysweep.halving.scores import value_of
from raysweep.results.ranking import RankedConfig, can_win, is_whole, rank
from raysweep.store import Record
from raysweep.sweepfile.schema import Objective
from raysweep.terminal import Metric, count_of, format_large, format_score

LARGE = 1_000
"""Whole numbers from here on, such as FLOPs, are written with three digits and a prefix."""


@dataclass(frozen=True)
class TradeOff:
    """A config, what it has of each objective, and how many others dominate it."""

    config: RankedConfig
    values: dict[str, float | None]  # by metric, the first objective first; None where a seed's is not known
    dominated_by: int  # 0: it is on the front

    def __repr__(self) -> str:
        known = [f"{name} {'unknown' if value is None else f'{value:.4g}'}" for name, value in self.values.items()]
        return f"<TradeOff {self.config.name}: {', '.join(known)}, dominated by {self.dominated_by}>"

    def as_json(self, place: int) -> dict[str, Any]:
        """Return an entry of `front` in `--json` documents, given its place in the ranking."""
        best, seeds = self.config.best, self.config.scores.seeds
        known = {"rank": place, "name": self.config.name, "best": best.id if best else None, "seeds": seeds}
        return {**known, "values": self.values}


def trade_offs(configs: Iterable[RankedConfig], objective: Objective) -> list[TradeOff]:
    """Return the configs that have a score, those that fewer dominate first; nothing for one objective.

    Of those that as many dominate each comes as in `configs`. What is not known of a config counts as the worst there
    is. In the first objective configs compare as `rank` has them: those with fresh seeds by these, before the others.
    """
    if not objective.against:
        return []
    scored = [config for config in configs if config.best and config.scores.mean is not None]
    values = [_values(config, objective) for config in scored]
    firsts = [_first(config, objective) for config in scored]
    places = {first: place for place, first in enumerate(sorted({*firsts}))}
    points = [[places[first], *_point(each, objective)] for first, each in zip(firsts, values, strict=True)]
    return sorted(map(TradeOff, scored, values, dominators(points)), key=lambda each: each.dominated_by)


def rank_all(records: Iterable[Record], objective: Objective, fresh_ids: Collection[str] = ()) -> list[RankedConfig]:
    """Return the configs in the order in which they are shown: that of `rank`, with several objectives `trade_offs`.

    Those without a score come last.
    """
    ranked = rank(records, objective, fresh_ids)
    compared = [each.config for each in trade_offs(ranked, objective)]
    return [*compared, *(config for config in ranked if not any(config is each for each in compared))]


def _values(config: RankedConfig, objective: Objective) -> dict[str, float | None]:
    judged = [each for each in config.search if can_win(each) and (is_whole(each) or not config.is_comparable)]
    values: dict[str, float | None] = {objective.metric: config.scores.mean}
    for other in objective.against:
        known = [value for each in judged if (value := value_of(each, other)) is not None]
        values[other.metric] = fmean(known) if len(known) == len(judged) else None
    return values


def _first(config: RankedConfig, objective: Objective) -> tuple[int, float, float]:
    """Return what configs compare by in the first objective, less being better."""
    sign = -1 if objective.maximize else 1
    means = [mean for mean in (config.ranked_by.mean, config.scores.mean) if mean is not None]
    return -config.fresh_scores.seeds, sign * means[0], sign * means[-1]


def _point(values: dict[str, float | None], objective: Objective) -> list[float]:
    """Return the values of the other objectives such that less is better."""
    found = []
    for each in objective.against:
        value = values[each.metric]
        found.append(math.inf if value is None else -value if each.maximize else value)
    return found


def value_text(value: float | None, metric: Metric) -> str:
    """Return a value of an objective as it is shown."""
    if value is not None and abs(value) >= LARGE and value == int(value):
        return format_large(value)
    return format_score(value, metric)


def front_in_words(found: Sequence[TradeOff], objective: Objective) -> list[str]:
    """Say how many configs are on the front, and of how many it cannot be known; nothing for one objective."""
    if not found:
        return []
    names = [each.metric for each in (objective, *objective.against)]
    front = sum(not each.dominated_by for each in found)
    are = "is" if front == 1 else "are"
    lines = [
        f"front: {front} of {count_of(len(found), 'config')} {are} dominated by no other in "
        f"{', '.join(names[:-1])} and {names[-1]}"
    ]
    for name in names[1:]:
        if unknown := sum(each.values[name] is None for each in found):
            lines.append(f"{name} of {count_of(unknown, 'config')} is not known, and counts as the worst")
    return lines
