"""How much each setting of a random search matters, by trees that predict the score from the settings."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean
from typing import Any

import numpy as np
import numpy.typing as npt

from raysweep.halving.scores import best_epoch
from raysweep.report.content import Report, Row
from raysweep.report.svg import Chart, Scale
from raysweep.results.settings import are_numbers, in_order
from raysweep.results.shared import groups_of_configs
from raysweep.terminal import count_of

FEWEST, MOST = 20, 500
"""Configs that the trees are grown from: at least, and at most, of more evenly spread ones."""
REPEATS, TREES, SHUFFLES = 30, 60, 5
REACHED = 0.75
"""The share of the trials that must have trained so far as the epoch at which configs are compared."""
LITTLE = 0.1
"""Trees that explain less of the variance say nothing of the settings."""
WIDTH, NAMES, ROW, HEAD, FOOT = 320, 142, 19, 6, 20
"""Pixels: the picture's width, that of its labels, the height of a setting, above and below them all."""

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SettingImportance:
    """How much of the score's variance comes from a setting, alone or with others, over refits on resampled trials."""

    key: str
    share: float  # median
    low: float  # 2.5 % of the refits lie below
    high: float  # 2.5 % lie above


@dataclass(frozen=True)
class Importance:
    """The settings, the most important first."""

    settings: list[SettingImportance]
    explained: float  # share of the variance of unseen configs' scores that the trees explain, 1 at most
    configs: int
    epoch: int  # the scores are the best until it, so that stopped trials can be compared with others

    @property
    def says_little(self) -> bool:
        """Whether the trees cannot tell good configs from bad ones."""
        return self.explained < LITTLE

    @property
    def sentences(self) -> str:
        """What was done, and how far it can be trusted."""
        grown = f"{count_of(self.configs, 'config')}, by their best score until epoch {self.epoch}"
        if self.says_little:
            return f"Trees grown from {grown} cannot tell good settings from bad ones: these numbers say little."
        return (
            "How much of the score's variance comes from each setting, alone or with others, by randomized trees grown "
            f"from {grown}. Lines hold 95 % of refits on resampled configs. The trees explain "
            f"{100 * self.explained:.0f} % of the variance of configs that they have not seen."
        )


def importance_of(report: Report) -> Importance | None:
    """Return the permutation importance of each setting (Breiman 2001), or None of few configs or another search.

    Extremely randomized trees (Geurts, Ernst and Wehenkel 2006) are grown `REPEATS` times, from configs drawn with
    replacement; those whose trials share most of their epochs are drawn together, since trees that saw one would know
    the luck of the others. On the configs that were not drawn, half of what the squared error grows by when a setting's
    values are shuffled is the variance that comes from that setting (Gregorutti, Michel and Saint-Pierre 2017), in
    Sobol's words its total effect. The spread over the draws is that of other samples of configs. Against simulated
    truth these trees come nearer than those of a random forest, which pass over small effects.
    """
    sweep = report.result.resolved.get("sweep", {})
    if not report.keys or not (sweep.get("random") or sweep.get("search")):
        return None
    epoch, scored = _comparable(report)
    if len(scored) < FEWEST:
        return None
    scored = scored[:: math.ceil(len(scored) / MOST)]
    targets = np.array([score for _, score in scored])
    if not float(np.ptp(targets)):
        return None
    inputs = np.column_stack([_column([row.settings[key] for row, _ in scored]) for key in report.keys])
    names = groups_of_configs([row.config.trials for row, _ in scored])
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    if len(numbers) < FEWEST:
        return None
    groups = np.array([numbers[name] for name in names])
    shares, explained = _known_refits(inputs.tobytes(), targets.tobytes(), groups.tobytes())
    low, middle, high = np.quantile(shares, (0.025, 0.5, 0.975), axis=0)
    settings = [
        SettingImportance(key, float(middle[place]), float(low[place]), float(high[place]))
        for place, key in enumerate(report.keys)
    ]
    settings.sort(key=lambda each: -each.share)
    return Importance(settings, float(np.median(explained)), len(scored), epoch)


