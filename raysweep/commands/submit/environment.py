"""The flags of `submit` and `doctor` that name a job's environment."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raysweep.cluster.environment import Environment

FLAGS = ("requirements", "conda", "package")


def add_environment_flags(parser: Any) -> None:
    """Add the flags to a parser, or to a group of one."""
    parser.add_argument(
        "--requirements",
        metavar="FILE",
        type=Path,
        help="packages that the nodes lack, as pip reads them; Ray installs them for this job alone",
    )
    parser.add_argument(
        "--conda",
        metavar="FILE|NAME",
        help="an environment file of conda's, from which Ray makes this job's environment on each node; or the name of "
        "an environment that all nodes have",
    )
    parser.add_argument(
        "--package",
        metavar="FOLDER",
        type=Path,
        action="append",
        help="a package of your own, with pyproject.toml or __init__.py; it travels with the job",
    )


def environment_of(arguments: argparse.Namespace) -> Environment:
    """Return what the flags ask for.

    Raises:
        UserError: they ask for what cannot be; all faults at once.
    """
    from raysweep.cluster.environment import read_environment

    return read_environment(arguments.requirements, arguments.conda, arguments.package or [])
