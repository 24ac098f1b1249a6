"""The command line; each command imports what it needs when it runs, so that `plan` and `--help` answer at once."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from raysweep.errors import RaysweepError, UserError, did_you_mean

if TYPE_CHECKING:
    from raysweep.sweepfile import Sweep

DESCRIPTION = "One YAML file and one command run a grid of image-classifier experiments on a cluster of GPUs."
EPILOG = """\
examples:
  raysweep sweeps/quickstart.yaml                 run it, or go on with it
  raysweep sweeps/quickstart.yaml epochs=2 lr=0.1 with other settings
  raysweep plan sweeps/quickstart.yaml            what would be trained
  raysweep pull sweeps/quickstart.yaml --to best  the best checkpoint

exit codes:
  0 done   1 some trials failed   2 wrong input   3 a limit was reached   130 interrupted, state safe
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code. Errors of the user's are printed to stderr without a traceback."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        arguments = _parse(_with_command(words))
        command: Callable[[argparse.Namespace], int] = arguments.command
        return command(arguments)
    except RaysweepError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # the reader of our output, `head` say, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parse(words: list[str]) -> argparse.Namespace:
    parser = _parser()
    arguments, rest = parser.parse_known_args(words or ["--help"])
    late = [word for word in rest if "=" in word and not word.startswith("-")]  # overrides after an option
    if late != rest or (late and not hasattr(arguments, "overrides")):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if late:
        arguments.overrides += late
    return arguments


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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "raysweep",
        usage="raysweep [COMMAND] SWEEP.yaml [key=value ...] [options]",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, (add, summary) in COMMANDS.items():
        add(commands.add_parser(name, prog=f"raysweep {name}", help=summary, description=summary))
    return parser


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from raysweep import __version__

        print(f"raysweep {__version__}")
        parser.exit()


def _sweep_arguments(parser: argparse.ArgumentParser, storage: bool = True) -> None:
    parser.add_argument("sweep", metavar="SWEEP.yaml")
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout")
    parser.add_argument("--import", dest="imports", action="append", default=[], metavar="MODULE",
                        help="a module that registers networks, data or augmentations of your own")  # fmt: skip
    if storage:
        parser.add_argument("--storage", metavar="PATH|URI", help="where run folders lie, instead of the sweep file's")


def _overrides_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="patch the sweep file: epochs=2, scheduler.eta=2"
    )


# ---------------------------------------------------------------------------------------------------------
# Commands


def _add_run(parser: argparse.ArgumentParser) -> None:
    _sweep_arguments(parser)
    _overrides_argument(parser)
    parser.add_argument("--address", help="of a Ray cluster; default: $RAY_ADDRESS, else one is started here")
    parser.add_argument("--fresh", action="store_true", help="move an old run folder aside and start anew")
    parser.set_defaults(command=_run)


def _run(arguments: argparse.Namespace) -> int:
    _import_and_load(arguments)  # a wrong file is told before the seconds that importing torch and Ray takes
    from raysweep.driver import run_sweep

    return run_sweep(
        arguments.sweep,
        arguments.overrides,
        storage=arguments.storage,
        address=arguments.address,
        imports=arguments.imports,
        fresh=arguments.fresh,
        as_json_document=arguments.json,
    )


def _import_and_load(arguments: argparse.Namespace) -> Sweep:
    from raysweep.registry import import_modules
    from raysweep.sweepfile import load_sweep

    sys.path.insert(0, os.getcwd())
    import_modules(arguments.imports)
    return load_sweep(arguments.sweep, getattr(arguments, "overrides", ()))


def _add_plan(parser: argparse.ArgumentParser) -> None:
    _sweep_arguments(parser, storage=False)
    _overrides_argument(parser)
    parser.set_defaults(command=_plan)


def _plan(arguments: argparse.Namespace) -> int:
    from raysweep.plan import plan_as_json, plan_trials

    sweep = _import_and_load(arguments)
    trials = plan_trials(sweep)
    if arguments.json:
        print(json.dumps(plan_as_json(sweep, trials)))
        return 0
    from rich.console import Console
    from rich.table import Column, Table

    axes = list(dict.fromkeys(key for trial in trials for key in trial.axes))
    columns = [Column(name, overflow="fold") for name in ("#", "trial", *axes, "seed", "epochs")]
    table = Table(*columns, box=None, header_style="bold", pad_edge=False)
    for number, trial in enumerate(trials, 1):
        values = (str(trial.axes.get(key, "-")) for key in axes)
        table.add_row(str(number), trial.id, *values, str(trial.seed), str(trial.config.epochs))
    console = Console()
    console.print(table)
    console.print(f"{len(trials)} trials, {sum(trial.config.epochs for trial in trials):,} epochs asked for")
    return 0


def _add_schema(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_schema)


def _schema(arguments: argparse.Namespace) -> int:
    from raysweep.sweepfile.json_schema import sweep_schema

    print(json.dumps(sweep_schema(), indent=2))
    return 0


def _add_status(parser: argparse.ArgumentParser) -> None:
    _sweep_arguments(parser)
    parser.set_defaults(command=_status)


def _status(arguments: argparse.Namespace) -> int:
    _import_and_load(arguments)
    from raysweep.status import print_status

    return print_status(arguments.sweep, storage=arguments.storage, as_json_document=arguments.json)


def _add_pull(parser: argparse.ArgumentParser) -> None:
    _sweep_arguments(parser)
    parser.add_argument("--to", metavar="DIR", help="default: pulled/<sweep>/<trial>")
    parser.add_argument("--rank", type=int, default=1, metavar="N", help="which of the ranking (1: the best)")
    parser.set_defaults(command=_pull)


def _pull(arguments: argparse.Namespace) -> int:
    _import_and_load(arguments)
    from raysweep.pull import pull_best

    return pull_best(
        arguments.sweep, to=arguments.to, rank=arguments.rank, as_json=arguments.json, storage=arguments.storage
    )


COMMANDS: dict[str, tuple[Callable[[argparse.ArgumentParser], None], str]] = {
    "run": (_add_run, "run a sweep, or go on with it (the default command)"),
    "plan": (_add_plan, "list the trials of a sweep, without running anything"),
    "status": (_add_status, "how far a run is, from its run folder alone"),
    "pull": (_add_pull, "copy the best checkpoint into a folder"),
    "schema": (_add_schema, "print the JSON Schema of sweep files, for editors"),
}
