"""The generations of a search in its run folder, `search/000.json` and so on: what was made is not made again."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from posixpath import basename

from raysweep.store.document import checked, seal, to_bytes, unseal
from raysweep.store.runfolder import RunFolder
from raysweep.sweepfile.proposals import Generation

FOLDER = "search"


@dataclass(frozen=True)
class Made:
    """A generation as the run folder has it."""

    generation: Generation
    marks: list[str]  # a hash of what each proposal's trials train (`sweepfile.plan.mark_of_proposal`)
    versions: dict[str, str] = field(default_factory=dict)  # of what has proposed it


def read_generations(folder: RunFolder) -> list[Made]:
    """Return the generations that were made, in order, up to the first that is lost or damaged."""
    made: list[Made] = []
    while (each := folder.read(_path(len(made)), _parse, "this generation and later ones are made again")) is not None:
        made.append(each)
    return made


def write_generation(folder: RunFolder, generation: Generation, marks: list[str]) -> None:
    """Write a generation, before its first trial begins."""
    try:
        versions = {"optuna": version("optuna")}
    except PackageNotFoundError:
        versions = {}
    folder.files.write(_path(generation.number), to_bytes(seal(asdict(Made(generation, marks, versions)))))


def drop_generations(folder: RunFolder, first: int) -> None:
    """Delete the generations from one on, which are made again: of another sweep file, or after one that is damaged."""
    later = [path for path in folder.files.list_files(FOLDER) if basename(path) >= basename(_path(first))]
    for path in sorted(later, reverse=True):
        folder.files.delete(path)


def _path(number: int) -> str:
    return f"{FOLDER}/{number:03}.json"


def _parse(data: bytes) -> Made:
    made: Made = checked(Made, unseal(json.loads(data)))
    return made
