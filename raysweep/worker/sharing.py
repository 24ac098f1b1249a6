"""How a trial goes on from a state that another one kept, and whose the epochs of its history are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby

from raysweep.halving.scores import best_with, fits
from raysweep.store.record import Origin, Record
from raysweep.store.states import Files, StateStore
from raysweep.sweepfile.schema import Objective

Owner = tuple[str, str]
"""A trial's id, and the run folder that it belongs to, empty for the run's own."""


def deepest_state(
    store: StateStore, stops: Mapping[int, str], record: Record, until: int, objective: Objective
) -> tuple[Record, Files] | None:
    """Return the state of the latest epoch up to `until` that a trial can take over; `stops` are the keys by epoch."""
    wanted = sorted((epoch for epoch in stops if record.epoch < epoch <= until), reverse=True)
    there = set(store.listed()) if wanted else set()  # asked once: a trial may have hundreds of stops
    for epoch in wanted:
        found = store.find_or_drop(stops[epoch]) if stops[epoch] in there else None
        if found and fits(record, found[0], objective):
            return found
    return None


def take_over(record: Record, state: Record, objective: Objective) -> Record:
    """Return a trial's record with the history that follows in another one's state, and the best epoch of both.

    What it has already trained stays its own.
    """
    own, done = owners_of(record), record.epoch
    owners = [*own, *(("", "") if owner[0] == record.id else owner for owner in _named(state)[done:])]
    return record.with_(
        metrics=[*record.metrics, *state.metrics[done:]],
        origins=list(_origins(owners)),
        best=best_with(record, state, objective),
    )


def signed(state: Record, run: str) -> Record:
    """Return a state of another run folder, with the names of all who have trained its epochs."""
    owners = [(trial or state.id, of or run) for trial, of in owners_of(state)]
    return state.with_(origins=list(_origins(owners)))


def owners_of(record: Record) -> list[Owner]:
    """Return who has trained each epoch of a history; empty names stand for the trial itself."""
    owners: list[Owner] = [("", "")] * record.epoch
    for origin in record.origins:
        owners[origin.first - 1 : origin.last] = [(origin.trial, origin.run)] * (origin.last - origin.first + 1)
    return owners


def _named(state: Record) -> list[Owner]:
    return [owner if owner[0] else (state.id, "") for owner in owners_of(state)]


def _origins(owners: list[Owner]) -> Iterator[Origin]:
    for (trial, run), rows in groupby(enumerate(owners, 1), key=lambda row: row[1]):
        epochs = [epoch for epoch, _ in rows]
        if trial:
            yield Origin(trial, epochs[0], epochs[-1], run)
