"""Ways to search, played on one clock: slots that train an epoch a tick, until so many epochs are spent.

* at_random         draws, each trained to its end
* raysweep          `search` and `asha`: the package's own `ask`, and generations that compete as in a run
* optuna_pruned     Optuna's TPE as it is by default, asked by every slot, with one of its pruners
* ray_optuna        Ray's OptunaSearch with its AsyncHyperBandScheduler: their own objects, called as Tune calls them

Out: `Course`, the best score so far after each epoch that anybody trained.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np
from _problems import Problem

from raysweep.halving.scores import rung_scores
from raysweep.results.search.sampler import ask
from raysweep.results.search.told import Told
from raysweep.sweepfile import Sweep
from raysweep.sweepfile.proposals import first_generations, size_of
from raysweep.sweepfile.schema import Dimension, Objective, RankBy
from raysweep.sweepfile.space import Settings

SLOTS = 8
RIVALS = ("none", "all", "beat", "median")


@dataclass
class Course:
    """A search as it went; entry i of each list is after i + 1 epochs."""

    best: list[float] = field(default_factory=list)
    trials: list[int] = field(default_factory=list)
    """How many have begun."""

    def best_after(self, epochs: int) -> float:
        return self.best[min(epochs, len(self.best)) - 1]

    def epochs_to(self, score: float) -> float:
        """The epochs until a score is reached; infinity if it is not."""
        reached = np.searchsorted(self.best, score)
        return float(reached + 1) if reached < len(self.best) else math.inf

    def trials_to(self, score: float) -> float:
        """The trials that have begun by then."""
        epochs = self.epochs_to(score)
        return float(self.trials[int(epochs) - 1]) if math.isfinite(epochs) else math.inf


@dataclass(eq=False)
class Run:
    """A trial in its slot."""

    number: int
    settings: Settings
    training: Iterator[float]
    epochs: int
    curve: list[float] = field(default_factory=list)
    """The score after each epoch so far."""
    has_diverged: bool = False
    until: int = 0
    """The rung that it trains to, or its end."""
    scores: dict[int, float] = field(default_factory=dict)
    """By rung, once it is asked for."""

    @property
    def done(self) -> int:
        """The epochs that it has trained, the one in which it diverged not among them."""
        return len(self.curve)

    def step(self) -> None:
        """Train an epoch."""
        score = next(self.training, None)
        if score is None:
            self.has_diverged = True
        else:
            self.curve.append(float(score))

    @property
    def last(self) -> float:
        """The last score; no number if it has diverged."""
        return math.nan if self.has_diverged else self.curve[-1]


class Search(Protocol):
    """What fills the slots."""

    def next(self) -> Run | None:
        """Return a trial that takes a free slot."""

    def goes_on(self, run: Run) -> bool:
        """Take in that a trial has trained an epoch; return whether it keeps its slot."""


def play(search: Search, epochs: int, slots: int = SLOTS) -> Course:
    """Play a search until so many epochs are spent, or it has no more to do."""
    course, busy = Course(), list[Run]()
    best, begun = -math.inf, 0
    while True:
        while len(busy) < slots and (run := search.next()) is not None:
            busy.append(run)
            begun = max(begun, run.number + 1)
        if not busy:
            return course
        for run in list(busy):
            run.step()
            if not run.has_diverged:
                best = max(best, run.last)
            course.best.append(best)
            course.trials.append(begun)
            if len(course.best) == epochs:
                return course
            if not search.goes_on(run):
                busy.remove(run)


def _begin(problem: Problem, number: int, settings: Settings) -> Run:
    return Run(number, settings, iter(problem.train(settings)), problem.length(settings))


# ---------------------------------------------------------------------------------------------------------
# Who comes first


@dataclass
class AtRandom:
    problem: Problem
    seed: int
    trials: int = 10**9
    number: int = 0

    def next(self) -> Run | None:
        if self.number == self.trials:
            return None
        self.number += 1
        return _begin(self.problem, self.number - 1, self.problem.draw(f"{self.seed}/random/{self.number}"))

    def goes_on(self, run: Run) -> bool:
        return not run.has_diverged and run.done < run.epochs


class OptunaPruned:
    """Optuna's `TPESampler()` and a pruner; it is told of every epoch, and `should_prune` decides."""

    def __init__(self, problem: Problem, seed: int, pruner: str, **sampler: Any) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        longest = problem.search.get("epochs", {}).get("int", [0, 0])[1] or problem.length({})
        pruners: dict[str, Callable[[], Any]] = {
            "median": optuna.pruners.MedianPruner,
            "halving": optuna.pruners.SuccessiveHalvingPruner,
            "hyperband": lambda: optuna.pruners.HyperbandPruner(max_resource=longest),
            "none": optuna.pruners.NopPruner,
        }
        self.problem = problem
        self.study = optuna.create_study(  # Hyperband draws a trial's bracket from the study's name
            study_name=f"{problem.name} {seed}",
            direction="maximize",
            sampler=optuna.samplers.TPESampler(seed=seed, **sampler),
            pruner=pruners[pruner](),
        )
        self.trials: dict[int, Any] = {}

    def next(self) -> Run:
        trial = self.study.ask()
        settings = self.problem.space.fill({}, lambda key, dimension: _suggest(trial, key, dimension))
        self.trials[trial.number] = trial
        return _begin(self.problem, trial.number, settings)

    def goes_on(self, run: Run) -> bool:
        import optuna

        trial = self.trials[run.number]
        trial.report(run.last, run.done + run.has_diverged)
        if run.has_diverged or trial.should_prune():
            self.study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            return False
        if run.done == run.epochs:
            self.study.tell(trial, max(run.curve))
            return False
        return True


