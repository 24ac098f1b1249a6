"""What a sweep would cost, before anything is spent: where its trials are compared, how many go on, the epochs of it.

Pure functions of the plan; `raysweep.vision.timing` turns epochs into hours and bytes. No torch, no Ray.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any

from raysweep.halving.rules import member_of, rules_of
from raysweep.halving.rungs import Member, Rules
from raysweep.sweepfile.plan import Trial
from raysweep.sweepfile.schema import AshaConfig, Sweep


@dataclass(frozen=True)
class Cohort:
    """Trials that are compared with one another."""

    group: dict[str, str]  # the keys of `group_by` with their values, as JSON text; empty where the key is missing
    trials: int
    configs: int  # fewer than trials where each is repeated with several `seeds`: these go on together
    goes_on: tuple[int, ...]  # how many configs go on from each rung


@dataclass(frozen=True)
class Cost:
    """The cost of a whole plan."""

    rungs: tuple[Fraction, ...]
    rung_epochs: dict[str, tuple[int, ...]]  # the epochs after which each trial is compared, by its id
    cohorts: list[Cohort]
    epochs: int  # the epochs of the full grid
    expected_epochs: dict[str, float]  # of each trial, by its id, if any config is as likely to go on as another


def cost_of(sweep: Sweep, trials: Sequence[Trial]) -> Cost:
    """Work out the cost of a sweep's plan."""
    rules, scheduler = rules_of(sweep.scheduler, sweep.objective), sweep.scheduler
    members: dict[Any, list[Member]] = defaultdict(list)  # by the values of `group_by`
    for trial in trials:
        member = member_of(trial.id, trial.config.model_dump(mode="json"), trial.config.epochs, scheduler)
        members[member.group].append(member)
    keys = scheduler.group_by if isinstance(scheduler, AshaConfig) else []
    cohorts: list[Cohort] = []
    expected: dict[str, float] = {}
    for group, cohort in members.items():
        configs = len({member.config_key for member in cohort})
        goes_on = tuple(min(places, configs) for places in rules.places(configs))
        cohorts.append(Cohort(dict(zip(keys, group, strict=True)), len(cohort), configs, goes_on))
        expected |= expected_epochs(rules, cohort)
    return Cost(
        rungs=rules.rungs,
        rung_epochs={trial.id: rules.rung_epochs(trial.config.epochs) for trial in trials},
        cohorts=cohorts,
        epochs=sum(trial.config.epochs for trial in trials),
        expected_epochs=expected,
    )


def expected_epochs(rules: Rules, cohort: Sequence[Member]) -> dict[str, float]:
    """Return the epochs that each trial of a cohort trains if any config is as likely to go on as another."""
    configs = len({member.config_key for member in cohort})
    shares = [Fraction(1), *(Fraction(min(places, configs), configs) for places in rules.places(configs))]
    expected = {}
    for member in cohort:
        stops = [0, *rules.rung_epochs(member.epochs), member.epochs]
        parts = (share * (end - start) for share, (start, end) in zip(shares, pairwise(stops), strict=True))
        expected[member.id] = float(sum(parts))
    return expected
