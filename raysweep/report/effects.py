"""What each setting does to the score: differences with intervals, all else equal where such trials exist."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, variance

from scipy.stats import t as student

from raysweep.diagnose.sweep import grouped_values
from raysweep.results.ranking import is_whole
from raysweep.results.run import SweepResult
from raysweep.results.settings import are_numbers, in_order, setting_text
from raysweep.results.shared import groups_of_configs
from raysweep.store import Record
from raysweep.sweepfile.plan import config_key

CONFIDENCE = 0.95
FAIR_FROM = 0.05
"""Where fewer of the configs differ in a setting alone, they do not speak for all: in a large random search two may do
so by chance."""


@dataclass(frozen=True)
class ValueDifference:
    """How the configs of one value of a setting stand against others."""

    value: str
    difference: float | None  # mean difference of the score, in its own unit; None where there is none to tell
    margin: float | None  # half the 95 % interval of that mean; None where nothing tells how much it varies
    count: int  # differences that it is the mean of

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.difference is not None and self.margin is not None and abs(self.difference) > self.margin


@dataclass(frozen=True)
class SettingEffect:
    """A setting, and how the scores of its values differ."""

    key: str
    values: list[ValueDifference]  # numbers by size, others best first
    is_fair: bool  # whether all else was equal in what is compared

    @property
    def spread(self) -> float:
        """How far the best and the worst value are apart."""
        known = [each.difference for each in self.values if each.difference is not None]
        return max(known, default=0.0) - min(known, default=0.0)


def effects_of(result: SweepResult, keys: Sequence[str], seed_spread: float) -> list[SettingEffect]:
    """Return the effects of the settings, the largest first, by the configs that trained to their end.

    Where configs differ in a setting alone, each stands against the mean of those it is compared with; elsewhere
    against the mean of all configs, which may differ in other settings too. Intervals are those of Student's t, with
    the variance of the differences pooled over the setting's values, as in a one-way analysis of variance; where no
    value has two differences, the pooled spread of the seeds stands in, if it is known. Configs whose trials share most
    of their epochs count as one, with the mean of their differences.

    Args:
        result: the run.
        keys: the settings, dotted.
        seed_spread: standard deviation of the score over a config's seeds; NaN if not known.
    """
    records = [record for record in result.trials if is_whole(record)]
    if not records:
        return []
    by_config = defaultdict[str, list[Record]](list)
    for record in records:
        by_config[config_key(record.config)].append(record)
    configs = list(by_config.values())
    groups = groups_of_configs(configs)
    effects = [_effect(key, configs, groups, keys, seed_spread, result.objective.maximize) for key in keys]
    told = [effect for effect in effects if sum(each.difference is not None for each in effect.values) > 1]
    return sorted(told, key=lambda effect: -effect.spread)


def _effect(
    key: str,
    configs: Sequence[Sequence[Record]],
    groups: Sequence[str],
    keys: Sequence[str],
    seed_spread: float,
    maximize: bool,
) -> SettingEffect:
    """Return the effect of one setting; `groups` names the group of each config that shares most of its epochs."""
    records = [record for trials in configs for record in trials]
    values = dict(zip((record.id for record in records), grouped_values(key, records), strict=True))
    families = defaultdict[tuple[str, ...], list[tuple[str, float, str]]](list)
    for trials, group in zip(configs, groups, strict=True):
        others = tuple(setting_text(trials[0], other) for other in keys if other != key)
        score = fmean(record.best.score for record in trials if record.best)
        families[others].append((values[trials[0].id], score, group))
    fair = [family for family in families.values() if len({value for value, _, _ in family}) > 1]
    if sum(map(len, fair)) < FAIR_FROM * len(configs):
        fair = []
    compared = fair or [[member for family in families.values() for member in family]]
    # Of configs that share most of their epochs, a value's differences count once: their luck is the same.
    differences = {value: defaultdict[str, list[float]](list) for value in in_order(values.values())}
    for family in compared:
        mean = fmean(score for _, score, _ in family)
        for value, score, group in family:
            differences[value][group].append(score - mean)
    independent = {value: list(map(fmean, by_group.values())) for value, by_group in differences.items()}
    seeds = fmean(map(len, configs))
    told = _with_margins(independent, seed_spread / math.sqrt(seeds))
    return SettingEffect(key, _sorted(told, maximize), bool(fair))


def _with_margins(differences: Mapping[str, Sequence[float]], spread: float) -> list[ValueDifference]:
    repeated = [each for each in differences.values() if len(each) > 1]
    freedom = sum(len(each) - 1 for each in repeated)
    if freedom:
        spread = math.sqrt(sum(variance(each) * (len(each) - 1) for each in repeated) / freedom)
    reach = spread * float(student.ppf((1 + CONFIDENCE) / 2, freedom or math.inf))
    known = math.isfinite(reach)
    return [
        ValueDifference(value, fmean(each), reach / math.sqrt(len(each)) if known else None, len(each))
        if each
        else ValueDifference(value, None, None, 0)
        for value, each in differences.items()
    ]


def _sorted(values: list[ValueDifference], maximize: bool) -> list[ValueDifference]:
    """Return numbers and ranges of them by size, and names best first; what cannot be told comes last."""
    lowest = [each.value.partition(" to ")[0] for each in values]
    if are_numbers(lowest):
        return sorted(values, key=lambda each: float(each.value.partition(" to ")[0]))
    sign = -1 if maximize else 1
    return sorted(values, key=lambda each: (each.difference is None, sign * (each.difference or 0.0)))
