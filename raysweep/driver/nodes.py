"""Which nodes end the processes of trials, told from how trials fare on them, so that new processes start elsewhere.

A broken GPU or driver ends each process within seconds, and takes the next trial as soon as the last one died: left
alone, it has all trials fail in turn while the good nodes are still at their first ones.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ray.tune import PlacementGroupFactory
from ray.util.placement_group import PlacementGroup, placement_group

from raysweep.cluster.slots import Slot, avoiding

IN_A_ROW = 2
"""So many deaths on a node speak against it, if no trial that started there reported an epoch between them."""
MOST_NODES = 2
"""A trial whose processes died on more nodes than this is to blame itself."""


@dataclass
class Streak:
    """Deaths on a node, in a row."""

    node: str
    is_first: bool
    """Whether no trial had worked on the node before."""
    trials: list[str] = field(default_factory=list)
    """Whose processes died, a trial once for each of them."""


class Death(NamedTuple):
    """The death of a trial's process."""

    streak: Streak
    had_begun: bool
    """Whether the trial had begun in the process."""
    had_others: bool
    """Whether a trial fitted the nodes that were neither this one nor avoided then."""


class Nodes:
    """The nodes that trials ran on in this run, by Ray's ids.

    Args:
        count_slots: returns how many trials fit the cluster at once without some of its nodes.
    """

    def __init__(self, count_slots: Callable[[Collection[str]], int]) -> None:
        self._count_slots = count_slots
        self.avoided: list[str] = []
        """The nodes on which no process is to start. Each had others beside it when it fell out; it stays out if these
        go away, since whatever starts there dies."""
        self._streaks: dict[str, Streak] = {}
        self._deaths: dict[str, list[Death]] = defaultdict(list)
        self._worked: set[str] = set()
        self._failed: set[str] = set()

    def work(self, node: str) -> None:
        """Note that a trial which started on a node has reported an epoch from there."""
        self._worked.add(node)
        self._streaks.pop(node, None)
        self._decide()

    def die(self, trial: str, node: str, had_begun: bool) -> None:
        """Note that a trial's process died on a node, `""` if Ray does not say where."""
        streak, had_others = Streak(node, is_first=node not in self._worked), False
        if node:
            streak = self._streaks.setdefault(node, streak)
            had_others = self._count_slots({*self.avoided, node}) > 0
        streak.trials.append(trial)
        self._deaths[trial].append(Death(streak, had_begun, had_others))
        self._decide()

    def fail(self, trial: str) -> None:
        """Note that a trial has failed for good: its deaths speak against no node."""
        self._failed.add(trial)
        self._decide()

    def deaths(self, trial: str, had_begun: bool = True) -> int:
        """Return how many deaths count against a trial, of those after it had begun in the process or before."""
        of_kind = (death for death in self._deaths[trial] if death.had_begun == had_begun)
        return sum(not self._is_excused(trial, death) for death in of_kind)

    def _decide(self) -> None:
        against = [streak.node for streak in self._streaks.values() if self._speaks_against_its_node(streak)]
        out = [node for node in self.avoided if node in against]
        for node in against:
            if node not in out and self._count_slots({*out, node}):
                out.append(node)
        self.avoided = out

    def _is_excused(self, trial: str, death: Death) -> bool:
        may_be_the_nodes = death.streak.is_first or self._speaks_against_its_node(death.streak)
        had_a_choice = death.had_others or death.streak.node in self.avoided
        return may_be_the_nodes and had_a_choice and not self._is_to_blame(trial)

    def _speaks_against_its_node(self, streak: Streak) -> bool:
        return sum(not self._is_to_blame(trial) for trial in streak.trials) >= IN_A_ROW

    def _is_to_blame(self, trial: str) -> bool:
        return trial in self._failed or len({death.streak.node for death in self._deaths[trial]}) > MOST_NODES


class SlotRequest(PlacementGroupFactory):
    """What Tune asks Ray for when it starts a trial's process: a slot on nodes that are not to be avoided then."""

    def __init__(self, slot: Slot, avoided: Callable[[], Collection[str]]) -> None:
        super().__init__([slot.bundle] * slot.workers)
        self._avoided = avoided

    def take_the_place_of_tunes_own(self, trial: Any) -> None:
        """Make a trial of Tune's ask for this: what Tune gave it is a copy, which hears of no nodes to avoid."""
        trial.placement_group_factory = self

    def to_placement_group(self) -> PlacementGroup:
        """Ask for the slot."""
        avoided = self._avoided()
        selector = [avoiding(avoided)] * len(self.bundles) if avoided else None
        group: PlacementGroup = placement_group(self.bundles, self.strategy, bundle_label_selector=selector)
        return group

    def __reduce__(self) -> tuple[Any, ...]:  # Tune saves its trials, and nobody reads that
        return PlacementGroupFactory, (self.bundles, self.strategy)
