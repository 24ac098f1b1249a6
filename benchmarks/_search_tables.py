"""Makes the tables of `search.py`: scikit-learn models on its own data sets, every point of a grid, a score an epoch.

    _search_tables.py [TABLE ...]

Each is a Parquet file beside this one, a row a config: its settings, and `curve`, the score after each of its epochs.
"""

from __future__ import annotations

import itertools
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.metrics import log_loss, r2_score
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler

EPOCHS = 27
TREES = 2
FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Table:
    """A grid, and what is trained at each of its points."""

    grid: dict[str, list[float]]
    """By key, in an order in which neighbours are alike."""
    curve: Callable[[dict[str, float]], list[float]]


def path_of(name: str) -> Path:
    return FOLDER / f"search_{name}.parquet"


def _split(load: Callable[..., Any]) -> Any:
    x, y = load(return_X_y=True)
    labels = y if load is not load_diabetes else None
    x, x_val, y, y_val = train_test_split(x, y, test_size=0.5, random_state=0, stratify=labels)
    scaler = StandardScaler().fit(x)
    return scaler.transform(x), scaler.transform(x_val), y, y_val


def cancer_mlp() -> Table:
    """A perceptron with Adam on breast_cancer; the score is minus the log loss, at least -2."""
    x, x_val, y, y_val = _split(load_breast_cancer)

    def curve(point: dict[str, float]) -> list[float]:
        model = MLPClassifier(
            (int(point["width"]),),
            learning_rate_init=point["lr"],
            batch_size=int(point["batch_size"]),
            alpha=point["weight_decay"],
            beta_1=point["beta"],
            random_state=0,
        )
        return list(_by_epoch(model, x, y, lambda: -log_loss(y_val, model.predict_proba(x_val)), -2.0))

    grid = {
        "lr": np.geomspace(1e-4, 1, 13).tolist(),
        "batch_size": [32.0, 64.0, 128.0],
        "width": [2.0, 8.0, 32.0],
        "weight_decay": [1e-4, 1e-2, 1.0],
        "beta": [0.5, 0.9],
    }
    return Table(grid, curve)


def diabetes_boosting() -> Table:
    """Gradient boosting on diabetes, 2 trees an epoch; the score is R2, at least -1."""
    x, x_val, y, y_val = _split(load_diabetes)

    def curve(point: dict[str, float]) -> list[float]:
        model = GradientBoostingRegressor(
            learning_rate=point["lr"],
            max_depth=int(point["depth"]),
            subsample=point["subsample"],
            min_samples_leaf=int(point["leaf"]),
            max_features=point["features"],
            n_estimators=TREES * EPOCHS,
            random_state=0,
        ).fit(x, y)
        stages = [r2_score(y_val, predicted) for predicted in model.staged_predict(x_val)]
        return [max(-1.0, float(each)) for each in stages[TREES - 1 :: TREES]]

    grid = {
        "lr": np.geomspace(0.01, 1, 11).tolist(),
        "depth": [1.0, 2.0, 3.0, 5.0],
        "subsample": [0.2, 0.5, 1.0],
        "leaf": [1.0, 8.0, 64.0],
        "features": [0.2, 1.0],
    }
    return Table(grid, curve)


def wine_mlp() -> Table:
    """A perceptron with momentum on wine; the score is minus the log loss, at least -2. To choose settings by."""
    x, x_val, y, y_val = _split(load_wine)

    def curve(point: dict[str, float]) -> list[float]:
        model = MLPClassifier(
            (int(point["width"]),),
            solver="sgd",
            learning_rate_init=point["lr"],
            momentum=point["momentum"],
            batch_size=16,
            alpha=point["weight_decay"],
            random_state=0,
        )
        return list(_by_epoch(model, x, y, lambda: -log_loss(y_val, model.predict_proba(x_val)), -2.0))

    grid = {
        "lr": np.geomspace(1e-3, 1, 10).tolist(),
        "width": [2.0, 8.0, 32.0],
        "weight_decay": [1e-4, 0.1, 10.0],
        "momentum": [0.0, 0.9, 0.98],
    }
    return Table(grid, curve)


TABLES = {"cancer_mlp": cancer_mlp, "diabetes_boosting": diabetes_boosting}
TO_CHOOSE_BY = {"wine_mlp": wine_mlp}


def _by_epoch(model: Any, x: Any, y: Any, score: Callable[[], float], worst: float) -> Iterator[float]:
    """Train an epoch, yield the score; once the numbers overflow, the worst one."""
    for _ in range(EPOCHS):
        try:
            model.partial_fit(x, y, classes=np.unique(y))
            value = score()
        except ValueError:
            value = worst
        yield max(worst, value) if np.isfinite(value) else worst


def make(name: str) -> None:
    table = (TABLES | TO_CHOOSE_BY)[name]()
    points = [dict(zip(table.grid, point, strict=True)) for point in itertools.product(*table.grid.values())]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        curves = [np.float32(table.curve(point)) for point in points]
    columns = {key: [point[key] for point in points] for key in table.grid}
    made = pa.table(columns | {"curve": pa.array([each.tolist() for each in curves], pa.list_(pa.float32()))})
    pq.write_table(made, path_of(name), compression="zstd")
    best = [float(each.max()) for each in curves]
    print(f"{name}: {len(points)} configs, best {max(best):.4f}, median {np.median(best):.4f}", flush=True)


if __name__ == "__main__":
    for chosen in sys.argv[1:] or TABLES | TO_CHOOSE_BY:
        make(chosen)
