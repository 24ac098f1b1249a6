"""Runs side by side: settings that differ, configs in common, their scores and curves.

Trials of two runs have the same config if they agree in every setting but those in which the runs as a whole differ
(each run has one value, and not the same), such as the epochs of a short and of a long run.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd

from raysweep.errors import UserError
from raysweep.results.ranking import SeedScores, can_win
from raysweep.results.run import SweepResult
from raysweep.results.settings import most_telling, setting_texts, varied_settings
from raysweep.results.shared import groups_of_configs
from raysweep.store import Record
from raysweep.store.metrics import CLOCK, EMA
from raysweep.sweepfile.patch import flatten
from raysweep.terminal import Metric


@dataclass(frozen=True)
class Scores:
    """One config in one run, over its seeds."""

    seeds: int
    mean: float | None
    standard_error: float | None  # None for fewer than two seeds
    statuses: dict[str, int]


@dataclass(frozen=True)
class CurveDifference:
    """The objective's curves of one seed of one config, in a run against the first run."""

    seed: int
    epochs: int  # epochs that both trained
    largest: float  # the largest difference, in either direction
    at: int  # the epoch of the largest difference
    identical: bool  # whether all metrics of those epochs are equal, except those of the clock


@dataclass(frozen=True)
class Common:
    """A config that at least two runs have."""

    name: str
    settings: dict[str, str]  # its values of the settings that vary among these configs, the most telling first
    scores: list[Scores | None]  # one entry for each run
    curves: list[list[CurveDifference]]  # one entry for each run; empty for the first


@dataclass(frozen=True)
class Comparison:
    """What runs have in common, and what not."""

    runs: list[dict[str, Any]]
    metric: Metric
    settings: dict[str, list[list[str]]]  # the settings whose values differ between the runs, with each run's values
    common: list[Common]
    pairs: list[dict[str, Any]]
    """For each run but the first: its configs in common with the first, their mean difference of score, its standard
    error (configs whose trials share most of their epochs are no independent ones), and in how many it is ahead."""


def compare(results: Sequence[SweepResult]) -> Comparison:
    """Compare runs; differences are against the first. Trials on the fresh seeds of `confirm` are left out.

    Raises:
        UserError: they are ranked by different metrics.
    """
    objective, metrics = results[0].objective, {result.objective.metric for result in results}
    if len(metrics) > 1:
        raise UserError(f"the runs are ranked by different metrics ({', '.join(sorted(metrics))}): no common score")
    searched = [[record for config in result.configs for record in config.search] for result in results]
    records = [record for side in searched for record in side]
    texts = pd.DataFrame([_texts(record.config) for record in records], dtype=object).fillna("-")
    run = pd.Series([place for place, side in enumerate(searched) for _ in side])
    values = {key: texts[key].groupby(run).agg(lambda run: sorted(set(run))).tolist() for key in texts}
    settings = {key: sides for key, sides in values.items() if any(side != sides[0] for side in sides)}
    apart = [key for key, sides in settings.items() if all(len(side) == 1 for side in sides)]
    trials = pd.DataFrame(
        {
            "run": run,
            "config": [json.dumps(row) for row in texts.drop(columns=apart).to_numpy().tolist()],
            "score": [math.nan if (score := _score(record)) is None else score for record in records],
        }
    )
    sides: dict[str, list[list[Record]]] = {}  # by config, for each run
    for config, place, record in zip(trials.config, run, records, strict=True):
        sides.setdefault(config, [[] for _ in results])[place].append(record)
    means = trials.groupby(["config", "run"]).score.mean().unstack().reindex(columns=range(len(results)))
    sign = 1 if objective.maximize else -1
    configs = [[record for side in of for record in side] for of in sides.values()]
    groups = dict(zip(sides, groups_of_configs(configs), strict=True))
    return Comparison(
        runs=[_describe(result) for result in results],
        metric=Metric.of(objective.metric, (score for record in records if (score := _score(record)) is not None)),
        settings=settings,
        common=_common_of([each for each in sides.values() if sum(map(bool, each)) > 1], objective.metric),
        pairs=[_pair(place, means[place] - means[0], sign, groups) for place in range(1, len(results))],
    )


