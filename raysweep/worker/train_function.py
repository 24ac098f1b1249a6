"""A Ray Train function as a loop: `host` runs one unchanged, and each of its reports is an epoch.

This is the one module that reaches into Ray Train. In local mode Ray keeps what a training function may ask for, its
report, its checkpoint and its context, in one object, a `LocalTrainFnUtils`. `host` puts `_Utils` in its place, and
tells Ray meanwhile that this is no Tune session, in which Ray refuses such calls. Where a version of Ray is made
otherwise, a `UserError` says so before the function starts.

On several ranks a report is a barrier, as with Ray: all wait for the first one's commit, and for Tune's decision.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.train
import torch
from ray.train import Checkpoint

from raysweep.errors import Interrupted, UserError
from raysweep.loops import Epoch, TrialContext, seed_generators
from raysweep.store.folders import files_in, pack, unpack
from raysweep.worker.generators import generator_states, restore_generators
from raysweep.worker.states import GENERATORS
from raysweep.worker.together import Together

_rays: Any = None
"""Ray's module that keeps the object in question."""
_tunes: Any = None
"""Ray's module that knows whether this is a Tune session."""
_Base: Any = object
with contextlib.suppress(ImportError, AttributeError):
    _tunes = importlib.import_module("ray.tune.trainable.trainable_fn_utils")
    _rays = importlib.import_module("ray.train.v2._internal.execution.train_fn_utils")
    _Base = _rays.LocalTrainFnUtils

COUNTED = "epoch"
"""A metric that Lightning and Hugging Face report: raysweep counts epochs itself, from 1."""

log = logging.getLogger(__name__)


def host(
    function: Callable[..., Any],
    arguments: Sequence[Any],
    trial: TrialContext,
    take: Callable[[Epoch], None],
    name: str = "raysweep",
) -> None:
    """Run a Ray Train function in this process, as one of the trial's ranks; call this in Ray Train's local mode.

    Its working directory is a temporary one, as under Ray, so that trials on a node do not meet there. A function that
    begins anew though the trial has epochs, since it never asks for its checkpoint, is led through them again: its
    reports are passed over up to the trial's epoch.

    Args:
        function: takes its config, or nothing.
        arguments: what it is called with.
        trial: `epoch`, `checkpoint` and `saved` are those to go on from.
        take: is given each epoch, on the first rank alone. What it raises ends the function, even where that catches
            all exceptions, and is raised here; the other ranks then end without an exception.
        name: what `get_experiment_name` returns. Lightning's callback deletes a folder of that name in the temporary
            directory, so it has to be the trial's own.

    Raises:
        UserError: this Ray is made otherwise, or the function asks for what a trial does not have.
        Exception: the function raised it.
    """
    _check_ray()
    seed_generators(trial.seed, 0)
    hosted = _Hosted(trial, take, name)
    with _in_place_of_rays(_Utils(hosted)), _own_surroundings():
        try:
            function(*arguments)
        except BaseException as error:
            if isinstance(error, SystemExit) and not hosted.ended:
                raise RuntimeError(f"the training function ended its process (SystemExit: {error})") from error
            if not hosted.ended:  # else it is `_End`, or what came of that
                raise
    if hosted.ended_by is not None:
        raise hosted.ended_by


class _End(SystemExit):
    """Ends the function: no `except Exception` keeps it from that."""


# ---------------------------------------------------------------------------------------------------------
# Ray's place for what a training function may ask for


def _check_ray() -> None:
    """Check that Ray is made as this module knows it.

    Raises:
        UserError: it is not.
    """
    asked = ("report", "get_checkpoint", "get_context", "get_dataset_shard", "barrier", "broadcast_from_rank_zero")
    missing = [f"LocalTrainFnUtils.{name}" for name in asked if not hasattr(_Base, name)]
    missing += [name for name in ("get_train_fn_utils", "set_train_fn_utils") if not hasattr(_rays, name)]
    missing += [name for name in ("_in_tune_session",) if not hasattr(_tunes, name)]
    if missing:
        raise _other_ray(f"it has no {', '.join(missing)}")


def _other_ray(why: str) -> UserError:
    return UserError(
        f"ray {ray.__version__} hosts training functions differently from the versions that raysweep supports ({why}): "
        "install ray 2.54 to 2.60, or write the loop as a generator of epochs (register_loop)"
    )


