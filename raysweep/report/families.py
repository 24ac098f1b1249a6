"""Which curves stand in one picture: a metric's training and validation, and how their axis is written."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from raysweep.diagnose.curves import Array, Curves
from raysweep.report.svg import is_log
from raysweep.store.metrics import EMA, Kind, families_of, roles_of
from raysweep.sweepfile.schema import Objective
from raysweep.terminal import Metric

TITLES = {
    "acc": "Accuracy",
    "loss": "Loss",
    "lr": "Learning rate",
    "grad_norm_max": "Largest gradient norm of an epoch",
}
FILES = {"acc": "accuracy", "grad_norm_max": "gradient"}
LOG = ("lr", "learning_rate", "grad_norm", "grad_norm_max")
"""Metrics that have a logarithmic axis however little they change, as losses have."""


@dataclass(frozen=True)
class CurvePicture:
    """One picture of curves."""

    name: str  # what it shows, as the page calls it
    metrics: Mapping[Kind, str]
    words: Mapping[Kind, str]  # what each was measured on; empty where its name does not say
    percent: bool
    log: bool
    is_loss: bool
    is_marked: bool  # whether its validation curve is the one on which findings are marked

    @property
    def title(self) -> str:
        """What it is called over the picture."""
        return TITLES.get(self.name, self.name)

    @property
    def file(self) -> str:
        """The stem of its file."""
        return FILES.get(self.name) or re.sub(r"\W", "_", self.name)


def curve_pictures(curves: Sequence[Curves], objective: Objective) -> list[CurvePicture]:
    """Return the pictures of all metrics that have a finite value: the objective's first, then accuracy and loss."""
    names = tuple(dict.fromkeys(name for each in curves for name in each.metrics))
    roles = roles_of(names, objective.metric, objective.maximize)
    marked = roles.get("val_acc") or roles.get("val_loss")
    return list(_pictures(curves, names, objective.metric, marked))


def _pictures(
    curves: Sequence[Curves], names: tuple[str, ...], objective: str, marked: str | None
) -> Iterator[CurvePicture]:
    for family in families_of(names, objective):
        values = _finite(curves, list(family.metrics.values()))
        if not len(values):
            continue
        percent = Metric.of(family.name, (float(values.min()), float(values.max()))).percent
        always = family.is_loss or family.name in LOG
        log = not percent and values.min() > 0 and (always or is_log((float(values.min()), float(values.max()))))
        is_marked = marked is not None and family.metrics.get("val") == marked
        yield CurvePicture(family.name, family.metrics, family.words, percent, bool(log), family.is_loss, is_marked)


def _finite(curves: Sequence[Curves], metrics: Sequence[str]) -> Array:
    values = np.concatenate([np.empty(0), *(each[name] for each in curves for name in metrics)])
    finite: Array = values[np.isfinite(values)]
    return finite


def of_objective(picture: CurvePicture, objective: str, averaged: bool) -> Kind:
    """Return which of a picture's curves the objective is: that of averaged weights, where these are meant."""
    kinds = {name: kind for kind, name in picture.metrics.items()}
    wanted = (f"{objective.removesuffix(EMA)}{EMA}", objective) if averaged else (objective,)
    return next((kinds[name] for name in wanted if name in kinds), next(iter(kinds.values())))


def ends_of(values: Array) -> tuple[float, float]:
    """Return the ends of a linear axis: the few values that lie far off do not flatten the others; curves.js agrees."""
    few, most = (float(each) for each in np.quantile(values, (0.05, 0.95)))
    reach = 2 * (most - few) or math.inf
    return max(float(values.min()), few - reach), min(float(values.max()), most + reach)
