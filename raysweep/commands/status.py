"""`raysweep status`: how far a run is, from its run folder alone."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from raysweep.commands.context import Context, add_sweep_flags
from raysweep.terminal import count_of, say

if TYPE_CHECKING:
    from raysweep.results.run import SweepResult

SUMMARY = "show how far a run is, from its run folder alone"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    add_sweep_flags(parser)
    parser.add_argument("--why", metavar="TRIAL", help="how a trial stands at each rung, and why it was stopped")


def run(arguments: argparse.Namespace) -> int:
    """Print the trials of the last run, best first; return the exit code."""
    context = Context.of(arguments)
    if arguments.why is not None:
        from raysweep.commands.why import print_why

        return print_why(context.results(live=True), arguments.why, arguments.json)
    from raysweep.results.run import as_json
    from raysweep.results.verdict import judgement_of

    result = context.results(live=True, lenient=True)
    judgement = judgement_of(result, None if context.is_run_folder else context.named.in_words())
    if arguments.json:
        print(json.dumps(as_json(result, judgement.as_json() if judgement else None)))
    else:
        for sentence in judgement.sentences if judgement else ():
            say(sentence)
        _print(result, context.named.in_words())
    for path, why in result.folder.damaged.items():  # known once all has been read
        say(f"{path}: {why}", stderr=True)
    return 0


def _print(result: SweepResult, named: str) -> None:
    from raysweep.results.failed import failure_lines
    from raysweep.results.table import print_results

    print_results(result)
    for line in failure_lines(result.trials, named):
        say(line)
    if result.cut_short:
        say(f"{result.cut_short}: the ranking is that of trials cut short")
    done = sum(record.is_final for record in result.trials)
    state = "running" if result.is_driven else "not running"
    say(f"{done} of {count_of(len(result.trials) + result.to_come, 'trial')} done, {state}; run folder: {result.path}")
    if result.to_come:
        generations = {record.generation for record in result.trials} - {None}
        say(f"search: {count_of(len(generations), 'generation')} proposed, {count_of(result.to_come, 'trial')} to come")
