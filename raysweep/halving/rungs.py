"""Who goes on: order-proof ASHA, as pure functions of rung scores.

In: `Rules`, the planned `Member`s, and what happened to each (`record`, `finish`, `fail`, `diverge`).
Out: `verdict` (safe, out or undecided), `next_trial` for a free slot, `explain` in words and numbers.

The method is successive halving (Jamieson & Talwalkar 2016, "Non-stochastic best arm identification and
hyperparameter optimization"): of the N configs of a cohort, the best k_r = max(min_survivors, ceil(N / eta^(r+1))) go
on from rung r. As in ASHA (Li et al. 2020, "A system for massively parallel hyperparameter tuning") nobody waits for a
whole rung; but where ASHA compares a trial with those that came earlier, here it goes on once it certainly belongs to
the best, and ends once it certainly does not. So the decisions are the synchronous method's, in any order of arrival.

* The seeds of a config are ranked by their mean and go on together. A seed that fails or diverges counts at the rungs
  that it passed; the config goes on with the others, and is gone once all its seeds are.
* A config that is gone keeps its place at the rungs before its last. At its last the next in rank takes its place.
* Hence *out* needs k_r better configs that have all reached the next rung (or the end): until then one may still fail.
* A score that is no finite number ranks behind every other.

Each trial's own events come in order, those of different trials in any. An event costs a few bisections of each rung.
"""

from __future__ import annotations

import heapq
import json
import math
import sys
from bisect import bisect_left, bisect_right, insort
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from fractions import Fraction
from itertools import pairwise
from operator import itemgetter
from typing import Any

Key = tuple[float, float, str]  # what contestants are sorted by, best first: score (lower is better), val_loss, id


