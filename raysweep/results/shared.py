"""Which trials of a run share epochs, from their records, and how much luck they have in common.

Trials of one seed share the first epochs in which all their metrics are equal, whoever trained them: these are equal to
the last digit only if everything was that decides them. So two such trials are no two samples of what seeds do.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from pydantic import ValidationError

from raysweep.errors import UserError
from raysweep.loops import loop_named
from raysweep.results.luck import Course
from raysweep.store.metrics import CLOCK
from raysweep.store.record import Record
from raysweep.sweepfile.plan import Trial
from raysweep.sweepfile.prefixes import Prefixes

MOST = 0.5
"""Trials that share so much of their epochs, each of its own, count as one where independent ones are counted."""


def prefixes_of(records: Sequence[Record], loop: str) -> Prefixes | None:
    """Return which epochs the plan of these trials shares; None if their loop or its settings are not known here."""
    try:
        kind = loop_named(loop).config
        return Prefixes(
            Trial(
                each.id,
                each.name,
                kind.model_validate(each.config),
                each.seed,
                loop=loop,
                start=each.start,
                until=each.epochs,
            )
            for each in records
        )
    except (UserError, ValidationError):
        return None


def unwanted_states(states: Mapping[str, Record], records: Sequence[Record], prefixes: Prefixes) -> set[str]:
    """Return the keys of the states, given by key, that no trial of a plan may want.

    A trial that is not done may want those of epochs that it has not trained; of one that has finished, the last state
    that a longer one can go on from stays, since whether it does is for the sweep file's `keep_last` to say.
    """
    planned = [record for record in records if prefixes.may_share(record.id)]
    return {key for key, state in states.items() if not any(_wants(each, key, state, prefixes) for each in planned)}


def _wants(record: Record, key: str, state: Record, prefixes: Prefixes) -> bool:
    if record.seed != state.seed or not state.epoch <= record.epochs:
        return False
    is_last = record.status == "finished" and prefixes.last_state(record.id) == state.epoch
    is_ahead = not record.is_final and record.epoch < state.epoch
    return (is_last or is_ahead) and prefixes.key(record.id, state.epoch, state.conditions) == key


def courses_of(records: Sequence[Record]) -> dict[str, Course]:
    """Return the epochs that led to each trial's score, by its id, as far as they are those of others of the records.

    Those that all its seeds begin with are left out (`start:`): they are no luck of its own.
    """
    shared = _shared_epochs(records)
    found = {}
    for record in records:
        first = record.start.epoch if record.start else 0
        last = record.best.epoch if record.best else record.epoch
        found[record.id] = Course(shared[record.id][first:last], max(1, last - first))
    return found


def groups_of(records: Sequence[Record]) -> dict[str, str]:
    """Return each trial's group, by ids: trials of which each shares most of its epochs with another one are in one."""
    leads = {record.id: record.id for record in records}

    def lead(id: str) -> str:
        while leads[id] != id:
            id = leads[id] = leads[leads[id]]
        return id

    for epoch, _, alike in _levels(records):
        first, *others = [record.id for record in alike if epoch >= MOST * record.epoch] or [""]
        for other in others:
            leads[lead(other)] = lead(first)
    return {record.id: lead(record.id) for record in records}


def groups_of_configs(configs: Sequence[Sequence[Record]]) -> list[str]:
    """Return the group of each config, given its trials: configs of which trials are in one group are in one."""
    groups = groups_of([record for records in configs for record in records])
    leads = {group: group for group in groups.values()}

    def lead(group: str) -> str:
        while leads[group] != group:
            group = leads[group]
        return group

    for records in configs:
        for record in records[1:]:
            leads[lead(groups[record.id])] = lead(groups[records[0].id])
    return [lead(groups[records[0].id]) for records in configs]


def _shared_epochs(records: Sequence[Record]) -> dict[str, tuple[int, ...]]:
    """Return a number for each of a trial's first epochs that another one shares, the same for all that share it."""
    found = defaultdict[str, list[int]](list)
    for _, number, alike in _levels(records):
        for record in alike:
            found[record.id].append(number)
    return {record.id: tuple(found[record.id]) for record in records}


def _levels(records: Sequence[Record]) -> Iterator[tuple[int, int, list[Record]]]:
    """Yield each epoch that several trials share, from the first on, with its number and the trials."""
    by_seed = defaultdict[int, list[Record]](list)
    for record in records:
        by_seed[record.seed].append(record)
    left = [(0, seed, alike) for seed, alike in by_seed.items() if len(alike) > 1]
    while left:
        epoch, before, together = left.pop()
        by_row = defaultdict[int, list[Record]](list)
        for record in together:
            if record.epoch > epoch:
                by_row[hash((before, _what_decides(record.metrics[epoch])))].append(record)
        for number, alike in by_row.items():
            if len(alike) > 1:
                yield epoch + 1, number, alike
                left.append((epoch + 1, number, alike))


def _what_decides(row: Mapping[str, float]) -> frozenset[tuple[str, float]]:
    return frozenset((name, value) for name, value in row.items() if name not in CLOCK)
