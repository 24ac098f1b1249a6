"""Asks for proposals: Optuna's TPE, or CMA-ES. A pure function: equal space, seed and results give equal proposals.

* tpe    Optuna's multivariate tree-structured Parzen estimator (Watanabe 2023, "Tree-structured Parzen estimator:
         understanding its algorithm components"). What is not settled is told as running, and TPE keeps away from it
* cmaes  covariance matrix adaptation (Hansen 2016, "The CMA evolution strategy: a tutorial") of the numbers that every
         proposal has; the choices, and what only some proposals have, are TPE's

Both see an order alone: finished proposals by their score, then stopped ones, those first that got further, by their
score there, then failed ones. So a score at a rung is never taken for a final one.
"""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any

from raysweep.errors import UserError
from raysweep.results.search.told import Told
from raysweep.sweepfile import Sweep
from raysweep.sweepfile.proposals import TRIES, Accepts, drawn, enqueued
from raysweep.sweepfile.schema import Dimension
from raysweep.sweepfile.space import Settings, Space, is_ordered, share_of, value_at

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial, Trial

STEPS = 10**6
"""Optuna's steps are whole numbers: a rung's is its share of the epochs in millionths."""


def ask(sweep: Sweep, number: int, told: Sequence[Told], count: int, accepts: Accepts) -> list[Settings]:
    """Return up to `count` new proposals for generation `number`, enqueued ones first.

    They are fewer where the space has no more that are new and valid.

    Raises:
        UserError: a package that proposes is missing.
    """
    search = sweep.search
    assert search is not None
    before = [each.settings for each in told]
    proposals = drawn(sweep, before, min(count, len(enqueued(search, before))), accepts)
    space = Space(dict(sorted(search.space.items())))  # the order of keys in the file changes nothing
    known = [each for each in told if not space.why_not(each.settings)]
    known += [Told(settings, "pending", None, []) for settings in proposals]
    seed = random.Random(f"{sweep.seed}/search/{number}").getrandbits(31)
    try:
        with _quiet():
            propose = _cmaes(space, known, sweep, seed) if search.name == "cmaes" else _tpe(space, known, sweep, seed)
            while len(proposals) < count:
                new = next(filter(accepts, islice(propose, TRIES)), None)
                found = drawn(sweep, [*before, *proposals], 1, accepts) if new is None else [new]
                if not found:
                    break
                proposals += found
    except ModuleNotFoundError as error:
        message = f"{search.name} needs the package {error.name}, which is not installed: pip install {error.name}"
        raise UserError(sweep.source.problem(("search", "name"), message)) from error
    return [{key: each[key] for key in Space(search.space).dimensions if key in each} for each in proposals]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Optuna's log and its warnings about experimental features to itself."""
    import optuna

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)


# ---------------------------------------------------------------------------------------------------------
# TPE


def _tpe(
    space: Space, told: Sequence[Told], sweep: Sweep, seed: int, given: Callable[[], Settings] = dict
) -> Iterator[Settings]:
    """Yield proposals without end; each is pending for those after it. The keys that are `given` are not TPE's."""
    import optuna

    sampler = optuna.samplers.TPESampler(
        n_startup_trials=1,
        multivariate=True,
        group=any(dimension.when for dimension in space.dimensions.values()),
        constant_liar=True,
        seed=seed,
    )
    study = optuna.create_study(
        directions=["maximize" if sweep.objective.maximize else "minimize"],
        sampler=sampler,
        pruner=optuna.pruners.NopPruner(),
    )
    own = {key: _distribution(each) for key, each in space.dimensions.items() if key not in given()}
    study.add_trials([_frozen(each, space, own) for each in told])
    while True:
        trial = study.ask()

        def value(key: str, dimension: Dimension, trial: optuna.Trial = trial) -> Any:
            return _outward(dimension, _suggest(trial, key, own[key]))

        yield space.fill(given(), value)


