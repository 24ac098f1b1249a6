"""Across a sweep: which setting goes with which findings, and with the score."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from raysweep.diagnose.findings import Cause, Diagnosis, Finding, Kind
from raysweep.diagnose.rules import RULES, Rule, diagnose_record
from raysweep.diagnose.thresholds import Thresholds
from raysweep.results.settings import setting, setting_text, varied_settings
from raysweep.results.shared import groups_of
from raysweep.store.record import Record
from raysweep.sweepfile.plan import config_key
from raysweep.sweepfile.schema import Objective
from raysweep.terminal import Metric

WITH_CAUSES = {rule.kind for rule in RULES if rule.has_causes}
MOST_VALUES = 6
"""A setting of numbers that takes more values is looked at in thirds."""
SHUFFLES = 2000
"""Shuffles of a permutation test."""
ENDED = ("finished", "diverged")


@dataclass(frozen=True)
class ValueEffect:
    """The trials that share one value of a setting."""

    value: str
    trials: int  # trials that trained at least one epoch, or diverged in their first
    counts: Mapping[Kind, int]  # those of them that have a finding, by its kind
    able: Mapping[Kind, int]  # those of them that could have it: all, or those that trained to their end
    dip_causes: Mapping[Cause | None, int]  # trials by the first cause of their dips; None stands for unexplained ones
    gradient_ratio: float  # largest gradient norm before their dips, in multiples of the usual; NaN where not known
    configs: int  # configs of which a seed trained to its end; the scores below are theirs
    score: float  # the mean over those configs of the mean over their seeds
    standard_error: float
    """Standard error of that mean, by seeds alone; NaN where no config of the sweep was repeated. Configs whose trials
    share most of their epochs have the same luck."""
    ahead: int  # those of the `comparisons` in which its config scored best
    comparisons: int  # sets of configs that differ in this setting alone


@dataclass(frozen=True)
class AxisEffect:
    """One setting, and what goes with its values."""

    key: str
    values: tuple[ValueEffect, ...]
    chance: Mapping[Kind, float]
    """Share of shuffles that differ as much (permutation test); a small one rules out chance. Trials that share most of
    their epochs count as one: a dip there is one dip, however many go on from it."""
    changed_alone: bool
    """Whether any trials differ in this setting with all else equal."""


@dataclass(frozen=True)
class SweepDiagnosis:
    """What the trials of a sweep show, one by one and together."""

    trials: Mapping[str, Diagnosis]  # each trial's diagnosis by its id
    axes: tuple[AxisEffect, ...]
    finished: int  # trials that trained to their end
    seed_spread: float  # standard deviation of the score over a config's seeds, pooled; NaN where none has two
    objective: Objective
    metric: Metric  # the objective's, and how it is written


def diagnose_sweep(
    records: Sequence[Record], objective: Objective, thresholds: Thresholds | None = None
) -> SweepDiagnosis:
    """Diagnose all trials of a plan, and look for settings that go with findings and scores."""
    alone = {record.id: diagnose_record(record, thresholds, objective) for record in records}
    metric = Metric.of(objective.metric, (record.best.score for record in records if record.best))
    keys = varied_settings(records)
    diagnoses = _with_other_lrs(records, alone, keys)
    begun = [record for record in records if record.epoch or alone[record.id].findings]
    frame = _frame(begun, diagnoses)
    finished = sum(record.status == "finished" for record in records)
    sweep = SweepDiagnosis(diagnoses, (), finished, _seed_spread(frame), objective, metric)
    return replace(sweep, axes=tuple(_axis(key, begun, keys, frame, sweep) for key in keys))


@dataclass(frozen=True)
class _Tried:
    """A trial as one whose learning rate others are compared with."""

    record: Record
    diagnosis: Diagnosis
    lr: float
    falls: bool  # whether it dips or diverges

    def tells(self, epoch: int) -> bool:
        """Return whether it trained long enough to fall as another trial did in that epoch."""
        return self.falls or self.record.status in ENDED or self.record.epoch >= epoch


def _with_other_lrs(
    records: Sequence[Record], alone: Mapping[str, Diagnosis], keys: Sequence[str]
) -> dict[str, Diagnosis]:
    """Add to each dip and divergence what trials at other learning rates did."""
    if "lr" not in keys or not all(isinstance(record.config.get("lr"), int | float) for record in records):
        return dict(alone)
    others = [key for key in keys if key != "lr"]
    alike: dict[tuple[str, ...], list[_Tried]] = defaultdict(list)
    same_optimizer: dict[str, list[_Tried]] = defaultdict(list)
    for record in records:
        falls = any(map(alone[record.id].has, WITH_CAUSES))
        trial = _Tried(record, alone[record.id], float(record.config["lr"]), falls)
        alike[tuple(setting_text(record, key) for key in others)].append(trial)
        same_optimizer[setting_text(record, "optimizer.name")].append(trial)
    found = dict(alone)
    for family in alike.values():
        for trial in family:
            if trial.falls:
                found[trial.record.id] = _beside_alike(trial, family)
    for trials in same_optimizer.values():
        for trial in trials:
            if trial.falls and trial.lr <= min(other.lr for other in trials):
                found[trial.record.id] = _beside_all(found[trial.record.id], trial, trials)
    return found


def _beside_alike(trial: _Tried, family: Sequence[_Tried]) -> Diagnosis:
    """Return a trial's diagnosis with whether those that differ by the lr alone dip or diverge, too."""

    def weigh(finding: Finding) -> Finding:
        lower, higher = _falls(trial, family, finding.first)
        if lower:
            finding = finding.with_evidence("high_lr", not any(lower), _said("lower lr, all else equal", lower))
        if _mostly_calm(higher):
            finding = finding.with_evidence("high_lr", False, _said("higher lr, all else equal", higher))
        return finding

    return _weighed(trial.diagnosis, weigh)


