"""Which nodes end the processes of trials, told from how trials fare on them, so that new processes start elsewhere.

A broken GPU or driver ends each process within seconds, and takes the next trial as soon as the last one died: left
alone, it has all trials fail in turn while the good nodes are still at their first ones.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from ray.tune import PlacementGroupFactory
from ray.util.placement_group import PlacementGroup, placement_group

from raysweep.cluster.slots import Slot

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
    others_are_left: bool = False
    """Whether a trial fits the nodes that are neither this one nor avoided."""


class Nodes:
    """The nodes that trials ran on in this run, by Ray's ids.

    Args:
        count_slots: returns how many trials fit the cluster at once without some of its nodes.
    """

    def __init__(self, count_slots: Callable[[Collection[str]], int]) -> None:
        self._count_slots = count_slots
        self._streaks: dict[str, Streak] = {}
        self._deaths: dict[str, list[tuple[Streak, bool]]] = defaultdict(list)
        self._worked: set[str] = set()
        self._failed: set[str] = set()

    def work(self, node: str) -> None:
        """Note that a trial which started on a node has reported an epoch from there."""
        self._worked.add(node)
        self._streaks.pop(node, None)

    def die(self, trial: str, node: str, had_begun: bool) -> None:
        """Note that a trial's process died on a node, `""` if Ray does not say where."""
        streak = Streak(node, is_first=node not in self._worked)
        if node:
            streak = self._streaks.setdefault(node, streak)
            streak.others_are_left = self._count_slots({*self.avoided(), node}) > 0
        streak.trials.append(trial)
        self._deaths[trial].append((streak, had_begun))

    def fail(self, trial: str) -> None:
        """Note that a trial has failed for good: its deaths speak against no node."""
        self._failed.add(trial)

    def deaths(self, trial: str, had_begun: bool = True) -> int:
        """Return how many deaths count against a trial, of those after it had begun in the process or before."""
        of_kind = (streak for streak, begun in self._deaths[trial] if begun == had_begun)
        return sum(not self._is_excused(trial, streak) for streak in of_kind)

    def avoided(self) -> list[str]:
        """Return the nodes on which no process is to start, the first to fall out first; some are always left."""
        out: list[str] = []
        for streak in self._streaks.values():
            if self._speaks_against_its_node(streak) and self._count_slots({*out, streak.node}):
                out.append(streak.node)
        return out

    def _is_excused(self, trial: str, streak: Streak) -> bool:
        may_be_the_nodes = streak.is_first or self._speaks_against_its_node(streak)
        return may_be_the_nodes and streak.others_are_left and not self._is_to_blame(trial)

    def _speaks_against_its_node(self, streak: Streak) -> bool:
        return sum(not self._is_to_blame(trial) for trial in streak.trials) >= IN_A_ROW

    def _is_to_blame(self, trial: str) -> bool:
        return trial in self._failed or len({streak.node for streak, _ in self._deaths[trial]}) > MOST_NODES


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
        avoided = sorted(self._avoided())
        selector = [{"ray.io/node-id": f"!in({','.join(avoided)})"}] * len(self.bundles) if avoided else None
        group: PlacementGroup = placement_group(self.bundles, self.strategy, bundle_label_selector=selector)
        return group

    def __reduce__(self) -> tuple[Any, ...]:  # Tune saves its trials, and nobody reads that
        return PlacementGroupFactory, (self.bundles, self.strategy)
