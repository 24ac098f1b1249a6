"""What a rerun of a sweep makes of the run that is there: what is known of each trial, and what becomes of it.

The driver acts on `rerun_of` and `raysweep plan` prints it, so both agree about an edited sweep file. No Ray, no torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from pydantic import ValidationError

from raysweep.errors import StorageError
from raysweep.halving.replay import Knows, is_done, left_out, replay, take_in
from raysweep.halving.rungs import Halving, Verdict
from raysweep.halving.scores import score_again
from raysweep.loops import loop_named
from raysweep.results.kept import Kept, what_is_kept
from raysweep.results.search.generations import proposed
from raysweep.store.document import DamagedFileError, checked
from raysweep.store.record import RECORD, Record, planned_record
from raysweep.store.resolved import read_resolved
from raysweep.store.runfolder import RunFolder
from raysweep.store.states import StateStore
from raysweep.sweepfile import Sweep
from raysweep.sweepfile.plan import Trial, difference, is_same_but_for_axes, keep_ids, plan_trials
from raysweep.sweepfile.schema import Confirm
from raysweep.terminal import count_of, counting

Fate = Literal["new", "to_continue", "failed", "finished", "stopped", "diverged"]
"""What becomes of a trial: a failed one is tried again, and halving stops one that others have beaten."""
GOING_ON: tuple[Fate, ...] = ("new", "to_continue", "failed")


@dataclass(frozen=True)
class Rerun:
    """What a rerun finds in the run folder."""

    records: list[Record]  # the trials in plan order, with the new file's config and objective
    halving: Halving
    fates: dict[str, Fate]  # what becomes of each trial, by id

    @property
    def left(self) -> list[Record]:
        """The trials that may have to go on."""
        return [record for record in self.records if self.fates[record.id] in GOING_ON]


def trials_of(sweep: Sweep, folder: RunFolder) -> list[Trial]:
    """Return a sweep's trials, by the ids that they have in the run folder, which may be empty.

    Those of a search are the generations that it has, of which the sweep is told.
    """
    if sweep.search:
        sweep._generations, sweep._plan = proposed(sweep, folder).generations, None
    return keep_ids(plan_trials(sweep), set(folder.trial_ids(deleted_too=True)))


def keep_confirming(sweep: Sweep, folder: RunFolder, is_asked_for: bool = False) -> Sweep:
    """Return the sweep with the `confirm` of its file or, if the file has no such key, of the run folder's last run.

    So an ordinary rerun after `raysweep confirm`, where it `is_asked_for`, does not forget the fresh seeds.
    """
    if sweep.confirm or ("confirm" in sweep.model_fields_set and not is_asked_for):
        return sweep
    confirm = _last_confirm(folder) or (Confirm() if is_asked_for else None)
    return sweep.model_copy(update={"confirm": confirm}) if confirm else sweep


def _last_confirm(folder: RunFolder) -> Confirm | None:
    try:
        last = read_resolved(folder, lenient=True).document["sweep"].get("confirm")
        return checked(Confirm, last) if last else None
    except (StorageError, DamagedFileError):  # the rerun writes it again
        return None


def rerun_of(sweep: Sweep, trials: Sequence[Trial], folder: RunFolder, lenient: bool = False) -> Rerun:
    """Read what the run folder, which may be empty, knows of a plan's trials, and decide what becomes of each.

    Raises:
        StorageError: a record cannot be read, or is of another config with the same id, or a newer raysweep wrote it;
            if `lenient`, the latter counts as absent.
    """
    knows = knows_of(sweep) if any(trial.generation is not None for trial in trials) else {}
    ids = [trial.id for trial in trials]
    committed = folder.records([*ids, *left_out(knows, ids)], lenient, tell=counting)
    records = [_known(trial, committed[trial.id], sweep, folder) for trial in trials]
    others = [record for id in left_out(knows, ids) if (record := committed[id])]
    halving = replay(records, sweep.scheduler, sweep.objective, True, knows, sweep.costs, others)
    return Rerun(records, halving, {record.id: _fate(record, halving, sweep) for record in records})


def with_generation(
    rerun: Rerun, sweep: Sweep, trials: Sequence[Trial], rivals: Sequence[Record], folder: RunFolder
) -> Rerun:
    """Return what a rerun finds together with one more generation of a search, which `rerun.halving` takes in.

    `rivals` are the records of the trials that the generation's own compete with.
    """
    committed = folder.records([trial.id for trial in trials])
    records = [_known(trial, committed[trial.id], sweep, folder) for trial in trials]
    take_in(rerun.halving, records, rivals, sweep.scheduler, sweep.objective, retry_failed=True, costs=sweep.costs)
    fates = {record.id: _fate(record, rerun.halving, sweep) for record in records}
    return Rerun([*rerun.records, *records], rerun.halving, {**rerun.fates, **fates})


def knows_of(sweep: Sweep) -> Knows:
    """Return with which trials those of each generation of a search compete."""
    return {each.number: each.knows for each in sweep._generations or ()}


def _known(trial: Trial, record: Record | None, sweep: Sweep, folder: RunFolder) -> Record:
    """Return a trial's record as the sweep file is now: names, and the score under its objective, may have changed."""
    planned = planned_record(trial)
    if record is None:
        return planned
    if record.config != planned.config:
        _check_that_it_is_the_trials(trial, record, folder)
    best = score_again(record.best, record.metrics, sweep.objective)
    return record.with_(
        name=planned.name, axes=planned.axes, config=planned.config, generation=planned.generation, best=best
    )


