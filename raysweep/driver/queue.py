"""Whose turn it is: `Halving`'s answers, for Tune's Searcher and TrialScheduler alike.

A trial's way: the searcher hands it out when Tune asks for more (`hand_out`), and from then on Tune knows it, under an
id of Tune's own. It holds a slot. At each rung Tune asks what becomes of it (`judge`): it goes on, or it is over, or it
is paused, since its place depends on trials that have not come as far. They need its slot: if it waited in the slot, a
sweep with fewer slots than trials would stand still. Later it is brought back (`promote`) or taken out (`take_out`).

Who is next: Tune asks in two places, the searcher for trials that it does not know and the scheduler for paused ones.
Here both ask `Halving.next_trial`, and only the one whose kind it is gets it. So a safe trial of the highest rung goes
before all others, and a new one begins when no paused one may go on.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from ray.tune.experiment import Trial as TuneTrial

from raysweep.driver.endings import Endings
from raysweep.driver.failures import went_with_its_node
from raysweep.driver.stop import StopRequest
from raysweep.halving.rungs import Halving, Verdict
from raysweep.halving.twins import Twins
from raysweep.worker.tasks import Assignment

CHECK_SHARE = 0.02
"""The share of time that looking for paused trials without a chance may take."""
RECOUNT_EVERY_S = 10.0
"""How often the cluster's slots are counted anew, since nodes come and go."""
ASK_FOR_MORE_AFTER_S = 5.0
"""Once all slots were taken for so long, one more trial is handed out to wait: an autoscaler sees it and adds a node.
Earlier, Tune would start a process for it beside the warm ones, and drop one or the other."""


Stage = tuple[Halving, Sequence[Assignment], Twins]
"""Trials that are trained together: those that are not done, what knows all of them, and which wait for another."""


