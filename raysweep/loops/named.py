"""The loops by name. The built-in one, `classify`, is known by name alone, and imported on first use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raysweep.errors import UserError
from raysweep.loops.loop import EvaluatingLoop, Loop
from raysweep.registry import Registry

CLASSIFY = "classify"
"""The built-in loop, which trains where a sweep file names none."""
LOOPS = Registry("loop", "loop")
LOOPS.build_in({CLASSIFY: "raysweep.vision.classify:Classify"})


def loop_named(name: str) -> Loop:
    """Return the loop of that name.

    Raises:
        UserError: there is none; one of the user's own needs `--import`.
    """
    if name not in LOOPS.names():
        raise UserError(f"{LOOPS.problem(name)} (one of your own: --import the module that registers it)")
    loop: Loop = LOOPS.get(name)()
    return loop


def evaluating_loop(name: str) -> EvaluatingLoop:
    """Return the loop of that name, which evaluates networks.

    Raises:
        UserError: there is none, or it does not.
    """
    loop = loop_named(name)
    if not isinstance(loop, EvaluatingLoop):
        raise UserError(f"loop {name!r} does not say how its networks are built")
    return loop


def loop_of(conditions: Mapping[str, Any]) -> str:
    """Return the name of the loop that trained under these conditions; older records had the built-in one alone."""
    return str(conditions.get("loop", CLASSIFY))