def _check_that_it_is_the_trials(trial: Trial, record: Record, folder: RunFolder) -> None:
    try:
        config = loop_named(trial.loop).config.model_validate(record.config)
    except ValidationError:  # of a raysweep whose settings were others
        return
    unlike = difference(trial, config, record.seed)
    if not unlike:
        return
    where, advice = f"{folder.path}/trials/{record.id}", "exclude the new one from the sweep, or move that folder away"
    if is_same_but_for_axes(trial, config, record.seed):
        why = (
            f"trained before the sweep varied it, with another value (now and then: {unlike}), and its id does not tell"
        )
        raise StorageError(f"{where}: {why}; give the sweep another name, or move that folder away")
    raise StorageError(f"{where}: another trial has had this id by chance (now and then: {unlike}); {advice}")


def _fate(record: Record, halving: Halving, sweep: Sweep) -> Fate:
    if is_done(record, sweep.scheduler):
        done: dict[str, Fate] = {"finished": "finished", "diverged": "diverged"}
        return done.get(record.status, "stopped")
    if halving.verdict(record.id) is Verdict.OUT:
        return "stopped"
    if record.status == "failed":
        return "failed"
    return "to_continue" if record.has_begun else "new"


WORDS = {
    "new": "new",
    "finished": "finished",
    "to_continue": "to continue",
    "stopped": "stopped",
    "diverged": "diverged",
    "failed": "failed, to be tried again",
    "removed": "no longer in the file, kept",
}


@dataclass(frozen=True)
class Edits:
    """How many trials become what in a rerun, and what else changes."""

    trials: list[Trial]  # of the plan, by the ids that the run folder has for them
    counts: dict[str, int]  # by fate; and of trials `removed` from the file, which are kept outside the ranking
    notes: list[str]  # what else the rerun does or refuses, in words
    kept: Kept | None = None  # what trials need not train, since others have; None if there is nothing
    stops_early: bool = False  # whether halving may leave less to train

    @property
    def is_anything_left(self) -> bool:
        """Whether a trial may have to go on."""
        return any(self.counts[fate] for fate in GOING_ON)

    def in_words(self) -> list[str]:
        """Return the lines that `raysweep plan` prints."""
        counts = [f"{self.counts[name]} {words}" for name, words in WORDS.items() if self.counts[name]]
        kept = self.kept.in_words(self.stops_early) if self.kept else []
        return [f"run folder: {', '.join(counts)}", *kept, *self.notes]

    def as_json(self) -> dict[str, Any]:
        """Return the `run` entry of `plan --json`."""
        return {**self.counts, "kept": asdict(self.kept) if self.kept else None, "notes": self.notes}


def edits_of(sweep: Sweep, storage: str) -> Edits | None:
    """Return what a rerun would do; None where no run was begun in the local folder `storage`."""
    folder = RunFolder(storage, sweep.name)
    try:
        if not folder.exists():
            return None
    except StorageError:  # a folder that cannot be looked up does not exist for us
        return None
    trials = trials_of(sweep, folder)
    rerun = rerun_of(sweep, trials, folder, lenient=True)
    counts = dict.fromkeys(get_args(Fate), 0) | Counter(rerun.fates.values())
    fresh = _fresh_of_last_run(folder)
    others = set(folder.trial_ids()) - set(rerun.fates) - fresh
    removed = sum(folder.files.is_file(f"trials/{trial_id}/{RECORD}") for trial_id in others)
    begun = [record for record in rerun.left if record.has_begun]
    notes = _notes(sweep, folder, begun)
    notes += proposed(sweep, folder).notes if sweep.search else []
    notes += [f"confirm: the last run planned {count_of(len(fresh), 'trial')} with fresh seeds"] if fresh else []
    states = StateStore(folder).all() if sweep.shares_epochs else {}
    kept = what_is_kept(rerun.left, trials, states, sweep.objective) if states else None
    kept = kept if kept and kept.going_on else None
    return Edits(trials, {**counts, "removed": removed}, notes, kept, stops_early=bool(rerun.halving.rules.rungs))


def _fresh_of_last_run(folder: RunFolder) -> set[str]:
    """Return the ids of the trials that `confirm` added; no file names them."""
    try:
        return {record.id for record in read_resolved(folder, lenient=True).fresh}
    except StorageError:  # the rerun writes it again
        return set()


def _notes(sweep: Sweep, folder: RunFolder, going_on: Sequence[Record]) -> list[str]:
    notes = []
    begun_with = {str(record.conditions["workers"]) for record in going_on if "workers" in record.conditions}
    if others := begun_with - {str(sweep.resources.workers)}:
        notes.append(
            f"resources.workers is {sweep.resources.workers}, but trials to continue began with "
            f"{', '.join(sorted(others))}: refused; put it back, or start anew with --fresh"
        )
    try:
        objective = read_resolved(folder, lenient=True).objective.metric
    except StorageError:  # the rerun writes it again
        return notes
    if objective != sweep.objective.metric:
        notes.append(
            f"objective was {objective}: trials are ranked anew, by {sweep.objective.metric} at the epochs whose "
            f"weights are kept, which {objective} has chosen so far"
        )
    return notes