def _frozen(told: Told, space: Space, own: Mapping[str, BaseDistribution]) -> FrozenTrial:
    from optuna.trial import TrialState, create_trial

    states = {"finished": TrialState.COMPLETE, "pending": TrialState.RUNNING}
    keys = [key for key in own if key in told.settings]
    return create_trial(
        state=states.get(told.state, TrialState.PRUNED),  # failed ones, too: Optuna would forget that they failed
        values=[told.score] if told.state == "finished" and told.score is not None else None,
        params={key: _inward(space.dimensions[key], told.settings[key]) for key in keys},
        distributions={key: own[key] for key in keys},
        intermediate_values={round(share * STEPS): score for share, score in told.rungs},
    )


def _suggest(trial: Trial, key: str, distribution: BaseDistribution) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(distribution, FloatDistribution):
        return trial.suggest_float(key, distribution.low, distribution.high, log=distribution.log)
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(key, distribution.low, distribution.high, log=distribution.log)
    assert isinstance(distribution, CategoricalDistribution)
    return trial.suggest_categorical(key, distribution.choices)


def _distribution(dimension: Dimension) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if dimension.choice is not None:
        places = range(len(dimension.choice))
        return IntDistribution(0, places[-1]) if is_ordered(dimension) else CategoricalDistribution(list(places))
    if (whole := dimension.int or dimension.log_int) is not None:
        return IntDistribution(*whole, log=dimension.int is None)
    bounds = dimension.uniform or dimension.log_uniform
    assert bounds is not None
    return FloatDistribution(*bounds, log=dimension.uniform is None)


def _inward(dimension: Dimension, value: Any) -> Any:
    """Return a value as Optuna knows it: a choice by its place, since it may be a mapping."""
    return value if dimension.choice is None else dimension.choice.index(value)


def _outward(dimension: Dimension, value: Any) -> Any:
    """Return a value as a proposal has it: as short as a drawn one, and within its bounds."""
    if dimension.choice is not None:
        return dimension.choice[value]
    bounds = dimension.uniform or dimension.log_uniform
    return value if bounds is None else min(bounds[1], max(bounds[0], float(f"{value:.6g}")))


# ---------------------------------------------------------------------------------------------------------
# CMA-ES


def _cmaes(space: Space, told: Sequence[Told], sweep: Sweep, seed: int) -> Iterator[Settings]:
    """Yield proposals without end."""
    import cmaes
    import numpy as np

    assert sweep.search is not None
    numbers = {key: each for key, each in space.dimensions.items() if _is_number(each) and not each.when}
    if len(numbers) < 2:  # cmaes asks for two
        yield from _tpe(space, told, sweep, seed)
        return
    settled = [each for each in told if each.state != "pending"]
    ranks = {id(each): float(rank) for rank, each in enumerate(sorted(settled, key=_order(sweep)))}
    points = [np.array([share_of(numbers[key], each.settings[key]) for key in numbers]) for each in settled]
    size = max(4, sweep.search.generation)
    optimizer = cmaes.CMA(
        mean=np.full(len(numbers), 0.5),
        sigma=0.3,
        bounds=np.array([[0.0, 1.0]] * len(numbers)),
        seed=seed,
        population_size=size,
    )
    for start in range(0, len(settled) - size + 1, size):
        some = slice(start, start + size)
        optimizer.tell([(point, ranks[id(each)]) for point, each in zip(points[some], settled[some], strict=True)])

    def given() -> Settings:
        return {
            key: value_at(each, min(float(share), 1 - 1e-12))
            for (key, each), share in zip(numbers.items(), optimizer.ask(), strict=True)
        }

    yield from _tpe(space, told, sweep, seed, given)


def _is_number(dimension: Dimension) -> bool:
    return is_ordered(dimension)


def _order(sweep: Sweep) -> Callable[[Told], tuple[int, float, float]]:
    """Return what settled proposals are sorted by, best first."""
    sign = -1 if sweep.objective.maximize else 1

    def key(told: Told) -> tuple[int, float, float]:
        if told.state == "finished" and told.score is not None:
            return 0, 0.0, sign * told.score
        share, score = told.rungs[-1] if told.rungs else (0.0, 0.0)
        return 1, -share, sign * score if math.isfinite(score) else math.inf

    return key
