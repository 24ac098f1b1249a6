"""The data sets of a run, each prepared once, where trials run, and put into Ray's object store."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from raysweep.cluster.slots import Slot, wait_for
from raysweep.config import LoopConfig
from raysweep.errors import UserError
from raysweep.worker.tasks import data_variables, prepare


@dataclass(frozen=True)
class Prepared:
    """What trials are given, and what their numbers will depend on."""

    references: dict[str, Any]
    """Object reference of the arrays, by `LoopConfig.data_key`."""
    conditions: dict[str, dict[str, Any]]
    """By trial id."""


def prepare_data(
    configs: Mapping[str, LoopConfig],
    sweep_folder: Path,
    imports: tuple[str, ...],
    slot: Slot,
    say: Callable[[str], None],
    step: Callable[[str], AbstractContextManager[None]],
    is_stopped: Callable[[], bool],
) -> Prepared | None:
    """Prepare each data set once, on a trial's slot, and check that the networks can be built for it.

    Args:
        configs: of the trials, by id.
        sweep_folder: which relative paths start from.
        imports: the user's modules.
        slot: a trial's.
        say: is told what is waited for.
        step: shows that a data set is being prepared, for as long as it takes.
        is_stopped: whether the run is to end.

    Returns:
        None if `is_stopped` came true first.

    Raises:
        DataError: a data set cannot be read as asked.
        UserError: a network cannot be built, or not for these images.
    """
    sharing: dict[str, dict[str, LoopConfig]] = {}
    for id, config in configs.items():
        sharing.setdefault(config.data_key(), {})[id] = config
    task: Any = ray.remote(num_cpus=slot.cpus, num_gpus=slot.gpus, num_returns=2)(prepare)
    prepared = Prepared({}, {})
    for key, of_trials in sharing.items():
        alike = list(of_trials.values())
        prepared.references[key], found = task.remote(
            alike, str(sweep_folder), imports, slot.workers, slot.threads, data_variables()
        )
        with step(f"preparing {alike[0].data_name()}"):
            if not wait_for(found, slot, say, is_stopped):
                return None
        prepared.conditions.update(zip(of_trials, _get(found), strict=True))
    return prepared


def _get(reference: Any) -> Any:
    """`ray.get`, with the user's errors raised as they were, without the remote traceback."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from None
        raise
