"""Real curves that were labelled by hand, and how well `diagnose` agrees with the labels.

The labels are in `benchmarks/diagnosis_labels.csv`, a row a trial; docs/diagnosis.md has the criteria.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from sklearn.metrics import cohen_kappa_score

from raysweep.diagnose import Diagnosis, diagnose

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


@dataclass(frozen=True)
class Labelled:
    """A trial with what a reader of its curves said about each kind of finding."""

    number: int
    trial: RealTrial
    labels: Mapping[str, bool | None]  # by kind; None where the reader could not tell

    @property
    def part(self) -> str:
        """`mended`: rules were mended by it. `held_out`: none was. `falls`: drawn for its falls, after the mending."""
        return "falls" if self.number > 80 else "held_out" if self.number % 2 == 0 else "mended"


@dataclass(frozen=True)
class Agreement:
    """How the diagnosis of some trials compares with the reader's labels of one kind."""

    yes: int  # trials with the finding, by the reader
    no: int  # without
    missed: int  # those of `yes` in which it is not found
    wrong: int  # those of `no` in which it is found
    unclear: int  # trials of which the reader could not tell; they count in nothing but the next
    unclear_found: int
    kappa: float  # Cohen's; NaN where the reader never said yes, or never no

    @property
    def share(self) -> float:
        """The share of trials, of those that the reader could tell, in which both say the same."""
        return 1 - (self.missed + self.wrong) / (self.yes + self.no)


def labelled_trials(shared: Path | None) -> list[Labelled]:
    """Return the labelled trials; without the folder of shared data only those whose curves are in the repository."""
    trials = real_trials(shared)
    with LABELS.open() as lines:
        return [_labelled(line, trials) for line in csv.DictReader(lines) if line["source"] in trials]


def _labelled(line: Mapping[str, str], trials: Mapping[str, list[RealTrial]]) -> Labelled:
    trial = trials[line["source"]][int(line["row"])]
    trial = trial.cut(int(line["cut"])) if line["cut"] else trial
    labels = {kind: {"yes": True, "no": False}.get(line[kind]) for kind in KINDS if line[kind]}
    return Labelled(int(line["number"]), trial, labels)


def read_real(trial: RealTrial) -> Diagnosis:
    """Diagnose a trial."""
    return diagnose(trial.rows, trial.epochs, trial.status, classes=trial.classes)


def agreement(pairs: Iterable[tuple[bool | None, bool]]) -> Agreement:
    """Compare labels of one kind with what was found."""
    pairs = list(pairs)
    told = [(label, found) for label, found in pairs if label is not None]
    labels = [label for label, _ in told]
    unclear = [found for label, found in pairs if label is None]
    return Agreement(
        yes=sum(labels),
        no=len(labels) - sum(labels),
        missed=sum(label and not found for label, found in told),
        wrong=sum(found and not label for label, found in told),
        unclear=len(unclear),
        unclear_found=sum(unclear),
        kappa=float(cohen_kappa_score(labels, [found for _, found in told])) if len(set(labels)) == 2 else float("nan"),
    )


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
