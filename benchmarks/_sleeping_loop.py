"""The loop `sleeping`, which sleeps through its epochs.

Each trial notes when its loop began and ended in the folder that $SLEEPING_LOG names.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

from _noop_loop import Config, metrics_of, weights

import raysweep

EPOCH_S = float(os.environ["SLEEPING_EPOCH_S"])


@raysweep.register_loop("sleeping", config=Config, metrics={"val_acc": "max"})
def train(config: Config, trial: raysweep.TrialContext) -> Iterator[raysweep.Epoch]:
    began = time.time()
    for epoch in range(trial.epoch + 1, config.epochs + 1):
        end = time.monotonic() + EPOCH_S
        while (left := end - time.monotonic()) > 0:
            if trial.should_stop():
                raise raysweep.Interrupted("told to stop")
            time.sleep(min(left, 0.5))
        if epoch == config.epochs:
            note = Path(os.environ["SLEEPING_LOG"]) / f"{os.getpid()}-{time.time_ns()}.json"
            note.write_text(json.dumps({"began": began, "ended": time.time()}))
        yield raysweep.Epoch(metrics_of(config, trial.seed, epoch), state=dict, weights=weights)