def _texts(config: Mapping[str, Any]) -> dict[str, str]:
    known = {key: value for key, value in flatten(config) if value is not None}
    return {key: value if isinstance(value, str) else json.dumps(value, default=str) for key, value in known.items()}


def _score(record: Record) -> float | None:
    return record.best.score if record.best and can_win(record) else None


def _common_of(configs: Sequence[Sequence[Sequence[Record]]], metric: str) -> list[Common]:
    firsts = [next(record for side in sides for record in side) for sides in configs]
    texts = {key: setting_texts(firsts, key) for key in most_telling(firsts, varied_settings(firsts))}
    settings = ({key: column[place] for key, column in texts.items()} for place in range(len(firsts)))
    return list(map(partial(_common, metric), firsts, settings, configs))


def _common(metric: str, named: Record, settings: dict[str, str], sides: Sequence[Sequence[Record]]) -> Common:
    first = {record.seed: record for record in sides[0]}
    pairs = [[(first[record.seed], record) for record in side if record.seed in first] for side in sides[1:]]
    return Common(
        name=named.name,
        settings=settings,
        scores=[_scores(side) if side else None for side in sides],
        curves=[[], *([found for pair in side if (found := _curve_difference(*pair, metric))] for side in pairs)],
    )


def _scores(records: Sequence[Record]) -> Scores:
    scores = SeedScores.of(records)
    statuses = Counter[str](record.status for record in records)
    return Scores(scores.seeds, scores.mean, scores.standard_error, dict(statuses))


def _curve_difference(first: Record, other: Record, metric: str) -> CurveDifference | None:
    """Compare the epochs that both trained; None where they have no value of the metric in common."""
    rows = list(zip(first.metrics, other.metrics, strict=False))
    differences = [(abs(_number(a, metric) - _number(b, metric)), -int(b["epoch"])) for a, b in rows]
    known = [difference for difference in differences if math.isfinite(difference[0])]
    if not known:
        return None
    largest, at = max(known)  # of several epochs, the earliest
    identical = all(a.get(name) == b.get(name) for a, b in rows for name in {*a, *b}.difference(CLOCK))
    return CurveDifference(other.seed, len(rows), largest, -at, identical)


def _number(row: Mapping[str, Any], metric: str) -> float:
    """Return an epoch's value; where the loop reports that of averaged weights alone, that."""
    value = row.get(metric, row.get(f"{metric}{EMA}"))
    return value if isinstance(value, int | float) else math.nan


def _pair(place: int, differences: pd.Series, sign: int, groups: Mapping[str, str]) -> dict[str, Any]:
    """Say how a run stands against the first, over the configs that both have scores of.

    The mean is that of all configs. Those of a group, whose trials share most of their epochs, say the same again: the
    mean's standard error takes groups as independent, not configs (Liang and Zeger 1986, with the factor n / (n - 1)).
    """
    known = differences.dropna()
    sums = (known - known.mean()).groupby(groups).sum()
    return {
        "run": place,
        "configs": len(known),
        "mean_difference": _known(known.mean()),
        "standard_error": _known(math.sqrt(len(sums)) * sums.std() / len(known)) if len(known) else None,
        "ahead": int((sign * differences > 0).sum()),
    }


def _known(number: float) -> float | None:
    return None if math.isnan(number) else float(number)


def _describe(result: SweepResult) -> dict[str, Any]:
    best, scores = result.best, result.configs[0].scores if result.best else SeedScores(())
    return {
        "name": result.name,
        "path": result.path,
        "trials": len(result.trials),
        "finished": sum(record.status == "finished" for record in result.trials),
        "epochs": sum(len(record.own_metrics) for record in result.trials),
        "best": best.id if best else None,
        **scores.as_json(),
    }
