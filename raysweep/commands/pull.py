"""`raysweep pull`: copies the best checkpoint into a folder that is enough to load the network."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from raysweep.commands.context import Context, add_sweep_flags
from raysweep.errors import UserError
from raysweep.terminal import count_of, format_bytes, format_score, step

SUMMARY = "copy the best checkpoint into a folder"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    add_sweep_flags(parser)
    parser.add_argument("--to", metavar="DIR", help="the folder to write; default: pulled/<sweep>/<trial>")
    parser.add_argument(
        "--rank",
        type=int,
        default=1,
        metavar="N",
        help="which config, as `status` numbers them; default: 1",
    )


def run(arguments: argparse.Namespace) -> int:
    """Copy the best weights of a config's best seed, and what is needed to use them; return the exit code."""
    from raysweep.results.checkpoint import check_has_weights, write_checkpoint
    from raysweep.results.ranking import can_win
    from raysweep.results.table import format_mean
    from raysweep.results.trade_offs import value_text

    result = Context.of(arguments).results()
    found = result.trade_offs
    ranked = [config for config in result.configs if config.best]
    if not ranked:
        raise UserError(f"no trial of {result.path} has a score yet")
    if not 1 <= arguments.rank <= len(ranked):
        has = f"{result.path} has {count_of(len(ranked), 'config')} with a score"
        raise UserError(
            f"--rank {arguments.rank}: must be {'1' if len(ranked) == 1 else f'from 1 to {len(ranked)}'}; {has}"
        )
    config = ranked[arguments.rank - 1]
    record = config.best
    assert record is not None
    check_has_weights(result.folder, record)
    target = Path(arguments.to) if arguments.to else Path("pulled") / result.name / record.id
    size = record.weights["best"].bytes if "best" in record.weights else 0
    with step(f"pulling {record.id}, {format_bytes(size)}"):
        write_checkpoint(target, result.folder, record, result.evaluation)
    best, metric = record.best, result.metric
    val_acc = best.val_acc if best else None
    in_words = f"{target}: {record.id}" + (f", val_acc {val_acc:.4f}" if val_acc is not None else "")
    if best and val_acc is None:
        in_words += f", {metric.name} {format_score(best.score, metric)}"
    if (seeds := sum(map(can_win, config.trials))) > 1:
        mean = format_mean(config.ranked_by, metric)
        in_words += f", the best of {seeds} seeds; the config reaches {mean} on average"
    chosen = next((each for each in found if each.config is config), None)
    if chosen:
        others = ((each.name, value_text(chosen.values[each.name], each)) for each in result.metrics[1:])
        in_words += "".join(f", {name} {text}" for name, text in others)
    known = {"id": record.id, "metric": metric.name, "val_acc": val_acc, "path": str(target.absolute())}
    document = {**known, **config.ranked_by.as_json()}
    document |= {"values": chosen.values, "dominated_by": chosen.dominated_by} if chosen else {}
    print(json.dumps(document) if arguments.json else in_words)
    return 0
