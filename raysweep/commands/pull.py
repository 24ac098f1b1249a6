"""`raysweep pull`: copies the best checkpoint into a folder that is enough to load the network."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from raysweep.commands.context import Context, add_sweep_flags
from raysweep.errors import UserError
from raysweep.terminal import format_bytes, step

SUMMARY = "copy the best checkpoint into a folder"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    add_sweep_flags(parser)
    parser.add_argument("--to", metavar="DIR", help="the folder to write; default: pulled/<sweep>/<trial>")
    parser.add_argument("--rank", type=int, default=1, metavar="N", help="which trial of the ranking; default: 1")


def run(arguments: argparse.Namespace) -> int:
    """Copy a trial's best weights, and what is needed to use them; return the exit code."""
    from raysweep.results.checkpoint import write_checkpoint
    from raysweep.results.ranking import can_win

    result = Context.of(arguments).results()
    ranked = [record for record in result.trials if can_win(record)]
    if not 1 <= arguments.rank <= len(ranked):
        raise UserError(f"--rank {arguments.rank}: the ranking of {result.path} has {len(ranked)} trials with a score")
    record = ranked[arguments.rank - 1]
    target = Path(arguments.to) if arguments.to else Path("pulled") / result.name / record.id
    size = record.weights["best"].bytes if "best" in record.weights else 0
    with step(f"pulling {record.id}, {format_bytes(size)}"):
        write_checkpoint(target, result.folder, record, result.evaluation)
    val_acc = record.best.val_acc if record.best else None
    in_words = f"{target}: {record.id}" + (f", val_acc {val_acc:.4f}" if val_acc is not None else "")
    document = {"id": record.id, "val_acc": val_acc, "path": str(target.absolute())}
    print(json.dumps(document) if arguments.json else in_words)
    return 0
