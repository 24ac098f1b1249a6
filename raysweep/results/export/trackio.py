"""To trackio: a project for each sweep, a run for each trial, in trackio's own files on this machine ($TRACKIO_DIR).

Every epoch carries an id made from run folder, trial and epoch, which trackio stores once.
"""

from __future__ import annotations

from typing import Any

from trackio import SQLiteStorage

from raysweep.results.export.exported import ExportedSweep, ExportedTrial

FINAL = "final"


def export(sweep: ExportedSweep) -> None:
    """Export a run; look at it with `trackio show --project NAME`."""
    for trial in sweep.trials:
        rows: dict[str, tuple[int, dict[str, Any]]] = {
            f"{trial.key}-{epoch}": (epoch, dict(row)) for epoch, row in trial.curves.items()
        }
        if trial.has_ended:
            rows[f"{trial.key}-{FINAL}"] = (max(trial.curves, default=0), _final(trial))
        SQLiteStorage.bulk_log(
            project=sweep.name,
            run=trial.id,
            run_id=trial.key,
            metrics_list=[row for _, row in rows.values()],
            steps=[step for step, _ in rows.values()],
            log_ids=list(rows),
            config={**trial.config, "seed": trial.seed, "_Group": sweep.name, "run folder": sweep.path},
        )


def _final(trial: ExportedTrial) -> dict[str, Any]:
    scores: dict[str, Any] = {f"final/{tag}": value for tag, value in trial.final.items()}
    others = {"status": trial.status, "rank": trial.rank, "best_weights": trial.weights, "error": trial.error}
    return {**scores, **{key: value for key, value in others.items() if value is not None}}
