"""Where an exception comes from: the places in code that is neither a library's nor raysweep's."""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path

LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
OURS = str(Path(__file__).parents[1])


def place_of(error: BaseException) -> str:
    """Return the last frame in the user's own code as `file:line`, else the last in raysweep's; "" if there is none."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if frame.filename.startswith(OURS)]
    users = [frame for frame in frames if _is_users(frame.filename)]
    return next((f"{last.filename}:{last.lineno}" for last in (users or ours)[-1:]), "")


def traceback_of(error: BaseException) -> str:
    """Return an exception with its traceback, from the user's own code on if it comes from there."""
    whole = traceback.TracebackException.from_exception(error)
    places = [place for place, frame in enumerate(whole.stack) if _is_users(frame.filename)]
    if places:
        whole.stack = traceback.StackSummary.from_list(whole.stack[places[0] :])
    return "".join(whole.format())


def _is_users(filename: str) -> bool:
    return Path(filename).is_file() and not filename.startswith((OURS, *LIBRARIES))
