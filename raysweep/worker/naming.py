"""What Ray's dashboard calls a run's actors and tasks: names of sweep and trial in, named classes and methods out.

Ray shows an actor by its class, and an actor serves one trial after the other, so the class has the sweep's name. Each
call of an actor is a task, whose name is the caller's to choose, so those have the trial's. Where a version of Ray is
made otherwise than those that this was written for, its own names stay.
"""

from __future__ import annotations

import weakref
from types import SimpleNamespace
from typing import Any


def name_of(sweep: str, part: str = "") -> str:
    """Return what the dashboard calls a part of a sweep, such as a trial by its id, or the sweep itself."""
    return f"raysweep {sweep}/{part}" if part else f"raysweep {sweep}"


def called(kind: type, name: str) -> type:
    """Return a class that is the same but for its name, under which the dashboard lists its actors."""
    return type(name, (kind,), {"__module__": __name__, "__qualname__": name, "__repr__": lambda _: name})


def trainable_called(function: Any, name: str) -> Any:
    """Return the class that Tune makes of a trial's function, under another name."""
    try:
        from ray.tune.trainable.function_trainable import wrap_function
    except ImportError:
        return function
    return called(wrap_function(function), name)


def name_calls(actor: Any, method: str, name: str) -> None:
    """Let all further calls of an actor's method through this handle be tasks of that name.

    A handle makes its methods when they are asked for, unless it has an attribute of that name. The one it gets does
    not hold the handle in turn, so the actor ends with its last handle as ever.
    """
    make = getattr(type(actor), "__getattr__", None)
    if make is None:
        return
    handle = weakref.ref(actor)

    def remote(*arguments: Any, **options: Any) -> Any:
        return make(handle(), method).options(name=name).remote(*arguments, **options)

    setattr(actor, method, SimpleNamespace(remote=remote))
