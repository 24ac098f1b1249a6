"""`raysweep run`, the default command."""

from __future__ import annotations

import argparse

from raysweep.commands.context import DATA_LIES_BESIDE_IT, Context, add_sweep_flags
from raysweep.terminal import count_of, say, step

SUMMARY = "run a sweep, or go on with it (the default command)"

MANY = 1000
"""With so many trials it takes a while until there is more to say than how many they are."""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    add_sweep_flags(parser, "the sweep file")
    parser.add_argument("--address", help="a Ray cluster's address; default: $RAY_ADDRESS, else one is started here")
    parser.add_argument(
        "--wait-for-nodes",
        type=int,
        default=1,
        metavar="N",
        help="so many, for two minutes at most",
    )
    parser.add_argument("--fresh", action="store_true", help="move an old run folder aside and start anew")


def run(arguments: argparse.Namespace, confirm: bool = False) -> int:
    """Run the sweep until it is done, a limit is reached or the user stops it; return the exit code.

    `confirm`: as if its file had that key.
    """
    context = Context.of(arguments, DATA_LIES_BESIDE_IT)
    sweep = context.sweep  # reports a wrong file at once: importing Ray takes seconds
    if (count := len(context.trials)) >= MANY:
        say(f"{sweep.name}: {count_of(count, 'trial')} planned", stderr=True)
    with step(f"{sweep.name}: loading Ray and torch", is_news=False):
        from raysweep.driver import run_sweep

    return run_sweep(
        sweep,
        context.folder,
        context.named,
        address=arguments.address,
        wait_for_nodes=arguments.wait_for_nodes,
        imports=arguments.imports,
        fresh=arguments.fresh,
        confirm=confirm,
        as_json_document=arguments.json,
    )
