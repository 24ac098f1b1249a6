"""`raysweep convert`: another tool's sweep becomes a sweep file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from raysweep.commands.context import BRINGS
from raysweep.errors import UserError
from raysweep.terminal import count_of, say

SUMMARY = "make a sweep file of a W&B sweep file, or of an Optuna space as JSON"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.add_argument("file", metavar="wandb.yaml", help="the W&B sweep file, or the Optuna space")
    parser.add_argument("--import", dest="imports", action="append", default=[], metavar="MODULE", help=BRINGS)
    parser.add_argument("--output", metavar="FILE", help="the sweep file to write; default: print it")
    parser.add_argument(
        "--samples", type=int, metavar="N", help="how many configs are drawn or proposed; default: W&B's run_cap"
    )
    parser.add_argument(
        "--loop",
        default="",
        metavar="NAME",
        help="the loop that trains; default: classify if it has all the parameters, else one of your own",
    )


def run(arguments: argparse.Namespace) -> int:
    """Write the sweep file, and say what it cannot; return the exit code."""
    from raysweep.sweepfile.convert import convert

    target = Path(arguments.output) if arguments.output else None
    if target and target.exists():
        raise UserError(f"--output {target}: exists already; name another file, or delete it")
    if arguments.samples is not None and arguments.samples < 1:
        raise UserError(f"--samples {arguments.samples}: must be at least 1")
    converted = convert(arguments.file, arguments.samples, _loop(arguments))
    if target or not sys.stdout.isatty():  # the text has them, too
        for note in converted.notes:
            say(note, stderr=True)
    if not target:
        print(converted.text, end="")
        return 0
    try:
        target.write_text(converted.text)
    except OSError as error:
        raise UserError(f"--output {target}: cannot be written: {error.strerror}") from error
    trials = count_of(converted.trials, "trial")
    module = "; its loop is yours to write: the file ends with what it begins with" if converted.module else ""
    say(f"{target}: {trials}{module}", stderr=True)
    return 0


def _loop(arguments: argparse.Namespace) -> str:
    """Return the loop that is asked for: by name, or else the only one that the imported modules register."""
    from raysweep.loops import CLASSIFY, LOOPS

    if not arguments.imports:
        return str(arguments.loop)
    if arguments.loop and arguments.loop not in LOOPS.names():
        raise UserError(f"--loop: {LOOPS.problem(arguments.loop)}")
    own = [name for name in LOOPS.names() if name != CLASSIFY]
    return str(arguments.loop) or (own[0] if len(own) == 1 else "")
