"""The generations of a search in its run folder, `search/000.json` and so on: what was made is not made again."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version

from raysweep.store.document import checked, seal, to_bytes, unseal
from raysweep.store.runfolder import RunFolder
from raysweep.sweepfile.proposals import Generation

FOLDER = "search"


@dataclass(frozen=True)
class Made:
    """A generation as the run folder has it."""

    generation: Generation
    configs: list[str]  # a hash of each proposal's whole config, what its trials train
    versions: dict[str, str] = field(default_factory=dict)  # of what has proposed it


def read_generations(folder: RunFolder) -> list[Made]:
    """Return the generations that were made, in order, up to the first that is lost or damaged."""
    made: list[Made] = []
    while (each := folder.read(_path(len(made)), _parse, "this generation and later ones are made again")) is not None:
        made.append(each)
    return made


def write_generation(folder: RunFolder, generation: Generation, configs: list[str]) -> None:
    """Write a generation, before its first trial begins."""
    try:
        versions = {"optuna": version("optuna")}
    except PackageNotFoundError:
        versions = {}
    made = Made(generation, configs, versions)
    folder.files.write(_path(generation.number), to_bytes(seal(asdict(made))))


def drop_generations(folder: RunFolder) -> None:
    """Delete all generations: the sweep has changed, so that its search begins anew."""
    folder.files.delete_folder(FOLDER)


def _path(number: int) -> str:
    return f"{FOLDER}/{number:03}.json"


def _parse(data: bytes) -> Made:
    made: Made = checked(Made, unseal(json.loads(data)))
    return made
