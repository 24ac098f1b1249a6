"""`raysweep confirm`: whether the winner of a sweep is one, by fresh seeds for its best configs."""

from __future__ import annotations

import argparse

from raysweep.commands import run as run_command
from raysweep.commands.context import add_sweep_flags

SUMMARY = "train the best configs again, with fresh seeds, to tell whether the winner is really the best"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    add_sweep_flags(parser, "the sweep file")
    parser.add_argument("--address", help="a Ray cluster's address; default: $RAY_ADDRESS, else one is started here")
    parser.set_defaults(fresh=False, wait_for_nodes=1)


def run(arguments: argparse.Namespace) -> int:
    """Go on with the sweep as if its file had `confirm`; what is left of the sweep itself comes first."""
    return run_command.run(arguments, confirm=True)
