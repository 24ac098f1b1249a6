"""Synthetic learning curves with known faults, and how well `diagnose` finds them.

`python tests/faulty_curves.py` prints the table of docs/diagnosis.md.
"""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np

from raysweep.diagnose import Diagnosis, diagnose

NOISES = (0.002, 0.005, 0.01, 0.02)
FAULTS = ("none", "dip", "decline", "plateau", "underfitting", "divergence", "nan")
CAUSES = ("exploding_gradients", "rising_lr", "validation_only", None)
PER_FAULT = 40
CLASSES = 20


@dataclass(frozen=True)
class Faulty:
    """A curve, and what a careful reader of it without its noise would say."""

    rows: list[dict[str, float]]
    fault: str
    noise: float
    kinds: frozenset[str]
    status: str
    epoch: int = 0
    """The epoch in which the dip or the divergence begins."""
    cause: str | None = None


def faulty_curve(fault: str, noise: float, rng: np.random.Generator, cause: str | None = None) -> Faulty:
    """Draw a curve of 30 to 100 epochs under a cosine schedule, with one fault or none."""
    epochs = int(rng.integers(30, 101))
    progress = np.arange(1, epochs + 1) / epochs
    lr = 0.1 * (1 + np.cos(np.pi * (progress - 1 / epochs))) / 2
    top = rng.uniform(0.6, 0.85)
    clean_val = 0.05 + (top - 0.05) * (0.55 * (1 - np.exp(-progress * 9)) + 0.45 * progress)
    clean_train = clean_val + rng.uniform(-0.02, 0.08) * progress
    norms = rng.uniform(1, 3) * np.exp(rng.normal(0, 0.1, epochs))
    kinds, epoch, status, jumps = set(), 0, "finished", np.zeros(epochs)
    if fault == "dip":
        length = int(rng.integers(1, 5))
        place = int(rng.integers(epochs // 4, epochs - length - 3))
        epoch = place + 1
        depth = max(rng.uniform(0.05, 0.3), 8 * noise)
        clean_val[place : place + length] -= depth * rng.uniform(0.7, 1, length)
        if cause == "exploding_gradients":
            norms[place] *= rng.uniform(8, 50)
        if cause == "rising_lr":
            lr[place - 3 : place + 1] = lr[place - 3] * np.array([1, 1.4, 2, 2.8])
        if cause != "validation_only":
            jumps[place : place + length] = rng.uniform(0.4, 1.0)
        kinds.add("dip")
    elif fault == "decline":  # overfitting: training goes on to fit, validation slowly falls from its peak
        peak = int(epochs * rng.uniform(0.25, 0.5))
        clean_train = 1 - (1 - clean_train) * np.exp(-4 * np.maximum(0, np.arange(epochs) - peak) / (epochs - peak))
        clean_val[peak:] = clean_val[peak] - np.linspace(0, rng.uniform(0.03, 0.08), epochs - peak)
        kinds.add("overfitting")
    elif fault == "plateau":
        start = int(epochs * rng.uniform(0.3, 0.5))
        clean_val[start:] = clean_val[start]
        clean_train[start:] = clean_train[start]
        lr[:] = 0.1
        kinds.add("plateau")
    elif fault == "underfitting":
        scale = rng.uniform(0.25, 0.45) / clean_train[-1]
        clean_train, clean_val = clean_train * scale, clean_val * scale
        clean_val = np.maximum(clean_val, clean_train - 0.02)
    if clean_train[-1] < 0.5 and clean_train[-1] - clean_val[-1] <= 0.05:
        kinds.add("underfitting")
    train_loss = -np.log(np.clip(clean_train, 1e-3, 1)) * 1.2 + 0.05
    val_loss = -np.log(np.clip(clean_val, 1e-3, 1)) * 1.2 + 0.05
    if fault == "decline":
        val_loss[peak:] += np.linspace(0, rng.uniform(0.3, 1), epochs - peak)
    if fault == "divergence":
        place = int(rng.integers(epochs // 5, epochs - 6))
        epoch = place + 1
        train_loss[place:] = math.log(CLASSES) + rng.uniform(-0.1, 0.6)
        val_loss[place:] = math.log(CLASSES) * 1.1
        clean_train[place:] = clean_val[place:] = 1 / CLASSES
        norms[place] *= 30
        kinds.add("divergence")
    if fault == "nan":
        cut = int(rng.integers(0, epochs))
        epoch, status = cut + 1, "diverged"
        kinds.add("divergence")
        progress = progress[:cut]
    count = len(progress)
    noisy = {
        "val_acc": clean_val + rng.normal(0, noise, epochs),
        "train_acc": clean_train + rng.normal(0, noise / 3, epochs),
        "train_loss": (train_loss + jumps) * np.exp(rng.normal(0, noise, epochs)),
        "val_loss": val_loss * np.exp(rng.normal(0, 2 * noise, epochs)),
        "lr": lr,
        "grad_norm_max": norms,
    }
    for name in ("val_acc", "train_acc"):
        noisy[name] = np.clip(noisy[name], 0, 1)
    rows = [{"epoch": i + 1, **{name: float(values[i]) for name, values in noisy.items()}} for i in range(count)]
    return Faulty(rows, fault, noise, frozenset(kinds), status, epoch, cause)


def all_curves(seed: int = 0) -> list[Faulty]:
    """Draw every fault at every noise, `PER_FAULT` times; dips have each cause in turn."""
    rng = np.random.default_rng(seed)
    return [
        faulty_curve(fault, noise, rng, CAUSES[i % len(CAUSES)] if fault == "dip" else None)
        for noise in NOISES
        for fault in FAULTS
        for i in range(PER_FAULT)
    ]


def read(curve: Faulty) -> Diagnosis:
    """Diagnose a curve."""
    epochs = len(curve.rows) if curve.status == "finished" else len(curve.rows) + 10
    return diagnose(curve.rows, epochs, curve.status, classes=CLASSES)


def precision_and_recall(curves: list[tuple[Faulty, Diagnosis]]) -> dict[tuple[str, float], dict[str, Any]]:
    """Return precision, recall, and the counts behind them, by kind and noise."""
    counts: dict[tuple[str, float], dict[str, int]] = defaultdict(lambda: {"true": 0, "found": 0, "right": 0})
    for curve, found in curves:
        for kind in ("dip", "overfitting", "plateau", "underfitting", "divergence"):
            if kind == "plateau" and curve.fault == "decline":
                continue  # around its peak it is flat and later sinks so slowly that either answer is right
            tally = counts[kind, curve.noise]
            tally["true"] += kind in curve.kinds
            tally["found"] += found.has(kind)  # type: ignore[arg-type]
            tally["right"] += kind in curve.kinds and found.has(kind)  # type: ignore[arg-type]
    return {
        key: {**n, "precision": n["right"] / max(1, n["found"]), "recall": n["right"] / max(1, n["true"])}
        for key, n in counts.items()
    }


def cut_findings(curves: list[Faulty], seed: int = 0, cuts: int = 5) -> dict[str, tuple[int, int]]:
    """Stop each curve after epochs drawn by lot, and compare with what the whole shows.

    Returns by fault how many findings there are, and how many of them the whole curve does not have.
    """
    rng = np.random.default_rng(seed)
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for curve in curves:
        whole = read(curve)
        for count in rng.integers(1, max(2, len(curve.rows)), cuts).tolist():
            said = diagnose(curve.rows[:count], len(curve.rows), "stopped", classes=CLASSES)
            tally = counts[curve.fault]
            tally[0] += len({finding.kind for finding in said.findings})
            tally[1] += len(taken_back(said, whole))
    return {fault: (tally[0], tally[1]) for fault, tally in counts.items()}


def taken_back(said: Diagnosis, whole: Diagnosis) -> set[str]:
    """Return the kinds found in the first epochs that the whole curve does not have; a dip may become divergence."""
    kinds = {finding.kind for finding in whole.findings}
    return {finding.kind for finding in said.findings} - (kinds | {"dip"} if "divergence" in kinds else kinds)


def causes_right(curves: list[tuple[Faulty, Diagnosis]]) -> dict[str, tuple[int, int]]:
    """Return by true cause how many dips that were found in their place were given it, and how many there are."""
    right: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for curve, found in curves:
        for dip in found.of("dip"):
            if curve.fault == "dip" and abs(dip.first - curve.epoch) <= 1:
                tally = right[curve.cause or "unexplained"]
                tally[0] += dip.causes[:1] == ((curve.cause,) if curve.cause else ())
                tally[1] += 1
    return {cause: (tally[0], tally[1]) for cause, tally in right.items()}


if __name__ == "__main__":
    curves = [(curve, read(curve)) for curve in all_curves(int(sys.argv[1]) if sys.argv[1:] else 1)]
    table = precision_and_recall(curves)
    print(f"{len(curves)} curves\n\n| finding | " + " | ".join(f"noise {noise}" for noise in NOISES) + " |")
    print("| --- |" + " --- |" * len(NOISES))
    for kind in ("dip", "overfitting", "plateau", "underfitting", "divergence"):
        cells = [table[kind, noise] for noise in NOISES]
        print(f"| {kind} | " + " | ".join(f"{c['precision']:.2f} / {c['recall']:.2f}" for c in cells) + " |")
    for cause, (right, total) in causes_right(curves).items():
        print(f"{cause}: {right} of {total}")
    for fault, (said, wrong) in cut_findings([curve for curve, _ in curves]).items():
        print(f"cut curves with {fault}: {said} findings, {wrong} of which the whole curve does not have")
