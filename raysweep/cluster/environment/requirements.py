"""The packages that a job's nodes lack. In: a file as pip reads it. Out: its lines, which any node can follow."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from raysweep.config import check_no_credentials
from raysweep.errors import UserError

OTHER_FILES = re.compile(r"-[rce]|--(?:requirement|constraint|editable)(?=[\s=]|$)")
"""Options that name a file or a folder of this machine."""
LINKS = re.compile(r"(?:-f|--find-links)[\s=]*")
URL = re.compile(r"[a-z][\w+.-]*://[^\s'\",]+", re.IGNORECASE)
NO_SECRETS = re.compile(r"(?<=//)(?:[^/:@]*:)?\$\{[A-Z0-9_]+\}@|(?<=ssh://)[^/:@]+@")
"""A variable, which pip replaces by the node's, in place of a password; and the user of SSH, who has a key."""
ARCHIVES = (".whl", ".zip", ".tar.gz", ".tar.bz2", ".tgz")


def read_requirements(file: Path) -> list[str]:
    """Return the lines of a requirements file that ask for something.

    They are kept with the job, where all who see the cluster can read them.

    Raises:
        UserError: it cannot be read, asks for nothing, holds credentials, or names files that the nodes do not have;
            all faults at once, each with its line.
    """
    try:
        lines = [line.partition(" #")[0].strip() for line in file.read_text().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--requirements {file}: cannot be read: {error}") from error
    found = {place: line for place, line in enumerate(lines, 1) if line and not line.startswith("#")}
    if not found:
        raise UserError(f"--requirements {file}: names no package; leave the flag out, or name one a line")
    faults = ((place, fault) for place, line in found.items() for fault in faults_of_line(line))
    if problems := [f"--requirements {file}:{place}: {fault}" for place, fault in faults]:
        raise UserError(*problems)
    return list(found.values())


def packages_of(lines: Iterable[str]) -> list[str]:
    """Return the packages that lines ask for, each as `name`, `name>=1` or `name==1.0; marker`, as far as they say."""
    found = []
    for line in lines:
        text = line.partition(" --")[0].strip()
        try:
            asked = Requirement(text)
            asked.url, asked.extras = None, set()
            found.append(str(asked))
        except InvalidRequirement:
            try:
                name, version, *_ = parse_wheel_filename(text.partition(";")[0].strip().rpartition("/")[2])
                found.append(f"{name}=={version}")
            except InvalidWheelFilename:
                continue
    return found


def names_raysweep(line: str) -> bool:
    """Return whether a line asks for raysweep, by name, as a wheel, or as a folder or a repository of that name."""
    return re.search(r"(^|/)raysweep\b", line) is not None


def faults_of_line(line: str) -> Iterator[str]:
    """Yield what is wrong with a line, without repeating what may be secret."""
    if option := OTHER_FILES.match(line):
        yield f"{option[0]} names a file that the nodes do not have; write what it asks for here instead"
    elif _is_relative(line):
        yield "names a file of this machine, which the nodes do not have; give its URL, or a path that all nodes have"
    for url in URL.findall(line):
        try:
            check_no_credentials(NO_SECRETS.sub("", url))
        except ValueError:
            yield "has a URL that is malformed or holds credentials; for these write ${NAME}, a variable of the nodes"
            return


def _is_relative(line: str) -> bool:
    """Return whether a line asks for a file, or a folder of files, by a relative path."""
    links = LINKS.match(line)
    if line.startswith("-") and not links:
        return False
    place = line[links.end() :] if links else line.partition(";")[0].rpartition("@ ")[2]
    place = place.split(" --")[0].strip(" '\"\\").removeprefix("file:")
    is_path = links is not None or place.startswith((".", "~")) or "/" in place or place.lower().endswith(ARCHIVES)
    return is_path and "://" not in place and not place.startswith(("/", "${"))