def _beside_all(diagnosis: Diagnosis, lowest: _Tried, trials: Sequence[_Tried]) -> Diagnosis:
    """Return the diagnosis of a trial of the lowest lr with whether all those at higher ones fall, too."""

    def weigh(finding: Finding) -> Finding:
        _, higher = _falls(lowest, trials, finding.first)
        if not _mostly_calm(higher):
            return finding
        return finding.with_evidence(
            "high_lr", False, "this lr is the lowest of its optimizer; " + _said("higher lr", higher)
        )

    return _weighed(diagnosis, weigh)


def _falls(trial: _Tried, others: Sequence[_Tried], epoch: int) -> tuple[list[bool], list[bool]]:
    """Return for each trial at a lower lr, and for each at a higher one, whether it dips or diverges."""
    telling = [other for other in others if other.tells(epoch)]
    lower = [other.falls for other in telling if other.lr < trial.lr]
    return lower, [other.falls for other in telling if other.lr > trial.lr]


def _mostly_calm(falls: Sequence[bool]) -> bool:
    return bool(falls) and sum(falls) < len(falls) / 2


def _said(which: str, falls: Sequence[bool]) -> str:
    return f"at a {which}, {sum(falls)} of {len(falls)} trials dip or diverge"


def _weighed(diagnosis: Diagnosis, weigh: Callable[[Finding], Finding]) -> Diagnosis:
    findings = (weigh(finding) if finding.kind in WITH_CAUSES else finding for finding in diagnosis.findings)
    return Diagnosis(tuple(findings))


def _frame(records: Sequence[Record], diagnoses: Mapping[str, Diagnosis]) -> pd.DataFrame:
    """Return one row a trial: its config, its dips, each kind of finding, and its score if it is finished.

    Scores of trials that were stopped early cannot be compared with those of the others.
    """
    groups = groups_of(records)
    columns = {
        "group": [groups[record.id] for record in records],
        "config": [config_key(record.config) for record in records],
        "score": [record.best.score if record.status == "finished" and record.best else math.nan for record in records],
        "dips": [diagnoses[record.id].of("dip") for record in records],
        **{rule.kind: [_has(rule, record, diagnoses[record.id]) for record in records] for rule in RULES},
    }
    return pd.DataFrame(columns)


def _has(rule: Rule, record: Record, diagnosis: Diagnosis) -> float:
    """Return 1 for a trial that has a finding, 0 for one that has not, NaN for one that ended before it could show."""
    return math.nan if rule.at_end and record.status != "finished" else float(diagnosis.has(rule.kind))


def _seed_spread(frame: pd.DataFrame) -> float:
    seeds = frame.groupby("config").score.agg(["count", "var"]).query("count > 1")
    freedom = seeds["count"] - 1
    return math.sqrt((seeds["var"] * freedom).sum() / freedom.sum()) if len(seeds) else math.nan


