"""Proposals without a loop whose config they would have to fit."""

from __future__ import annotations

import json
from collections.abc import Iterable

from raysweep.sweepfile import Sweep
from raysweep.sweepfile.proposals import Accepts, Generation, first_generations
from raysweep.sweepfile.space import Settings


def whatever_is_new(before: Iterable[Settings] = ()) -> Accepts:
    """What takes any proposal that was not made before."""
    made = {json.dumps(each, sort_keys=True) for each in before}

    def accepts(settings: Settings) -> bool:
        text = json.dumps(settings, sort_keys=True)
        is_new = text not in made
        made.add(text)
        return is_new

    return accepts


def first_of(sweep: Sweep) -> list[Generation]:
    """The generations that depend on no results."""
    return first_generations(sweep, whatever_is_new())
