"""Who goes on: order-proof ASHA, computed from the scores at the rungs.

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
* A score that is no finite number ranks behind every other.
* A cohort may have rivals: configs whose trials have all ended elsewhere. They are among the N, and hold the ranks that
  their scores have at the rungs which they reached; nothing of them is still to come.
* With several objectives, the others being known before training (`Rules.costs`), configs are ranked by how
  many others dominate them (`dominance`) in place of by score. One that comes may change the place of all others, so a
  rung decides once the whole cohort is there or gone: places depend on who came, and not on when.

The state is each trial's scores and end, and whether it holds a slot. The rest is functions of it: `_standings_of` a
cohort, and what follows from them. For speed the keys at each rung stay sorted, which works since a key never changes
once it is known, and the standings stay until the cohort's next event. Each trial's own events come in order, those of
different trials in any.
"""

from __future__ import annotations

import json
import math
import sys
from bisect import bisect_left, bisect_right, insort
from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from fractions import Fraction
from functools import cached_property
from itertools import chain
from typing import Any

from raysweep.halving.dominance import dominators, in_order

Key = tuple[float, float, str]  # what configs are sorted by, best first: score (lower is better), val_loss, id


@dataclass(frozen=True)
class Rules:
    """How many go on, and from where."""

    eta: int = 3  # one in eta goes on at each rung
    rungs: tuple[Fraction, ...] = (Fraction(1, 9), Fraction(1, 3))  # of each trial's own epochs, ascending
    min_survivors: int = 1  # at least this many configs go on at every rung
    tolerance: float = 0.0  # a config goes on, too, if fewer than the places there are beat it by more than this
    maximize: bool = True
    costs: tuple[bool, ...] = ()  # of each objective that is known before training: whether more is better
    after: int = 0  # the epochs that all trials begin with, those of one trial of another run: nothing to compare

    def __post_init__(self) -> None:
        if self.eta < 2:
            raise ValueError(f"eta: got {self.eta}, must be at least 2")
        if self.min_survivors < 1:
            raise ValueError(f"min_survivors: got {self.min_survivors}, must be at least 1")
        if not (math.isfinite(self.tolerance) and self.tolerance >= 0):
            raise ValueError(f"tolerance: got {self.tolerance}, must be a finite number, at least 0")
        if self.costs and self.tolerance:
            raise ValueError(f"tolerance: got {self.tolerance}, must be 0 with several objectives")
        if not all(0 < rung <= 1 for rung in self.rungs) or list(self.rungs) != sorted(set(self.rungs)):
            raise ValueError(f"rungs: got {[str(rung) for rung in self.rungs]}, must ascend within 0 to 1")

    def rung_epochs(self, epochs: int) -> tuple[int, ...]:
        """Return the epoch after which each rung is reached, rounded up; rungs may share one."""
        return tuple(self.after + math.ceil(Fraction(rung) * (epochs - self.after)) for rung in self.rungs)

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


@dataclass(frozen=True)
class Rival:
    """A config whose trials have ended, with which the trials of a group compete."""

    id: str  # of its first trial
    group: Hashable
    scores: Sequence[tuple[float, float]]  # (score, val_loss) at each rung that it reached, means over its seeds
    costs: Sequence[float] = ()  # those of `Rules.costs`, in their order


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
    objectives: int  # by how many it is ranked
    dominated_by: int | None  # with several of these, how many dominate it; None before all are there
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


