"""Small trials for benchmarks/probe.py, with a fault put into one epoch or with none, and their futures.

A trial is drawn from a number: data, network, optimizer, lengths, the fault, its epoch and its strength. The faults:

* exploding_gradients  the loss of one batch is 30 to 300 times as large, in this order of batches or in any
* high_lr              the schedule has a spike in one epoch: 8 to 40 times the learning rate
* batch_norm           from some step of the epoch on, running statistics stay at wrong values, in any order or this one
* batches              a stretch of this order's batches has random labels
* healthy              nothing is wrong; looked at is the deepest fall of validation accuracy
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from raysweep.diagnose import Finding, diagnose
from raysweep.diagnose.probe import Future, futures_of
from raysweep.errors import Diverged
from raysweep.vision import loop
from raysweep.vision.config import DataConfig, TrialConfig
from raysweep.vision.data import DataSet, open_data
from raysweep.vision.names import SCHEDULES
from raysweep.vision.randomness import generator

KINDS = ("exploding_gradients", "high_lr", "batch_norm", "batches", "healthy")
LEAST_FALL = 0.02
"""Of validation accuracy: a healthy trial's fall that is looked at, as of a dip."""
AFTER = 4
"""Epochs that are trained after the one with the fault, so that the diagnosis sees how it goes on."""


@dataclass(frozen=True)
class Fault:
    """What is wrong in one epoch."""

    kind: str  # one of KINDS
    epoch: int = 0  # counted from 1; 0: none
    first: float = 0.0  # the share of the epoch's steps after which it begins
    last: float = 1.0  # ... and ends
    strength: float = 1.0
    in_any_order: bool = True  # whether other orders of batches meet it too


@dataclass(frozen=True)
class Drawn:
    """A trial to train."""

    number: int
    config: TrialConfig
    seed: int
    fault: Fault


class Faulty(loop._Training):
    """A trial in training, with a fault."""

    fault = Fault("healthy")
    of_seed = 0
    _is_poisoned = False

    def _step(self, epoch: int, step: int, batch: Any, labels: torch.Tensor) -> Any:
        fault, steps = self.fault, math.ceil(self.train_images / self.config.batch_size)
        first, last = int(fault.first * steps), max(int(fault.first * steps) + 1, int(fault.last * steps))
        is_meant = fault.in_any_order or self.seed == self.of_seed
        kind = fault.kind if epoch + 1 == fault.epoch and first <= step < last and is_meant else ""
        if kind == "batches":
            drawn_from = generator("cpu", "fault", self.seed, epoch, step)
            labels = torch.randint(0, self.num_classes, labels.shape, generator=drawn_from)
        self._is_poisoned = kind == "exploding_gradients" and step == first
        outcome = super()._step(epoch, step, batch, labels)
        if kind == "batch_norm":
            self._spoil_statistics()
        return outcome

    def _loss(self, logits: torch.Tensor, labels: torch.Tensor, count: int) -> torch.Tensor:
        loss = super()._loss(logits, labels, count)
        return loss * self.fault.strength if self._is_poisoned else loss

    def _spoil_statistics(self) -> None:
        drawn_from = generator("cpu", "wrong statistics")
        for norm in self.model.modules():
            if isinstance(norm, _BatchNorm):
                shift = torch.randn(norm.num_features, generator=drawn_from) * self.fault.strength
                norm.running_mean.copy_(shift * norm.running_var.sqrt().mean())
                norm.running_var.copy_(norm.running_var.mean() * shift.exp())


def spiked(epoch: float, epochs: float, at: int, factor: float) -> float:
    """A cosine whose epoch `at`, counted from 1, has a larger rate."""
    return (1 + math.cos(math.pi * epoch / epochs)) / 2 * (factor if at - 1 <= epoch < at else 1.0)


