"""`raysweep schema`."""

from __future__ import annotations

import argparse
import json

from raysweep.commands.context import BRINGS

SUMMARY = "print the JSON Schema of sweep files, for editors"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.add_argument("--loop", metavar="NAME", help="the loop whose settings it has; default: classify")
    parser.add_argument("--import", dest="imports", action="append", default=[], metavar="MODULE", help=BRINGS)
    parser.add_argument(
        "--markdown",
        action="store_true",
        help="print the reference instead, as docs/sweep_file.md; of a loop, its settings",
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the schema, or the reference for people; return the exit code."""
    if arguments.markdown:
        from raysweep.sweepfile.reference import reference, settings_of

        print(reference() if arguments.loop is None else settings_of(arguments.loop), end="")
        return 0
    from raysweep.loops import CLASSIFY
    from raysweep.sweepfile.json_schema import sweep_schema

    print(json.dumps(sweep_schema(arguments.loop or CLASSIFY), indent=2))
    return 0
