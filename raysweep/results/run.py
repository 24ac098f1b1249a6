"""A run folder as results: the ranking of its trials, a table for pandas, the best network.

`open_run(path)` reads the folder alone; no Ray is needed, and it may be read while the run goes on elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from raysweep.errors import StorageError
from raysweep.halving.scores import best_epoch, score_again
from raysweep.results.evaluation import Evaluation, read_evaluation
from raysweep.results.ranking import can_win, rank, trial_as_json
from raysweep.store import Record, RunFolder
from raysweep.store.sealed import SEAL, TornFileError, unseal
from raysweep.store.spent import read_spent
from raysweep.store.views import results_table, running_metrics, shown_trials
from raysweep.sweepfile.schema import Objective

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn


MAX_YAML = 1_000_000
"""Characters of a resolved.yaml that is not ours, beyond which reading it as YAML would take too long."""


@dataclass(frozen=True)
class SweepResult:
    """What a run folder holds of one sweep's plan."""

    name: str
    path: str
    objective: Objective
    trials: list[Record]
    """Best first; those not begun are `planned`."""
    folder: RunFolder
    resolved: Mapping[str, Any]
    """What resolved.yaml says: the sweep with every default, the plan in order, versions, data fingerprints."""

    @property
    def best(self) -> Record | None:
        """The trial ranked first that has a score, or None."""
        return next((record for record in self.trials if can_win(record)), None)

    @property
    def evaluation(self) -> Evaluation | None:
        """The winner's, if it was made and the winner's weights are still those."""
        found, best = read_evaluation(self.folder), self.best
        return found if found and best and found.is_of(best) else None

    @property
    def cut_short(self) -> str | None:
        """Which limit ended the last run, in words: the ranking is that of trials cut short."""
        return read_spent(self.folder).cut_short

    def to_pandas(self) -> pd.DataFrame:
        """One row a trial, best first: the columns of results.parquet."""
        return results_table(self.trials).to_pandas()

    def load_model(self) -> nn.Module:
        """The best trial's network with its best weights, in evaluation mode.

        Raises:
            StorageError: there is none, or its weights are not whole.
        """
        from raysweep.results.checkpoint import build_from_record

        if self.best is None:
            raise StorageError(f"{self.path}: no trial has a score yet")
        return build_from_record(self.folder, self.best)


def open_run(path: str) -> SweepResult:
    """Read a run folder.

    Args:
        path: of the folder, local or a URI.

    Raises:
        StorageError: it is not a run folder.
    """
    base, question, options = path.partition("?") if "://" in path else (path, "", "")
    storage, _, name = base.rstrip("/").rpartition("/")
    return read_results(RunFolder((storage or ".") + question + options, name), live=True)


def read_results(folder: RunFolder, live: bool = False, lenient: bool = False) -> SweepResult:
    """Read the trials of the last run's plan; those the sweep file no longer has stay out.

    Args:
        folder: the run folder.
        live: while a driver runs, count in the epochs of running trials that are not committed yet.
        lenient: to be looked at only: of what a newer raysweep wrote take what is known here, and note what is missing.

    Raises:
        StorageError: it is not a run folder.
    """
    if not folder.exists():
        folder.files.check_bucket()
        raise StorageError(f"{folder.path}: not a run folder (no resolved.yaml); run the sweep first")
    resolved = _read_resolved(folder)
    try:
        objective = Objective.model_validate(_known(resolved["sweep"]["objective"], Objective.model_fields, lenient))
        plan = [Record(**_known(planned, Record.__dataclass_fields__, lenient)) for planned in resolved["trials"]]
    except (KeyError, TypeError, ValueError) as error:
        raise StorageError(_damaged(folder, f"it lacks what belongs there: {error}")) from error
    alive = folder.is_driven()
    newer = running_metrics(folder) if alive and live else {}
    records = []
    committed = folder.records((planned.id for planned in plan), lenient)
    shown = shown_trials(folder, {each.id: each for each in plan if each.id in folder.newer}) if folder.newer else {}
    for planned in plan:
        record = committed[planned.id] or shown.get(planned.id) or planned
        record = record.with_(best=score_again(record.best, record.metrics, objective))
        if record.status == "running" and not alive:
            record = record.with_(status="paused")
        metrics = newer.get(record.id, [])
        if len(metrics) > record.epoch and not record.is_final:
            record = record.with_(status="running", metrics=metrics, best=best_epoch(metrics, objective))
        records.append(record)
    return SweepResult(folder.name, folder.path, objective, rank(records, objective), folder, resolved)


def _known(document: Mapping[str, Any], keys: Collection[str], lenient: bool) -> Mapping[str, Any]:
    """The document; where it may be a newer raysweep's, only the keys that are known here."""
    return {key: value for key, value in document.items() if key in keys} if lenient else document


def _read_resolved(folder: RunFolder) -> dict[str, Any]:
    """Read resolved.yaml: as JSON, which it is if nobody edited it, since YAML would take minutes for a large plan."""
    text = folder.files.read("resolved.yaml").decode(errors="replace")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        if SEAL in text[:100] or len(text) > MAX_YAML:
            raise StorageError(_damaged(folder, str(error))) from error
        try:
            document = YAML(typ="safe", pure=True).load(text)
        except (YAMLError, ValueError, RecursionError) as error:
            raise StorageError(_damaged(folder, " ".join(str(error).split()))) from error
    if not isinstance(document, dict):
        raise StorageError(_damaged(folder, "it is no mapping"))
    if SEAL not in document:  # of a hand or a program other than ours
        return document
    try:
        return unseal(document)
    except TornFileError as error:
        raise StorageError(_damaged(folder, str(error))) from error


def _damaged(folder: RunFolder, why: str) -> str:
    return (
        f"{folder.path}/resolved.yaml: damaged, or edited by hand ({why}); run the sweep again, which writes it anew "
        "and trains only what no record has"
    )


def as_json(result: SweepResult) -> dict[str, Any]:
    """The document of `status --json`."""
    evaluation = result.evaluation
    return {
        "name": result.name,
        "path": result.path,
        "trials": [trial_as_json(record) for record in result.trials],
        "evaluation": evaluation.as_json() if evaluation else None,
        "cut_short": result.cut_short,
    }
