"""The race of `confirm`: which of the best configs get which fresh seeds, from records alone. No Ray, no torch.

A round gives each config that is still in the race one more seed. The next round is planned once all trials of the last
one have ended, so the plan grows by what the records say: a rerun plans the same rounds, in whatever order trials end.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from raysweep.errors import StorageError
from raysweep.results.evidence import samples_of
from raysweep.results.ranking import rank
from raysweep.results.rerun import GOING_ON, Rerun, rerun_of
from raysweep.results.winner import still_racing
from raysweep.store import Record, RunFolder
from raysweep.store.resolved import read_resolved
from raysweep.sweepfile import Sweep
from raysweep.sweepfile.plan import Trial, config_key, fresh_seeds, with_seed
from raysweep.sweepfile.schema import NoneConfig


def without_rungs(sweep: Sweep) -> Sweep:
    """Return the sweep with no scheduler: who gets fresh seeds trains them to the end."""
    return sweep.model_copy(update={"scheduler": NoneConfig()})


@dataclass(frozen=True)
class Race:
    """The trials on fresh seeds that the records ask for so far."""

    trials: list[Trial]  # round by round
    configs: set[str]  # the finalists, by `config_key`; none before the sweep's own trials have all ended
    waits: bool  # whether there may be more of them, once trials have ended that have not


def plan_race(
    sweep: Sweep, trials: Sequence[Trial], search: Rerun, folder: RunFolder, given_up: Collection[str] = ()
) -> Race:
    """Plan the rounds of fresh seeds, as far as the records tell.

    Args:
        sweep: whose `confirm` says how many.
        trials: those of the sweep itself.
        search: what the run folder knows of them; there is no race before they all have ended.
        folder: the run folder.
        given_up: the ids of trials that failed for good; other failed ones are to be tried again.
    """
    if sweep.confirm is None or _left(search, given_up):
        return Race([], set(), waits=sweep.confirm is not None)
    ranked = [config for config in rank(search.records, sweep.objective) if config.is_comparable]
    finalists = ranked[: sweep.confirm.top] if len(ranked) > 1 else []
    by_key = {config_key(trial.config.model_dump(mode="json")): trial for trial in trials}
    keys = [config_key(config.trials[0].config) for config in finalists]
    chosen_by = samples_of([config.search for config in ranked], sweep.objective, folder)
    planned: list[Trial] = []
    trained: list[list[Record]] = [[] for _ in finalists]
    racing = list(range(len(finalists)))
    for seed in fresh_seeds(sweep):
        round_ = [with_seed(by_key[keys[place]], seed) for place in racing]
        planned += round_
        known = rerun_of(without_rungs(sweep), round_, folder) if round_ else None
        if known is None or _left(known, given_up):
            return Race(planned, set(keys), waits=known is not None)
        for place, record in zip(racing, known.records, strict=True):
            trained[place].append(record)
        fresh = samples_of(trained, sweep.objective, folder)
        asked = still_racing(chosen_by, fresh, sweep.confirm.seeds, sweep.confirm.confidence)
        racing = [place for place in racing if place in asked]  # who has left stays out
    return Race(planned, set(keys), waits=False)


def fresh_of_last_run(trials: Sequence[Trial], folder: RunFolder) -> list[Trial]:
    """Return the trials on fresh seeds that the last run planned, of the configs that are still in the plan."""
    try:
        known = read_resolved(folder, lenient=True).fresh
    except StorageError:  # there is none, or the run writes it again
        return []
    by_key = {config_key(trial.config.model_dump(mode="json")): trial for trial in trials} if known else {}
    keyed = ((config_key(record.config), record.seed) for record in known)
    return [with_seed(by_key[key], seed) for key, seed in keyed if key in by_key]


def _left(rerun: Rerun, given_up: Collection[str]) -> bool:
    return any(fate in GOING_ON and id not in given_up for id, fate in rerun.fates.items())
