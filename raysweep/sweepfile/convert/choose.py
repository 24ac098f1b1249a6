"""Which loop a converted search is for: `classify` if that has all its keys, else one of the user's own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from raysweep.errors import SweepFileError
from raysweep.loops import CLASSIFY, LOOPS, loop_named
from raysweep.sweepfile.convert.space import Space
from raysweep.sweepfile.convert.write import sections
from raysweep.sweepfile.load import sweep_of

SHORTER = (("[^a-z0-9]+", "_"), ("validation|valid", "val"), ("accuracy", "acc"))
"""What `validation/accuracy` and the like come to, as `classify` names its metrics."""
FEW = 10
"""How many configs of a random search are planned to see whether they can be."""


def choose_loop(space: Space, asked: str) -> bool:
    """Name the loop that a search is for, `asked` if that is one; return whether the user has to write it.

    A search whose trials `classify` can train is for it, unless another loop is asked for.

    Raises:
        SweepFileError: the loop that is asked for is known, and cannot train these trials.
    """
    if asked in LOOPS.names():
        if problems := _problems(space, asked):
            raise SweepFileError(*(f"loop {asked!r} cannot train this: {each}" for each in problems))
    elif asked or _problems(space, CLASSIFY):
        own = space.loop or re.sub(r"\W", "_", space.name)
        space.loop = asked or (f"{own}_" if own in LOOPS.names() else own)
        return True
    elif space.loop:
        message = "is not run: `classify`, raysweep's loop for images, has all these parameters; for it: --loop NAME"
        space.note(("program",), message)
    space.loop = "" if asked == CLASSIFY else asked
    if space.metric and not space.loop:
        _choose_metric(space)
    return False


def _problems(space: Space, loop: str) -> tuple[str, ...]:
    """Return why a loop cannot train the trials of a search, if it cannot."""
    trials = {key: value for key, value in sections(space).items() if key not in ("objective", "scheduler")}
    return _why_not({**trials, "loop": loop})


def _why_not(values: Mapping[str, Any]) -> tuple[str, ...]:
    try:
        sweep_of(values)
    except SweepFileError as error:
        return error.problems
    return ()


def check_new_loop(space: Space, module: str) -> None:
    """Check that a search can be planned with the loop that is to be written, whose module begins so.

    Raises:
        SweepFileError: it cannot; all faults at once.
    """
    with LOOPS.for_now():
        exec(compile(module, "<new loop>", "exec", dont_inherit=True), {"__name__": "new_loop"})
        values = sections(space)
        if "random" in values:  # all draws of a parameter are of one kind, so that a few tell
            values["random"]["samples"] = min(space.samples, FEW)
        if problems := _why_not(values):
            raise SweepFileError(*(f"{space.source.path}: makes no sweep: {each}" for each in problems))


def _choose_metric(space: Space) -> None:
    """Take the metric of `classify` that is meant, or none."""
    name, known = space.metric.lower(), loop_named(CLASSIFY).metrics
    for long, short in SHORTER:
        name = re.sub(long, short, name)
    if name not in known:
        space.note(("metric", "name"), f"`classify` has no {space.metric}; it ranks by one of {', '.join(known)}")
        name = ""
    space.metric = name
