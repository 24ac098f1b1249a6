"""Plays a search on a number of slots, event by event, as `played_slots` plays a sweep: proposals are the real ones.

In: a sweep file's values, and what its trials' curves are made up to be. Out: what was proposed, what became of it, and
how busy the slots were.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from played_slots import Plan, Played, _Sweep

from raysweep.halving.replay import take_in
from raysweep.halving.twins import Twins
from raysweep.results.search.generations import next_generation
from raysweep.store import Record
from raysweep.store.record import FINAL, Score, planned_record
from raysweep.sweepfile import Sweep, sweep_of
from raysweep.sweepfile.plan import Trial, first_of_search, plan_trials, trials_of_generation
from raysweep.sweepfile.proposals import Generation

Curve = Callable[[Trial, int], float]
"""The objective of a trial at an epoch, counted from 1."""


@dataclass
class PlayedSearch(Played):
    """What became of a search."""

    generations: list[Generation] = field(default_factory=list)
    records: dict[str, Record] = field(default_factory=dict)  # of all trials, by id
    busy: float = 0.0  # the share of slot time in which trials trained, until the last generation had all begun


def play_search(
    values: Mapping[str, Any],
    curve: Curve,
    slots: int,
    seconds: Callable[[Trial], float] = lambda trial: 1.0,
    ends: Callable[[Trial], str] = lambda trial: "",
) -> PlayedSearch:
    """Run a search to its end; `ends` says whether a trial ends in its second epoch: it has `diverged` or `failed`."""
    sweep, _ = sweep_of(values)
    return _Search(sweep, curve, slots, seconds, ends).run()


class _Search(_Sweep):
    def __init__(
        self,
        sweep: Sweep,
        curve: Curve,
        slots: int,
        seconds: Callable[[Trial], float],
        ends: Callable[[Trial], str],
    ) -> None:
        self.sweep, self.curve, self.slots, self.how = sweep, curve, slots, ends
        sweep._generations, sweep._plan = first_of_search(sweep), None
        trials = plan_trials(sweep)
        self.epoch_of: dict[int, tuple[Trial, int]] = {}
        plan = Plan(trials, sweep.scheduler, self._score, seconds, ends=self._end)
        super().__init__(plan, slots, shared=False)
        self._begin_all(trials)
        self.taken_at: dict[str, float] = {}
        self.visits: list[tuple[float, float]] = []
        self.queue._next_stage = self._more
        self.played: PlayedSearch = PlayedSearch()

    # -- what the base class asks for

    def _begin_all(self, trials: list[Trial]) -> None:
        self.trials |= {trial.id: trial for trial in trials}
        self.done |= dict.fromkeys((trial.id for trial in trials), 0)
        for trial in trials:
            numbers = range(len(self.epoch_of), len(self.epoch_of) + trial.epochs)
            self.epoch_of |= {number: (trial, epoch) for epoch, number in enumerate(numbers, 1)}
            self.epochs[trial.id] = list(numbers)
            self.rungs[trial.id] = self.rules.rung_epochs(trial.epochs)
            self.stops[trial.id] = {}

    def _score(self, epoch: int) -> float:
        return self.curve(*self.epoch_of[epoch])

    def _end(self, epoch: int) -> str:
        trial, at = self.epoch_of[epoch]
        return self.how(trial) if at == 2 else ""

    # -- generations

    def record(self, id: str) -> Record:
        trial, done = self.trials[id], self.done[id]
        values = [self.curve(trial, epoch) for epoch in range(1, done + 1)]
        best = max(values, default=None)
        score = None if best is None else Score(values.index(best) + 1, best, False, None)
        metrics = [{"epoch": float(epoch), "val_acc": value} for epoch, value in enumerate(values, 1)]
        status: Any = self.played.statuses.get(id, "planned")
        return planned_record(trial).with_(status=status, metrics=metrics, best=score)

    def _more(self, is_busy: bool) -> Any:
        generations = self.sweep._generations
        earlier = [trial.id for trial in self.trials.values() if (trial.generation or 0) <= len(generations) - 2]
        if not all(self.played.statuses.get(id) in FINAL or id in self.endings.failed for id in earlier):
            return None
        records = {id: self.record(id) for id in self.trials}
        generation = next_generation(self.sweep, generations, records, self.endings.failed)
        if generation is None:
            return None
        self.sweep._generations = [*generations, generation]
        new = [trial for own in trials_of_generation(self.sweep, generation) for trial in own]
        self._begin_all(new)
        planned = [planned_record(trial) for trial in new]
        rivals = [records[id] for id in generation.knows]
        take_in(self.queue.halving, planned, rivals, self.sweep.scheduler, self.sweep.objective)
        assignments: Any = [SimpleNamespace(record=record) for record in planned]
        return self.queue.halving, assignments, Twins({}, {}, {})

    def run(self) -> PlayedSearch:
        super().run()
        self.played.generations = self.sweep._generations
        self.played.records = {id: self.record(id) for id in self.trials}
        last = {trial.id for trial in self.trials.values() if trial.generation == len(self.sweep._generations) - 1}
        until = max(self.taken_at[id] for id in last)
        trained = sum(max(0.0, min(end, until) - start) for start, end in self.visits)
        self.played.busy = trained / (until * self.slots) if until else 1.0
        return self.played

    def _life(self, id: str) -> Iterator[float]:
        self.taken_at.setdefault(id, self.now)
        began = self.now
        yield from super()._life(id)
        self.visits.append((began, self.now))
