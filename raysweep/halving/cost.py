"""What a sweep would cost, before anything is spent: where its trials are compared, how many go on, the epochs of it.

Pure functions of the plan; `raysweep.vision.timing` turns epochs into hours and bytes. No torch, no Ray.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from raysweep.halving.rules import member_of, rules_of
from raysweep.halving.rungs import Member, expected_epochs
from raysweep.sweepfile.plan import Trial
from raysweep.sweepfile.schema import Sweep


@dataclass(frozen=True)
class Cohort:
    """Trials that are compared with one another."""

    group: dict[str, str]
    """The keys of `group_by` with their values, as JSON text; an empty text where the key is missing."""
    trials: int
    configs: int
    """Fewer than trials where each is repeated with several `seeds`: these go on together."""
    goes_on: tuple[int, ...]
    """How many configs go on from each rung."""


@dataclass(frozen=True)
class Cost:
    """Of a whole plan."""

    rungs: tuple[Fraction, ...]
    rung_epochs: dict[str, tuple[int, ...]]
    """The epochs after which each trial is compared, by its id."""
    cohorts: list[Cohort]
    epochs: int
    """Of the full grid."""
    expected_epochs: dict[str, float]
    """Of each trial, by its id, if any config is as likely to go on as another and none fails."""


def cost_of(sweep: Sweep, trials: Sequence[Trial]) -> Cost:
    """Work out the cost of a sweep's plan."""
    rules = rules_of(sweep.scheduler, sweep.objective)
    members = [
        member_of(trial.id, trial.config.model_dump(mode="json"), trial.config.epochs, sweep.scheduler)
        for trial in trials
    ]
    keys = sweep.scheduler.group_by if sweep.scheduler.name == "asha" else []
    cohorts: dict[object, list[Member]] = {}
    for member in members:
        cohorts.setdefault(member.group, []).append(member)
    described = []
    for group, cohort in cohorts.items():
        assert isinstance(group, tuple)
        configs = len({member.config_key for member in cohort})
        goes_on = tuple(min(places, configs) for places in rules.places(configs))
        described.append(Cohort(dict(zip(keys, group, strict=True)), len(cohort), configs, goes_on))
    return Cost(
        rungs=rules.rungs,
        rung_epochs={member.id: rules.rung_epochs(member.epochs) for member in members},
        cohorts=described,
        epochs=sum(member.epochs for member in members),
        expected_epochs=expected_epochs(rules, members),
    )
