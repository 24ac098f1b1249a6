"""Which cause a dip, a divergence or a plateau has: told by training the epochs again in several futures.

In: the rows of a trial, and those of its futures, which all begin from its state before epoch K (`raysweep probe`).
Out: a verdict in numbers and words. No training happens here.

* futures_of   what to train: the control, and the futures in which one supposed cause is taken away
* judge        their rows in, a `Verdict` out

The method is in docs/probe.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Row = Mapping[str, float]
Phenomenon = Literal["dip", "divergence", "plateau"]
Outcome = Literal["named", "chance", "unexplained", "cannot_judge"]

FUTURES = {
    "control": "as it was",
    "clipped": "gradients clipped",
    "smaller_lr": "a smaller learning rate",
    "order": "another order of batches",
    "averaged": "averaged weights",
    "batch_norm": "batch-norm statistics gathered anew",
}
"""What the futures are called in words. The last two are not trained apart: they are other columns of the control's
rows and of those of other orders."""
CAUSES = {
    "exploding_gradients": "exploding gradients",
    "high_lr": "too high a learning rate",
    "batch_norm": "batch-norm statistics that do not fit the weights",
    "batches": "the batches of this epoch (bad labels or images among them)",
}


@dataclass(frozen=True)
class Future:
    """Some epochs of a trial from its state before epoch K on, with something changed."""

    name: str  # a key of FUTURES: control, clipped, smaller_lr or order
    seed: int  # of the trial, or in another order of batches another one
    changes: Mapping[str, Any]  # what to change in the trial's config, by dotted key
    epochs: int  # how many to train, from K on, of the schedule as it was
    rows: Sequence[Row] = ()  # once trained: a row an epoch
    diverged: bool = False  # whether it ended early, since its loss was not finite


@dataclass(frozen=True)
class Effect:
    """How much of the fall (or of what a plateau lacks) one change takes away."""

    name: str  # a key of FUTURES
    removed: float  # its share: 0 none, 1 all of it
    low: float  # its 95 % interval
    high: float
    futures: int  # of how many futures


@dataclass(frozen=True)
class Verdict:
    """What the futures say."""

    phenomenon: Phenomenon
    epoch: int  # K
    outcome: Outcome
    cause: str | None  # a key of CAUSES where it is "named"
    why: str  # one or two sentences
    effects: Sequence[Effect] = ()
    numbers: Mapping[str, float] = field(default_factory=dict)  # by name: fall, noise, chance, ...

    def in_words(self) -> str:
        """Return the verdict in one or two sentences."""
        return self.why

    def as_json(self) -> dict[str, Any]:
        """Return all of it as JSON takes it."""
        raise NotImplementedError


def futures_of(
    config: Mapping[str, Any],
    seed: int,
    epoch: int,
    rows: Sequence[Row],
    orders: int = 5,
    phenomenon: Phenomenon = "dip",
) -> list[Future]:
    """Return what to train to find the cause of what happens in `epoch` (K) of a trial.

    `config` is the trial's, whole, with defaults; a change is only planned for keys that it has. `rows` are all of the
    trial's, from epoch 1 on.
    """
    raise NotImplementedError


def judge(
    before: Sequence[Row],
    trial: Sequence[Row],
    futures: Sequence[Future],
    metric: str = "val_acc",
    maximize: bool = True,
    phenomenon: Phenomenon = "dip",
) -> Verdict:
    """Return which cause the futures leave standing.

    `before` are the trial's rows up to epoch K - 1, `trial` those from K on.
    """
    raise NotImplementedError