def _suggest(trial: Any, key: str, dimension: Dimension) -> Any:
    if dimension.choice is not None:
        return trial.suggest_categorical(key, dimension.choice)
    if (whole := dimension.int or dimension.log_int) is not None:
        return trial.suggest_int(key, *whole, log=dimension.int is None)
    bounds = dimension.uniform or dimension.log_uniform
    assert bounds
    return trial.suggest_float(key, *bounds, log=dimension.uniform is None)


class RayOptuna:
    """Ray's pairing. A stopped trial is completed with its last result, as Tune does."""

    def __init__(self, problem: Problem, seed: int, grace_period: int = 1, reduction_factor: float = 4) -> None:
        from ray.tune.schedulers import AsyncHyperBandScheduler
        from ray.tune.search.optuna import OptunaSearch

        logging.getLogger("ray.tune").setLevel(logging.ERROR)
        longest = problem.search.get("epochs", {}).get("int", [0, 0])[1] or problem.length({})
        self.problem, self.number = problem, 0

        def define(trial: Any) -> None:
            problem.space.fill({}, lambda key, dimension: _suggest(trial, key, dimension))

        self.searcher = OptunaSearch(define, metric="score", mode="max", seed=seed)
        self.scheduler = AsyncHyperBandScheduler(
            "training_iteration", "score", "max", longest, grace_period, reduction_factor
        )
        self.trials: dict[int, Any] = {}
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)

    def next(self) -> Run:
        trial = SimpleNamespace(trial_id=str(self.number))
        settings = self.searcher.suggest(trial.trial_id)
        self.scheduler.on_trial_add(SimpleNamespace(metadata={}), trial)
        self.trials[self.number] = trial
        self.number += 1
        return _begin(self.problem, self.number - 1, settings)

    def goes_on(self, run: Run) -> bool:
        trial = self.trials[run.number]
        result = {"score": run.last, "training_iteration": run.done + run.has_diverged}
        self.searcher.on_trial_result(trial.trial_id, result)
        # A loop whose loss is no number ends itself: asha would let it go on, since no number is below a cutoff
        if run.has_diverged or run.done == run.epochs:
            self.scheduler.on_trial_complete(None, trial, result)
        elif self.scheduler.on_trial_result(None, trial, result) == "CONTINUE":
            return True
        self.searcher.on_trial_complete(trial.trial_id, result)
        return False


# ---------------------------------------------------------------------------------------------------------
# raysweep


@dataclass(frozen=True)
class Competition:
    """Who competes with whom at the rungs."""

    rungs: tuple[Fraction, ...] = (Fraction(1, 9), Fraction(2, 9))
    eta: int = 3
    min_survivors: int = 2
    rivals: str = "all"
    """`none`; `all`: every settled one has a rank, and they add to the places; `beat`: a generation competes alone, and
    who goes on must also be among the best 1/eta^r of the settled ones; `median`: must beat their median."""
    rank_by: RankBy = "trend"


