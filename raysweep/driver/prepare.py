"""The data sets of a run, each prepared once, where trials run, and put into Ray's object store."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from raysweep.cluster.slots import Slot, wait_for
from raysweep.errors import UserError
from raysweep.vision.config import TrialConfig
from raysweep.worker.tasks import data_variables, prepare


@dataclass(frozen=True)
class Prepared:
    """What trials are given, and what their numbers will depend on."""

    references: dict[str, Any]
    """Object reference of the arrays, by data config as JSON."""
    conditions: dict[str, dict[str, Any]]
    """By trial id."""


def prepare_data(
    configs: Mapping[str, TrialConfig],
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
    wanted = {config.data.model_dump_json(): config.data for config in configs.values()}
    task: Any = ray.remote(num_cpus=slot.cpus, num_gpus=slot.gpus, num_returns=2)(prepare)
    references: dict[str, Any] = {}
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for key, data in wanted.items():
        samples = [config for config in configs.values() if config.data == data]
        references[key], of_precisions = task.remote(
            data, str(sweep_folder), imports, samples, slot.workers, slot.threads, data_variables()
        )
        with step(f"preparing {data.name}"):
            if not wait_for(of_precisions, slot, say, is_stopped):
                return None
        found[key] = _get(of_precisions)
    of_trials = {id: found[config.data.model_dump_json()][config.precision] for id, config in configs.items()}
    return Prepared(references, of_trials)


def _get(reference: Any) -> Any:
    """`ray.get`, with the user's errors raised as they were, without the remote traceback."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from None
        raise
