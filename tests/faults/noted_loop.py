"""The loop of `noop_loop`, slower, whose processes note their ids in the folder `pids`, by which tests kill them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from noop_loop import Config, train

import raysweep

NOTES = Path(__file__).parent / "pids"


@raysweep.register_loop("noted", config=Config, metrics={"val_acc": "max"})
def noted(config: Config, trial: raysweep.TrialContext) -> Iterator[raysweep.Epoch]:
    """Yield the epochs of a trial."""
    (NOTES / str(os.getpid())).touch()
    for epoch in train(config, trial):
        time.sleep(0.05)
        yield epoch
