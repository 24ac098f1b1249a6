"""What the driver itself commits: how trials without a slot end, that one begins anew, that losers have no weights."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from raysweep.driver.board import Board
from raysweep.driver.failures import Failure
from raysweep.halving.rungs import RungReport
from raysweep.halving.words import decisive, in_words
from raysweep.results.ranking import RankedConfig
from raysweep.results.trade_offs import trade_offs
from raysweep.store import Record, RunFolder
from raysweep.store.runfolder import OF_THE_BEST
from raysweep.sweepfile.schema import Objective


class Endings:
    """Tells the board that trials wait, were stopped or failed, and commits it.

    Such a trial has no process that could commit. A thread does it here, since Tune must not wait for the storage.
    """

    def __init__(self, folder: RunFolder, board: Board) -> None:
        self._folder, self._board = folder, board
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="raysweep-endings")
        self._commits: list[Future[None]] = []
        self.failed: set[str] = set()
        """The ids of the trials that have failed for good in this run."""

    def pause(self, trial_id: str, rungs: list[RungReport], reason: str = "") -> None:
        """Say that a trial waits at its last rung, which it has committed itself; by default since it may be beaten."""
        reason = reason or _reason(rungs)
        self._board.update(trial_id, "paused", status="paused", epoch=rungs[-1].epoch, reason=reason)

    def stop(self, trial_id: str, rungs: list[RungReport]) -> None:
        """Say that a trial is stopped at its last rung, and commit it."""
        self._board.update(trial_id, "ended", status="stopped", epoch=rungs[-1].epoch, reason=_reason(rungs))
        self._commits.append(self._thread.submit(self._commit_stop, trial_id))

    def fail(self, planned: Record, failure: Failure) -> None:
        """Commit that a trial failed for good."""
        self.failed.add(planned.id)
        self._commits.append(self._thread.submit(self._commit_failure, planned, failure))

    def wait(self) -> None:
        """Wait for all commits so far; raise what one of them raised."""
        for commit in self._commits:
            commit.result()

    def finish(self) -> None:
        """Wait for all commits, the last ones; raise what one of them raised."""
        self._thread.shutdown()
        self.wait()

    def _commit_stop(self, trial_id: str) -> None:
        record = self._folder.record(trial_id)
        if record is not None and not record.is_final:
            self._folder.commit(record.with_(status="stopped"), {}, keep=OF_THE_BEST)
            self._board.note_changed(trial_id)

    def _commit_failure(self, planned: Record, failure: Failure) -> None:
        record = self._folder.record(planned.id) or planned
        error = record.ended_by(failure.as_error())
        self._folder.commit(record.with_(status="failed", error=error), {})
        self._board.note_changed(planned.id)


def _reason(rungs: list[RungReport]) -> str:
    report = decisive(rungs)
    return in_words(report) if report else ""


def begin_anew(folder: RunFolder, trial_id: str) -> None:
    """Let a trial that has ended be trained again, its weights being damaged.

    One that finished keeps its scores at the rungs; one that was stopped early would be out by them, so it has none.
    """
    if record := folder.record(trial_id):
        former = record.cut(0).former_metrics if record.status == "finished" else []
        again = record.with_(status="planned", metrics=[], best=None, former_metrics=former, origins=[])
        folder.commit(again, {}, keep=())


def drop_weights_of_losers(
    folder: RunFolder,
    ranked: Sequence[RankedConfig],
    keep_best: int,
    objective: Objective,
    may_come_back: Collection[str] = (),
) -> None:
    """Delete weights that nobody will ask for, so that a large sweep does not fill the disk.

    Which images they got right is kept: it is small, and configs are compared by it.
    """
    losers = losers_of(ranked, keep_best, objective, may_come_back)
    with_weights = [record for record in losers if record.weights.keys() - {"correct"}]
    folder.files.for_each(lambda record: folder.commit(record, {}, keep=("correct",)), with_weights)


def losers_of(
    ranked: Sequence[RankedConfig], keep_best: int, objective: Objective, may_come_back: Collection[str] = ()
) -> list[Record]:
    """Return the trials whose weights nobody will ask for: all but the best seed of each of the best configs.

    With several objectives, so are all of the front. A config some of whose trials go on, or `may_come_back`,
    keeps all: its mean may still rise.
    """
    settled = [
        config
        for config in ranked
        if all(record.is_final and record.id not in may_come_back for record in config.trials)
    ]
    front = [each.config for each in trade_offs(settled, objective) if not each.dominated_by]
    kept = {config.best.id for config in (*settled[:keep_best], *front) if config.best}
    return [record for config in settled for record in config.trials if record.id not in kept]
