"""Plays a sweep on a number of slots, event by event, without Ray: the driver's own queue decides, time is made up.

In: trials, how long their epochs take, how they score. Out: `Played`, when all ended and which epochs were trained.
A trial behaves as `worker.trial` does: it begins from the deepest state up to its next rung, keeps its own where others
may want it, reports at its rungs, and gives its slot back when it is told to wait.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from ray.tune.experiment import Trial as TuneTrial

from raysweep.driver.queue import TrialQueue
from raysweep.driver.sharing import Sharing
from raysweep.driver.stop import StopRequest
from raysweep.halving.rules import member_of, rules_of
from raysweep.halving.rungs import Halving, Verdict
from raysweep.loops import loop_named
from raysweep.store.record import planned_record
from raysweep.sweepfile.plan import Trial
from raysweep.sweepfile.schema import Objective, SchedulerConfig

Epoch = int
"""The number of a different epoch: trials that share one have the same number."""


def epochs_of(trials: Sequence[Trial]) -> dict[str, list[Epoch]]:
    """The epochs of each trial, in order, by its id."""
    numbers: dict[Any, int] = {}
    epochs: dict[str, list[Epoch]] = {}
    for trial in trials:
        course = loop_named(trial.loop).course(trial.config)
        at: Any = (trial.loop, trial.seed, course.every) if course else trial.id
        epochs[trial.id] = []
        for epoch in range(trial.config.epochs):
            at = numbers.setdefault((at, course.each[epoch] if course else ""), len(numbers))
            epochs[trial.id].append(at)
    return epochs


@dataclass(frozen=True)
class Plan:
    """Trials, and what is made up about them."""

    trials: Sequence[Trial]
    scheduler: SchedulerConfig
    score: Callable[[Epoch], float]
    """At each epoch; equal for trials that share it."""
    seconds: Callable[[Trial], float] = lambda trial: 1.0
    """What an epoch of a trial takes."""
    visit_s: float = 0.0
    """What it takes to begin in a slot, or to go on in it."""
    ends: Callable[[Epoch], str] = lambda epoch: ""
    """Whether trials end in an epoch: they have `diverged` or `failed`."""


@dataclass
class Played:
    """What became of a sweep."""

    makespan: float = 0.0
    trained: Counter[Epoch] = field(default_factory=Counter)  # how often each epoch was trained
    statuses: dict[str, str] = field(default_factory=dict)  # by trial: finished, diverged, failed or stopped
    histories: dict[str, int] = field(default_factory=dict)  # by trial: how many epochs it has
    visits: int = 0  # how often a trial took a slot


def play(plan: Plan, slots: int, shared: bool = True) -> Played:
    """Run a plan to its end."""
    return _Sweep(plan, slots, shared).run()


class _Sweep:
    def __init__(self, plan: Plan, slots: int, shared: bool) -> None:
        self.plan, self.played = plan, Played()
        self.trials = {trial.id: trial for trial in plan.trials}
        self.epochs = epochs_of(plan.trials)
        rules = self.rules = rules_of(plan.scheduler, Objective())
        records = [planned_record(trial) for trial in plan.trials]
        self.rungs = {record.id: rules.rung_epochs(record.epochs) for record in records}
        sharing = Sharing(
            plan.trials if shared else [],
            records,
            {record.id: {} for record in records},
            rungs=lambda record: self.rungs[record.id],
            keeps_last=False,
            kept={},
            objective=Objective(),
        )
        self.stops = {id: sharing.stops.get(id, {}) for id in self.trials}
        members = [member_of(each.id, each.config, each.epochs, plan.scheduler, each.generation) for each in records]
        assignments: Any = [SimpleNamespace(record=record) for record in records]
        endings: Any = SimpleNamespace(
            pause=lambda id, rungs, reason="": None,
            stop=lambda id, rungs: self.played.statuses.setdefault(id, "stopped"),
            failed=set(),
        )
        self.endings = endings
        self.queue = TrialQueue(
            (Halving(rules, members), assignments, sharing.twins),
            next_stage=lambda is_busy: None,
            count_slots=lambda: slots,
            max_concurrent=None,
            retries=0,
            endings=endings,
            stop=StopRequest(),
        )
        self.states, self.ends = set[str](), dict[str, int]()
        self.done = dict.fromkeys(self.trials, 0)
        self.tunes: dict[str, Any] = {}
        self.now, self.events, self.numbers = 0.0, list[tuple[float, int, str, Iterator[float]]](), itertools.count()

    def run(self) -> Played:
        while True:
            while (id := self._next()) is not None:
                self.played.visits += 1
                self._continue(id, self._life(id))
            if not self.events:
                break
            self.now, _, id, life = heapq.heappop(self.events)
            self._continue(id, life)
        self.played.makespan, self.played.histories = self.now, self.done
        return self.played

    def _next(self) -> str | None:
        """Do what Tune does in a step; return the trial that takes a slot."""
        for over in self.queue.take_out():
            over.status = TuneTrial.TERMINATED
            self.queue.leave(over.trial_id, failed=False)
        tune = SimpleNamespace(trial_id=str(next(self.numbers)), status=TuneTrial.RUNNING, error_file=None)
        assignment = self.queue.hand_out(tune.trial_id)
        if assignment is None and self.queue.go_on():
            assignment = self.queue.hand_out(tune.trial_id)
        if assignment is not None:
            self.queue.know(tune)  # type: ignore[arg-type]
            self.tunes[assignment.record.id] = tune
            return assignment.record.id
        if (paused := self.queue.promote()) is None:
            return None
        paused.status = TuneTrial.RUNNING
        return next(id for id, each in self.tunes.items() if each is paused)

    def _continue(self, id: str, life: Iterator[float]) -> None:
        if (seconds := next(life, None)) is not None:
            heapq.heappush(self.events, (self.now + seconds, next(self.numbers), id, life))

    def _life(self, id: str) -> Iterator[float]:
        """Yield how long each thing takes that a trial does in its slot, until it gives the slot back."""
        yield self.plan.visit_s
        if self._is_at_rung(id) and not self._report(id):
            return
        while self._take_over(id):
            if not self._report(id):
                return
        if self._is_over(id):
            self._report(id, "diverged")
            return
        trial, epochs = self.trials[id], self.epochs[id]
        while True:
            stretch = self._stretch(id)
            yield len(stretch) * self.plan.seconds(trial)
            self.played.trained.update(stretch)
            if end := self.plan.ends(stretch[-1]):
                self.done[id] += len(stretch) - 1
                if end == "diverged" and (key := self._next_key(id)):
                    self.ends[key] = self.done[id]
                self._report(id, end)
                return
            self.done[id] += len(stretch)
            if key := self.stops[id].get(self.done[id]):
                self.states.add(key)
            if not self._report(id, "finished" if self.done[id] == len(epochs) else "running"):
                return

    def _stretch(self, id: str) -> list[Epoch]:
        """The epochs up to the next one after which a trial does anything but train."""
        stretch: list[Epoch] = []
        for at, epoch in enumerate(self.epochs[id][self.done[id] :], self.done[id] + 1):
            stretch.append(epoch)
            if at in self.stops[id] or at in self.rungs[id] or self.plan.ends(epoch):
                break
        return stretch

    def _take_over(self, id: str) -> bool:
        done, epochs = self.done[id], len(self.epochs[id])
        until = next((rung for rung in self.rungs[id] if rung > done), epochs)
        found = [at for at, key in self.stops[id].items() if done < at <= until and key in self.states]
        self.done[id] = max(found, default=done)
        return bool(found)

    def _next_key(self, id: str) -> str | None:
        return next((key for at, key in self.stops[id].items() if at > self.done[id]), None)

    def _is_over(self, id: str) -> bool:
        """Take over that a twin has diverged, if it has before the next state."""
        if (key := self._next_key(id)) not in self.ends:
            return False
        self.done[id] = self.ends[str(key)]
        return True

    def _is_at_rung(self, id: str) -> bool:
        return self.done[id] in self.rungs[id]

    def _report(self, id: str, status: str = "running") -> bool:
        """Report; return whether the trial goes on."""
        done, tune = self.done[id], self.tunes[id]
        if done == len(self.epochs[id]):
            status = "finished"
        passed = [self.epochs[id][rung - 1] for rung in self.rungs[id] if rung <= done]
        is_compared = self._is_at_rung(id) or status != "running"
        scores = [(self.plan.score(epoch), 0.0) for epoch in passed] if is_compared else []
        verdict = self.queue.judge(tune, {"epoch": done, "status": status, "rungs": scores})
        if status != "running":
            self.played.statuses[id] = status
        if verdict is Verdict.OUT:
            tune.status = TuneTrial.TERMINATED
            self.queue.leave(tune.trial_id, failed=False)
        elif verdict is Verdict.UNDECIDED:
            tune.status = TuneTrial.PAUSED
        return verdict is Verdict.SAFE