@dataclass(frozen=True)
class Rules:
    """How many go on, and from where."""

    eta: int = 3  # one in eta goes on at each rung
    rungs: tuple[Fraction, ...] = (Fraction(1, 9), Fraction(1, 3))  # of each trial's own epochs, ascending
    min_survivors: int = 1  # at least this many configs go on at every rung
    tolerance: float = 0.0  # a config goes on, too, if fewer than the places there are beat it by more than this
    maximize: bool = True

    def __post_init__(self) -> None:
        if self.eta < 2:
            raise ValueError(f"eta: got {self.eta}, must be at least 2")
        if self.min_survivors < 1:
            raise ValueError(f"min_survivors: got {self.min_survivors}, must be at least 1")
        if not (math.isfinite(self.tolerance) and self.tolerance >= 0):
            raise ValueError(f"tolerance: got {self.tolerance}, must be a finite number, at least 0")
        if not all(0 < rung <= 1 for rung in self.rungs) or list(self.rungs) != sorted(set(self.rungs)):
            raise ValueError(f"rungs: got {[str(rung) for rung in self.rungs]}, must ascend within 0 to 1")

    def rung_epochs(self, epochs: int) -> tuple[int, ...]:
        """Return the epoch after which each rung is reached, rounded up; rungs may share one."""
        return tuple(math.ceil(Fraction(rung) * epochs) for rung in self.rungs)

    def places(self, configs: int) -> tuple[int, ...]:
        """Return how many of a cohort's configs go on from each rung."""
        return tuple(max(self.min_survivors, -(-configs // self.eta ** (r + 1))) for r in range(len(self.rungs)))


@dataclass(frozen=True)
class Member:
    """A planned trial."""

    id: str
    config_key: Hashable  # the same for the seeds of one config
    group: Hashable  # only configs of one group are compared (see `group_of`)
    epochs: int


class Verdict(Enum):
    """Whether a trial may train on from where it is."""

    SAFE = "safe"
    OUT = "out"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class RungReport:
    """How a trial's config stands at one rung; scores are in the objective's own sign."""

    rung: int
    epoch: int
    score: float | None  # the mean of the config's seeds; None while some are missing
    rank: int | None  # 1 is best, among those that have arrived and are not gone; None before the config takes part
    arrived: int
    missing: int  # how many may still arrive, at most
    places: int
    cutoff: float | None  # the score of the last place, if that many have arrived
    beaten_by: tuple[str, ...]  # the trials right ahead of it, nearest first; a config is named by its first trial
    verdict: Verdict


def group_of(config: Mapping[str, Any], keys: Iterable[str]) -> tuple[str, ...]:
    """Return the group of a config under `group_by`: dotted keys reach inside, a missing one is a value of its own."""

    def text_at(path: str) -> str:
        value: Any = config
        for part in path.split("."):
            if not isinstance(value, Mapping) or part not in value:
                return ""  # no JSON text is empty
            value = value[part]
        return json.dumps(value, sort_keys=True, default=str)

    return tuple(text_at(key) for key in keys)


def expected_epochs(rules: Rules, members: Iterable[Member]) -> dict[str, float]:
    """Return the epochs that each trial is expected to train, if any config is as likely to go on as another."""
    cohorts: dict[Hashable, list[Member]] = defaultdict(list)
    for member in members:
        cohorts[member.group].append(member)
    expected = {}
    for cohort in cohorts.values():
        configs = len({member.config_key for member in cohort})
        shares = [Fraction(1), *(Fraction(min(places, configs), configs) for places in rules.places(configs))]
        for member in cohort:
            stops = [0, *rules.rung_epochs(member.epochs), member.epochs]
            parts = (share * (end - start) for share, (start, end) in zip(shares, pairwise(stops), strict=True))
            expected[member.id] = float(sum(parts))
    return expected


class Halving:
    """What is known of a sweep. Who holds a slot is marked (`start`, `release`); the rest follows from the records."""

    def __init__(self, rules: Rules, members: Iterable[Member]) -> None:
        self.rules = rules
        self._trials: dict[str, _Trial] = {}
        self._ready: list[tuple[int, int, int, str]] = []  # a heap: highest rung, then longest, then plan's order
        cohorts: dict[Hashable, dict[Hashable, _Config]] = defaultdict(dict)
        for order, member in enumerate(members):
            if member.id in self._trials:
                raise ValueError(f"two members have the id {member.id!r}")
            config = cohorts[member.group].setdefault(member.config_key, _Config(member.id))
            trial = self._trials[member.id] = _Trial(member, order, config)
            config.trials.append(trial)
            config.id = min(config.id, member.id)
        for configs in cohorts.values():
            cohort = _Cohort(rules, list(configs.values()))
            for config in configs.values():
                config.cohort = cohort
        for trial in self._trials.values():
            self._offer(trial)

    def record(self, id: str, rung: int, score: float, val_loss: float = math.nan) -> None:
        """Note a trial's score at its next rung; at one that it has already recorded, the first score stands."""
        trial = self._trials[id]
        if rung < len(trial.scores):
            return
        if rung > len(trial.scores) or rung >= len(self.rules.rungs) or trial.ended:
            state = f"{len(trial.scores)} of {len(self.rules.rungs)} recorded, {trial.ended or 'not ended'}"
            raise ValueError(f"trial {id!r} cannot record rung {rung}: {state}")
        sign = -1 if self.rules.maximize else 1
        trial.scores.append((sign * score if math.isfinite(score) else math.inf, val_loss))
        self._settle(trial.config)

    def finish(self, id: str) -> None:
        """Note that a trial has trained all its epochs."""
        if len(self._trials[id].scores) < len(self.rules.rungs):
            raise ValueError(f"trial {id!r} cannot finish: it has not recorded its last rung")
        self._end(id, "finished")

    def fail(self, id: str) -> None:
        """Note that a trial failed, after its last retry."""
        self._end(id, "failed")

    def diverge(self, id: str) -> None:
        """Note that a trial diverged."""
        self._end(id, "diverged")

    def start(self, id: str) -> None:
        """Note that a trial has a slot."""
        self._trials[id].holds_slot = True

    def release(self, id: str) -> None:
        """Note that a trial has given up its slot: paused, or to be tried again."""
        self._trials[id].holds_slot = False
        self._offer(self._trials[id])

    def next_trial(self) -> str | None:
        """Return the trial to take a free slot: a safe one of the highest rung, else the longest unstarted one."""
        while self._ready:
            negative_rung, _, _, id = self._ready[0]
            trial = self._trials[id]
            if len(trial.scores) == -negative_rung and self._can_start(trial):
                return id
            heapq.heappop(self._ready)
        return None

    def verdict(self, id: str) -> Verdict:
        """Return whether a trial may train on from the last rung that it has recorded."""
        trial = self._trials[id]
        return Verdict.OUT if trial.gone else trial.config.verdict_at(len(trial.scores) - 1)

    def explain(self, id: str, rivals: int = 3) -> list[RungReport]:
        """Return, for each rung that a trial has recorded, how its config stands there."""
        trial = self._trials[id]
        stops = self.rules.rung_epochs(trial.member.epochs)
        return [self._explain_rung(trial.config, r, stops[r], rivals) for r in range(len(trial.scores))]

    def _explain_rung(self, config: _Config, r: int, epoch: int, rivals: int) -> RungReport:
        cohort, sign = config.cohort, -1 if self.rules.maximize else 1
        rung, key = cohort.rungs[r], config.key_at(r)

        def shown(cost: float) -> float:
            return sign * cost if math.isfinite(cost) else math.nan

        ahead = bisect_left(rung.live, key) if key and r < len(config.keys) else None
        return RungReport(
            rung=r,
            epoch=epoch,
            score=shown(key[0]) if key else None,
            rank=None if ahead is None else ahead + 1,
            arrived=len(rung.live),
            missing=cohort.missing(r),
            places=rung.places,
            cutoff=shown(rung.live[rung.places - 1][0]) if len(rung.live) >= rung.places else None,
            beaten_by=tuple(other[2] for other in rung.live[max(0, (ahead or 0) - rivals) : ahead or 0][::-1]),
            verdict=config.verdict_at(r),
        )

    def _end(self, id: str, how: str) -> None:
        trial = self._trials[id]
        if trial.ended not in (None, how):
            raise ValueError(f"trial {id!r} cannot be {how}: it is {trial.ended}")
        if not trial.ended:
            trial.ended = how
            self._settle(trial.config)

    def _settle(self, config: _Config) -> None:
        for safe in config.cohort.update(config):
            for trial in safe.trials:
                self._offer(trial)

    def _offer(self, trial: _Trial) -> None:
        if self._can_start(trial):
            heapq.heappush(self._ready, (-len(trial.scores), -trial.member.epochs, trial.order, trial.member.id))

    def _can_start(self, trial: _Trial) -> bool:
        return not trial.ended and not trial.holds_slot and self.verdict(trial.member.id) is Verdict.SAFE


@dataclass
class _Trial:
    member: Member
    order: int
    config: _Config
    scores: list[tuple[float, float]] = field(default_factory=list)  # by rung: the score (lower is better), val_loss
    ended: str | None = None
    holds_slot: bool = False

    @property
    def gone(self) -> bool:
        return self.ended in ("failed", "diverged")


class _Config:
    """The seeds of one config: what is ranked."""

    cohort: _Cohort

    def __init__(self, id: str) -> None:
        self.id = id
        self.trials: list[_Trial] = []
        self.counted = False  # whether it is known to have, or never to get, a score at the first rung
        self.keys: list[Key] = []  # at the rungs that it takes part in: scored there, and safe at the one before
        self.safe = 0  # at how many rungs its place is sure
        self.secured = 0  # at how many rungs it takes part and cannot fail any more

    @property
    def furthest(self) -> int:
        """How many rungs it has recorded; one more once a seed has trained to the end."""
        return max(len(trial.scores) + (trial.ended == "finished") for trial in self.trials)

    @property
    def gone(self) -> bool:
        return all(trial.gone for trial in self.trials)

    def key_at(self, r: int) -> Key | None:
        """Return what it is sorted by at a rung; None while a seed may still record a score there, or if none can."""
        if any(len(trial.scores) <= r and not trial.gone for trial in self.trials):
            return None
        there = [trial.scores[r] for trial in self.trials if len(trial.scores) > r]
        return (_mean([score for score, _ in there]), _mean([loss for _, loss in there]), self.id) if there else None

    def verdict_at(self, r: int) -> Verdict:
        """Return whether it goes on from a rung; from the start (-1) everybody does."""
        if self.gone and self.furthest <= r + 1:
            return Verdict.OUT
        if r < self.safe:
            return Verdict.SAFE
        return Verdict.OUT if len(self.keys) > self.safe and self.cohort.rules_out(self) else Verdict.UNDECIDED


@dataclass
class _Rung:
    """One rung of a cohort; its lists are sorted, best first."""

    places: int
    arrived: int = 0  # how many configs have taken part, those since gone included
    live: list[Key] = field(default_factory=list)  # those that took part, without those that it was the last rung of
    secured: list[Key] = field(default_factory=list)  # the best `places` of those that have reached the next rung
    safe: int = 0  # so many of the first of `live` are sure of their places


class _Cohort:
    """Configs that compete, and their rungs."""

    def __init__(self, rules: Rules, configs: Sequence[_Config]) -> None:
        self.tolerance = rules.tolerance
        self.rungs = [_Rung(places) for places in rules.places(len(configs))]
        self.configs = {config.id: config for config in configs}
        self.uncounted = len(configs)

    def update(self, config: _Config) -> list[_Config]:
        """Take in a change of one config; return those that have thereby become safe at some rung."""
        became_safe = self._follow(config)
        for r, rung in enumerate(self.rungs):
            sure = self._count_safe(r)
            while rung.safe < sure:
                newly_safe = self.configs[rung.live[rung.safe][2]]
                rung.safe += 1
                newly_safe.safe = r + 1
                became_safe += [newly_safe, *self._follow(newly_safe)]
        return became_safe

    def missing(self, r: int) -> int:
        """Return how many configs may still come to a rung, at most."""
        missing = self.uncounted
        for rung, following in zip(self.rungs[:r], self.rungs[1:], strict=False):
            taken = len(rung.secured) == rung.places
            missing += (self._reach(rung.live, rung.secured[-1]) if taken else len(rung.live)) - following.arrived
            if not self.tolerance:
                missing = min(missing, rung.places - following.arrived)
        return missing

    def rules_out(self, config: _Config) -> bool:
        """Whether all places of the last rung that a config takes part in are taken for good by better ones."""
        rung, key = self.rungs[len(config.keys) - 1], config.keys[-1]
        return len(rung.secured) == rung.places and not self._reach([key], rung.secured[-1])

    def _follow(self, config: _Config) -> list[_Config]:
        """Let a config take part wherever it now can, and leave where it ended; return it if it is safe at once."""
        furthest, gone = config.furthest, config.gone
        safe_at_once = []
        while (r := len(config.keys)) < len(self.rungs) and r <= config.safe and (key := config.key_at(r)):
            rung = self.rungs[r]
            rung.arrived += 1
            config.keys.append(key)
            insort(rung.live, key)
            if bisect_left(rung.live, key) < rung.safe:
                rung.safe += 1
                config.safe = r + 1
                safe_at_once = [config]
        if not config.counted and (config.keys or gone):
            config.counted = True
            self.uncounted -= 1
        while config.secured < min(len(config.keys), furthest - 1):
            rung, key = self.rungs[config.secured], config.keys[config.secured]
            insort(rung.secured, key)
            del rung.secured[rung.places :]
            config.secured += 1
        if gone and furthest and furthest == len(config.keys):
            rung = self.rungs[furthest - 1]
            index = bisect_left(rung.live, config.keys[-1])
            del rung.live[index]
            rung.safe -= index < rung.safe
        return safe_at_once

    def _count_safe(self, r: int) -> int:
        """Return how many of the first at a rung are among the best whoever may still come."""
        live, sure = self.rungs[r].live, self.rungs[r].places - self.missing(r)
        if sure <= 0:
            return 0
        return len(live) if len(live) <= sure else self._reach(live, live[sure - 1])

    def _reach(self, keys: list[Key], last: Key) -> int:
        """Return how many of the sorted keys are no worse than the last place, or worse within the tolerance."""
        count = bisect_right(keys, last)
        if self.tolerance and math.isfinite(last[0]):
            limit = min(last[0] + self.tolerance, sys.float_info.max)
            count = max(count, bisect_right(keys, limit, key=itemgetter(0)))
        return count


def _mean(values: Sequence[float]) -> float:
    """Return a mean that does not depend on the order; infinity (the worst) if any value is not finite."""
    if not all(math.isfinite(value) for value in values):
        return math.inf
    return math.fsum(value / len(values) for value in values)
