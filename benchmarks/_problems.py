"""Problems for a search: a space, and the learning curve of each config in it.

* alexnet    a surrogate of 512 recorded AlexNet runs on ImageNet: settings to a whole curve, or where it diverges
* tabular    every point of a grid, trained once (`_search_tables.py`)
* artificial functions that optimisers are known by, as learning curves; to choose settings, not to judge them
* digits     a network on scikit-learn's digits, trained when it is asked for
"""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from raysweep.sweepfile.schema import Search
from raysweep.sweepfile.space import Settings, Space, draw_value

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Problem:
    """What is to be found: the highest score at any epoch of any config."""

    name: str
    search: dict[str, Any]
    """Its space, as in a sweep file."""
    length: Callable[[Settings], int]
    """The epochs that a config is to train."""
    train: Callable[[Settings], Iterable[float]]
    """The score after each of them, once it is trained; they end before where a config diverges."""
    best: float
    """The best score there is, or a bound of it."""

    @cached_property
    def space(self) -> Space:
        return Space(Search.model_validate({"trials": 1, "space": self.search}).space)

    def draw(self, seed: str) -> Settings:
        return self.space.fill({}, lambda key, dimension: draw_value(dimension, f"{seed}/{key}"))


# ---------------------------------------------------------------------------------------------------------
# A surrogate of recorded runs


ALEXNET = {
    "epochs": {"int": [20, 100]},
    "batch_size": {"choice": [128, 256, 512, 1024]},
    "lr": {"log_uniform": [0.005, 50]},
    "peak": {"uniform": [0, 0.8]},
    "momentum": {"uniform": [0.7, 0.999]},
    "weight_decay": {"log_uniform": [1e-6, 1e-3]},
    "label_smoothing": {"uniform": [0, 0.5]},
}
SHARES = 40
"""A curve is predicted at so many shares of its epochs."""


def _features(settings: Settings) -> list[float]:
    rate = math.log10(settings["lr"])
    slow = math.log10(1 - settings["momentum"])
    return [
        settings["epochs"],
        math.log2(settings["batch_size"]),
        rate,
        settings["peak"],
        slow,
        math.log10(settings["weight_decay"]),
        settings["label_smoothing"],
        rate - slow,  # the rate at which a constant gradient moves the weights
        rate - slow - math.log2(settings["batch_size"]) * math.log10(2),
    ]


class Surrogate:
    """Extremely randomized trees: whether and when a run diverges, and its whole curve if it does not."""

    def __init__(self, path: str, which: npt.NDArray[np.int64] | None = None) -> None:
        from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor

        rows = pq.read_table(path).to_pylist()
        rows = rows if which is None else [rows[i] for i in which]
        x = np.array([_features(settings_of(row)) for row in rows])
        lasted = np.array([len(row["curve_top_1"]) / row["epochs"] for row in rows])
        whole = lasted == 1
        curves = np.array([_at_shares(row["curve_top_1"]) for row in rows if len(row["curve_top_1"]) == row["epochs"]])
        forest = {"n_estimators": 100, "min_samples_leaf": 2, "random_state": 0}
        self._diverges = ExtraTreesClassifier(**forest).fit(x, ~whole)
        self._lasts = ExtraTreesRegressor(**forest).fit(x[~whole], lasted[~whole])
        self._curve = ExtraTreesRegressor(**forest).fit(x[whole], curves)
        self._known: dict[tuple[float, ...], Floats] = {}

    def chance_to_diverge(self, settings: Settings) -> float:
        return float(_predict(self._diverges, _features(settings))[-1])

    def whole_curve(self, settings: Settings) -> Floats:
        """Return the curve as if it did not diverge."""
        epochs = settings["epochs"]
        return np.interp(np.arange(1, epochs + 1) / epochs, _SHARES, _predict(self._curve, _features(settings)))

    def train(self, settings: Settings) -> Floats:
        key = tuple(_features(settings))
        if key not in self._known:
            curve = self.whole_curve(settings)
            if self.chance_to_diverge(settings) > 0.5:
                lasts = _predict(self._lasts, _features(settings)).item()
                curve = curve[: int(lasts * settings["epochs"])]
            self._known[key] = curve
        return self._known[key]

    def best_of(self, drawn: list[Settings]) -> float:
        """Return the best score of many configs."""
        x = np.array([_features(settings) for settings in drawn])
        lasts = self._diverges.predict_proba(x)[:, 1] <= 0.5
        return float(self._curve.predict(x[lasts]).max())