class RaySweep:
    """Generations of proposals; generation g is made of the settled ones of all up to g - 2."""

    def __init__(
        self,
        problem: Problem,
        seed: int,
        trials: int = 100,
        generation: int = 8,
        name: str = "tpe",
        competition: Competition | None = None,
    ) -> None:
        search = {"name": name, "trials": trials, "generation": generation, "space": problem.search}
        self.sweep = Sweep.model_validate({"name": "search", "seed": seed, "search": search})
        self.problem = problem
        self.competition = Competition() if competition is None else competition
        self.generations: list[_Generation] = []
        self.made: set[str] = set()
        self.drawn = [each.proposals for each in first_generations(self.sweep, self._accepts)]
        self.proposed = 0

    def next(self) -> Run | None:
        for generation in self.generations:
            if generation.ready:
                return generation.ready.pop(0)
        if not self._propose():
            return None
        return self.generations[-1].ready.pop(0)

    def goes_on(self, run: Run) -> bool:
        if run.has_diverged or run.done >= run.until:
            next(each for each in self.generations if run in each.runs).arrive(run)
            return False
        return True

    def _accepts(self, settings: Settings) -> bool:
        text = json.dumps(settings, sort_keys=True)
        is_new = text not in self.made
        self.made.add(text)
        return is_new

    def _propose(self) -> bool:
        number = len(self.generations)
        assert self.sweep.search
        count = size_of(self.sweep.search, self.proposed)
        if not count or any(not each.is_settled for each in self.generations[:-1]):
            return False
        if number < len(self.drawn):
            proposals = self.drawn[number]
        else:
            told = [one for each in self.generations[:-1] for one in each.told()]
            told += [Told(run.settings, "pending", None, []) for run in self.generations[-1].runs]
            proposals = ask(self.sweep, number, told, count, self._accepts)
        if not proposals:
            return False
        runs = [_begin(self.problem, self.proposed + i, each) for i, each in enumerate(proposals)]
        rivals = [run for each in self.generations[:-1] for run in each.runs]
        self.generations.append(_Generation(runs, rivals, self.competition))
        self.proposed += len(proposals)
        return True


class _Generation:
    """Trials that compete: at a rung all wait for the others, and the best go on."""

    def __init__(self, runs: list[Run], rivals: Sequence[Run], competition: Competition) -> None:
        self.runs, self.rivals, self.competition = runs, rivals, competition
        self.rung = 0
        self.training, self.ready = list(runs), list(runs)
        self.waiting: list[Run] = []
        self.finished: set[int] = set()
        for run in runs:
            run.until = self._stops(run)[0]

    @property
    def is_settled(self) -> bool:
        return not self.training and not self.waiting

    def told(self) -> list[Told]:
        """Return what is told of them once they are settled."""
        return [self._told(run) for run in self.runs]

    def _told(self, run: Run) -> Told:
        if run.has_diverged:
            return Told(run.settings, "failed", None, [])
        scores = [self.score(run, rung) for rung, stop in enumerate(self._stops(run)[:-1]) if stop <= run.done]
        rungs = [(float(share), score) for share, score in zip(self.competition.rungs, scores, strict=False)]
        state = "finished" if run.done == run.epochs else "stopped"
        return Told(run.settings, state, max(run.curve), rungs)

    def arrive(self, run: Run) -> None:
        self.training.remove(run)
        if not run.has_diverged and run.done < run.epochs:
            self.waiting.append(run)
        if not self.training and self.waiting:
            self._decide()

    def score(self, run: Run, rung: int) -> float:
        if rung not in run.scores:
            run.scores[rung] = _score(run, self._stops(run)[rung], self.competition.rank_by)
        return run.scores[rung]

    def _stops(self, run: Run) -> list[int]:
        return [math.ceil(rung * run.epochs) for rung in self.competition.rungs] + [run.epochs]

    def _decide(self) -> None:
        rung, competition = self.rung, self.competition
        own = sorted(self.waiting, key=lambda run: -self.score(run, rung))
        share = Fraction(1, competition.eta ** (rung + 1))
        there = sorted(
            (self.score(run, rung) for run in self.rivals if run.done >= self._stops(run)[rung]),
            reverse=True,
        )
        if competition.rivals == "all":
            places = max(competition.min_survivors, math.ceil((len(self.runs) + len(self.rivals)) * share))
            ahead = {run.number: sum(score > self.score(run, rung) for score in there) for run in own}
            on = [run for place, run in enumerate(own) if place + ahead[run.number] < places]
        else:
            on = own[: max(competition.min_survivors, math.ceil(len(self.runs) * share))]
            if competition.rivals != "none" and there:
                place = len(there) // 2 if competition.rivals == "median" else math.ceil(len(self.rivals) * share) - 1
                cutoff = there[min(place, len(there) - 1)]
                on = [run for run in on if self.score(run, rung) >= cutoff]
        self.rung += 1
        for run in on:
            run.until = self._stops(run)[self.rung]
        self.waiting, self.training, self.ready = [], on, list(on)


def _score(run: Run, epoch: int, rank_by: RankBy) -> float:
    history = [{"epoch": i + 1.0, "val_acc": float(score)} for i, score in enumerate(run.curve[:epoch])]
    return rung_scores(history, [epoch], Objective(), rank_by)[0][0]