class Halving:
    """What is known of a sweep. Who holds a slot is marked (`start`, `release`); the rest follows from the records."""

    def __init__(self, rules: Rules, members: Iterable[Member], rivals: Iterable[Rival] = ()) -> None:
        self.rules = rules
        self._trials: dict[str, _Trial] = {}  # of those that came together the longest first, then in the plan's order
        self._cohorts: dict[Hashable, _Cohort] = {}
        self.add(members, rivals)

    def add(self, members: Iterable[Member], rivals: Iterable[Rival] = ()) -> None:
        """Take in trials of further groups, and the configs with which they compete."""
        groups: dict[Hashable, dict[Hashable, list[_Trial]]] = defaultdict(lambda: defaultdict(list))
        for member in sorted(members, key=lambda member: -member.epochs):
            if member.id in self._trials:
                raise ValueError(f"two members have the id {member.id!r}")
            if member.group in self._cohorts:
                raise ValueError(f"{member.id!r} comes late: its group {member.group!r} is closed")
            trial = self._trials[member.id] = _Trial(member, len(self._trials))
            groups[member.group][member.config_key].append(trial)
        others: dict[Hashable, list[Rival]] = defaultdict(list)
        for rival in rivals:
            others[rival.group].append(rival)
        for group, configs in groups.items():
            self._cohorts[group] = _Cohort(self.rules, configs.values(), others[group])

    def record(self, id: str, rung: int, score: float, val_loss: float = math.nan, costs: Sequence[float] = ()) -> None:
        """Note a trial's score at its next rung; at one that it has already recorded, the first score stands.

        `costs` are those of `Rules.costs`, in their order.
        """
        trial = self._trials[id]
        if rung < len(trial.scores):
            return
        if rung > len(trial.scores) or rung >= len(self.rules.rungs) or trial.ended:
            state = f"{len(trial.scores)} of {len(self.rules.rungs)} recorded, {trial.ended or 'not ended'}"
            raise ValueError(f"trial {id!r} cannot record rung {rung}: {state}")
        if len(costs) != len(self.rules.costs):
            raise ValueError(f"trial {id!r} has {len(costs)} costs, and the rules name {len(self.rules.costs)}")
        trial.costs = _signed(costs, self.rules)
        trial.scores.append((_cost(score, self.rules), val_loss))
        trial.config.cohort.take_in(trial.config)

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

    def _end(self, id: str, how: str) -> None:
        trial = self._trials[id]
        if trial.ended not in (None, how):
            raise ValueError(f"trial {id!r} cannot be {how}: it is {trial.ended}")
        trial.ended = how
        trial.config.cohort.take_in(trial.config)

    def start(self, id: str) -> None:
        """Note that a trial has a slot."""
        self._trials[id].holds_slot = True
        self._trials[id].config.mark_idle()

    def release(self, id: str) -> None:
        """Note that a trial has given up its slot: paused, or to be tried again."""
        self._trials[id].holds_slot = False
        self._trials[id].config.mark_idle()

    def next_trial(
        self,
        waits: Callable[[str], bool] = lambda id: False,
        begun: Collection[str] = frozenset(),
        arriving: Collection[str] = frozenset(),
    ) -> str | None:
        """Return the trial to take a free slot: a safe one of the highest rung, else the longest without a score.

        Of the latter those come first that an earlier run has `begun`. One that `waits` for another trial is passed
        over. Before all others goes one without a score that is `arriving`: it comes to its first rung without
        training, and others may be safe or out once it is there.
        """
        there = (self._trials[id] for id in arriving if not waits(id))
        first = [(trial.order, trial.member.id) for trial in there if trial.is_idle and not trial.scores]
        if first:
            return min(first)[1]
        for r in reversed(range(len(self.rules.rungs))):
            ready = [
                (trial.order, trial.member.id)
                for cohort in self._cohorts.values()
                for id in cohort.idle[r] & cohort.standings[r].going_on
                for trial in cohort.configs[id].trials
                if trial.is_idle and len(trial.scores) == r + 1 and not waits(trial.member.id)
            ]
            if ready:
                return min(ready)[1]
        unstarted = [id for id, trial in self._trials.items() if trial.is_idle and not trial.scores]
        in_turn = chain((id for id in unstarted if id in begun), unstarted)
        return next((id for id in in_turn if not waits(id)), None)

    def verdict(self, id: str) -> Verdict:
        """Return whether a trial may train on from the last rung that it has recorded."""
        trial = self._trials[id]
        return Verdict.OUT if trial.is_gone else _verdict_at(trial.config, len(trial.scores) - 1)

    def explain(self, id: str, rivals: int = 3) -> list[RungReport]:
        """Return, for each rung that a trial has recorded, how its config stands there."""
        trial = self._trials[id]
        stops = self.rules.rung_epochs(trial.member.epochs)
        return [self._explain_rung(trial.config, r, stops[r], rivals) for r in range(len(trial.scores))]

    def _explain_rung(self, config: _Config, r: int, epoch: int, rivals: int) -> RungReport:
        standing = config.cohort.standings[r]
        live, places = standing.live, standing.places
        key = config.keys[r] if r < len(config.keys) else None
        placed = standing.key_of(config, r) if key else None
        ahead = bisect_left(live, placed) if placed and _safe_rungs(config) >= r else None
        by_score = not self.rules.costs
        sign = -1 if self.rules.maximize else 1

        def shown(cost: float) -> float:
            return sign * cost if math.isfinite(cost) else math.nan

        return RungReport(
            rung=r,
            epoch=epoch,
            score=shown(key[0]) if key else None,
            rank=None if ahead is None else ahead + 1,
            arrived=len(live),
            missing=standing.missing,
            places=places,
            cutoff=shown(live[places - 1][0]) if by_score and len(live) >= places else None,
            objectives=1 + len(self.rules.costs),
            dominated_by=None if by_score or ahead is None or placed is None else int(placed[1]),
            beaten_by=tuple(other[2] for other in live[max(0, (ahead or 0) - rivals) : ahead or 0][::-1]),
            verdict=_verdict_at(config, r),
        )


