"""Real curves that were labelled by hand, and how well `diagnose` agrees with the labels.

The labels are in `benchmarks/diagnosis_labels.csv`, a row a trial; docs/diagnosis.md has the criteria.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
LABELS = BENCHMARKS / "diagnosis_labels.csv"
KINDS = ("divergence", "dip", "overfitting", "underfitting", "plateau")
Row = dict[str, Any]


@dataclass(frozen=True)
class RealTrial:
    """A trial that was really trained, whole or cut."""

    source: str
    row: int  # its place in the source's file, from 0
    rows: list[Row]  # its epochs
    epochs: int  # those that it was to train
    status: str
    classes: int

    def cut(self, epoch: int) -> RealTrial:
        """Return the trial as if it had been stopped after an epoch."""
        return RealTrial(self.source, self.row, self.rows[:epoch], self.epochs, "stopped", self.classes)


def real_trials(shared: Path | None) -> dict[str, list[RealTrial]]:
    """Return all trials by source. Two sources are in the repository; the others need the folder of shared data."""
    files = {
        "report_small": BENCHMARKS / "report_small_curves.parquet",
        "witness": BENCHMARKS / "witness_curves.parquet",
    }
    if shared:
        recorded = shared / "data" / "learning-curves"
        files["alexnet"] = recorded / "opda-imagenet-alexnet.parquet"
        files["lenet"] = recorded / "tiny-imagenet-10class-lenet.parquet"
    return {source: _read(source, path) for source, path in files.items()}


def _read(source: str, path: Path) -> list[RealTrial]:
    read = {"report_small": _report_small, "witness": _witness, "alexnet": alexnet, "lenet": _lenet}[source]
    runs = pq.read_table(path).to_pylist()
    return [RealTrial(source, row, *read(run)) for row, run in enumerate(runs)]


def _rows(run: Mapping[str, Any], **names: str) -> list[Row]:
    """Return a row an epoch; `names` has the column by the metric."""
    columns = zip(*(run[column] for column in names.values()), strict=True)
    return [{"epoch": epoch, **dict(zip(names, values, strict=True))} for epoch, values in enumerate(columns, 1)]


def _report_small(run: Row) -> tuple[list[Row], int, str, int]:
    names = {name.removeprefix("curve_"): name for name in run if name.startswith("curve_")}
    rows = _rows(run, **names)
    return rows, len(rows), "finished", 10


def _witness(run: Row) -> tuple[list[Row], int, str, int]:
    known = ("train_loss", "train_acc", "val_loss", "val_acc", "val_acc_ema", "lr", "grad_norm_max")
    rows = _rows(run, **{name: f"curve_{name}" for name in known})
    return rows, run["epochs"], "diverged" if run["diverged"] else "finished", 16


def alexnet(run: Row) -> tuple[list[Row], int, str, int]:
    """Read a run of opda's; its learning rate rises in a line to its peak epoch and falls in one to the end."""
    peak, epochs = run["lr_peak_epoch"], run["epochs"]
    rows = _rows(run, train_loss="curve_train_loss", val_acc="curve_top_1")
    for i, row in enumerate(rows, 1):
        row["lr"] = run["lr"] * (i / peak if i <= peak else (epochs - i) / (epochs - peak))
    return rows, epochs, "diverged" if run["nan_train_loss"] else "finished", 1000


def _lenet(run: Row) -> tuple[list[Row], int, str, int]:
    rows = _rows(
        run, train_loss="curve_loss", train_acc="curve_acc", val_loss="curve_val_loss", val_acc="curve_val_acc"
    )
    return [{**row, "lr": 0.001} for row in rows], len(rows), "finished", 10
