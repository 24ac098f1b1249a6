"""resolved.yaml: the sweep of the last run with every default, its plan in order, versions and data fingerprints.

It is YAML that is JSON as well, with a line for each trial, so that a plan of thousands is read at once.
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from raysweep.errors import StorageError
from raysweep.store.document import DAMAGE, SEAL, DamagedFileError, checked, seal, unseal
from raysweep.store.record import Record, planned_record
from raysweep.store.runfolder import RunFolder
from raysweep.sweepfile.plan import StartedFrom, Trial
from raysweep.sweepfile.schema import Objective, Sweep

FILE = "resolved.yaml"
PLANNED = ("id", "name", "seed", "axes", "epochs", "config")
"""The fields of a planned record that are written for each trial."""
MAX_YAML = 1_000_000
"""Characters of an edited resolved.yaml beyond which reading it as YAML would take too long."""


@dataclass(frozen=True)
class Resolved:
    """What resolved.yaml says."""

    document: Mapping[str, Any]
    objective: Objective
    plan: list[Record]  # the planned records of the last run's trials, in order
    fresh: list[Record]  # those of the trials that `confirm` added, in order
    start: StartedFrom | None = None  # where these trials begin, if the sweep file names a trial of another run


def write_resolved(
    folder: RunFolder,
    sweep: Sweep,
    text: bytes,
    trials: Sequence[Trial],
    data: Collection[str],
    fresh: Sequence[Trial] = (),
) -> None:
    """Write sweep.yaml, which is the sweep file's `text` as given, and resolved.yaml.

    `data` are the fingerprints of the data, `fresh` the trials of `confirm`.
    """
    document = {
        "sweep": sweep.model_dump(mode="json"),
        "versions": {
            "raysweep": version("raysweep"),
            "python": platform.python_version(),
            "torch": version("torch"),
            "ray": version("ray"),
            "platform": sys.platform,
        },
        "data": sorted(set(data)),
        **({"start": asdict(trials[0].start)} if trials and trials[0].start else {}),
        **({"knows": [each.knows for each in sweep._generations]} if sweep._generations else {}),
        "trials": [planned_entry(planned_record(trial)) for trial in trials],
        "fresh": [planned_entry(planned_record(trial)) for trial in fresh],
    }
    folder.files.write("sweep.yaml", text)
    folder.files.write(FILE, _to_yaml(seal(document)).encode())


def planned_entry(record: Record) -> dict[str, Any]:
    """A trial of the plan as resolved.yaml has it."""
    of_search = {} if record.generation is None else {"generation": record.generation}
    return {key: getattr(record, key) for key in PLANNED} | of_search


def _to_yaml(document: Mapping[str, Any]) -> str:
    lines = []
    for key, value in document.items():
        if key in ("trials", "fresh"):
            text = "[\n  " + ",\n  ".join(map(json.dumps, value)) + "\n ]"
        else:
            text = json.dumps(value, indent=1).replace("\n", "\n ")
        lines.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def read_resolved(folder: RunFolder, lenient: bool = False) -> Resolved:
    """Read resolved.yaml; `lenient` ignores unknown keys, since a newer raysweep may have written them.

    Raises:
        StorageError: there is none, or it is damaged.
    """
    try:
        text = folder.files.read(FILE).decode(errors="replace")
    except FileNotFoundError:
        folder.files.check_bucket()
        raise StorageError(
            f"{folder.path}: not a run folder (no {FILE}): no run of the sweep has begun here yet"
        ) from None
    try:
        document = _parse(text)
        objective = _objective(document["sweep"]["objective"], lenient)
        start = checked(StartedFrom, document["start"]) if "start" in document else None
        plan = [checked(Record, entry).with_(start=start) for entry in document["trials"]]
        fresh = [checked(Record, entry).with_(start=start) for entry in document.get("fresh", [])]
        for mapping in (document.get("versions", {}), document["sweep"].get("scheduler", {})):
            checked(dict[str, Any], mapping)
    except KeyError as error:
        raise damaged(folder, f"it lacks {error}") from error
    except (YAMLError, *DAMAGE) as error:
        raise damaged(folder, " ".join(str(error).split())) from error
    return Resolved(document, objective, plan, fresh, start)


def _objective(entry: Mapping[str, Any], lenient: bool) -> Objective:
    known = {key: value for key, value in entry.items() if key in Objective.model_fields} if lenient else entry
    objective: Objective = checked(Objective, known)
    return objective


def _parse(text: str) -> dict[str, Any]:
    """Parse it as JSON, which it is unless somebody edited it: YAML would take minutes for a large plan."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        if SEAL in text[:100] or len(text) > MAX_YAML:
            raise
        document = YAML(typ="safe", pure=True).load(text)
    if not isinstance(document, dict):
        raise DamagedFileError("it is no mapping")
    return unseal(document) if SEAL in document else document  # without: written by hand or by another program


def damaged(folder: RunFolder, why: str) -> StorageError:
    """Return the error that says what is wrong with a run folder's resolved.yaml."""
    return StorageError(
        f"{folder.path}/{FILE}: damaged, or edited by hand ({why}); run the sweep again, which writes it anew "
        "and trains only what no record has"
    )
