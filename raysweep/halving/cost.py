"""What a sweep would cost, before anything is spent: where its trials are compared, how many go on, the epochs of it.

Pure functions of the plan; `raysweep.vision.timing` turns epochs into hours and bytes. No torch, no Ray.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any

from raysweep.halving.rules import member_of, rules_of
from raysweep.halving.rungs import Member, Rules
from raysweep.sweepfile.plan import Trial
from raysweep.sweepfile.prefixes import Level, Prefixes
from raysweep.sweepfile.proposals import WITHOUT_RESULTS
from raysweep.sweepfile.schema import AshaConfig, Sweep
from raysweep.sweepfile.search import probes
from raysweep.sweepfile.space import Space


@dataclass(frozen=True)
class Cohort:
    """Trials that are compared with one another."""

    group: dict[str, str]  # the keys of `group_by` with their values, as JSON text; empty where the key is missing
    trials: int
    configs: int  # fewer than trials where each is repeated with several `seeds`: these go on together
    goes_on: tuple[int, ...]  # how many configs go on from each rung, its rivals among them
    generation: int | None = None  # of a search: its trials compete among themselves, and with
    rivals: int | None = None  # so many configs of earlier generations, which have ended


@dataclass(frozen=True)
class Cost:
    """The cost of a whole plan."""

    rungs: tuple[Fraction, ...]
    rung_epochs: dict[str, tuple[int, ...]]  # the epochs after which each trial is compared, by its id
    cohorts: list[Cohort]
    epochs: int  # the epochs of the full grid
    unique_epochs: int  # those that would be trained without early stopping: what trials share counts once
    expected_epochs: dict[str, float]  # of each trial, by its id; what trials share is divided among them

    @property
    def expected(self) -> float:
        """The expected epochs of all trials."""
        return sum(self.expected_epochs.values())


def cost_of(sweep: Sweep, trials: Sequence[Trial]) -> Cost:
    """Work out the cost of a sweep's plan.

    Where halving may stop trials that share epochs, the expected epochs are the most that it can be: such trials have
    equal scores there, and are mostly stopped together or go on together.
    """
    rules, scheduler = rules_of(sweep.scheduler, sweep.objective, trials), sweep.scheduler
    members: dict[Any, list[Member]] = defaultdict(list)  # by the generation, and the values of `group_by`
    for trial in trials:
        member = member_of(trial.id, trial.config.model_dump(mode="json"), trial.epochs, scheduler)
        members[trial.generation, member.group].append(member)
    keys = scheduler.group_by if isinstance(scheduler, AshaConfig) else []
    cohorts: list[Cohort] = []
    chances: dict[str, Chances] = {}
    configs = {key: len({member.config_key for member in cohort}) for key, cohort in members.items()}
    for (generation, group), cohort in members.items():
        own, rivals = configs[generation, group], None
        if generation is not None:
            earlier = range(generation - WITHOUT_RESULTS + 1)
            rivals = sum(configs.get((number, group), 0) for number in earlier)
        compared = own + (rivals or 0)
        goes_on = tuple(min(places, compared) for places in rules.places(compared))
        cohorts.append(Cohort(dict(zip(keys, group, strict=True)), len(cohort), own, goes_on, generation, rivals))
        chances |= chances_of(rules, cohort, rivals or 0)
    shared = list(Prefixes(trials).levels()) if sweep.shares_epochs else []
    asked_for = sum(trial.epochs for trial in trials)
    return Cost(
        rungs=rules.rungs,
        rung_epochs={trial.id: rules.rung_epochs(trial.epochs) for trial in trials},
        cohorts=cohorts,
        epochs=asked_for,
        unique_epochs=asked_for - sum(len(level.ids) - 1 for level in shared),
        expected_epochs=_expected_epochs(chances, shared),
    )


@dataclass(frozen=True)
class Search:
    """How much of a search is planned, and the cost of all of it."""

    proposed: int  # configs so far
    left: int  # those that are proposed when there are results
    epochs_at_most: int  # of all its trials, the longest that the space has where they are not known yet
    expected_epochs: float  # of all its trials


def cost_of_search(sweep: Sweep, trials: Sequence[Trial], cost: Cost) -> Search | None:
    """Work out the cost of a whole search, of which `trials` are those proposed so far; None if there is no search."""
    if sweep.search is None:
        return None
    seeds, search = len(sweep.seeds or [sweep.seed]), sweep.search
    space = Space(search.space).all_proposals()
    proposed = len(trials) // seeds
    left = max(0, (search.trials if space is None else min(search.trials, len(space))) - proposed)
    longest = max((config.epochs for config in probes(sweep)), default=0)
    longest = min(longest, sweep.until or longest)
    rules, expected = rules_of(sweep.scheduler, sweep.objective, trials), cost.expected
    for first in range(proposed, proposed + left, search.generation):
        own, rivals = min(search.generation, proposed + left - first), max(0, first - search.generation)
        ends = (*rules.rung_epochs(longest), longest)
        expected += seeds * own * Chances(_shares(rules, own + rivals), ends).expected_epochs
    return Search(proposed, left, cost.epochs + left * seeds * longest, expected)


@dataclass(frozen=True)
class Chances:
    """How likely a trial is to train each of its epochs, if all configs of its cohort are equally likely to go on."""

    shares: tuple[Fraction, ...]  # up to the first rung (1), from there to the next one, and so on
    ends: tuple[int, ...]  # the last epoch of each of these stretches

    def of(self, epoch: int) -> float:
        """Return the chance that an epoch, counted from 1, is trained."""
        return float(self.shares[bisect_left(self.ends, epoch)])

    @property
    def expected_epochs(self) -> float:
        """The epochs that the trial trains in the mean."""
        stretches = zip(self.shares, pairwise([0, *self.ends]), strict=True)
        return float(sum(share * (end - start) for share, (start, end) in stretches))


def chances_of(rules: Rules, cohort: Sequence[Member], rivals: int = 0) -> dict[str, Chances]:
    """Return the chances of the trials of a cohort, which compete with so many other configs, by their ids."""
    shares = _shares(rules, len({member.config_key for member in cohort}) + rivals)
    return {member.id: Chances(shares, (*rules.rung_epochs(member.epochs), member.epochs)) for member in cohort}


def _shares(rules: Rules, configs: int) -> tuple[Fraction, ...]:
    """Return the chance of each of so many configs to train up to the first rung, up to the second one, and so on."""
    return (Fraction(1), *(Fraction(min(places, configs), configs) for places in rules.places(configs)))


def _expected_epochs(chances: Mapping[str, Chances], shared: Iterable[Level]) -> dict[str, float]:
    """Return the epochs that each trial trains in the mean; one that several share is divided among them."""
    expected = {id: each.expected_epochs for id, each in chances.items()}
    for level in shared:
        of_each = {id: chances[id].of(level.epoch) for id in level.ids}
        too_many = 1 - 1 / max(1.0, sum(of_each.values()))
        for id, chance in of_each.items():
            expected[id] -= chance * too_many
    return expected
