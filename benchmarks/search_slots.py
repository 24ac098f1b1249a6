"""How busy a search keeps its slots, though each generation waits for the results of the one before the last.

    search_slots.py

Time is made up: an epoch of a trial takes 1 to 10, drawn log-uniformly for each trial; nothing else takes any. Who
trains and who waits is decided by the package's own `Halving`, as the driver asks it. A slot counts until the last
generation has all begun, since after that there is nothing left to give it. The mean over seeds, by the number of
slots, the size of a generation, and the scheduler: `none` and `asha`.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import fmean

from _report import emit, parse_arguments

from raysweep.halving.rungs import Halving, Member, Rival, Rules, Verdict

EPOCHS = 27
TRIALS = 160
TARGET = 0.95
SCHEDULERS = {"none": Rules(rungs=()), "asha": Rules(min_survivors=2)}


@dataclass
class Sweep:
    """A search on slots, event by event."""

    rules: Rules
    generation: int
    slots: int
    seed: int
    now: float = 0.0
    busy: float = 0.0
    until: float = math.inf
    """When the last generation has all begun."""
    generations: list[list[str]] = field(default_factory=list)
    begun: set[str] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)
    scores: dict[str, list[float]] = field(default_factory=dict)
    """By trial, at the rungs that it reached."""

    def __post_init__(self) -> None:
        self.halving = Halving(self.rules, ())
        self.random = random.Random(self.seed)
        self.stops = (*self.rules.rung_epochs(EPOCHS), EPOCHS)
        self.epoch_s: dict[str, float] = {}

    def share_busy(self) -> float:
        """Play it; return the share of the time of all slots that somebody trained in."""
        events: list[tuple[float, str, float]] = []
        while True:
            while len(events) < self.slots and (id := self._next()) is not None:
                self.halving.start(id)
                reached = len(self.scores[id])
                lasts = (self.stops[reached] - (self.stops[reached - 1] if reached else 0)) * self.epoch_s[id]
                heapq.heappush(events, (self.now + lasts, id, lasts))
                self.begun.add(id)
                if len(self.begun) == TRIALS:
                    self.until = min(self.until, self.now)
            if self.until < math.inf:
                running = sum(lasts - max(0.0, end - self.until) for end, _, lasts in events)
                return (self.busy + running) / (self.slots * self.until)
            self.now, id, lasts = heapq.heappop(events)
            self.busy += lasts
            self._arrive(id)

    def _next(self) -> str | None:
        while (id := self.halving.next_trial()) is None:
            if not self._add_generation():
                return None
        return id

    def _add_generation(self) -> bool:
        made = sum(map(len, self.generations))
        if made == TRIALS or not all(self.ended.issuperset(each) for each in self.generations[:-1]):
            return False
        number = len(self.generations)
        ids = [f"{place:03}" for place in range(made, min(TRIALS, made + self.generation))]
        rivals = [id for each in self.generations[:-1] for id in each]
        self.halving.add(
            (Member(id, id, number, EPOCHS) for id in ids),
            (Rival(id, number, [(score, math.nan) for score in self.scores[id]]) for id in rivals),
        )
        self.generations.append(ids)
        for id in ids:
            self.scores[id], self.epoch_s[id] = [], 10 ** self.random.random()
        return True

    def _arrive(self, id: str) -> None:
        reached = len(self.scores[id])
        if reached == len(self.rules.rungs):
            self.halving.finish(id)
        else:
            self.scores[id].append(self.random.random())
            self.halving.record(id, reached, self.scores[id][-1])
        self.halving.release(id)
        for each in self._waiting():
            if self.halving.verdict(each) is Verdict.OUT:
                self.halving.start(each)  # it is stopped: it never asks for a slot again
                self.ended.add(each)
        if reached == len(self.rules.rungs):
            self.ended.add(id)

    def _waiting(self) -> Iterator[str]:
        return (id for generation in self.generations for id in generation if self.scores[id] and id not in self.ended)


def main() -> None:
    arguments = parse_arguments(__doc__)
    seeds = 5 if arguments.quick else 40
    figures: dict[str, float] = {}
    targets: dict[str, tuple[str, float]] = {}
    for scheduler, rules in SCHEDULERS.items():
        for slots in (1, 2, 4, 8, 16):
            for generation in (slots, 2 * slots, 4 * slots):
                if generation > TRIALS // 5:
                    continue
                name = f"{scheduler}_{slots}_slots_generations_of_{generation}"
                figures[name] = fmean(Sweep(rules, generation, slots, seed).share_busy() for seed in range(seeds))
                if generation == 2 * slots:
                    targets[name] = (">=", TARGET)
    emit("search_slots", figures, targets, arguments)


if __name__ == "__main__":
    main()
