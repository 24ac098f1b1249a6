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
  raysweep predict best photos --csv classes.csv  classify images with it

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
    _common_arguments(parser)
    if storage:
        parser.add_argument("--storage", metavar="PATH|URI", help="where run folders lie, instead of the sweep file's")


def _common_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout")
    parser.add_argument("--import", dest="imports", action="append", default=[], metavar="MODULE",
                        help="a module that registers networks, data or augmentations of your own")  # fmt: skip


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


def _import(arguments: argparse.Namespace) -> None:
    from raysweep.registry import import_modules

    sys.path.insert(0, os.getcwd())
    import_modules(arguments.imports)


def _import_and_load(arguments: argparse.Namespace) -> Sweep:
    from raysweep.sweepfile import load_sweep

    _import(arguments)
    return load_sweep(arguments.sweep, getattr(arguments, "overrides", ()))


def _add_plan(parser: argparse.ArgumentParser) -> None:
    _sweep_arguments(parser)
    _overrides_argument(parser)
    parser.add_argument("--time", action="store_true",
                        help="train a few steps of each network here, and say hours and bytes")  # fmt: skip
    parser.set_defaults(command=_plan)


def _plan(arguments: argparse.Namespace) -> int:
    _import_and_load(arguments)
    from raysweep.commands.plan import print_plan

    return print_plan(
        arguments.sweep,
        arguments.overrides,
        timed=arguments.time,
        storage=arguments.storage,
        as_json=arguments.json,
    )


def _add_data(parser: argparse.ArgumentParser) -> None:
    _sweep_arguments(parser, storage=False)
    _overrides_argument(parser)
    parser.set_defaults(command=_data)


def _data(arguments: argparse.Namespace) -> int:
    _import_and_load(arguments)
    from raysweep.commands.data import prepare_data

    return prepare_data(arguments.sweep, arguments.overrides, as_json=arguments.json)


def _add_schema(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_schema)


def _schema(arguments: argparse.Namespace) -> int:
    from raysweep.sweepfile.json_schema import sweep_schema

    print(json.dumps(sweep_schema(), indent=2))
    return 0


def _add_status(parser: argparse.ArgumentParser) -> None:
    _sweep_arguments(parser)
    _overrides_argument(parser)
    parser.add_argument("--why", metavar="TRIAL", help="how a trial stands at each rung, and why it was stopped")
    parser.set_defaults(command=_status)


def _status(arguments: argparse.Namespace) -> int:
    _import_and_load(arguments)
    if arguments.why is not None:
        from raysweep.commands.why import print_why

        return print_why(
            arguments.sweep, arguments.why, arguments.overrides, storage=arguments.storage, as_json=arguments.json
        )
    from raysweep.commands.status import print_status

    return print_status(
        arguments.sweep, arguments.overrides, storage=arguments.storage, as_json_document=arguments.json
    )


def _add_report(parser: argparse.ArgumentParser) -> None:
    _sweep_arguments(parser)
    _overrides_argument(parser)
    parser.add_argument("--to", metavar="FILE", help="write this .html, .md or .csv instead of all into the run folder")
    parser.set_defaults(command=_report)


def _report(arguments: argparse.Namespace) -> int:
    _import_and_load(arguments)
    from raysweep.report import print_report

    return print_report(
        arguments.sweep,
        arguments.overrides,
        storage=arguments.storage,
        to=arguments.to,
        as_json=arguments.json,
    )


def _add_compare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run folder, or a sweep file that was run")
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout")
    parser.add_argument("--import", dest="imports", action="append", default=[], metavar="MODULE",
                        help="a module that registers networks, data or augmentations of your own")  # fmt: skip
    parser.add_argument("--storage", metavar="PATH|URI", help="where the sweep files' run folders lie")
    parser.set_defaults(command=_compare)


def _compare(arguments: argparse.Namespace) -> int:
    from raysweep.registry import import_modules

    sys.path.insert(0, os.getcwd())
    import_modules(arguments.imports)
    from raysweep.commands.compare import print_comparison

    return print_comparison(arguments.runs, storage=arguments.storage, as_json=arguments.json)


def _add_pull(parser: argparse.ArgumentParser) -> None:
    _sweep_arguments(parser)
    _overrides_argument(parser)
    parser.add_argument("--to", metavar="DIR", help="default: pulled/<sweep>/<trial>")
    parser.add_argument("--rank", type=int, default=1, metavar="N", help="which of the ranking (1: the best)")
    parser.set_defaults(command=_pull)


def _pull(arguments: argparse.Namespace) -> int:
    _import_and_load(arguments)
    from raysweep.commands.pull import pull_best

    return pull_best(
        arguments.sweep,
        arguments.overrides,
        to=arguments.to,
        rank=arguments.rank,
        as_json=arguments.json,
        storage=arguments.storage,
    )