def _predict(forest: Any, features: list[float]) -> Floats:
    """Return what a forest predicts for one config; its own `predict` takes ten times as long for one."""
    x = np.array([features], np.float32)
    return np.mean([tree.tree_.predict(x).reshape(-1) for tree in forest.estimators_], axis=0)


_SHARES = np.arange(1, SHARES + 1) / SHARES


def held_out(path: str, folds: int = 4) -> dict[str, float]:
    """Return how well a surrogate knows runs that it was not fitted to."""
    from scipy.stats import spearmanr
    from sklearn.metrics import roc_auc_score

    rows = pq.read_table(path).to_pylist()
    fold = np.random.default_rng(0).permutation(len(rows)) % folds
    chances, best, predicted = np.zeros(len(rows)), np.zeros(len(rows)), np.zeros(len(rows))
    for number in range(folds):
        surrogate = Surrogate(path, np.flatnonzero(fold != number))
        for i in np.flatnonzero(fold == number):
            settings = settings_of(rows[i])
            chances[i] = surrogate.chance_to_diverge(settings)
            best[i] = max(rows[i]["curve_top_1"], default=0.0)
            predicted[i] = surrogate.whole_curve(settings).max()
    whole = np.array([len(row["curve_top_1"]) == row["epochs"] for row in rows])
    return {
        "divergence_auc": float(roc_auc_score(~whole, chances)),
        "best_score_rank_correlation": float(spearmanr(best[whole], predicted[whole]).statistic),
        "best_score_mean_error": float(np.abs(best[whole] - predicted[whole]).mean()),
    }


def settings_of(row: dict[str, Any]) -> Settings:
    """Return the settings of a recorded run."""
    return {key: row[key] for key in ALEXNET if key != "peak"} | {"peak": row["lr_peak_epoch"] / row["epochs"]}


def _at_shares(curve: list[float]) -> Floats:
    return np.interp(_SHARES, np.arange(1, len(curve) + 1) / len(curve), curve)


def alexnet(path: str, which: npt.NDArray[np.int64] | None = None, name: str = "alexnet") -> Problem:
    surrogate = Surrogate(path, which)
    problem = Problem(name, ALEXNET, lambda settings: int(settings["epochs"]), surrogate.train, math.nan)
    return replace(problem, best=surrogate.best_of([problem.draw(f"best/{i}") for i in range(20_000)]))


# ---------------------------------------------------------------------------------------------------------
# Tables


def tabular(name: str, path: str) -> Problem:
    """A table's axes are whole numbers, the places of the values, so that every contender knows their order."""
    table = pq.read_table(path)
    keys = [key for key in table.column_names if key != "curve"]
    values = {key: list(dict.fromkeys(table[key].to_pylist())) for key in keys}
    curves = np.array(table["curve"].to_pylist())
    places = zip(*([values[key].index(each) for each in table[key].to_pylist()] for key in keys), strict=True)
    rows = {place: row for row, place in enumerate(places)}
    return Problem(
        name,
        {key: {"int": [0, len(values[key]) - 1]} for key in keys},
        lambda settings: curves.shape[1],
        lambda settings: curves[rows[tuple(settings[key] for key in keys)]],
        float(curves.max()),
    )


# ---------------------------------------------------------------------------------------------------------
# Artificial ones


