"""What a trial's numbers depend on beside its config, found out on a node where trials run. No Ray."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from raysweep.config import LoopConfig
from raysweep.registry import loop


def prepare_set(
    configs: Sequence[LoopConfig], sweep_folder: Path, workers: int
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Prepare the data set that configs share, and check that each can be trained on it.

    Args:
        configs: the distinct configs of the trials that use the set.
        sweep_folder: the folder from which relative paths start.
        workers: how many ranks train a trial.

    Returns:
        The arrays, and the conditions of each config.

    Raises:
        DataError: the data set cannot be read as asked.
        UserError: a config cannot be trained on it.
    """
    arrays = loop().prepare(configs, sweep_folder)
    return arrays, [conditions(config, arrays, workers) for config in configs]


def conditions(config: LoopConfig, arrays: dict[str, Any], workers: int) -> dict[str, Any]:
    """Return a trial's conditions; `driver.conditions` knows which of them must stay the same on a rerun."""
    versions = {"raysweep": version("raysweep"), "torch": version("torch").split("+")[0]}
    return {"workers": workers, **loop().conditions(config, arrays), "versions": versions}