class TrialQueue:
    """The trials of a stage, and where each of them stands.

    `next_stage` says what follows, for the same warm processes: once all have ended, the next fresh seeds of `confirm`,
    if any; and while some run, which it is told, the next generation of a search, to be trained beside them.
    `max_concurrent` limits how many of the cluster's slots are used. A trial that could not be started is handed out
    anew `retries` times. `endings` is told of trials that have to wait, or have no chance any more.
    """

    def __init__(
        self,
        stage: Stage,
        next_stage: Callable[[bool], Stage | None],
        count_slots: Callable[[], int],
        max_concurrent: int | None,
        retries: int,
        endings: Endings,
        stop: StopRequest,
    ) -> None:
        self._begin(*stage)
        self._next_stage, self._endings, self._stop = next_stage, endings, stop
        self._count_slots, self._max_concurrent = count_slots, math.inf if max_concurrent is None else max_concurrent
        self._slots, self._counted_at, self._moved_at = 0, -math.inf, time.monotonic()
        self._ids: dict[str, str] = {}  # by Tune's id; those that Tune has to do with
        self._tune_trials: dict[str, TuneTrial] = {}  # by ours
        self._holding: set[str] = set()
        self._ended: set[str] = set()
        self._retries, self._false_starts = retries, Counter[str]()
        self._given_up: list[TuneTrial] = []
        self._reserve = ""  # the trial that was handed out with all slots taken
        self._check_at = 0.0
        self._may_follow = True  # whether something has happened since `next_stage` was asked while trials ran

    def _begin(self, halving: Halving, assignments: Sequence[Assignment], twins: Twins) -> None:
        self._assignments: dict[str, Assignment] = {}
        self._begun: set[str] = set()
        self._waiting: dict[str, None] = {}  # those that are paused until their place is sure
        self._add(halving, assignments, twins)

    def _add(self, halving: Halving, assignments: Sequence[Assignment], twins: Twins) -> None:
        self.halving, self._twins = halving, twins
        new = {assignment.record.id: assignment for assignment in assignments}
        self._assignments |= new
        self._begun |= {id for id, assignment in new.items() if assignment.record.has_begun}
        self._waiting |= dict.fromkeys(id for id in new if halving.verdict(id) is Verdict.UNDECIDED)

    @property
    def is_busy(self) -> bool:
        """Whether Tune has trials of ours that run, start or wait, and the run goes on."""
        return bool(self._ids) and not self._stop.requested

    # -- asked by the searcher

    def hand_out(self, tune_id: str) -> Assignment | None:
        """Return the next trial that Tune does not know yet, or None if none may begin now."""
        in_reserve = not self._has_free_slot()
        if self._stop.requested or self._reserve_waits() or (in_reserve and not self._may_reserve()):
            return None
        id = self._next()
        if id is None or id in self._tune_trials:  # if Tune knows it, it is paused, and `promote` returns it
            return None
        if id not in self._assignments:  # of a stage that cannot begin yet, since its data are not prepared
            return None
        self._reserve = id if in_reserve else ""
        self._ids[tune_id] = id
        self._hold(id)
        return self._assignments[id]

    def go_on(self) -> bool:
        """Take in the trials that follow from those that have ended; return whether there are any."""
        is_busy = self.is_busy
        if self._stop.requested or (is_busy and not self._may_follow):
            return False
        self._may_follow = False
        if not is_busy:
            self._without_a_chance()  # of an earlier run, unknown to Tune: nothing is told of their end by and by
        stage = self._next_stage(is_busy)
        if stage is not None:
            self._add(*stage) if is_busy else self._begin(*stage)
        return stage is not None

    def leave(self, tune_id: str, failed: bool) -> None:
        """Note that Tune is done with a trial; `failed`: it could not even be started.

        That is no fault of the trial's: a process was kept warm for it, and has died meanwhile. So it is handed out
        anew, as another trial of Tune's, but not forever, unless the process went with its node.
        """
        id = self._ids.pop(tune_id, None)
        if id is None:
            return
        trial = self._tune_trials.pop(id, None)
        self._let_go(id)
        if failed and id not in self._ended:
            self._false_starts[id] += trial is None or not went_with_its_node(trial)
            if self._false_starts[id] > self._retries:
                self._may_follow = True
                self._ended.add(id)
                self.halving.fail(id)
            else:
                self.halving.release(id)

    def has_ended(self, id: str) -> bool:
        """Whether a trial has come to an end in this run."""
        return id in self._ended

    # -- asked by the scheduler

    def know(self, trial: TuneTrial) -> bool:
        """Note Tune's own object of a trial; return whether it was not known."""
        id = self._ids[trial.trial_id]
        is_new = id not in self._tune_trials
        self._tune_trials[id] = trial
        return is_new

    def judge(self, trial: TuneTrial, result: dict[str, Any]) -> Verdict:
        """Take in a report; return whether the trial goes on (SAFE), is over (OUT), or waits (UNDECIDED).

        A report names all rungs so far, since after a death the trial may repeat one that is known already.
        """
        id = self._ids[trial.trial_id]
        self._twins.note(id, int(result["epoch"]))
        if result["status"] == "diverged":
            self._twins.diverge(id)
        if result.get("lacks_state") or result["status"] == "failed":
            self._twins.give_up(id)
        for rung, (score, val_loss) in enumerate(result["rungs"]):
            self.halving.record(id, rung, score, val_loss, result.get("costs", ()))
        ends = {"finished": self.halving.finish, "diverged": self.halving.diverge, "failed": self.halving.fail}
        if result["status"] == "failed":
            self._endings.failed.add(id)
        if result["status"] in ends:
            self._end(id, ends[result["status"]])
            return Verdict.OUT
        verdict = self._verdict(id) if result["rungs"] else Verdict.SAFE
        if verdict is Verdict.OUT:
            self._let_go(id)
            self._may_follow = True
            self._endings.stop(id, self.halving.explain(id))
        elif verdict is Verdict.UNDECIDED:
            self._let_go(id)
            self._waiting[id] = None
            self.halving.release(id)
            waits_for_twin = self.halving.verdict(id) is Verdict.SAFE
            self._endings.pause(
                id, self.halving.explain(id), "another trial trains its epochs" if waits_for_twin else ""
            )
        return verdict

    def _verdict(self, id: str) -> Verdict:
        """Return whether a trial goes on from a rung; one whose place is sure may have to wait for a twin."""
        verdict = self.halving.verdict(id)
        return Verdict.UNDECIDED if verdict is Verdict.SAFE and self._twins.waits(id) else verdict

    def promote(self) -> TuneTrial | None:
        """Return the paused trial to go on next, if it is its turn before those that have not begun."""
        id = self._next() if self._has_free_slot() else None
        trial = self._tune_trials.get(id) if id else None
        if id is None or trial is None or trial.status != TuneTrial.PAUSED:
            return None
        self._hold(id)
        return trial

    def give_up(self, trial: TuneTrial) -> None:
        """Note that a trial has failed for good, though Tune is about to start it again."""
        self._given_up.append(trial)
        self._twins.give_up(self._ids[trial.trial_id])
        self._end(self._ids[trial.trial_id], self.halving.fail)

    def take_out(self) -> list[TuneTrial]:
        """Return the trials that Tune is to stop: those given up, and those that wait without a chance.

        Once the run is to stop, it is all that have no process, since Tune would wait for them. Those with one end by
        themselves: the stop flag tells them.
        """
        given_up, self._given_up = self._given_up, []
        if not self._stop.requested:
            return given_up + self._without_a_chance()
        idle = (TuneTrial.PAUSED, TuneTrial.PENDING)
        return given_up + [trial for trial in self._tune_trials.values() if trial.status in idle]

    def _without_a_chance(self) -> list[TuneTrial]:
        """Take the waiting trials that have no chance any more out of the queue; return those that Tune knows.

        Each look takes time in proportion to how many wait, so there is one only now and then. With no trial running
        there is always one: nothing else may be left to happen, and Tune ends once these are stopped.
        """
        began = time.monotonic()
        if began < self._check_at and self._holding:
            return []
        out = [id for id in self._waiting if self.halving.verdict(id) is Verdict.OUT]
        for id in out:
            del self._waiting[id]
            self._may_follow = True
            self._endings.stop(id, self.halving.explain(id))
        now = time.monotonic()
        self._check_at = now + (now - began) / CHECK_SHARE
        # Those that paused in an earlier run, and were not handed out in this one, are unknown to Tune.
        return [self._tune_trials[id] for id in out if id in self._tune_trials]

    def _next(self) -> str | None:
        return self.halving.next_trial(self._twins.waits, self._begun, self._twins.arriving)

    def _end(self, id: str, note: Callable[[str], None]) -> None:
        note(id)
        self._ended.add(id)
        self._may_follow = True
        self._let_go(id)

    def _let_go(self, id: str) -> None:
        self._holding.discard(id)
        self._twins.release(id)

    def _hold(self, id: str) -> None:
        self._moved_at = time.monotonic()
        self._waiting.pop(id, None)
        self._holding.add(id)
        self.halving.start(id)
        self._twins.start(id)

    # -- slots

    def _has_free_slot(self) -> bool:
        """Whether there is a slot in which no trial runs or is about to; the one in reserve holds none yet."""
        now = time.monotonic()
        if now - self._counted_at > RECOUNT_EVERY_S:
            self._slots, self._counted_at = max(1, self._count_slots()), now
        return len(self._holding) - self._reserve_waits() < min(self._slots, self._max_concurrent)

    def _reserve_waits(self) -> bool:
        return self._reserve in self._holding and self._status(self._reserve) == TuneTrial.PENDING

    def _may_reserve(self) -> bool:
        """Whether all slots have been taken for long by trials that run, so that only a new node could help."""
        is_settled = time.monotonic() - self._moved_at >= ASK_FOR_MORE_AFTER_S
        is_allowed = len(self._holding) < self._max_concurrent
        return is_settled and is_allowed and all(self._status(id) == TuneTrial.RUNNING for id in self._holding)

    def _status(self, id: str) -> str:
        return self._tune_trials[id].status if id in self._tune_trials else TuneTrial.RUNNING