@contextlib.contextmanager
def _in_place_of_rays(utils: _Utils) -> Iterator[None]:
    """Let Ray Train's functions find `utils` inside the block, and put back what was there after.

    Raises:
        UserError: they do not find it.
    """
    before, in_tune_session = _rays.get_train_fn_utils(), _tunes._in_tune_session
    _rays.set_train_fn_utils(utils)
    _tunes._in_tune_session = lambda: False
    try:
        if _context_found() is not utils.get_context():
            raise _other_ray("ray.train.get_context() looks elsewhere")
        yield
    finally:
        _tunes._in_tune_session = in_tune_session
        _rays.set_train_fn_utils(before)


def _context_found() -> Any:
    try:
        return ray.train.get_context()
    except (RuntimeError, DeprecationWarning):
        return None


@contextlib.contextmanager
def _own_surroundings() -> Iterator[None]:
    """Give the block a working directory, and put back the environment after: Lightning leaves torchrun's variables."""
    directory, environment = os.getcwd(), dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="raysweep-trial-", ignore_cleanup_errors=True) as folder:
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(directory)
            for name in os.environ.keys() - environment.keys():
                del os.environ[name]
            os.environ.update(environment)


class _Utils(_Base):  # type: ignore[misc]
    """What Ray Train's functions ask, answered for a trial."""

    def __init__(self, hosted: _Hosted) -> None:
        trial = hosted.trial
        super().__init__(experiment_name=hosted.name, world_size=trial.world_size, world_rank=trial.rank)
        # raysweep shows each rank its own GPUs, as the only rank of its node.
        context: Any = self._context
        context.node_rank, context.get_storage = trial.rank, _no_storage
        self.hosted = hosted

    def report(
        self,
        metrics: Mapping[str, Any],
        checkpoint: Checkpoint | None = None,
        checkpoint_dir_name: str | None = None,
        checkpoint_upload_mode: Any = None,
        delete_local_checkpoint_after_upload: bool | None = None,
        checkpoint_upload_fn: Any = None,
        validation: Any = False,
        **others: Any,
    ) -> None:
        """Take a report as an epoch; where a checkpoint lies, and who uploads it, is the run folder's to say."""
        if validation:
            raise UserError("ray.train.report: a trial has no validation function; report what was validated")
        if checkpoint is None:
            return self.hosted.report(metrics, None)
        with checkpoint.as_directory() as folder:
            self.hosted.report(metrics, Path(folder))
        if delete_local_checkpoint_after_upload:
            _delete(checkpoint)
        return None

    def get_checkpoint(self) -> Checkpoint | None:
        """Return the checkpoint to go on from, or the one reported last, while its folder is there."""
        folder = self.hosted.checkpoint()
        return None if folder is None else Checkpoint.from_directory(str(folder))

    def get_dataset_shard(self, dataset_info: Any) -> Any:
        """Refuse: a trial is given no Ray data sets."""
        raise UserError(
            f"ray.train.get_dataset_shard({dataset_info.dataset_name!r}): a trial has no Ray data sets; read the data "
            "in the function, or let the loop's `prepare` return it"
        )

    def barrier(self) -> None:
        """Wait for the other ranks."""
        self.hosted.ranks.broadcast(None)

    def broadcast_from_rank_zero(self, data: Any) -> Any:
        """Return the first rank's data."""
        return self.hosted.ranks.broadcast(data)


def _no_storage() -> Any:
    raise UserError(
        "get_context().get_storage(): a trial's checkpoints lie in the run folder alone; report the folder itself"
    )


def _delete(checkpoint: Any) -> None:
    with contextlib.suppress(FileNotFoundError):
        checkpoint.filesystem.delete_dir(checkpoint.path)


# ---------------------------------------------------------------------------------------------------------
# The function's epochs


