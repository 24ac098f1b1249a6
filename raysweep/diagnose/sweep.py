"""Across a sweep: which setting goes with which findings, and with the score."""

from __future__ import annotations

import json
import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import numpy as np

from raysweep.diagnose.findings import Cause, Diagnosis, Evidence, Finding, Kind
from raysweep.diagnose.thresholds import Thresholds
from raysweep.diagnose.trial import diagnose_record
from raysweep.store.record import Record
from raysweep.sweepfile.schema import Objective

KINDS: tuple[Kind, ...] = ("divergence", "dip", "overfitting", "underfitting", "plateau")
MOST_VALUES = 6
"""A setting with more values, all numbers, is looked at in thirds."""
SHUFFLES = 2000
ENDED = ("finished", "diverged")


@dataclass(frozen=True)
class ValueEffect:
    """The trials that share one value of a setting."""

    value: str
    trials: int
    """Those that trained at least one epoch, or diverged in their first."""
    counts: Mapping[Kind, int]
    """How many of them have a finding of each kind."""
    dip_causes: Mapping[Cause | None, int]
    """How many trials' dips have each first cause; None: unexplained."""
    gradient_ratio: float
    """Largest gradient norm before their dips, in multiples of the usual; NaN where not known."""
    configs: int
    """Configs of which a seed trained to its end: those that the scores below are of."""
    score: float
    """The mean over those configs of the mean over their seeds."""
    standard_error: float
    """Of that mean, by seeds alone; NaN where no config of the sweep was repeated."""
    ahead: int
    """In how many of `comparisons` its config scored best."""
    comparisons: int
    """Sets of configs that differ in this setting alone."""


@dataclass(frozen=True)
class AxisEffect:
    """One setting, and what goes with its values."""

    key: str
    values: tuple[ValueEffect, ...]
    chance: Mapping[Kind, float]
    """How often shuffled trials would differ as much between the values (a permutation test); small: not by chance."""
    changed_alone: bool
    """Whether any trials differ in this setting with all else equal."""


@dataclass(frozen=True)
class SweepDiagnosis:
    """What the trials of a sweep show, one by one and together."""

    trials: Mapping[str, Diagnosis]
    """By trial id."""
    axes: tuple[AxisEffect, ...]
    seed_spread: float
    """Standard deviation of the score over the seeds of a config, pooled; NaN where no config has two seeds."""
    maximize: bool
    """Whether a larger score is better."""


def diagnose_sweep(
    records: Sequence[Record], objective: Objective, thresholds: Thresholds | None = None
) -> SweepDiagnosis:
    """Diagnose every trial, and look for settings that go with findings and scores.

    Args:
        records: of all trials of the plan.
        objective: tells which score is better.
        thresholds: what counts as a finding.
    """
    alone = {record.id: diagnose_record(record, thresholds) for record in records}
    keys = varied_settings(records)
    diagnoses = _with_siblings(records, alone, keys)
    begun = [record for record in records if record.epoch or alone[record.id].findings]
    spread = _seed_spread(records)
    axes = tuple(_axis(key, keys, begun, diagnoses, objective, spread) for key in keys)
    return SweepDiagnosis(diagnoses, axes, spread, objective.maximize)


def varied_settings(records: Sequence[Record]) -> list[str]:
    """Return the keys, dotted, that take more than one value in these trials."""
    keys = dict.fromkeys(key for record in records for key in record.axes if key != "seed")
    return [key for key in keys if len({setting_text(record, key) for record in records}) > 1]


def setting(record: Record, key: str) -> Any:
    """A trial's value of a dotted key; None where it has none."""
    value: Any = record.config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return record.axes.get(key) if value is None else value


def setting_text(record: Record, key: str) -> str:
    """The same, to read; of a section its name and what is not off, nought or empty."""
    value = record.axes[key] if key in record.axes else setting(record, key)
    if isinstance(value, Mapping) and "name" in value:
        others = [
            f"{name}={json.dumps(entry, default=str)}" for name, entry in value.items() if name != "name" and entry
        ]
        return str(value["name"]) + (f"({', '.join(others)})" if others else "")
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else "-" if value is None else json.dumps(value, default=str)


