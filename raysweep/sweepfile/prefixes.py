"""Which epochs a plan's trials share: those up to which everything is the same that decides them.

Trials are compared by their courses (`loops.Course`): what decides each epoch, one item an epoch, from the first on. As
words share the path of their first letters in a trie, trials share their first epochs; where they part is a fork. No
torch, no Ray.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from raysweep.loops import Course, loop_named
from raysweep.sweepfile.plan import StartedFrom, Trial

DECIDING = ("data", "precision", "workers", "weights", "loop")
"""The conditions that decide a trial's numbers; the rest follows from its config, or only tells of versions."""
WORTH_KEEPING = 0.5
"""A trial leaves a state for longer ones only if their epochs agree with so much of its own."""
Mark = bytes
"""A hash of all that decides the epochs of a trial, from the first up to one of them."""


def deciding(conditions: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of a trial's conditions that decide its numbers."""
    return {name: conditions[name] for name in DECIDING if name in conditions}


class Prefixes:
    """The epochs that the trials of a plan share."""

    def __init__(self, trials: Iterable[Trial]) -> None:
        self._paths = {trial.id: _Path(trial) for trial in trials}
        self._alike: dict[Mark, list[str]] = defaultdict(list)  # ids, by what decides the first epoch
        for id, path in self._paths.items():
            if path.shared:
                self._alike[path.mark(1)].append(id)

    def join(self, others: Prefixes) -> None:
        """Take in the trials of another plan."""
        self._paths |= others._paths
        for mark, ids in others._alike.items():
            self._alike[mark] += ids

    @property
    def asked_for(self) -> int:
        """The epochs of all trials."""
        return sum(path.epochs for path in self._paths.values())

    @property
    def unique_epochs(self) -> int:
        """The epochs of all trials, each that they share counted once."""
        return self.asked_for - sum(len(level.ids) - 1 for level in self.levels())

    def left(self, reached: Mapping[str, int], ids: Iterable[str]) -> int:
        """Return how many epochs the trials `ids` have to train: what they share once, what another one has not at all.

        `reached` says how many epochs each trial has that it or others go on from.
        """
        going_on = set(ids)
        left = sum(self._paths[id].epochs - reached.get(id, 0) for id in going_on)
        for level in self.levels():
            lack = [id for id in level.ids if id in going_on and reached.get(id, 0) < level.epoch]
            is_trained = any(reached.get(id, 0) >= level.epoch for id in level.ids)
            left -= len(lack) - (0 if is_trained else min(1, len(lack)))
        return left

    def stops(self, also: Callable[[str], Iterable[int]] = lambda id: ()) -> dict[str, list[int]]:
        """Return the epochs, ascending, after which each trial's state is of use to another one, or another's to it.

        These are the forks, and within what trials share the epochs after which one of them may stop: its last one, and
        those that `also` returns.
        """
        may_stop = {id: {*also(id), path.epochs} for id, path in self._paths.items()}
        stops: dict[str, set[int]] = defaultdict(set)
        for level in self.levels():
            if level.is_fork or any(level.epoch in may_stop[id] for id in level.ids):
                for id in level.ids:
                    stops[id].add(level.epoch)
        return {id: sorted(epochs) for id, epochs in stops.items()}

    def common(self, id: str, other: str) -> int:
        """Return how many epochs two trials share; none if one of them is not in the plan."""
        if id not in self._paths or other not in self._paths:
            return 0
        return self._paths[id].common(self._paths[other])

    def key(self, id: str, epoch: int, conditions: Mapping[str, Any]) -> str:
        """Return the key of a trial's state after some epochs: all trials that share these have the same."""
        return self._paths[id].key(epoch, conditions)

    def may_share(self, id: str) -> bool:
        """Whether a trial's loop says what decides its epochs."""
        return id in self._paths and self._paths[id].shared > 0

    def last_state(self, id: str) -> int:
        """Return the epoch whose state a trial leaves for longer ones; 0 if these have less than half of its epochs."""
        if not self.may_share(id):
            return 0
        path = self._paths[id]
        last = path.common_with_longer()
        return last if last >= WORTH_KEEPING * path.epochs else 0

    def levels(self) -> Iterator[Level]:
        """Yield the trials that share each epoch, wherever two or more do."""
        left = [(1, ids) for ids in self._alike.values() if len(ids) > 1]
        while left:
            epoch, ids = left.pop()
            going_on: dict[Mark, list[str]] = defaultdict(list)
            for id in ids:
                if self._paths[id].shared > epoch:
                    going_on[self._paths[id].mark(epoch + 1)].append(id)
            yield Level(epoch, ids, is_fork=len(going_on) > 1 or sum(map(len, going_on.values())) < len(ids))
            left += [(epoch + 1, alike) for alike in going_on.values() if len(alike) > 1]


@dataclass(frozen=True)
class Level:
    """An epoch that several trials share."""

    epoch: int
    ids: list[str]
    is_fork: bool  # whether they part after it


class _Path:
    """The marks of a trial's epochs, each worked out once it is asked for."""

    def __init__(self, trial: Trial) -> None:
        self.trial, self.epochs = trial, trial.epochs
        self._parts = list(_parts(trial))
        self.shared = self.epochs if self._parts else 0
        """How many of its epochs may be shared: all, or none where its loop says nothing about them."""
        self._marks: list[Mark] = []

    def mark(self, epoch: int) -> Mark:
        """Return the mark of the epochs up to one, counted from 1: it hashes the one before, so it takes no time."""
        while len(self._marks) < epoch:
            place = len(self._marks)
            part = next(part for part in self._parts if place < part.until)
            before = self._marks[-1] if self._marks else b""
            self._marks.append(hashlib.sha256(before + part.who + part.course.each[place].encode()).digest())
        return self._marks[epoch - 1]

    def common(self, other: _Path) -> int:
        """Return how many epochs two trials share."""
        epochs = range(1, min(self.shared, other.shared) + 1)
        return sum(1 for _ in takewhile(lambda epoch: self.mark(epoch) == other.mark(epoch), epochs))

    def key(self, epoch: int, conditions: Mapping[str, Any]) -> str:
        """Return the key of the state after some epochs."""
        text = json.dumps(deciding(conditions), sort_keys=True)
        return hashlib.sha256(self.mark(epoch) + text.encode()).hexdigest()[:32]

    def common_with_longer(self) -> int:
        """Return how many epochs a trial shares with one of twice as many or, if it ends early, with the whole one."""
        config = self.trial.config
        if self.epochs < config.epochs:
            return self.shared
        try:
            longer = type(config).model_validate({**config.model_dump(mode="json"), "epochs": 2 * config.epochs})
        except ValueError:  # the user's own check refuses it
            return 0
        return self.common(_Path(_with(self.trial, longer)))


def _with(trial: Trial, config: Any) -> Trial:
    return Trial(trial.id, trial.name, config, trial.seed, loop=trial.loop, start=trial.start)


@dataclass(frozen=True)
class _Part:
    """A stretch of a trial's epochs that one course decides."""

    who: bytes  # a hash of the loop, the seed, and what all epochs of the course depend on
    course: Course
    until: int  # its last epoch


def _parts(trial: Trial) -> Iterator[_Part]:
    """Yield the stretches of a trial: those of trials that it begins with, then its own; none if nothing is known."""
    own = Segment(trial.loop, trial.config, trial.seed, trial.epochs)
    parts = [_part(segment) for segment in segments_of(trial.start, own)]
    if all(parts):
        yield from (part for part in parts if part)


def _part(segment: Segment) -> _Part | None:
    course = loop_named(segment.loop).course(segment.config)
    if course is None:
        return None
    who = json.dumps([segment.loop, segment.seed, course.every])
    return _Part(hashlib.sha256(who.encode()).digest(), course, segment.until)


@dataclass(frozen=True)
class Segment:
    """A stretch of a trial's epochs that one config and seed train."""

    loop: str
    config: Any  # of the loop's class
    seed: int
    until: int  # its last epoch


def segments_of(start: StartedFrom | None, own: Segment) -> list[Segment]:
    """Return who trains the epochs of a trial, in order: the trials that it begins with, then itself."""
    before = [
        Segment(each.loop, loop_named(each.loop).config.model_validate(each.config), each.seed, each.epoch)
        for each in starts_of(start)
    ]
    return [*reversed(before), own]


def starts_of(start: StartedFrom | None) -> Iterator[StartedFrom]:
    """Yield where a trial began, then where that one did, and so on."""
    while start is not None:
        yield start
        start = start.start
