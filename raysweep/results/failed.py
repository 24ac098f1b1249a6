"""Why trials failed or diverged, in lines for people: trials that ended alike share one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from raysweep.store import Record
from raysweep.sweepfile.plan import short_id
from raysweep.terminal import some_of


def error_text(error: Mapping[str, Any] | None) -> str:
    """Return what happened and where: `ValueError: bad shape (my_model.py:12)`."""
    error = error or {}
    kind, message, at = error.get("type"), error.get("message", "no reason was recorded"), error.get("at")
    what = message if kind in (None, "Diverged") else f"{kind}: {message}"
    return f"{what} (at {at})" if at else str(what)


def failure_lines(records: Iterable[Record], named: str) -> Iterator[str]:
    """Yield a line for each error by which trials failed, with the ends of their ids; none if none failed.

    `named` is how a command names the sweep.
    """
    alike = defaultdict[str, list[str]](list)
    for record in records:
        if record.status == "failed":
            alike[error_text(record.error)].append(short_id(record.id))
    for text, ids in alike.items():
        who = f"{len(ids)} trials failed alike" if len(ids) > 1 else "1 trial failed"
        yield f"{who}: {text}: {some_of(ids)}; the traceback: python -m raysweep status {named} --why {ids[0]}"
