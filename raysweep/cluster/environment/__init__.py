"""What a job needs beside what the nodes of a Ray cluster have installed, by Ray's runtime environments.

* requirements   lines as pip reads them; Ray installs them into a copy of each node's Python environment
* conda          an environment of conda's, in place of the nodes' own
* packages       folders of packages of the user's own, which travel with the job

In: what the flags of `submit` and `doctor` name. Out: what Ray is told, and what each node must have then.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from raysweep.cluster.environment.conda import pip_lines_of, read_conda
from raysweep.cluster.environment.packages import add_packages, read_package
from raysweep.cluster.environment.requirements import packages_of, read_requirements
from raysweep.errors import UserError

Given = TypeVar("Given")
SETUP_LOG = "runtime_env_setup-*.log in /tmp/ray/session_latest/logs"
"""Where a node keeps what pip or conda said."""


@dataclass(frozen=True)
class Environment:
    """What a job needs beside what its nodes have installed."""

    requirements: Sequence[str] = ()  # lines as pip reads them
    conda: str | Mapping[str, Any] = ""  # the name of an environment that the nodes have, or what conda's file says
    packages: Sequence[Path] = ()  # folders of packages

    def runtime_env(self) -> dict[str, Any]:
        """Return the fields of Ray's runtime environment that have the nodes make it."""
        pip = {"pip": {"packages": list(self.requirements), "pip_check": False}} if self.requirements else {}
        return {**pip, **({"conda": self.conda} if self.conda else {})}

    @property
    def is_made(self) -> bool:
        """Whether nodes have something to install for it."""
        return bool(self.requirements) or isinstance(self.conda, Mapping)

    def add_packages(self, folder: Path) -> list[str]:
        """Put the packages into a job's folder; return what every node must have then, as pip names requirements."""
        asked = packages_of(self.requirements or pip_lines_of(self.conda))
        return [*asked, *add_packages(self.packages, folder)]

    def checksums(self) -> dict[str, str]:
        """Return a checksum for each flag: a line of these files may say more than a listing of jobs should."""
        given = {"--requirements": self.requirements, "--conda": self.conda}
        return {flag: hashlib.sha256(json.dumps(value).encode()).hexdigest() for flag, value in given.items() if value}


def read_environment(requirements: Path | None, conda: str | None, packages: Sequence[Path]) -> Environment:
    """Read what the flags `--requirements`, `--conda` and `--package` name.

    Raises:
        UserError: a file or a folder is not what its flag says, or they do not go together; all faults at once.
    """
    problems: list[str] = []

    def read(reader: Callable[[Any], Given], given: Any) -> Given | None:
        try:
            return reader(given) if given else None
        except UserError as error:
            problems.extend(error.problems)
            return None

    if requirements and conda:
        problems.append(
            "--requirements and --conda: Ray makes a job's environment from one of them; "
            "put the requirements into the environment file, under `- pip:`"
        )
    found = Environment(
        requirements=read(read_requirements, requirements) or [],
        conda=read(read_conda, conda) or "",
        packages=[package for each in packages if (package := read(read_package, each))],
    )
    if problems:
        raise UserError(*problems)
    return found


def why_not_made(said: str) -> str:
    """Return the lines in which Ray says why a node could not make an environment: pip's own, else the last one."""
    lines = [line.strip() for line in said.strip().splitlines() if line.strip()]
    of_pip = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return "; ".join(of_pip or lines[-1:])
