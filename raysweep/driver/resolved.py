"""The run folder's `sweep.yaml` and `resolved.yaml`, and what must not change while a run lives."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ray

from raysweep.errors import UserError
from raysweep.store import Record, RunFolder
from raysweep.store.sealed import seal
from raysweep.sweepfile import Sweep
from raysweep.sweepfile.plan import Trial

MUST_MATCH = {
    "data": "the images or labels changed",
    "precision": "precision resolves differently here",
    "workers": "another number of workers",
}


def planned_record(trial: Trial) -> Record:
    """A trial's record before anything was trained."""
    return Record(
        id=trial.id,
        name=trial.name,
        seed=trial.seed,
        axes=dict(trial.axes),
        config=trial.config.model_dump(mode="json"),
        epochs=trial.config.epochs,
    )


def check_conditions(folder: RunFolder, left: Sequence[Record], now: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse to go on with trials under other conditions than they began with.

    Raises:
        UserError: one message a condition that changed.
    """
    problems = {}
    for record in left:
        for key, meaning in MUST_MATCH.items():
            if record.epoch and key in record.conditions and record.conditions[key] != now[record.id][key]:
                problems[key] = (
                    f"{folder.path}: {meaning} since the run began: {key} was {record.conditions[key]!r}, "
                    f"is {now[record.id][key]!r}; put it back, or start anew with --fresh"
                )
    if problems:
        raise UserError(*problems.values())


def write_resolved(
    folder: RunFolder,
    sweep: Sweep,
    sweep_path: Path,
    trials: Sequence[Trial],
    conditions: Mapping[str, Mapping[str, Any]],
) -> None:
    """Write the sweep file as given, and the plan with every default, versions and data fingerprints."""
    folder.files.write("sweep.yaml", sweep_path.read_bytes())
    document = {
        "sweep": sweep.model_dump(mode="json"),
        "versions": {
            "raysweep": version("raysweep"),
            "python": platform.python_version(),
            "torch": version("torch"),
            "ray": ray.__version__,
            "platform": sys.platform,
        },
        "data": sorted({entry["data"] for entry in conditions.values()}),
        "trials": [
            {
                "id": trial.id,
                "name": trial.name,
                "seed": trial.seed,
                "axes": _jsonable(trial.axes),
                "epochs": trial.config.epochs,
                "config": trial.config.model_dump(mode="json"),
            }
            for trial in trials
        ],
    }
    folder.files.write("resolved.yaml", _to_yaml(seal(document)).encode())


def _to_yaml(document: Mapping[str, Any]) -> str:
    """Write YAML that is JSON as well, a line for each trial: a plan of thousands is written and read at once."""
    lines = []
    for key, value in document.items():
        if key == "trials":
            text = "[\n  " + ",\n  ".join(map(json.dumps, value)) + "\n ]"
        else:
            text = json.dumps(value, indent=1).replace("\n", "\n ")
        lines.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _jsonable(axes: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: value.model_dump(mode="json") if hasattr(value, "model_dump") else value for key, value in axes.items()
    }
