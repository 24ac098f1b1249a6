"""`raysweep export`: a run in MLflow, Weights & Biases or trackio."""

from __future__ import annotations

import argparse
import json

from raysweep.commands.context import Context, add_sweep_flags
from raysweep.terminal import count_of, say

SUMMARY = "export a run to MLflow, Weights & Biases or trackio; again to bring it up to date"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    add_sweep_flags(parser)
    parser.add_argument("--to", required=True, choices=("mlflow", "wandb", "trackio"), help="which tool")
    parser.add_argument("--live", action="store_true", help="go on until the run ends")


def run(arguments: argparse.Namespace) -> int:
    """Export the run and say where it is; return the exit code."""
    from raysweep.errors import Interrupted
    from raysweep.results.export import export, follow

    folder = Context.of(arguments).folder
    try:
        sweep = (follow if arguments.live else export)(folder, arguments.to, lambda line: say(line, stderr=True))
    except KeyboardInterrupt:
        say("stopped; the same command goes on", stderr=True)
        return Interrupted.exit_code
    document = {"name": sweep.name, "to": arguments.to, "trials": len(sweep.trials)}
    said = f"{sweep.name}: {count_of(len(sweep.trials), 'trial')} in {arguments.to}"
    print(json.dumps(document) if arguments.json else said)
    return 0
