"""A run folder as results: the ranking of its trials, a table for pandas, the best network.

A folder may be read while the run goes on elsewhere.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from raysweep.errors import StorageError
from raysweep.halving.replay import Knows, left_out, replay
from raysweep.halving.rungs import Halving
from raysweep.halving.scores import best_epoch, score_again
from raysweep.loops import CLASSIFY
from raysweep.results.evaluation import Evaluation, read_evaluation
from raysweep.results.ranking import RankedConfig, standings, trial_as_json
from raysweep.results.settings import setting_text, varied_settings
from raysweep.results.trade_offs import TradeOff, rank_all, trade_offs, value_text
from raysweep.store import Record, RunFolder
from raysweep.store.document import DamagedFileError, checked
from raysweep.store.exports import read_exported, results_table, shown_trials
from raysweep.store.newest import Tail, read_newest
from raysweep.store.record import COSTS
from raysweep.store.resolved import Resolved, damaged, read_resolved
from raysweep.store.runfolder import split_path
from raysweep.store.spent import read_spent
from raysweep.sweepfile.named import Named
from raysweep.sweepfile.patch import short_labels
from raysweep.sweepfile.plan import config_key
from raysweep.sweepfile.proposals import left_to_propose
from raysweep.sweepfile.schema import Objective, SchedulerConfig, Search
from raysweep.terminal import Metric, Tell, count_of, format_score, format_score_and_error, silently

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn


@dataclass(frozen=True)
class SweepResult:
    """What a run folder holds of one sweep's plan."""

    name: str
    path: str
    objective: Objective
    configs: list[RankedConfig]
    """In the order of the ranking, each with its seeds; trials that have not begun are `planned`."""
    folder: RunFolder
    resolved: Mapping[str, Any]  # resolved.yaml: the sweep with every default, the plan, versions, data fingerprints
    is_driven: bool = False  # whether a driver held the run folder

    def __repr__(self) -> str:
        mean = self.configs[0].ranked_by.mean if self.configs else None
        score = "none yet" if mean is None else format_score(mean, self.metric)
        return f"<SweepResult {self.name}: {count_of(len(self.trials), 'trial')}, best {self.metric.name} {score}>"

    def _repr_html_(self) -> str:
        """Return the ranking as a table, for notebooks: the settings that vary, score, standard error and seeds.

        With several objectives, also what each config has of the others, and how many dominate it.
        """
        import pandas as pd

        labels, others = short_labels(varied_settings(self.trials)), self.metrics[1:]
        found = [*self.trade_offs, *[None] * (len(self.configs) - len(self.trade_offs))]
        rows: list[dict[str, Any]] = [
            {"rank": place if config.best else None}
            | {label: setting_text(config.trials[0], key) for key, label in labels.items()}
            | {self.metric.name: format_score_and_error(scores.mean, scores.standard_error, self.metric)}
            | {each.name: value_text(traded.values[each.name], each) for each in others if traded}
            | ({"dominated by": traded.dominated_by} if traded else {})
            | {"seeds": scores.seeds}
            for place, (config, traded) in enumerate(zip(self.configs, found, strict=True), 1)
            for scores in (config.ranked_by,)
        ]
        return str(pd.DataFrame(rows).to_html(index=False, na_rep=""))

    @cached_property
    def trials(self) -> list[Record]:
        """The trials, config by config, best first."""
        return [record for config in self.configs for record in config.trials]

    @cached_property
    def trade_offs(self) -> list[TradeOff]:
        """With several objectives: the first of `configs`, all that have a score, the front first; empty with one."""
        return trade_offs(self.configs, self.objective)

    @property
    def front(self) -> list[TradeOff]:
        """With several objectives: the configs that no other one dominates, best first by the first one; else empty."""
        return [each for each in self.trade_offs if not each.dominated_by]

    @cached_property
    def metrics(self) -> list[Metric]:
        """The metrics of all objectives, and how each is written."""
        others = [each.metric for each in self.objective.against]
        return [self.metric, *(Metric.of(name, (each.values[name] for each in self.trade_offs)) for name in others)]

    @cached_property
    def metric(self) -> Metric:
        """The objective's metric, and how it is written."""
        return Metric.of(self.objective.metric, (record.best.score for record in self.trials if record.best))

    @property
    def loop(self) -> str:
        """The name of the loop that trained."""
        return str(self.resolved.get("sweep", {}).get("loop", CLASSIFY))

    @property
    def is_built_in(self) -> bool:
        """Whether the built-in loop trained, which classifies images."""
        return self.loop == CLASSIFY

    @property
    def best(self) -> Record | None:
        """The best seed of the best config, or None if no trial has a score."""
        return self.configs[0].best if self.configs else None

    @property
    def evaluation(self) -> Evaluation | None:
        """The winner's evaluation, if it was made and is of the winner's present weights."""
        found, best = read_evaluation(self.folder), self.best
        return found if found and best and found.is_of(best) else None

    @property
    def cut_short(self) -> str | None:
        """The limit that ended the last run, in words; the ranking is then that of trials cut short."""
        return read_spent(self.folder).cut_short

    @property
    def scheduler(self) -> SchedulerConfig:
        """The scheduler of the last run; StorageError if it is none that this raysweep knows."""
        try:
            scheduler: SchedulerConfig = checked(SchedulerConfig, self.resolved["sweep"].get("scheduler"))
        except DamagedFileError as error:
            raise damaged(self.folder, f"scheduler: {error}") from error
        return scheduler

    def in_words(self, named: Named | None = None) -> str:
        """Return the words by which another command finds this run, which a command line has `named`, if one did.

        A run folder alone is named by its copy of the sweep file.
        """
        named = named or Named(f"{self.path}/sweep.yaml")
        return replace(named, storage=self.folder.parent.uri).in_words()

    @cached_property
    def costs(self) -> frozenset[str]:
        """The names of what is known of trials before they train; none with one objective."""
        return frozenset(name for record in self.trials for name in record.conditions.get(COSTS, ()))

    @cached_property
    def to_come(self) -> int:
        """How many trials a search is yet to propose, at most; 0 without one."""
        asked = self.resolved["sweep"].get("search")
        if not asked:
            return 0
        search, proposed = checked(Search, asked), {config_key(entry["config"]) for entry in self.resolved["trials"]}
        return left_to_propose(search, len(proposed)) * len(self.resolved["sweep"].get("seeds") or [0])

    def halving(self) -> Halving:
        """Rebuild who goes on, from the records in the plan's order."""
        by_id = {record.id: record for record in self.trials}
        records = [by_id[entry["id"]] for entry in self.resolved["trials"]]
        gone = left_out(self.knows, by_id)
        others = [record for record in self.folder.records(gone, lenient=True).values() if record]
        return replay(records, self.scheduler, self.objective, False, self.knows, self.costs, others)

    @cached_property
    def knows(self) -> Knows:
        """With which trials those of each generation of a search compete; empty without a search."""
        return dict(enumerate(self.resolved.get("knows", [])))

    def to_pandas(self) -> pd.DataFrame:
        """Return one row for each trial, best first, with the columns of results.parquet."""
        return results_table(self.trials, standings(self.configs)).to_pandas()

    def load_model(self) -> nn.Module:
        """Return the best trial's network with its best weights; StorageError without a score or whole weights."""
        from raysweep.results.checkpoint import build_from_record

        if self.best is None:
            raise StorageError(f"{self.path}: no trial has a score yet")
        return build_from_record(self.folder, self.best)