def _axis(
    key: str, records: Sequence[Record], keys: Sequence[str], frame: pd.DataFrame, sweep: SweepDiagnosis
) -> AxisEffect:
    others = [[setting_text(record, other) for other in keys if other != key] for record in records]
    frame = frame.assign(value=grouped_values(key, records), others=list(map(json.dumps, others)))
    scores = frame.groupby(["others", "value"]).score.mean().unstack()
    scores = scores[scores.notna().sum(axis=1) > 1]
    best = scores.max(axis=1) if sweep.objective.maximize else scores.min(axis=1)
    ahead, comparisons = scores.eq(best, axis=0).sum(), scores.notna().sum()
    by_value = frame.groupby("value", sort=False)
    values = (
        _value_effect(value, group, sweep.seed_spread, int(ahead[value]), int(comparisons[value]))
        for value, group in by_value
    )
    chance = {rule.kind: _chance(_independent(frame, rule.kind)) for rule in RULES}
    changed_alone = bool((frame.groupby("others")["value"].nunique() > 1).any())
    return AxisEffect(key, tuple(values), chance, changed_alone)


def _independent(frame: pd.DataFrame, kind: Kind) -> Iterable[tuple[Any, pd.Series]]:
    """Return who has a finding, by value; of trials that share most of their epochs, the mean."""
    once = frame.dropna(subset=kind).groupby(["value", "group"], sort=False)[kind].mean()
    by_value: Iterable[tuple[Any, pd.Series]] = once.groupby("value", sort=False)
    return by_value


def _value_effect(value: str, trials: pd.DataFrame, seed_spread: float, ahead: int, comparisons: int) -> ValueEffect:
    scored = trials.dropna(subset="score").groupby("config")
    configs = scored.score.agg(["mean", "count"])
    luck = (1 / np.sqrt(configs["count"])).groupby(scored.group.first()).sum()
    first_causes = Counter(cause for dips in trials.dips for cause in {(*dip.causes, None)[0] for dip in dips})
    ratios = [dip.numbers.get("gradient_ratio", math.nan) for dips in trials.dips for dip in dips]
    return ValueEffect(
        value=value,
        trials=len(trials),
        counts={rule.kind: int(trials[rule.kind].sum()) for rule in RULES},
        able={rule.kind: int(trials[rule.kind].count()) for rule in RULES},
        dip_causes=dict(first_causes),
        gradient_ratio=max((ratio for ratio in ratios if not math.isnan(ratio)), default=math.nan),
        configs=len(configs),
        score=float(configs["mean"].mean()),
        standard_error=seed_spread * math.sqrt((luck**2).sum()) / max(1, len(configs)),
        ahead=ahead,
        comparisons=comparisons,
    )


def grouped_values(key: str, records: Sequence[Record]) -> list[str]:
    """Return what to call each trial's value: itself, or its third where numbers take many values."""
    values = [setting(record, key) for record in records]
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    if not numeric or len(set(values)) <= MOST_VALUES:
        return [setting_text(record, key) for record in records]
    ordered = sorted(values)
    cuts = [ordered[len(ordered) // 3], ordered[2 * len(ordered) // 3]]
    thirds = pd.Series(values).groupby(np.searchsorted(cuts, values, side="right"))
    names: list[str] = thirds.transform(lambda third: f"{third.min():.3g} to {third.max():.3g}").tolist()
    return names


def _chance(groups: Iterable[tuple[Any, pd.Series]]) -> float:
    """Return the share of shuffles in which the rates of the groups differ at least as much; NaN if they cannot."""
    parts = [group.to_numpy() for _, group in groups]
    everything = np.concatenate([*parts, []])
    if len(parts) < 2 or not 0 < everything.sum() < len(everything):
        return math.nan
    sizes = np.array([len(part) for part in parts])
    shuffled = np.random.default_rng(0).permuted(np.tile(everything, (SHUFFLES, 1)), axis=1)
    counts = np.add.reduceat(np.vstack([everything, shuffled]), np.cumsum(sizes) - sizes, axis=1)
    spreads = ((counts / sizes - everything.mean()) ** 2 * sizes).sum(axis=1)
    return float((spreads >= spreads[0] - 1e-12).mean())
