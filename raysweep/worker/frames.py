"""Where an exception comes from: the last place in code that is neither a library's nor raysweep's."""

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


def _is_users(filename: str) -> bool:
    return Path(filename).is_file() and not filename.startswith((OURS, *LIBRARIES))
