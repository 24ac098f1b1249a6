"""raysweep: one sweep file and one command train a grid of experiments.

From Python: `run(sweep)` runs a sweep, given as a file or as a dict; `open(path)` reads a run folder;
`load_model(folder)` loads a pulled checkpoint. A module named with `--import`, or in `imports`, brings what is your
own: a training loop through `register_loop` (docs/loops.md); or, for the built-in loop, which trains image
classifiers: networks, data sources, augmentations, losses, metrics, optimizers and schedules, through `register_model`
and so on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from raysweep.config import LoopConfig as Config
from raysweep.config import Section
from raysweep.errors import Diverged, Interrupted
from raysweep.loops import Epoch, TrialContext, register_loop
from raysweep.registry import (
    register_augmentation,
    register_data,
    register_loss,
    register_metric,
    register_model,
    register_optimizer,
    register_schedule,
)

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from raysweep.results.run import SweepResult

__all__ = [
    "Config",
    "Diverged",
    "Epoch",
    "Interrupted",
    "Section",
    "TrialContext",
    "load_model",
    "open",
    "register_augmentation",
    "register_data",
    "register_loop",
    "register_loss",
    "register_metric",
    "register_model",
    "register_optimizer",
    "register_schedule",
    "run",
]
__version__ = version("raysweep")


def run(
    sweep: str | Path | Mapping[str, Any],
    *,
    storage: str | Path | None = None,
    imports: Sequence[str] = (),
    fresh: bool = False,
    **overrides: object,
) -> SweepResult:
    """Run a sweep, or go on with it, and return its results.

    Args:
        sweep: a sweep file, or what one would hold as a dict.
        storage: where run folders lie, a path or a URI; default: $RAYSWEEP_STORAGE, else what the sweep says.
        imports: modules that register networks, data or augmentations of your own, by name.
        fresh: move an old run folder aside and start anew.
        overrides: patch the sweep: `epochs=2`; dotted keys as `**{"model.width": 8}`.

    Raises:
        UserError: something about the input is wrong; nothing was begun.
        Interrupted: the user stopped it; the state is safe.
    """
    from raysweep.driver import run_and_read

    words = [
        f"{key}={value if isinstance(value, str) else json.dumps(value, default=str)}"
        for key, value in overrides.items()
    ]
    place = None if storage is None else str(storage)
    given = sweep if isinstance(sweep, Mapping) else str(sweep)
    return run_and_read(given, words, storage=place, imports=imports, fresh=fresh)


def open(path: str | Path) -> SweepResult:
    """Read a run folder, a local path or a URI; it may still be running elsewhere.

    Raises:
        StorageError: it is not a run folder.
    """
    from raysweep.results.run import open_run

    return open_run(str(path))


def load_model(folder: str | Path) -> nn.Module:
    """Load the network of a folder that `raysweep pull` made, in evaluation mode; no Ray is needed.

    Raises:
        StorageError: the folder is not a whole pulled checkpoint.
    """
    from raysweep.results.checkpoint import load_model as load

    return load(folder)
