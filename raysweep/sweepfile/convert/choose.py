"""Which loop a converted search is for: `classify` if that has all its keys, else one of the user's own."""

from __future__ import annotations

import re

from raysweep.errors import SweepFileError
from raysweep.sweepfile.convert.space import Space
from raysweep.sweepfile.convert.write import sections
from raysweep.sweepfile.load import sweep_of

METRICS = ("val_acc", "val_loss", "val_acc_ema")
SHORTER = (("[^a-z0-9]+", "_"), ("validation|valid", "val"), ("accuracy", "acc"))
"""What `validation/accuracy` and the like come to, as `classify` names its metrics."""


def choose_loop(space: Space, asked: str) -> bool:
    """Name the loop that a search is for, `asked` if that is one; return whether the user has to write it.

    A search whose trials `classify` can train is for it, unless another loop is asked for.
    """
    if asked or _problems(space):
        space.loop = asked or space.loop or re.sub(r"\W", "_", space.name)
        return True
    if space.loop:
        message = "is not run: `classify`, raysweep's loop for images, has all these parameters; for it: --loop NAME"
        space.note(("program",), message)
    space.loop = ""
    if space.metric:
        _choose_metric(space)
    return False


def _problems(space: Space) -> tuple[str, ...]:
    """Return why `classify` cannot train the trials of a search, if it cannot."""
    trials = {key: value for key, value in sections(space).items() if key not in ("loop", "objective", "scheduler")}
    try:
        sweep_of(trials)
    except SweepFileError as error:
        return error.problems
    return ()


def _choose_metric(space: Space) -> None:
    """Take the metric of `classify` that is meant, or none."""
    name = space.metric.lower()
    for long, short in SHORTER:
        name = re.sub(long, short, name)
    if name not in METRICS:
        space.note(
            ("metric", "name"), f"`classify` has no {space.metric}, only {', '.join(METRICS)}: ranked by val_acc"
        )
        name = ""
    space.metric = name
