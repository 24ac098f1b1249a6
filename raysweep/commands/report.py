"""`raysweep report`: writes the report of a run, which may still be under way."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from raysweep.commands.context import Context, add_sweep_flags

SUMMARY = "write the report of a run: report.html, report.md and report.csv"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    add_sweep_flags(parser)
    parser.add_argument("--to", metavar="FILE", help="write this .html, .md or .csv instead of all into the run folder")


def run(arguments: argparse.Namespace) -> int:
    """Write the report and say where it is; return the exit code."""
    from raysweep.report import write_report, write_report_to

    context = Context.of(arguments)
    result = context.results(live=True, lenient=True)
    named = None if context.is_run_folder else context.named
    if place := arguments.to:
        write_report_to(Path(place), result, named)
    else:
        place = write_report(result, named)
    print(json.dumps({"name": result.name, "path": place}) if arguments.json else place)
    return 0