def open_run(path: str) -> SweepResult:
    """Read the run folder at a local path or a URI; StorageError if there is none."""
    return read_results(RunFolder(*split_path(path)), live=True)


def read_results(
    folder: RunFolder, live: bool = False, lenient: bool = False, tell: Tell = silently, has_ended: bool = False
) -> SweepResult:
    """Read the trials of the last run's plan; trials that the plan no longer has stay out.

    Args:
        folder: the run folder.
        live: while a driver runs, include the epochs of running trials that are not committed yet.
        lenient: of what a newer raysweep wrote, take what is known here and note what is missing. For looking only.
        tell: shows how far the reading has come.
        has_ended: whether the run is over, though the driver that asks still holds the folder.

    Raises:
        StorageError: it is not a run folder.
    """
    resolved = read_resolved(folder, lenient)
    is_driven = not has_ended and folder.is_driven()
    exported = read_exported(folder).running if is_driven and live else {}
    newest = read_newest(folder) if is_driven and live else {}  # after those that it continues
    return put_together(folder, resolved, is_driven, exported, newest, lenient=lenient, tell=tell)


def put_together(
    folder: RunFolder,
    resolved: Resolved,
    is_driven: bool,
    exported: Mapping[str, list[dict[str, float]]],
    newest: Mapping[str, Tail],
    *,
    changed: Collection[str] | None = None,
    lenient: bool = False,
    tell: Tell = silently,
) -> SweepResult:
    """Return the trials of a plan as their records say, and what a driver has told beyond these.

    Args:
        folder: the run folder, whose records are read.
        resolved: its resolved.yaml.
        is_driven: whether a driver holds it.
        exported: the histories of running trials that results.parquet has, by trial id.
        newest: the ends of trials' histories that newest.json has.
        changed: the trials whose records may have changed since `folder` last read them; see `RunFolder.records`.
        lenient: see `read_results`.
        tell: see `read_results`.
    """
    objective, plan = resolved.objective, [*resolved.plan, *resolved.fresh]
    committed = folder.records((planned.id for planned in plan), lenient, changed, tell=tell)
    shown = shown_trials(folder, {each.id: each for each in plan if each.id in folder.newer}) if folder.newer else {}
    records = []
    for planned in plan:
        record = committed[planned.id] or shown.get(planned.id) or planned
        record = record.with_(name=planned.name, axes=planned.axes, config=planned.config)
        tail, ahead = newest.get(record.id), exported.get(record.id, [])
        if tail:
            ahead = tail.after(max(record.metrics, ahead, key=len))
        if tail and tail.status == "running" and not record.is_final:
            record = record.with_(status="running")
        records.append(_as_it_stands(record, ahead, objective, is_driven))
    configs = rank_all(records, objective, {planned.id for planned in resolved.fresh})
    return SweepResult(folder.name, folder.path, objective, configs, folder, resolved.document, is_driven)


def _as_it_stands(record: Record, newer: list[dict[str, float]], objective: Objective, is_driven: bool) -> Record:
    """Return a record with the epochs that are not committed yet, and its best by the last plan's objective."""
    if len(newer) > record.epoch and not record.is_final:
        now = record.with_(status="running", metrics=newer)
        return now.with_(best=best_epoch(now.judged_metrics, objective))
    status = "interrupted" if record.status == "running" and not is_driven else record.status
    return record.with_(status=status, best=score_again(record.best, record.metrics, objective))


def as_json(result: SweepResult, winner: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the document of `status --json`; `winner` is what can be said of the best config (see `verdict`)."""
    evaluation = result.evaluation
    front = {"front": [each.as_json(place) for place, each in enumerate(result.front, 1)]}
    return {
        "name": result.name,
        "path": result.path,
        "winner": winner,
        **(front if result.objective.against else {}),
        "configs": [config.as_json(place) for place, config in enumerate(result.configs, 1)],
        "trials": [trial_as_json(record) for record in result.trials],
        **({"trials_to_come": result.to_come} if result.resolved["sweep"].get("search") else {}),
        "evaluation": evaluation.as_json() if evaluation else None,
        "cut_short": result.cut_short,
    }
