"""What a rerun need not train, since trials before have: which trials begin with states that the run folder keeps.

In: the trials that a rerun has left, and the states. Out: where each goes on, and how many epochs are left. No Ray, no
torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from raysweep.halving.scores import those_that_fit
from raysweep.store.record import Record
from raysweep.sweepfile.plan import Trial, short_id
from raysweep.sweepfile.prefixes import Prefixes
from raysweep.sweepfile.schema import Objective
from raysweep.terminal import count_of

SHOWN = 12
"""How many of the trials that go on from others are named."""


@dataclass(frozen=True)
class GoingOn:
    """Where a trial goes on."""

    epoch: int  # it trains those after this one
    of: str  # the id of the trial that left the state


@dataclass(frozen=True)
class Kept:
    """What the states of a run folder are worth to a rerun."""

    going_on: dict[str, GoingOn]  # of the trials that begin with a state, by their ids
    epochs_left: int  # those that are left to train if none is stopped early; what trials share counts once

    def in_words(self, stops_early: bool) -> list[str]:
        """Return the lines that `raysweep plan` prints; `stops_early`: whether halving may leave less to train."""
        go, left = "goes" if len(self.going_on) == 1 else "go", count_of(self.epochs_left, "epoch")
        head = f"{count_of(len(self.going_on), 'trial')} {go} on from epochs that others have trained; "
        lines = [
            f"  {short_id(id)} goes on after epoch {each.epoch} of {short_id(each.of)}"
            for id, each in list(self.going_on.items())[:SHOWN]
        ]
        more = len(self.going_on) - len(lines)
        lines += [f"  ... and {more:,} more"] if more else []
        return [f"{head}{'at most ' * stops_early}{left} are left to train", *lines]


def what_is_kept(
    left: Sequence[Record], trials: Sequence[Trial], states: Mapping[str, Record], objective: Objective
) -> Kept:
    """Return what states, by key, are worth to the trials that a rerun has left; `trials` are those of the plan."""
    ids = {record.id for record in left}
    prefixes = Prefixes(trial for trial in trials if trial.id in ids)
    found = {record.id: _deepest(record, prefixes, states, objective) for record in left}
    going_on = {id: each for id, each in found.items() if each}
    reached = {record.id: record.epoch for record in left} | {id: each.epoch for id, each in going_on.items()}
    return Kept(going_on, prefixes.left(reached, ids))


def _deepest(record: Record, prefixes: Prefixes, states: Mapping[str, Record], objective: Objective) -> GoingOn | None:
    """Return the state of the latest epoch that a trial can take over, if it is ahead of the trial itself."""
    if not prefixes.may_share(record.id):
        return None
    places = {(state.epoch, json.dumps(state.conditions)): state.conditions for state in states.values()}
    keys = (
        prefixes.key(record.id, epoch, conditions)
        for (epoch, _), conditions in places.items()
        if record.epoch < epoch <= record.epochs
    )
    its_own = (state for key in keys if (state := states.get(key)) and "last" in state.weights)
    fitting = those_that_fit(record, its_own, objective)
    return GoingOn(fitting[-1].epoch, fitting[-1].id) if fitting else None