def _comparable(report: Report) -> tuple[int, list[tuple[Row, float]]]:
    """Return the last epoch that enough trials trained; of each config that did, a row and the mean of its scores."""
    rows = [row for row in report.rows if row.record.epoch and row.record.status not in ("failed", "diverged")]
    if not rows:
        return 0, []
    epochs = sorted((row.record.epoch for row in rows), reverse=True)
    epoch = epochs[math.ceil(REACHED * len(epochs)) - 1]
    # Seeds of one config have the same settings: trees that saw one would know the others.
    by_config = defaultdict[int, list[tuple[Row, float]]](list)
    for row in rows:
        best = best_epoch(row.record.metrics[:epoch], report.result.objective)
        if row.record.epoch >= epoch and best:
            by_config[id(row.config)].append((row, best.score))
    return epoch, [(seeds[0][0], fmean(score for _, score in seeds)) for seeds in by_config.values()]


def _column(texts: Sequence[str]) -> Array:
    """Return a setting as numbers: those of numbers as they are, since a tree only sees their order; else places."""
    if are_numbers(texts):
        return np.array(list(map(float, texts)))
    place = {text: float(index) for index, text in enumerate(in_order(texts))}
    return np.array([place[text] for text in texts])


@lru_cache(maxsize=1)
def _known_refits(inputs: bytes, targets: bytes, groups: bytes) -> tuple[Array, Array]:
    """Return `_refits` of arrays, given as bytes: a run that is watched asks again and again with the same."""
    scores = np.frombuffer(targets)
    return _refits(np.frombuffer(inputs).reshape(len(scores), -1), scores, np.frombuffer(groups, np.intp))


def _refits(inputs: Array, targets: Array, groups: npt.NDArray[np.intp]) -> tuple[Array, Array]:
    """Return each setting's share by refit, (refits, settings), and the share that each forest explains.

    Configs of one group, which is a number from 0, are drawn together.
    """
    from sklearn.ensemble import ExtraTreesRegressor  # a second's import, for random searches alone

    generator, shares, explained = np.random.default_rng(0), list[Any](), list[float]()
    (count, width), scale = inputs.shape, float(np.var(targets))
    members = [np.flatnonzero(groups == group) for group in range(groups.max() + 1)]
    for repeat in range(REPEATS):
        chosen = generator.integers(len(members), size=len(members))
        drawn = np.concatenate([members[group] for group in chosen])
        unseen = np.setdiff1d(np.arange(count), drawn)
        forest = ExtraTreesRegressor(TREES, min_samples_leaf=2, random_state=repeat).fit(inputs[drawn], targets[drawn])
        shuffled = np.stack([inputs[unseen]] * (width * SHUFFLES + 1))  # the last as it is
        for place in range(width * SHUFFLES):
            shuffled[place, :, place % width] = generator.permutation(inputs[unseen, place % width])
        said = forest.predict(shuffled.reshape(-1, width)).reshape(len(shuffled), -1)
        errors = np.mean((said - targets[unseen]) ** 2, axis=1) / scale
        shares.append((errors[:-1].reshape(SHUFFLES, width).mean(axis=0) - errors[-1]) / 2)
        explained.append(1 - float(errors[-1]))
    return np.array(shares), np.array(explained)


def draw_importance(report: Report, importance: Importance) -> Chart:
    """Draw the importance of each setting as a dot with its interval."""
    settings = importance.settings
    said = "; ".join(f"{each.key} {_said(each)}" for each in settings)
    height = HEAD + ROW * len(settings) + FOOT
    chart = Chart("share of the variance", f"{importance.sentences} {said}.", "importance", WIDTH, height)
    bottom = HEAD + ROW * len(settings)
    low, high = min(0.0, *(each.low for each in settings)), max(each.high for each in settings)
    x = Scale(low, high, NAMES + 8, WIDTH - 14)
    for value in x.ticks(4):
        chart.add("line", x1=x(value), x2=x(value), y1=HEAD, y2=bottom, class_="axis" if not value else "grid")
        chart.add("text", text=f"{100 * value:.3g} %", x=x(value), y=bottom + 14.0, class_="tick middle")
    for place, each in enumerate(settings):
        y = HEAD + ROW * (place + 0.5)
        group = chart.add("g", class_="c0" if each.low > 0 and not importance.says_little else "c7")
        chart.add("title", group, f"{each.key}: {_said(each)}")
        chart.add("text", group, report.labels[each.key][:26], x=float(NAMES), y=y + 4, class_="end")
        chart.add("line", group, x1=x(each.low), x2=x(each.high), y1=y, y2=y, class_="margin")
        chart.add("circle", group, cx=x(each.share), cy=y, r=4.0, class_="dot")
    return chart


def _said(each: SettingImportance) -> str:
    return f"{100 * each.share:.0f} % ({100 * each.low:.0f} to {100 * each.high:.0f} %)"