def config_key(record: Record) -> str:
    """What the seeds of one config have in common."""
    return json.dumps(record.config, sort_keys=True, default=str)


def full_score(record: Record) -> float | None:
    """The score of a trial that trained to its end: those stopped early cannot be compared with it."""
    return record.best.score if record.status == "finished" and record.best else None


# ---------------------------------------------------------------------------------------------------------
# Siblings: trials with all else equal


def _with_siblings(
    records: Sequence[Record], alone: Mapping[str, Diagnosis], keys: Sequence[str]
) -> dict[str, Diagnosis]:
    """Add to each dip and divergence what trials at a lower learning rate, with all else equal, did."""
    if "lr" not in keys:
        return dict(alone)
    others = [key for key in keys if key != "lr"]
    families: dict[tuple[str, ...], list[Record]] = defaultdict(list)
    for record in records:
        families[tuple(setting_text(record, key) for key in others)].append(record)
    diagnoses = {}
    for family in families.values():
        ended = sorted((other.config["lr"], _fell(alone[other.id])) for other in family if other.status in ENDED)
        rates, falls = [rate for rate, _ in ended], [0, *accumulate(int(fell) for _, fell in ended)]
        for record in family:
            lower = bisect_left(rates, record.config["lr"])
            found = alone[record.id]
            findings = tuple(_beside(finding, falls[lower], lower) for finding in found.findings)
            diagnoses[record.id] = replace(found, findings=findings)
    return diagnoses


def _fell(diagnosis: Diagnosis) -> bool:
    return diagnosis.has("dip") or diagnosis.has("divergence")


def _beside(finding: Finding, falls: int, trials: int) -> Finding:
    """Add that of so many trials at a lower learning rate so many dip or diverge."""
    if finding.kind not in ("dip", "divergence") or not trials:
        return finding
    text = f"at a lower lr, all else equal, {falls} of {trials} trials dip or diverge"
    return replace(finding, evidence=(*finding.evidence, Evidence("high_lr", falls == 0, text)))


# ---------------------------------------------------------------------------------------------------------
# One setting


def _axis(
    key: str,
    keys: Sequence[str],
    records: Sequence[Record],
    diagnoses: Mapping[str, Diagnosis],
    objective: Objective,
    spread: float,
) -> AxisEffect:
    label = _labels(key, records)
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        groups[label(record)].append(record)
    ahead = _comparisons(key, keys, records, label, objective)
    values = tuple(
        _value(value, group, diagnoses, spread, *ahead.get(value, (0, 0))) for value, group in groups.items()
    )
    chance = {}
    for kind in KINDS:
        found = [np.array([diagnoses[record.id].has(kind) for record in group]) for group in groups.values()]
        chance[kind] = _chance(found)
    blocks: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for record in records:
        blocks[_others(record, key, keys)].add(label(record))
    return AxisEffect(key, values, chance, any(len(block) > 1 for block in blocks.values()))


def _others(record: Record, key: str, keys: Sequence[str]) -> tuple[str, ...]:
    """A trial's values of all varied settings but one."""
    return tuple(setting_text(record, other) for other in keys if other != key)