@dataclass
class _Hosted:
    """A training function on its way, as one of its trial's ranks."""

    trial: TrialContext
    take: Callable[[Epoch], None]
    name: str
    done: int = 0  # epochs reported, or gone on from
    ended_by: BaseException | None = None  # what `take` raised
    ended: bool = False  # whether the first rank has ended the function
    reported: Path | None = None  # the checkpoint reported last
    has_reported: bool = False
    told: set[str] = field(default_factory=set)  # the metrics that were dropped

    def __post_init__(self) -> None:
        self.ranks = Together(self.trial)

    def checkpoint(self) -> Path | None:
        """Return what `get_checkpoint` answers. The generators go on from where they were when it was reported.

        Raises:
            UserError: the folder that was reported is gone.
        """
        if self.has_reported:
            if self.reported is not None and not self.reported.is_dir():
                raise UserError(
                    f"ray.train.get_checkpoint(): {self.reported}, which was reported, is gone; to read a checkpoint "
                    "after its report, keep its folder until then"
                )
            return self.reported
        if self.trial.checkpoint is None:  # the function begins anew, and is led through the epochs that there are
            return None
        self.done, folder = self.trial.epoch, self.trial.checkpoint
        states = (self.trial.saved or {}).get(GENERATORS)
        if states:
            restore_generators(states[min(self.trial.rank, len(states) - 1)])
        return folder

    def report(self, metrics: Mapping[str, Any], folder: Path | None) -> None:
        """Take a report of all ranks; raise `_End` where the first rank ends the function."""
        if self.ended:
            raise _End
        self.has_reported, self.reported = True, folder or self.reported
        self.done += 1
        self.trial.is_led_again |= self.done <= self.trial.epoch
        is_new = self.done > self.trial.epoch
        with self._merged(folder) as whole:
            states = self.ranks.gather(generator_states())
            if self.trial.rank == 0:
                self._take(self._numbers(metrics), whole, states, is_new)
        self.ended = self.ranks.broadcast(self.ended_by is not None)
        if self.ended:
            raise _End

    def _take(self, metrics: dict[str, float], folder: Path | None, states: list[Any], is_new: bool) -> None:
        # Where folders are reported now and then, the trial goes on from the last of them, and not from here.
        goes_on = folder is not None or (self.reported is None and self.trial.checkpoint is None)
        state = (lambda: {GENERATORS: states}) if goes_on else None
        try:
            if is_new and not metrics:
                raise UserError(
                    f"ray.train.report: report {self.done} has no metric that is a number; measure before reporting"
                )
            if is_new:
                self.take(Epoch(metrics, state=state, checkpoint=folder))
            elif self.trial.should_stop():
                raise Interrupted("stopped on the way to the trial's last commit")
        except BaseException as error:
            self.ended_by = error

    def _numbers(self, metrics: Mapping[str, Any]) -> dict[str, float]:
        """Return the metrics that are numbers, as floats; say once of the others that they are left out."""
        numbers = {key: _number(value) for key, value in metrics.items() if key != COUNTED}
        dropped = {key for key, value in numbers.items() if value is None} - self.told
        if dropped:
            log.warning("not numbers, so left out of the metrics: %s", ", ".join(sorted(map(str, dropped))))
            self.told |= dropped
        return {str(key): value for key, value in numbers.items() if value is not None}

    @contextlib.contextmanager
    def _merged(self, folder: Path | None) -> Iterator[Path | None]:
        """Yield a folder with the files that any rank reports, on the first; of files of one name the lowest rank's.

        Others' files come through memory, and only where the ranks before have none of that name.
        """
        if self.ranks.size == 1:
            yield folder
            return
        names = self.ranks.gather_on_all(None if folder is None else set(files_in(folder)))
        before = set().union(*(each or set() for each in names[: self.trial.rank]))
        own = (names[self.trial.rank] or set()) - before if self.trial.rank else set()
        parts = self.ranks.gather(pack(folder, only=own) if folder and own else b"")
        if not any(parts):
            yield folder
            return
        with tempfile.TemporaryDirectory(prefix="raysweep-merged-") as place:
            for part in filter(None, [pack(folder) if folder else b"", *parts]):
                unpack(part, Path(place))
            yield Path(place)


def _number(value: Any) -> float | None:
    """Return a number, or a tensor or an array of one element, as a float; None for anything else."""
    if isinstance(value, (torch.Tensor, np.ndarray, np.generic)):
        value = value.item() if math.prod(value.shape) == 1 else None
    return float(value) if isinstance(value, (bool, int, float)) else None
