"""Which trials wait for a twin that is training epochs which they share. Pure: the plan and events in, answers out.

A trial that shares epochs with one that runs ahead of it, or beside it, would train them a second time. It waits until
the other has come to where they part, or to where the trial itself is compared with others, and begins from the state
that is kept there. It loses nothing: training by itself, it would not be there earlier. A slot goes to another trial
meanwhile, if there is one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence


class Twins:
    """The trials of a stage, how far each has come, and which of them hold a slot."""

    def __init__(
        self,
        stops: Mapping[str, Mapping[int, str]],
        rungs: Mapping[str, Sequence[int]],
        epochs: Mapping[str, int],
        kept: Iterable[str] = (),
    ) -> None:
        """Each but the last by the trials' ids.

        Args:
            stops: the epochs, ascending, after which a trial's state is of use, with its key, which trials share.
            rungs: the epochs after which it is compared.
            epochs: how many it has trained.
            kept: the keys of the states that there are already.
        """
        self._stops, self._rungs, self._epochs, self._kept = stops, rungs, dict(epochs), set(kept)
        self._coming: dict[str, set[str]] = defaultdict(set)  # the trials that are on the way to a state, by its key
        self._given_up: set[str] = set()  # the keys of states that nobody waits for any more
        self.arriving: set[str] = set()
        """The trials that come to their next rung without training, since its state is kept."""
        self._with: dict[str, list[str]] = defaultdict(list)  # the trials whose state it is, by its key
        for id, keys in stops.items():
            for key in keys.values():
                self._with[key].append(id)
            self._look(id)

    def join(self, others: Twins) -> None:
        """Take in trials that wait for one another, and not for these; none of them has a slot yet."""
        self._stops = {**self._stops, **others._stops}
        self._rungs = {**self._rungs, **others._rungs}
        self._epochs |= others._epochs
        self._kept |= others._kept
        for key, ids in others._with.items():
            self._with[key] += ids
        self.arriving |= others.arriving

    def start(self, id: str) -> None:
        """Note that a trial has a slot: it begins from the deepest state that there is up to its next rung."""
        for key in self._stops.get(id, {}).values():
            self._coming[key].add(id)
        place = max((epoch for epoch, key in self._ahead(id) if key in self._kept), default=0)
        self._epochs[id] = max(place, self._epochs.get(id, 0))
        self._pass(id)

    def release(self, id: str) -> None:
        """Note that a trial has given up its slot."""
        for key in self._stops.get(id, {}).values():
            self._coming[key].discard(id)

    def note(self, id: str, epoch: int) -> None:
        """Note how far a trial has come that has a slot."""
        before, self._epochs[id] = self._epochs.get(id, 0), epoch
        for key in [key for stop, key in self._stops.get(id, {}).items() if before < stop <= epoch]:
            self._kept.add(key)
            for other in self._with[key]:
                self._look(other)
        self._pass(id)

    def diverge(self, id: str) -> None:
        """Note that a trial has diverged: it keeps that for all who share the epoch, where its next state would be."""
        self.note(id, self._next_stop(id))

    def give_up(self, id: str) -> None:
        """Let nobody wait any more for the states on a trial's way, since it failed or its loop gives none."""
        self._given_up.update(self._stops.get(id, {}).values())

    def _pass(self, id: str) -> None:
        for stop, key in self._stops.get(id, {}).items():
            if stop <= self._epochs[id]:
                self._coming[key].discard(id)
        self._look(id)

    def _look(self, id: str) -> None:
        """Note whether a trial comes to its next rung without training."""
        done = self._epochs.get(id, 0)
        rung = next((rung for rung in self._rungs.get(id, ()) if rung > done), None)
        key = self._stops.get(id, {}).get(rung) if rung else None
        (self.arriving.add if key in self._kept else self.arriving.discard)(id)

    def _next_stop(self, id: str) -> int:
        done = self._epochs.get(id, 0)
        return next((stop for stop in self._stops.get(id, {}) if stop > done), done)

    def waits(self, id: str) -> bool:
        """Whether a trial is to wait for another one's state. Any thread may ask."""
        done = self._epochs.get(id, 0)
        keys = (key for _, key in self._ahead(id) if key not in self._given_up)
        coming = (other for key in keys for other in tuple(self._coming.get(key, ())))
        return any(other != id and self._epochs.get(other, 0) >= done for other in coming)

    def _ahead(self, id: str) -> Iterator[tuple[int, str]]:
        """Yield the states from which a trial could go on, up to its next rung."""
        done = self._epochs.get(id, 0)
        rung = next((rung for rung in self._rungs.get(id, ()) if rung > done), None)
        for epoch, key in self._stops.get(id, {}).items():
            if done < epoch and (rung is None or epoch <= rung):
                yield epoch, key
