"""raysweep: one sweep file and one command train a grid of image classifiers.

From Python: `run(path)` runs a sweep, `open(path)` reads a run folder, `load_model(folder)` loads a pulled checkpoint.
A module named with `--import` brings networks, data sources and augmentations of your own through `register_model`,
`register_data` and `register_augmentation`.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

from raysweep.registry import register_augmentation, register_data, register_model

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from raysweep.results.run import SweepResult

__all__ = ["load_model", "open", "register_augmentation", "register_data", "register_model", "run"]
__version__ = version("raysweep")


def run(path: str | Path, **overrides: object) -> SweepResult:
    """Run a sweep, or go on with it, and return its results; `overrides` patch the file (`epochs=2`).

    Raises:
        UserError: something about the input is wrong; nothing was begun.
        Interrupted: the user stopped it; the state is safe.
    """
    from raysweep.driver import run_and_read

    return run_and_read(str(path), [f"{key}={value}" for key, value in overrides.items()])


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
