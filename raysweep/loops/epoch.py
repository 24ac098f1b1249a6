"""What a loop is told of its trial, and what it yields. No torch, no Ray."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raysweep.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Epoch:
    """One epoch's outcome; or, without metrics, a place inside one, where `TrialContext.should_save` said so.

    What is a function is called before the loop goes on, and only if the result is wanted.
    """

    metrics: Mapping[str, float] = field(default_factory=dict)
    """What was measured of the epoch, by any names."""
    state: Callable[[], Mapping[str, Any]] | None = None
    """Returns what `TrialContext.state` is to be when the trial goes on from here: tensors, numbers, texts, lists and
    dicts. Without it a trial that is interrupted begins anew."""
    weights: Callable[[], Mapping[str, Tensor]] | None = None
    """Returns the weights by name, which are kept of the best epoch; they may be the network's own, since they are
    copied."""
    ema_weights: Callable[[], Mapping[str, Tensor]] | None = None
    """Returns the averaged weights, whose metrics end in `_ema`."""
    correct: Callable[[], Tensor] | None = None
    """Returns of each validation example whether the weights got it right: bool, always in the same order."""
    ema_correct: Callable[[], Tensor] | None = None
    """Returns the same of the averaged weights."""
    checkpoint: Path | None = None
    """A folder that is committed whole, `state` with it; of the best epoch it is kept in place of `weights`."""

    def __post_init__(self) -> None:
        """Refuse values in place of functions, at once and not where they are wanted for the first time."""
        for name in ("state", "weights", "ema_weights", "correct", "ema_correct"):
            given = getattr(self, name)
            if given is not None and not callable(given):
                kind = type(given).__name__
                raise UserError(f"Epoch({name}=...): got a {kind}; it must be a function: {name}=lambda: ...")


def _never() -> bool:
    return False


@dataclass
class TrialContext:
    """What a loop is told of the trial that it trains, beside the trial's config."""

    seed: int = 0
    epoch: int = 0
    """Epochs that are done: the loop goes on after them."""
    saved: Mapping[str, Any] | None = None
    """What `state` returns."""
    checkpoint: Path | None = None
    """The folder that the trial goes on from, if its loop commits folders."""
    device: str = "cpu"
    """`cuda` or `cpu`."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """What the loop's `prepare` returned: arrays that may not be written to."""
    conditions: Mapping[str, Any] = field(default_factory=dict)
    """What the trial's numbers depend on beside its config."""
    rank: int = 0
    """This worker's, where several train the trial together."""
    world_size: int = 1
    """How many workers train the trial."""
    should_stop: Callable[[], bool] = _never
    """Whether the run is to stop; cheap enough to be asked before every step. A loop that never asks is stopped at the
    end of its epoch. Where several workers train the trial, all must ask alike; they get the first one's answer."""
    is_led_again: bool = field(default=False, init=False)
    """Whether a Ray Train function has begun anew, and is led through epochs that are done."""
    should_save: Callable[[], bool] = _never
    """Whether a loop that can go on from inside an epoch is to yield an `Epoch` without metrics now."""
    gpu_share: float = 1.0
    """The share of its GPU that this process may take."""
    from_another: bool = False
    """Whether the state is of the last epoch that the sweep's `start` takes over, and so may be of other settings."""

    @property
    def state(self) -> Mapping[str, Any] | None:
        """What the last `Epoch.state` returned; None where the trial begins.

        Whoever reads it also sets torch's, numpy's and Python's generators to where they were at the beginning of the
        next epoch. So read it once the network is made, and a loop that saves its network and optimizer resumes
        exactly.
        """
        seed_generators(self.seed, self.epoch)
        return self.saved


def seed_generators(seed: int, epochs_done: int) -> None:
    """Seed torch's, numpy's and Python's global generators for the epoch after so many, in any process alike.

    Only libraries that are loaded are seeded: a process that trains has loaded torch and numpy.
    """
    drawn = random.Random(f"{seed}/{epochs_done}").getrandbits(32)
    random.seed(drawn)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(drawn)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(drawn)
