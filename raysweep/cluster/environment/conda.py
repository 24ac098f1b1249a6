"""An environment of conda's. In: its file, or the name of one that the nodes have. Out: what Ray is told of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from raysweep.cluster.environment.requirements import faults_of_line, names_raysweep
from raysweep.config import check_no_credentials
from raysweep.errors import SweepFileError, UserError
from raysweep.sweepfile.document import Source, read_document

EXPECTED = "must be an environment file of conda's: a mapping with `channels` and `dependencies`"
KEPT = ("channels", "dependencies", "variables")
"""The keys that count: Ray gives the environment a name and a place of its own."""
TOKEN = re.compile(r"/t/[^/]+/")
"""How conda's channels carry a token."""
NO_RAYSWEEP = (
    "names no raysweep under `- pip:`; trials run in this environment alone, so it must be there in the nodes' version "
    "(Ray adds itself): `raysweep=={version}`, or the path of a checkout that all nodes have"
)


def read_conda(given: str) -> str | dict[str, Any]:
    """Return the name as it is, or the environment that a file ending in .yaml or .yml describes.

    It is kept with the job, where all who see the cluster can read it.

    Raises:
        UserError: the file cannot be read, is none of conda's, names no raysweep, holds credentials, or names files
            that the nodes do not have; all faults at once, each with its line.
    """
    if not given.endswith((".yaml", ".yml")):
        if Path(given).name != given:
            raise UserError(
                f"--conda {given}: must be a file that ends in .yaml or .yml, or the name of an environment "
                "that every node has, as `conda env list` there shows it"
            )
        return given
    try:
        source = read_document(given, EXPECTED)
    except SweepFileError as error:
        raise UserError(*(f"--conda {problem}" for problem in error.problems)) from error
    if problems := [f"--conda {source.problem(way, fault)}" for way, fault in _faults(source)]:
        raise UserError(*problems)
    return {key: source.values[key] for key in KEPT if key in source.values}


def pip_lines_of(conda: str | Mapping[str, Any]) -> list[str]:
    """Return the lines that pip is to install into the environment."""
    parts = conda["dependencies"] if isinstance(conda, Mapping) else []
    return [line for part in parts if isinstance(part, Mapping) for line in part["pip"]]


def _faults(source: Source) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield what is wrong, with the way to it, without repeating what may be secret."""
    parts = source.values.get("dependencies")
    if not isinstance(parts, list):
        yield (), EXPECTED
        return
    has_raysweep = False
    for place, part in enumerate(parts):
        way: tuple[str | int, ...] = ("dependencies", place)
        if isinstance(part, str):
            yield from ((way, fault) for fault in _faults_of_url(part))
        elif isinstance(part, dict) and list(part) == ["pip"] and isinstance(part["pip"], list):
            for line, text in enumerate(map(str, part["pip"])):
                has_raysweep |= names_raysweep(text)
                yield from (((*way, "pip", line), fault) for fault in faults_of_line(text))
        else:
            yield way, "must be a package, such as `numpy=1.26`, or `pip:` with a list"
    if not has_raysweep:
        yield ("dependencies",), NO_RAYSWEEP.format(version=version("raysweep"))
    for place, channel in enumerate(source.values.get("channels") or []):
        yield from ((("channels", place), fault) for fault in _faults_of_url(str(channel)))


def _faults_of_url(text: str) -> Iterator[str]:
    try:
        check_no_credentials(text.partition("::")[0])
    except ValueError:
        pass
    else:
        if not TOKEN.search(text):
            return
    yield "has a URL that is malformed or holds credentials; these belong in ~/.condarc on the nodes"
