"""What must not change while a run lives, since its trials began with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from raysweep.errors import UserError
from raysweep.store import Record, RunFolder

MUST_MATCH = {
    "data": "the images or labels changed",
    "precision": "precision resolves differently here",
    "workers": "another number of workers",
}


def check_conditions(folder: RunFolder, left: Sequence[Record], now: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse to go on with trials under other conditions than they began with.

    Raises:
        UserError: one message for each condition that changed.
    """
    problems = {}
    for record in left:
        for key, meaning in MUST_MATCH.items():
            if record.epoch and key in record.conditions and record.conditions[key] != now[record.id][key]:
                problems[key] = (
                    f"{folder.path}: {meaning} since the run began: {key} was {record.conditions[key]!r}, "
                    f"is {now[record.id][key]!r}; put it back, or start anew with --fresh"
                )
    if problems:
        raise UserError(*problems.values())
