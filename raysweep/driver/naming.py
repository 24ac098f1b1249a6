"""What Ray's dashboard calls a run's actors and tasks: names of sweep and trial in, named classes and methods out.

Ray shows an actor by its class, and an actor serves one trial after the other, so the class has the sweep's name. Each
call of an actor is a task, whose name is the caller's to choose, so those have the trial's.
"""

from __future__ import annotations

from typing import Any

from ray.tune.trainable.function_trainable import wrap_function


def name_of(sweep: str, part: str = "") -> str:
    """Return what the dashboard calls a part of a sweep, such as a trial by its id, or the sweep itself."""
    return f"raysweep {sweep}/{part}" if part else f"raysweep {sweep}"


def called(kind: type, name: str) -> type:
    """Return a class that is the same but for its name, under which the dashboard lists its actors."""
    return type(name, (kind,), {"__module__": __name__, "__qualname__": name})


def trainable_called(function: Any, name: str) -> type:
    """Return the class that Tune makes of a trial's function, under another name."""
    return called(wrap_function(function, name=name), name)


def name_calls(actor: Any, method: str, name: str) -> None:
    """Let all further calls of an actor's method through this handle be tasks of that name."""
    vars(actor).pop(method, None)  # the name of the trial that the actor served before
    setattr(actor, method, getattr(actor, method).options(name=name))
