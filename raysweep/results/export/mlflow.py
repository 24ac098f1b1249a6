"""To MLflow: an experiment for each sweep, a parent run for each run folder, a child run for each trial.

What MLflow holds already is the truth: runs are found again by a tag that is set as they are made, and an epoch is
there once the last of its metrics is. Of an epoch that was cut off, the rest is added: equal metrics, with equal times,
MLflow stores once.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.tracking import MlflowClient

from raysweep.results.export.exported import ExportedSweep, ExportedTrial

KEY = "raysweep.key"
"""The tag that tells which trial of which run folder a run is."""
DIGEST = "raysweep.exported"
"""The tag set last: what the run holds, whole."""
MOST_METRICS, MOST_PARAMS = 1000, 100
"""What MLflow takes at once."""
LONGEST = 6000
"""Characters of a parameter's value that MLflow keeps."""
NOT_IN_NAMES = re.compile(r"[^\w\-. /:]|^/+|/+$|/(?=/)")
"""What MLflow does not take in a metric's name: `val/acc@1` becomes `val/acc_1`."""
FAILED = ("diverged", "failed")
LAST_OF_AN_EPOCH, LAST_OF_ALL = "epoch", "final/score"
"""The metrics that are written last: of each epoch, and of a trial that has ended."""


def export(sweep: ExportedSweep) -> None:
    """Export a run to $MLFLOW_TRACKING_URI; without it to MLflow's own default, mlflow.db in the working directory."""
    _make_database(mlflow.get_tracking_uri())
    client = MlflowClient()
    experiment = client.get_experiment_by_name(sweep.name)
    id = experiment.experiment_id if experiment else client.create_experiment(sweep.name)
    there = _runs(client, id)
    tags = {"mlflow.runName": sweep.name, "run folder": sweep.path, "mlflow.note.content": sweep.description}
    parent = there.get(sweep.key) or client.create_run(id, tags={KEY: sweep.key, **tags})
    for trial in sweep.trials:
        run = there.get(trial.key)
        if run is None:
            tags = {"mlflow.runName": trial.id, "mlflow.parentRunId": parent.info.run_id, "sweep": sweep.name}
            run = client.create_run(id, tags={KEY: trial.key, **tags})
        if run.data.tags.get(DIGEST) != trial.digest:
            _export_trial(client, run, trial)
    client.update_run(parent.info.run_id, status="RUNNING" if sweep.is_driven else "FINISHED")


def _make_database(uri: str) -> None:
    """Make MLflow's database file if there is none: aside first, since MLflow cannot use one that it made in part."""
    path = Path(uri.removeprefix("sqlite:///"))
    if uri.startswith("sqlite:///") and not path.exists():
        aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        MlflowClient(f"sqlite:///{aside}").search_experiments()
        os.replace(aside, path)


def _runs(client: MlflowClient, experiment: str) -> dict[str, Run]:
    """Return the experiment's runs that raysweep made, by key."""
    runs: dict[str, Run] = {}
    page = None
    while True:
        found = client.search_runs([experiment], max_results=1000, page_token=page)
        runs |= {run.data.tags[KEY]: run for run in found if KEY in run.data.tags}
        page = found.token
        if not page:
            return runs


def _export_trial(client: MlflowClient, run: Run, trial: ExportedTrial) -> None:
    """Export what MLflow does not have of a trial; the tag that says so comes last."""
    id, began = run.info.run_id, run.info.start_time
    params = [Param(key, str(value)[:LONGEST]) for key, value in trial.config.items() if key not in run.data.params]
    for start in range(0, len(params), MOST_PARAMS):
        client.log_batch(id, params=params[start : start + MOST_PARAMS])
    metrics = [
        Metric(NOT_IN_NAMES.sub("_", tag), value, began + trial.ms.get(epoch, 0), epoch)
        for epoch, tag, value in _missing(client, run, trial)
    ]
    for start in range(0, len(metrics), MOST_METRICS):
        client.log_batch(id, metrics=metrics[start : start + MOST_METRICS])
    client.log_batch(id, tags=[RunTag(key, str(value)) for key, value in _tags(trial).items()])
    if trial.has_ended:
        client.set_terminated(
            id, "FAILED" if trial.status in FAILED else "FINISHED", began + max(trial.ms.values(), default=0)
        )
    client.set_tag(id, DIGEST, trial.digest)


def _missing(client: MlflowClient, run: Run, trial: ExportedTrial) -> Iterator[tuple[int, str, float]]:
    """Yield what a run lacks, as (epoch, metric, value).

    A trial that was killed trains its last epochs again, which then took another time: they are not told again.
    """
    there = _epochs(client, run, LAST_OF_AN_EPOCH)
    for epoch, row in trial.curves.items():
        if epoch not in there:
            yield from ((epoch, tag, row[tag]) for tag in sorted(row, key=lambda tag: tag == LAST_OF_AN_EPOCH))
    last = max(trial.curves, default=0)
    if trial.has_ended and last not in _epochs(client, run, LAST_OF_ALL):
        final = sorted(trial.final.items(), key=lambda each: f"final/{each[0]}" == LAST_OF_ALL)
        yield from ((last, f"final/{tag}", value) for tag, value in final)


def _epochs(client: MlflowClient, run: Run, metric: str) -> set[int]:
    return {each.step for each in client.get_metric_history(run.info.run_id, metric)}


def _tags(trial: ExportedTrial) -> Mapping[str, Any]:
    tags = {"status": trial.status, "seed": trial.seed, "rank": trial.rank, "best weights": trial.weights}
    varied = {f"varied.{key}": value for key, value in trial.varied.items()}
    return {key: value for key, value in {**tags, "error": trial.error, **varied}.items() if value is not None}