@dataclass
class _Trial:
    member: Member
    order: int
    scores: list[tuple[float, float]] = field(default_factory=list)  # by rung: the score (lower is better), val_loss
    costs: tuple[float, ...] = ()  # of the other objectives, lower is better; once it has a score
    ended: str | None = None
    holds_slot: bool = False
    config: _Config = field(init=False)

    @property
    def is_gone(self) -> bool:
        return self.ended in ("failed", "diverged")

    @property
    def is_idle(self) -> bool:
        return not (self.ended or self.holds_slot)


class _Config:
    """The seeds of one config: what is ranked."""

    def __init__(self, cohort: _Cohort, trials: list[_Trial]) -> None:
        self.cohort, self.trials = cohort, trials
        self.id = min(trial.member.id for trial in trials)
        self.keys: list[Key] = []  # by rung, as far as no seed can record a score any more
        self.passed = 0  # how many rungs lie behind it: a seed has reached the next one, or the end
        for trial in trials:
            trial.config = self

    def mark_idle(self) -> None:
        """Note at which rungs it has a trial without a slot, for `next_trial`."""
        for r, ids in enumerate(self.cohort.idle, 1):
            ids.discard(self.id)
            if any(trial.is_idle and len(trial.scores) == r for trial in self.trials):
                ids.add(self.id)


class _Cohort:
    """Configs that compete, and what is kept of them between events, by rung."""

    def __init__(self, rules: Rules, configs: Iterable[list[_Trial]], rivals: Sequence[Rival] = ()) -> None:
        self.rules = rules
        self.rivals = {rival.id: _signed(rival.costs, rules) if rival.scores else () for rival in rivals}
        self.configs = {config.id: config for config in (_Config(self, trials) for trials in configs)}
        self.keys: list[list[Key]] = [[] for _ in rules.rungs]  # sorted, of all configs that have one there
        self.passed: list[list[Key]] = [[] for _ in rules.rungs]  # sorted, of those that have the rung behind them
        self.lost: list[set[str]] = [set() for _ in rules.rungs]  # those that are gone and got no further
        self.idle: list[set[str]] = [set() for _ in rules.rungs]  # those with a trial there that holds no slot
        self.placed: list[dict[str, Key]] = [{} for _ in rules.rungs]  # with several objectives, once all are there
        for rival in rivals:
            for r, (score, loss) in enumerate(rival.scores):
                self.keys[r].append((_cost(score, rules), _mean([loss]), rival.id))
        self.keys = [sorted(keys) for keys in self.keys]
        self.passed = [[*keys] for keys in self.keys]  # a rival takes its place, wherever it ended
        self.rivals_at = [len(keys) for keys in self.keys]

    @cached_property
    def standings(self) -> list[_Standing]:
        """How the rungs stand, until the next event."""
        return list(_standings_of(self))

    def take_in(self, config: _Config) -> None:
        """Take in an event of one config; what is kept of the others stays as it is."""
        vars(self).pop("standings", None)
        config.mark_idle()
        while (r := len(config.keys)) < len(self.keys) and (key := _key_at(config, r)):
            config.keys.append(key)
            insort(self.keys[r], key)
        reached = max(len(trial.scores) + (trial.ended == "finished") for trial in config.trials)
        while config.passed < min(len(config.keys), reached - 1):
            insort(self.passed[config.passed], config.keys[config.passed])
            config.passed += 1
        if self.lost and all(trial.is_gone for trial in config.trials):
            self.lost[config.passed].add(config.id)


def _cost(score: float, rules: Rules) -> float:
    """Return a score as it is sorted, lower is better."""
    return (-score if rules.maximize else score) if math.isfinite(score) else math.inf


def _signed(costs: Sequence[float], rules: Rules) -> tuple[float, ...]:
    """Return costs as they are compared, less is better."""
    return tuple(-cost if more else cost for cost, more in zip(costs, rules.costs, strict=True))


def _key_at(config: _Config, r: int) -> Key | None:
    """Return what a config is sorted by at a rung; None while a seed may still record a score there."""
    if any(len(trial.scores) <= r and not trial.is_gone for trial in config.trials):
        return None
    # Without any score, since all its seeds were gone before, it sorts last: it has arrived, and is lost
    there = [trial.scores[r] for trial in config.trials if len(trial.scores) > r]
    return _mean([score for score, _ in there]), _mean([loss for _, loss in there]), config.id


def _mean(values: Sequence[float]) -> float:
    """Return a mean that does not depend on the order; infinity (the worst) if there is none, or it is not finite."""
    if not values or not all(math.isfinite(value) for value in values):
        return math.inf
    return math.fsum(value / len(values) for value in values)


