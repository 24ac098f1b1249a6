"""The command line: which command the words choose, and how it ends when there are errors.

In: the words after `raysweep`. Out: an exit code. A command is a module of `raysweep.commands` with a `SUMMARY`, its
`add_flags(parser)` and its `run(arguments)`. Only the chosen one is imported, so that `plan` answers at once.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from raysweep import __version__
from raysweep.errors import Interrupted, RaysweepError, UserError, did_you_mean
from raysweep.registry import import_modules

COMMANDS = (
    *("run", "plan", "rehearse", "data", "status", "watch", "confirm", "probe", "report", "compare", "pull", "export"),
    *("clean", "predict", "models", "submit", "doctor", "schema", "convert"),
)
"""The commands in the order of `--help`, each a module of that name in `raysweep.commands`."""

DESCRIPTION = "One YAML file and one command run a grid of training experiments on a cluster of GPUs."
EPILOG = """\
examples:
  raysweep sweeps/quickstart.yaml                 run it, or go on with it
  raysweep sweeps/quickstart.yaml epochs=2 lr=0.1 with other settings
  raysweep plan sweeps/quickstart.yaml            what would be trained
  raysweep rehearse sweeps/quickstart.yaml        what an epoch costs here, and whether trials resume exactly
  raysweep status sweeps/runs/quickstart          how far it is; a run folder stands for its sweep file
  raysweep watch sweeps/quickstart.yaml           the same in the browser, while it goes on
  raysweep confirm sweeps/quickstart.yaml         is the winner the winner? fresh seeds for the best configs
  raysweep pull sweeps/quickstart.yaml --to best  the best checkpoint
  raysweep predict best photos --csv classes.csv  classify images with it

exit codes:
  0 done   1 some trials failed   2 wrong input   3 a limit was reached   130 interrupted, state safe
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code. The user's errors are printed to stderr without a traceback."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        arguments = _parse(_with_command(words))
        if modules := getattr(arguments, "imports", ()):
            sys.path.insert(0, os.getcwd())
            import_modules(modules)
        return int(arguments.run(arguments))
    except RaysweepError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return Interrupted.exit_code
    except BrokenPipeError:  # the reader of our output, such as `head`, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _with_command(words: list[str]) -> list[str]:
    """Put `run` before a sweep file that stands alone."""
    first = next((word for word in words if not word.startswith("-")), None)
    if first is None or first in COMMANDS:
        return words
    if not first.endswith((".yaml", ".yml")) and not Path(first).exists():
        raise UserError(
            f"{first!r} is neither a sweep file nor a command{did_you_mean(first, COMMANDS)}; "
            f"commands: {', '.join(COMMANDS)}"
        )
    return ["run", *words]


def _parse(words: list[str]) -> argparse.Namespace:
    parser = _parser(words[0] if words and words[0] in COMMANDS else None)
    arguments, rest = parser.parse_known_args(words or ["--help"])
    late = [word for word in rest if "=" in word and not word.startswith("-")]  # overrides after an option
    if late != rest or (late and not hasattr(arguments, "overrides")):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if late:
        arguments.overrides += late
    return arguments


def _parser(chosen: str | None) -> argparse.ArgumentParser:
    """Build the parser of the chosen command, or of all of them for the help on raysweep itself."""
    parser = argparse.ArgumentParser(
        "raysweep",
        usage="raysweep [COMMAND] SWEEP.yaml [key=value ...] [options]",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"raysweep {__version__}", help="print the version")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name in [chosen] if chosen else COMMANDS:
        module = importlib.import_module(f"raysweep.commands.{name}")
        command = commands.add_parser(name, prog=f"raysweep {name}", help=module.SUMMARY, description=module.SUMMARY)
        module.add_flags(command)
        command.set_defaults(run=module.run)
    return parser
