"""A sweep, its race and the verdict, played through where the truth is known; and the figures over many of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from raysweep.results.winner import Sample, Verdict, judge, still_racing

TOP = 5
SEEDS = 5
Train = Callable[[int, int], Sample]
"""Config and number of seeds in, what these got right out."""


@dataclass(frozen=True)
class Outcome:
    """What was said of one sweep, and what is true; scores in points."""

    covered: bool
    is_clear: bool
    is_wrong: bool  # clear, though another config is as good
    optimism: float  # the score said, above the true one
    naive_optimism: float  # the score that the winner was chosen by, above the true one
    width: float  # of the interval
    loss: float  # by how much the winner is worse than the best
    chance: float  # the winner's, of being the best
    is_best: bool  # whether it is
    is_likeliest: bool  # whether no other config has a higher chance
    spent: float  # fresh seeds, as a share of all five for all five


def play(train: Train, truth: npt.NDArray[np.float64], seeds: int, with_race: bool) -> Outcome | None:
    """Search with so many seeds, race with fresh ones if asked for, and compare the verdict with the truth."""
    found = [train(config, seeds) for config in range(len(truth))]
    order = np.argsort([-np.mean(sample.scores) for sample in found], kind="stable")
    search = [found[config] for config in order]
    fresh = race(search, lambda place: train(int(order[place]), 1)) if with_race else []
    verdict = judge(search, fresh)
    if verdict is None:
        return None
    return _compare(verdict, truth[order], sum(len(sample.scores) for sample in fresh))


def race(search: Sequence[Sample], train_one: Callable[[int], Sample]) -> list[Sample]:
    """Train fresh seeds as long as `still_racing` asks for them; who was not asked for once stays out."""
    fresh = [Sample([]) for _ in search[:TOP]]
    racing = list(range(len(fresh)))
    while True:
        asked = still_racing(search, fresh, SEEDS)
        racing = [place for place in racing if place in asked]
        if not racing:
            return fresh
        for place in racing:
            fresh[place] = joined(fresh[place], train_one(place))


def joined(one: Sample, other: Sample) -> Sample:
    """Return the seeds of both."""
    if not one.scores:
        return other
    both = None
    if one.correct is not None and other.correct is not None:
        both = np.concatenate([one.correct, other.correct])
    return Sample([*one.scores, *other.scores], both)


def _compare(verdict: Verdict, truth: npt.NDArray[np.float64], spent: int) -> Outcome:
    true = truth[verdict.winner]
    others = np.delete(truth, verdict.winner)
    as_good = bool((others >= true - 1e-9).any())
    return Outcome(
        covered=verdict.low <= true <= verdict.high,
        is_clear=verdict.is_clear,
        is_wrong=verdict.is_clear and as_good,
        optimism=100 * (verdict.score - true),
        naive_optimism=100 * (verdict.chosen_by - true),
        width=100 * (verdict.high - verdict.low),
        loss=100 * (truth.max() - true),
        chance=verdict.chances[verdict.winner],
        is_best=not as_good,
        is_likeliest=verdict.chances[verdict.winner] == max(verdict.chances),
        spent=spent / (SEEDS * min(TOP, len(truth))),
    )


def figures(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Return rates and means over sweeps; standard errors have names in `_se`."""
    columns = {name: np.array([getattr(each, name) for each in outcomes], float) for name in Outcome.__annotations__}
    covered, optimism = columns["covered"], columns["optimism"]
    return {
        "sweeps": len(outcomes),
        "covered": covered.mean(),
        "covered_se": math.sqrt(covered.mean() * (1 - covered.mean()) / len(outcomes)),
        "wrongly_clear": columns["is_wrong"].mean(),
        "clear": columns["is_clear"].mean(),
        "optimism_points": optimism.mean(),
        "optimism_points_se": optimism.std() / math.sqrt(len(outcomes)),
        "naive_optimism_points": columns["naive_optimism"].mean(),
        "width_points": columns["width"].mean(),
        "loss_points": columns["loss"].mean(),
        "chance_of_winner": columns["chance"].mean(),
        "winner_is_best": columns["is_best"].mean(),
        "winner_is_likeliest": columns["is_likeliest"].mean(),
        "spent": columns["spent"].mean(),
    }