@dataclass(frozen=True)
class _Standing:
    """How things stand at one rung of a cohort."""

    places: int
    missing: int  # how many configs may still come, at most
    live: list[Key]  # sorted: those that take part, without those that are lost there
    going_on: set[str]  # the configs that are safe
    taken: Key | None  # whoever is worse is out
    placed: Mapping[str, Key] | None  # with several objectives; empty before all are there

    def key_of(self, config: _Config, r: int) -> Key | None:
        """Return what a config that is there is sorted by; None before that can be known."""
        return config.keys[r] if self.placed is None else self.placed.get(config.id)


def _standings_of(cohort: _Cohort) -> Iterator[_Standing]:
    """Compute how each rung stands, from the first on: those take part that have a key there and were safe before.

    A config is *safe* if a place would be left for it even if all that are missing came in ahead of it. It is *out*
    only once as many better ones as there are places have reached the next rung, or the end: until then one of these
    may fail, and its place goes to the next in rank. With several objectives nobody is either while one is missing.
    """
    tolerance, rivals, taking_part = cohort.rules.tolerance, cohort.rivals, None
    may_come = len(cohort.configs)  # without the rivals: those that ever come are there
    for r, places in enumerate(cohort.rules.places(len(cohort.configs) + len(rivals))):
        there, passed = _among(cohort.keys[r], taking_part), _among(cohort.passed[r], taking_part)
        missing = may_come - (len(there) - cohort.rivals_at[r])
        placed = None
        if cohort.rules.costs:
            placed = {} if missing else _placed(cohort, r, there)
            passed = sorted(placed[key[2]] for key in passed) if placed else []
            there = sorted(placed.values()) if placed else there
        live = [key for key in there if key[2] not in cohort.lost[r]]
        sure = 0 if placed == {} else min(places - missing, len(live))
        safe = bisect_right(live, _reach(live[sure - 1], tolerance)) if sure > 0 else 0
        going_on = {key[2] for key in live[:safe]}
        taken = _reach(passed[places - 1], tolerance) if len(passed) >= places else None
        yield _Standing(places, missing, live, going_on, taken, placed)
        not_out = live[: bisect_right(live, taken)] if taken else live
        own_not_out = sum(key[2] not in rivals for key in not_out) if rivals else len(not_out)
        # All that are not out may come to the next rung; without a tolerance, no more than there are places
        may_come = missing + own_not_out if tolerance else min(missing + own_not_out, places)
        taking_part = going_on | rivals.keys()


def _placed(cohort: _Cohort, r: int, there: Sequence[Key]) -> dict[str, Key]:
    """Return each config's place at a rung where all are that will ever be, and how many dominate it.

    Those that are gone by now count as well if they have a score there, so that it does not matter when they went. Who
    has no finite score is worse than all others, however little it costs.
    """
    ids = [key[2] for key in there]
    if cohort.placed[r].keys() != {*ids}:
        points = [_point(cohort, id, score) for score, _, id in there]
        counts, order = dominators(points), in_order(points)
        cohort.placed[r] = {ids[i]: (float(place), float(counts[i]), ids[i]) for place, i in enumerate(order)}
    return cohort.placed[r]


def _point(cohort: _Cohort, id: str, score: float) -> tuple[float, ...]:
    of_seeds = [cohort.rivals[id]] if id in cohort.rivals else [each.costs for each in cohort.configs[id].trials]
    means = [_mean(each) for each in zip(*filter(None, of_seeds), strict=True)] if math.isfinite(score) else []
    return (score, *means) if means else (math.inf,) * (1 + len(cohort.rules.costs))


def _among(keys: list[Key], ids: set[str] | None) -> list[Key]:  # None: everybody
    return keys if ids is None else [key for key in keys if key[2] in ids]


def _reach(last: Key, tolerance: float) -> Key:
    """Return the worst key that goes on together with the last place: no worse, or worse within the tolerance."""
    if not tolerance or not math.isfinite(last[0]):
        return last
    return min(last[0] + tolerance, sys.float_info.max), math.inf, chr(sys.maxunicode)


def _safe_rungs(config: _Config) -> int:
    """Return at how many rungs, from the first on, a config's place is sure."""
    return sum(config.id in standing.going_on for standing in config.cohort.standings)


def _verdict_at(config: _Config, r: int) -> Verdict:
    """Return whether a config goes on from a rung; from the start (-1) everybody does."""
    if any(config.id in lost for lost in config.cohort.lost[: r + 1]):
        return Verdict.OUT
    safe = _safe_rungs(config)
    if r < safe:
        return Verdict.SAFE
    standing = config.cohort.standings[safe]
    key = standing.key_of(config, safe) if len(config.keys) > safe else None
    is_beaten = standing.taken and key and key > standing.taken
    return Verdict.OUT if is_beaten else Verdict.UNDECIDED