def draw(number: int, kind: str) -> Drawn:
    """Draw a trial by its number: equal numbers are equal trials."""
    draws = np.random.default_rng([number, KINDS.index(kind)])
    epochs = int(draws.integers(12, 21))
    at, first = int(draws.integers(5, epochs - 2)), float(draws.uniform(0.2, 0.8))
    is_deep, is_digits = bool(draws.random() < 0.1), bool(draws.random() < 0.5)
    schedules = ("constant", "cosine", {"name": "step", "milestones": [epochs // 2, epochs * 3 // 4]})
    highest = 0.1 if kind == "high_lr" else 0.2 if is_deep else 0.5
    config = {
        "data": {"name": "digits", "per_class": int(draws.choice([40, 60, 80]))}
        if is_digits
        else {
            "name": "synthetic",
            "image_size": 8,
            "per_class": int(draws.choice([40, 60])),
            "seed": int(draws.integers(20)),
        },
        "model": {"name": "resnet18", "width": 4}
        if is_deep
        else {"name": "baseline_block", "width": int(draws.choice([4, 8, 16]))},
        "epochs": epochs,
        "batch_size": int(draws.choice([24, 32, 48])),
        "lr": float(np.exp(draws.uniform(math.log(0.01), math.log(highest)))),
        "lr_schedule": schedules[draws.integers(3)],
        "optimizer": {"name": "sgd", "weight_decay": float(draws.choice([0, 5e-4, 5e-3]))},
        "augment": str(draws.choice(["none", "shift"])),
        "label_smoothing": float(draws.choice([0, 0.1])),
        "ema": {} if draws.random() < 0.5 else False,
        "precision": "fp32",
    }
    poison, spike = np.exp(draws.uniform(np.log([30, 8]), np.log([300, 40])))
    fault = {
        "exploding_gradients": Fault(kind, at, first, strength=poison, in_any_order=bool(draws.random() < 0.3)),
        "high_lr": Fault(kind, at, strength=spike),
        "batch_norm": Fault(kind, at, first, 1.0, draws.uniform(0.5, 2.0), bool(draws.random() < 0.5)),
        "batches": Fault(kind, at, first - 0.2, draws.uniform(0.9, 1.0), in_any_order=False),
        "healthy": Fault(kind),
    }[kind]
    if "spiked" not in SCHEDULES:
        SCHEDULES.register("spiked")(spiked)
    if kind == "high_lr":
        config["lr_schedule"] = {"name": "spiked", "options": {"at": at, "factor": float(spike)}}
    return Drawn(number, TrialConfig.model_validate(config), int(draws.integers(1000)), fault)


@lru_cache(maxsize=64)
def _images(data: str) -> DataSet:
    return open_data(DataConfig.model_validate_json(data), sweep_folder=Path.cwd())


def train(
    drawn: Drawn,
    changes: Mapping[str, Any],
    seed: int,
    state: bytes | None,
    epochs: int,
) -> tuple[list[dict[str, float]], list[bytes], bool]:
    """Train so many epochs; return their rows, the states after them, and whether the loss became infinite."""
    Faulty.fault, Faulty.of_seed = drawn.fault, drawn.seed
    config = TrialConfig.model_validate({**drawn.config.model_dump(), **changes})
    begun = torch.load(io.BytesIO(state), weights_only=True) if state else None
    rows: list[dict[str, float]] = []
    states = []
    with patch.object(loop, "_Training", Faulty):
        images = _images(config.data.model_dump_json())
        running = loop.train(config, images, seed=seed, device="cpu", state=begun)
        try:
            for epoch in running:
                rows.append({"epoch": epoch.number, **epoch.metrics})
                file = io.BytesIO()
                torch.save(epoch.state(), file)
                states.append(file.getvalue())
                if len(rows) == epochs:
                    break
        except Diverged:
            return rows, states, True
        finally:
            running.close()
    return rows, states, False


def finding_of(drawn: Drawn, rows: Sequence[Mapping[str, float]]) -> tuple[int, Finding | None] | None:
    """Return the epoch to probe, and what the diagnosis finds there; None if there is nothing to probe.

    A fault counts where the diagnosis sees a dip or a divergence begin in its epoch, as whoever probes would see it.
    """
    diagnosis = diagnose(rows, drawn.config.epochs, classes=10)
    found = {one.first: one for one in (*diagnosis.of("divergence"), *diagnosis.of("dip"))}
    if drawn.fault.epoch:
        return (drawn.fault.epoch, found[drawn.fault.epoch]) if drawn.fault.epoch in found else None
    accuracies = [row["val_acc"] for row in rows]
    places = range(4, len(rows) - 1)
    falls = {place + 1: float(np.median(accuracies[place - 3 : place])) - accuracies[place] for place in places}
    deepest = max(falls, key=lambda epoch: falls[epoch])
    return (deepest, found.get(deepest)) if falls[deepest] >= LEAST_FALL else None


def probed(task: tuple[str, int]) -> dict[str, Any]:
    """Train one trial, and its futures if there is something to probe; return all rows, as JSON takes them."""
    torch.set_num_threads(1)
    kind, number = task
    drawn = draw(number, kind)
    rows, states, diverged = train(
        drawn, {}, drawn.seed, None, drawn.fault.epoch + AFTER if drawn.fault.epoch else drawn.config.epochs
    )
    found = None if diverged else finding_of(drawn, rows)
    told = {"kind": kind, "number": number, "seed": drawn.seed, "fault": asdict(drawn.fault)}
    told |= {"config": drawn.config.model_dump(), "rows": rows, "epoch": None}
    if found is None:
        return {**told, "rows": []}
    epoch, finding = found
    futures = []
    for future in futures_of(drawn.config.model_dump(), drawn.seed, epoch, rows):
        of_future, _, is_lost = train(drawn, future.changes, future.seed, states[epoch - 2], future.epochs)
        futures.append(replace(future, rows=of_future, diverged=is_lost))
    causes = list(finding.causes) if finding else []
    kinds = finding.kind if finding else ""
    return {**told, "epoch": epoch, "finding": kinds, "causes": causes, "futures": [asdict(each) for each in futures]}


def futures_in(told: Mapping[str, Any]) -> list[Future]:
    """Return the futures of what `probed` returned."""
    return [Future(**each) for each in told["futures"]]