def _labels(key: str, records: Sequence[Record]) -> Callable[[Record], str]:
    """Return what to call a trial's value: itself, or its third where numbers take many values."""
    values = [setting(record, key) for record in records]
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    if not numeric or len(set(values)) <= MOST_VALUES:
        return lambda record: setting_text(record, key)
    ordered = sorted(values)
    cuts = [ordered[len(ordered) // 3], ordered[2 * len(ordered) // 3]]
    parts = [[v for v in ordered if np.searchsorted(cuts, v, side="right") == part] for part in range(3)]
    names = [f"{part[0]:.3g} to {part[-1]:.3g}" if part else "" for part in parts]
    return lambda record: names[int(np.searchsorted(cuts, setting(record, key), side="right"))]


def _value(
    value: str,
    records: Sequence[Record],
    diagnoses: Mapping[str, Diagnosis],
    spread: float,
    ahead: int,
    comparisons: int,
) -> ValueEffect:
    found = [diagnoses[record.id] for record in records]
    causes: dict[Cause | None, int] = defaultdict(int)
    ratios = []
    for diagnosis in found:
        dips = diagnosis.of("dip")
        for cause in dict.fromkeys(dip.causes[0] if dip.causes else None for dip in dips):
            causes[cause] += 1
        ratios += [dip.numbers["gradient_ratio"] for dip in dips if "gradient_ratio" in dip.numbers]
    by_config = _scores_by_config(records).values()
    scores = [float(np.mean(group)) for group in by_config]
    return ValueEffect(
        value=value,
        trials=len(records),
        counts={kind: sum(diagnosis.has(kind) for diagnosis in found) for kind in KINDS},
        dip_causes=dict(causes),
        gradient_ratio=max(ratios, default=math.nan),
        configs=len(scores),
        score=float(np.mean(scores)) if scores else math.nan,
        standard_error=spread * math.sqrt(sum(1 / len(group) for group in by_config)) / max(1, len(scores)),
        ahead=ahead,
        comparisons=comparisons,
    )


def _scores_by_config(records: Sequence[Record]) -> dict[str, list[float]]:
    groups: dict[str, list[float]] = defaultdict(list)
    for record in records:
        score = full_score(record)
        if score is not None:
            groups[config_key(record)].append(score)
    return groups


def _comparisons(
    key: str, keys: Sequence[str], records: Sequence[Record], label: Callable[[Record], str], objective: Objective
) -> dict[str, tuple[int, int]]:
    """Return, by value, in how many of its comparisons with all else equal its mean score is the best."""
    blocks: dict[tuple[str, ...], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        score = full_score(record)
        if score is not None:
            blocks[_others(record, key, keys)][label(record)].append(score)
    ahead: dict[str, int] = defaultdict(int)
    total: dict[str, int] = defaultdict(int)
    for block in blocks.values():
        if len(block) < 2:
            continue
        means = {value: float(np.mean(scores)) for value, scores in block.items()}
        best = (max if objective.maximize else min)(means.values())
        for value, mean in means.items():
            total[value] += 1
            ahead[value] += mean == best
    return {value: (ahead[value], total[value]) for value in total}


def _chance(groups: Sequence[np.ndarray[Any, Any]]) -> float:
    """Return the share of shuffles in which the rates of the groups differ at least as much; NaN if they cannot."""
    everything = np.concatenate(groups) if groups else np.array([])
    if len(groups) < 2 or not 0 < everything.sum() < len(everything):
        return math.nan
    sizes = np.array([len(group) for group in groups])
    ends = np.cumsum(sizes) - 1
    rng = np.random.default_rng(0)
    shuffled = rng.permuted(np.tile(everything.astype(float), (SHUFFLES, 1)), axis=1)

    def spread(rows: np.ndarray[Any, Any]) -> Any:
        counts = np.diff(np.cumsum(rows, axis=1)[:, ends], axis=1, prepend=0)
        return ((counts / sizes - everything.mean()) ** 2 * sizes).sum(axis=1)

    actual = spread(everything.astype(float)[None])[0]
    return float((1 + (spread(shuffled) >= actual - 1e-12).sum()) / (1 + SHUFFLES))


def _seed_spread(records: Sequence[Record]) -> float:
    """Pooled standard deviation of the score over the seeds of a config."""
    groups = [scores for scores in _scores_by_config(records).values() if len(scores) > 1]
    freedom = sum(len(scores) - 1 for scores in groups)
    squares = sum(float(np.var(scores)) * len(scores) for scores in groups)
    return math.sqrt(squares / freedom) if freedom else math.nan
