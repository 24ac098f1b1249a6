"""`raysweep schema`."""

from __future__ import annotations

import argparse
import json

SUMMARY = "print the JSON Schema of sweep files, for editors"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the command's flag."""
    parser.add_argument("--markdown", action="store_true", help="print the reference instead, as docs/sweep_file.md")


def run(arguments: argparse.Namespace) -> int:
    """Print the schema, or the reference for people; return the exit code."""
    if arguments.markdown:
        from raysweep.sweepfile.reference import reference

        print(reference(), end="")
        return 0
    from raysweep.sweepfile.json_schema import sweep_schema

    print(json.dumps(sweep_schema(), indent=2))
    return 0