def artificial(name: str, loss: Callable[[Floats], float], dimensions: int, seed: int, epochs: int = 27) -> Problem:
    """A function of numbers 0 to 1 with its optimum moved; a curve falls to it as a power of time, or diverges."""
    rng = np.random.default_rng(seed)
    shift = rng.uniform(-0.25, 0.25, dimensions)
    keys = [f"x{i}" for i in range(dimensions)]
    sample = np.array([loss(np.clip(each + shift, 0, 1)) for each in rng.random((2000, dimensions))])
    low, spread = float(sample.min()), float(np.median(sample) - sample.min())

    def train(settings: Settings) -> Floats:
        x = np.array([settings[key] for key in keys])
        final = math.exp(-max(0.0, loss(np.clip(x + shift, 0, 1)) - low) / spread)
        noise = np.random.default_rng(random.Random(f"{name}/{sorted(settings.items())}").getrandbits(32))
        time = np.arange(1, epochs + 1) / epochs
        power = 0.4 + 0.8 * x[0] + 0.1 * noise.standard_normal()  # some learn faster than others
        curve = final * time ** max(0.1, power) + 0.01 * noise.standard_normal(epochs)
        return curve[: int(3 * noise.random())] if x[-1] > 0.85 else curve

    return Problem(name, {key: {"uniform": [0, 1]} for key in keys}, lambda settings: epochs, train, 1.0)


def _hartmann6(x: Floats) -> float:
    a = np.array(
        [[10, 3, 17, 3.5, 1.7, 8], [0.05, 10, 17, 0.1, 8, 14], [3, 3.5, 1.7, 10, 17, 8], [17, 8, 0.05, 10, 0.1, 14]]
    )
    p = 1e-4 * np.array(
        [
            [1312, 1696, 5569, 124, 8283, 5886],
            [2329, 4135, 8307, 3736, 1004, 9991],
            [2348, 1451, 3522, 2883, 3047, 6650],
            [4047, 8828, 8732, 5743, 1091, 381],
        ]
    )
    return float(-np.dot([1, 1.2, 3, 3.2], np.exp(-(a * (x - p) ** 2).sum(1))))


def _branin(x: Floats) -> float:
    u, v = 15 * x[0] - 5, 15 * x[1]
    return float(
        (v - 5.1 / (4 * math.pi**2) * u**2 + 5 / math.pi * u - 6) ** 2 + 10 * (1 - 1 / (8 * math.pi)) * math.cos(u) + 10
    )


def _rosenbrock(x: Floats) -> float:
    y = 3 * x - 1.2
    return float(math.log1p((100 * (y[1:] - y[:-1] ** 2) ** 2 + (1 - y[:-1]) ** 2).sum()))


def artificial_problems() -> list[Problem]:
    return [
        artificial("hartmann6", _hartmann6, 6, 1),
        artificial("branin", _branin, 2, 2),
        artificial("rosenbrock4", _rosenbrock, 4, 3),
    ]


# ---------------------------------------------------------------------------------------------------------
# For real


DIGITS = {
    "optimizer": {"choice": ["sgd", "adam"]},
    "lr": {"log_uniform": [1e-4, 1]},
    "momentum": {"uniform": [0, 0.99], "when": {"optimizer": "sgd"}},
    "batch_size": {"choice": [32, 64, 128, 256]},
    "width": {"log_int": [8, 64]},
    "weight_decay": {"log_uniform": [1e-6, 1]},
    "activation": {"choice": ["relu", "tanh", "logistic"]},
}
DIGITS_EPOCHS = 18


def digits() -> Problem:
    """A perceptron on 400 of scikit-learn's digits; the score is the accuracy on the others."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split
    from sklearn.neural_network import MLPClassifier

    x, y = load_digits(return_X_y=True)
    x, x_val, y, y_val = train_test_split(x / 16, y, train_size=400, random_state=0, stratify=y)

    def train(settings: Settings) -> Iterator[float]:
        model = MLPClassifier(
            (settings["width"],),
            activation=settings["activation"],
            solver=settings["optimizer"],
            learning_rate_init=settings["lr"],
            momentum=settings.get("momentum", 0.9),
            batch_size=settings["batch_size"],
            alpha=settings["weight_decay"],
            random_state=0,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for _ in range(DIGITS_EPOCHS):
                try:
                    model.partial_fit(x, y, classes=np.arange(10))
                except ValueError:  # its numbers overflow
                    return
                yield float(model.score(x_val, y_val))

    return Problem("digits", DIGITS, lambda settings: DIGITS_EPOCHS, train, 1.0)
