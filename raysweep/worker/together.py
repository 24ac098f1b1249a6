"""The ranks that train one trial, where a loop does not keep them together itself: all do what the first one decides.

It is torch.distributed on the CPU, in a group of its own, so that no GPU has to wait.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from raysweep.loops import Epoch, TrialContext

WAIT_AT_MOST = timedelta(days=1)
"""How long a rank may wait for the others after an epoch: the first may have to wait for its storage."""


class Together:
    """The ranks of a trial; everything here is called by all of them alike. A rank alone does nothing at no cost."""

    def __init__(self, trial: TrialContext) -> None:
        self.rank, self.size = trial.rank, trial.world_size
        self.group: Any = dist.new_group(backend="gloo", timeout=WAIT_AT_MOST) if self.size > 1 else None

    def broadcast(self, data: Any) -> Any:
        """Return the first rank's data on each."""
        if self.group is None:
            return data
        box = [data]
        dist.broadcast_object_list(box, src=0, group=self.group)
        return box[0]

    def gather(self, data: Any) -> list[Any]:
        """Return each rank's data on the first; nothing elsewhere."""
        if self.group is None:
            return [data]
        box = [None] * self.size if self.rank == 0 else None
        dist.gather_object(data, box, dst=0, group=self.group)
        return box or []

    def gather_on_all(self, data: Any) -> list[Any]:
        """Return each rank's data on each."""
        if self.group is None:
            return [data]
        box = [None] * self.size
        dist.all_gather_object(box, data, group=self.group)
        return box


class Ended(SystemExit):
    """Ends the loop of another rank, since the first one's has ended."""


def in_step(trial: TrialContext, take: Callable[[Epoch], None]) -> tuple[TrialContext, Callable[[Epoch], None]]:
    """Return a context and a `take` by which all ranks go on, save and stop as the first one does.

    On ranks after the first, `take` raises `Ended` where the first one's raises anything.
    """
    ranks = Together(trial)

    def take_together(epoch: Epoch) -> None:
        raised: BaseException | None = None
        if ranks.rank == 0:
            try:
                take(epoch)
            except BaseException as error:  # SystemExit, too, by which Tune ends a trial
                raised = error
        ended = ranks.broadcast(raised is not None)
        if raised is not None:
            raise raised
        if ended:
            raise Ended

    def agreed(ask: Callable[[], bool]) -> Callable[[], bool]:
        return lambda: bool(ranks.broadcast(ranks.rank == 0 and ask()))

    context = replace(trial, should_stop=agreed(trial.should_stop), should_save=agreed(trial.should_save))
    return context, take_together
