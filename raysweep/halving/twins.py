"""Which trials wait for a twin that is training epochs which they share. Pure: the plan and events in, answers out.

A trial that shares epochs with one that runs ahead of it, or beside it, would train them a second time. It waits until
the other has come to where they part, or to where the trial itself is compared with others, and begins from the state
that is kept there. It loses nothing: training by itself, it would not be there earlier. A slot goes to another trial
meanwhile, if there is one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

from raysweep.sweepfile.prefixes import Prefixes


class Twins:
    """The trials of a stage, how far each has come, and which of them hold a slot."""

    def __init__(self, prefixes: Prefixes, rungs: Mapping[str, Sequence[int]], epochs: Mapping[str, int]) -> None:
        """`rungs` are the epochs after which each trial is compared, `epochs` those that it has trained, by its id."""
        self._rungs, self._epochs = rungs, dict(epochs)
        self._common = cache(prefixes.common)
        self._running: set[str] = set()

    def start(self, id: str) -> None:
        """Note that a trial has a slot."""
        self._running.add(id)

    def release(self, id: str) -> None:
        """Note that a trial has given up its slot."""
        self._running.discard(id)

    def note(self, id: str, epoch: int) -> None:
        """Note how far a trial has come."""
        self._epochs[id] = epoch

    def waits(self, id: str) -> bool:
        """Whether a trial is to wait for another one's state."""
        done = self._epochs.get(id, 0)
        rung = next((rung for rung in self._rungs.get(id, ()) if rung > done), None)
        return any(self._is_ahead(other, id, done, rung) for other in tuple(self._running) if other != id)

    def _is_ahead(self, other: str, id: str, done: int, rung: int | None) -> bool:
        """Whether a trial that runs is on the way to the next state that another one can use."""
        reached = self._epochs.get(other, 0)
        if reached < done:
            return False
        common = self._common(id, other)
        return reached < (common if rung is None else min(common, rung))
