"""A loop that sleeps through its epochs; importing this puts it in the place of `raysweep.vision.loop.train`.

Each trial notes when its loop began and ended in the folder that $SLEEPING_LOG names.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from _noop_loop import NoEpoch

from raysweep.errors import Interrupted
from raysweep.loops import loop

EPOCH_S = float(os.environ["SLEEPING_EPOCH_S"])


def train(
    config: Any,
    data: Any,
    conditions: Any,
    *,
    seed: int,
    state: Mapping[str, Any] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    device: str = "auto",
) -> Iterator[NoEpoch]:
    began = time.time()
    for epoch in range((state or {"epoch": 0})["epoch"] + 1, config.epochs + 1):
        end = time.monotonic() + EPOCH_S
        while (left := end - time.monotonic()) > 0:
            if should_stop():
                raise Interrupted("told to stop")
            time.sleep(min(left, 0.5))
        acc = random.Random(f"{config.lr}/{seed}/{epoch}").random()
        if epoch == config.epochs:
            note = Path(os.environ["SLEEPING_LOG"]) / f"{os.getpid()}-{time.time_ns()}.json"
            note.write_text(json.dumps({"began": began, "ended": time.time()}))
        metrics = {"train_loss": 1.0, "val_loss": 1.0, "val_acc": acc, "val_acc_ema": acc, "seconds": EPOCH_S}
        yield NoEpoch(epoch, metrics)


loop().train = train  # type: ignore[method-assign]