def _add_predict(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="DIR", help="that `raysweep pull` made")
    parser.add_argument("images", metavar="IMAGES", help="a folder or zip archive, a CSV or a Parquet file")
    parser.add_argument("--tta", type=int, default=0, metavar="N",
                        help="average over N views of each image, up to 10 (2: the mirror image too)")  # fmt: skip
    parser.add_argument("--csv", metavar="FILE", help="write file,class,probability there; default: stdout")
    parser.add_argument("--on-corrupt", choices=("error", "skip"), default="error", help="default: error")
    _common_arguments(parser)
    parser.set_defaults(command=_predict)


def _predict(arguments: argparse.Namespace) -> int:
    _import(arguments)
    from raysweep.commands.predict import predict

    return predict(
        arguments.folder,
        arguments.images,
        tta=arguments.tta,
        csv_path=arguments.csv,
        as_json_document=arguments.json,
        on_corrupt=arguments.on_corrupt,
    )


def _add_clean(parser: argparse.ArgumentParser) -> None:
    _sweep_arguments(parser)
    _overrides_argument(parser)
    parser.add_argument("--removed", action="store_true", help="delete trials that the sweep file no longer has, too")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be deleted")
    parser.set_defaults(command=_clean)


def _clean(arguments: argparse.Namespace) -> int:
    _import_and_load(arguments)
    from raysweep.commands.clean import clean_run

    return clean_run(
        arguments.sweep,
        arguments.overrides,
        storage=arguments.storage,
        removed=arguments.removed,
        dry_run=arguments.dry_run,
        as_json=arguments.json,
    )


def _add_models(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help="torchvision/<name> too; default: all")
    parser.add_argument("--image-size", type=int, default=40, metavar="PIXELS", help="default: 40")
    parser.add_argument("--classes", type=int, default=200, metavar="N", help="of the classifier; default: 200")
    _common_arguments(parser)
    parser.set_defaults(command=_models)


def _models(arguments: argparse.Namespace) -> int:
    _import(arguments)
    from raysweep.commands.models import print_models

    return print_models(arguments.names, arguments.image_size, arguments.classes, arguments.json)


def _add_submit(parser: argparse.ArgumentParser) -> None:
    _sweep_arguments(parser)
    _overrides_argument(parser)
    parser.add_argument("--address", metavar="URL", help="of the cluster's dashboard; default: http://127.0.0.1:8265")
    parser.add_argument("--detach", action="store_true", help="return once the job is accepted")
    parser.set_defaults(command=_submit)


def _submit(arguments: argparse.Namespace) -> int:
    _import_and_load(arguments)
    from raysweep.commands.submit import submit_sweep

    return submit_sweep(
        arguments.sweep,
        arguments.overrides,
        storage=arguments.storage,
        address=arguments.address,
        imports=arguments.imports,
        detach=arguments.detach,
        as_json=arguments.json,
    )


def _add_doctor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sweep", metavar="SWEEP.yaml", nargs="?", help="check its storage and slots as well")
    _overrides_argument(parser)
    _common_arguments(parser)
    parser.add_argument("--storage", metavar="PATH|URI", help="to check, instead of the sweep file's")
    parser.add_argument("--address", help="of Ray, or the dashboard's URL; default: $RAY_ADDRESS, else this machine")
    parser.set_defaults(command=_doctor)


def _doctor(arguments: argparse.Namespace) -> int:
    if arguments.sweep:
        _import_and_load(arguments)
    from raysweep.commands.doctor import run_doctor

    return run_doctor(
        arguments.sweep,
        arguments.overrides,
        storage=arguments.storage,
        address=arguments.address,
        imports=arguments.imports,
        as_json=arguments.json,
    )


COMMANDS: dict[str, tuple[Callable[[argparse.ArgumentParser], None], str]] = {
    "run": (_add_run, "run a sweep, or go on with it (the default command)"),
    "plan": (_add_plan, "list the trials of a sweep, without running anything"),
    "data": (_add_data, "prepare a sweep's data sets on this machine, and say what they hold"),
    "status": (_add_status, "how far a run is, from its run folder alone"),
    "report": (_add_report, "write the report of a run: report.html, report.md and report.csv"),
    "compare": (_add_compare, "hold runs side by side: settings, scores, curves"),
    "pull": (_add_pull, "copy the best checkpoint into a folder"),
    "clean": (_add_clean, "delete from a run folder what nothing owns"),
    "predict": (_add_predict, "classify images with a pulled checkpoint"),
    "models": (_add_models, "list networks: parameters, FLOPs, receptive field, stage sizes"),
    "submit": (_add_submit, "run a sweep on a cluster through its dashboard, and follow it"),
    "doctor": (_add_doctor, "check whether a cluster can run sweeps"),
    "schema": (_add_schema, "print the JSON Schema of sweep files, for editors"),
}
