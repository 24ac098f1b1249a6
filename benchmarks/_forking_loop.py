"""The loop `forking`, which sleeps: trials share their epochs up to the last quarter of the shorter one.

Each epoch is noted in the folder that $FORKING_LOG names, a line in a file a process: when it began and ended.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from _noop_loop import weights

import raysweep
from raysweep.loops import Course, Loop

EPOCH_S = float(os.environ.get("FORKING_EPOCH_S", "0.25"))


class Config(raysweep.Config):
    lr: float = 0.1


@raysweep.register_loop("forking")
class Forking(Loop):
    name, config, metrics = "forking", Config, {"val_acc": "max"}  # type: ignore[assignment]

    def course(self, config: Any) -> Course:
        fork = config.epochs - config.epochs // 4
        return Course(str(config.lr), [""] * fork + [f"{config.epochs}"] * (config.epochs - fork))

    def train(self, config: Any, trial: raysweep.TrialContext) -> Iterator[raysweep.Epoch]:
        log = Path(os.environ["FORKING_LOG"]) / str(os.getpid())
        course = self.course(config)
        for epoch in range(trial.epoch + 1, config.epochs + 1):
            began = time.time()
            time.sleep(EPOCH_S)
            acc = random.Random(f"{config.lr}/{trial.seed}/{course.each[epoch - 1]}/{epoch}").random()
            with log.open("a") as file:
                print(began, time.time(), file=file)
            metrics = {"train_loss": 1.0, "val_loss": 1.0, "val_acc": acc, "seconds": EPOCH_S}
            yield raysweep.Epoch(metrics, state=dict, weights=weights)
