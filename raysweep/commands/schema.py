"""`raysweep schema`."""

from __future__ import annotations

import argparse
import json

SUMMARY = "print the JSON Schema of sweep files, for editors"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add no flags: the command has none."""


def run(arguments: argparse.Namespace) -> int:
    """Print the schema; return the exit code."""
    from raysweep.sweepfile.json_schema import sweep_schema

    print(json.dumps(sweep_schema(), indent=2))
    return 0
