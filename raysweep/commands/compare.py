"""`raysweep compare A B ...`: runs side by side, as tables or as one JSON document."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from raysweep.commands.context import Context, add_common_flags
from raysweep.errors import UserError
from raysweep.sweepfile.patch import short_labels
from raysweep.sweepfile.plan import short_id
from raysweep.terminal import (
    count_of,
    format_difference,
    format_score_and_error,
    print_fitting,
    say,
    shortened,
    table_console,
    table_of,
)

if TYPE_CHECKING:
    from rich.table import Table

    from raysweep.results.comparison import Common, Comparison, CurveDifference, Scores
    from raysweep.terminal import Metric

SUMMARY = "compare runs: settings, scores, curves"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run folder, or a sweep file that was run")
    add_common_flags(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print runs side by side; return the exit code."""
    if len(arguments.runs) < 2:
        raise UserError(f"compare needs at least two runs, got {len(arguments.runs)}")
    from raysweep.results.comparison import compare

    comparison = compare([Context(run, storage=arguments.storage).results(live=True) for run in arguments.runs])
    if arguments.json:
        print(json.dumps({**asdict(comparison), "metric": comparison.metric.name}))
        return 0
    console = table_console()
    for table in _tables(comparison):
        console.print(table)
        console.print()
    if comparison.common:
        _print_common(comparison)
        console.print()
    for pair in comparison.pairs:
        say(_sentence(pair, comparison.metric))
    return 0


def _tables(comparison: Comparison) -> Iterator[Table]:
    letters, metric = [_letter(place) for place in range(len(comparison.runs))], comparison.metric
    head = ["run", "name", "trials", "finished", "epochs", f"best {metric.name}", "best trial"]
    runs = [_run_cells(run, metric) for run in comparison.runs]
    yield table_of(head, [[letter, *run] for letter, run in zip(letters, runs, strict=True)], head[2:5])
    if comparison.settings:
        rows = [[key, *(", ".join(side) for side in sides)] for key, sides in comparison.settings.items()]
        yield table_of(["setting", *letters], rows)


def _print_common(comparison: Comparison) -> None:
    """Print the configs in common, told apart by their settings, with the scores of each run."""
    letters = [_letter(place) for place in range(len(comparison.runs))]
    labels = list(short_labels(list(comparison.common[0].settings)).values()) or ["config"]
    right = [*letters, *(f"{letter} - A" for letter in letters[1:])]
    head = [*labels, *right, *(f"curves {letter} / A" for letter in letters[1:])]
    cells = list(map(list, zip(*(_row(config, comparison.metric) for config in comparison.common), strict=True)))
    cells[: len(labels)] = map(shortened, cells[: len(labels)])
    print_fitting(dict(zip(head, cells, strict=True)), labels[:0:-1], right)


def _run_cells(run: dict[str, Any], metric: Metric) -> list[str]:
    """Return a run's cells: its best config's mean, with its standard error where that is known."""
    scores = format_score_and_error(run["score"], run["standard_error"], metric)
    seeds = f" ({run['seeds']} seeds)" if run["standard_error"] is not None else ""
    best = short_id(run["best"]) if run["best"] else "-"
    return [*(str(run[name]) for name in ("name", "trials", "finished", "epochs")), scores + seeds, best]


def _row(config: Common, metric: Metric) -> list[str]:
    means = [scores.mean if scores else None for scores in config.scores]
    first = means[0]
    return [
        *(config.settings.values() or [config.name]),
        *(_scores_text(scores, metric) for scores in config.scores),
        *(
            "-" if first is None or mean is None else format_difference(mean - first, metric, signed=True)
            for mean in means[1:]
        ),
        *(_curves_text(curves, metric) for curves in config.curves[1:]),
    ]


def _scores_text(scores: Scores | None, metric: Metric) -> str:
    if scores is None:
        return "-"
    if scores.mean is None:
        return ", ".join(scores.statuses)
    unfinished = [status for status in scores.statuses if status != "finished"]
    text = format_score_and_error(scores.mean, scores.standard_error, metric)
    return text + (f" ({', '.join(unfinished)})" if unfinished else "")


def _curves_text(curves: Sequence[CurveDifference], metric: Metric) -> str:
    if not curves:
        return "-"
    if all(curve.identical for curve in curves):
        return f"identical, {count_of(min(curve.epochs for curve in curves), 'epoch')}"
    worst = max(curves, key=lambda curve: curve.largest)
    return f"up to {format_difference(worst.largest, metric)}, epoch {worst.at}"


def _sentence(pair: dict[str, Any], metric: Metric) -> str:
    letter, configs = _letter(pair["run"]), pair["configs"]
    if not configs:
        return f"{letter} and A have no scored config in common."
    error = pair["standard_error"]
    known = "" if error is None else f" (standard error {format_difference(error, metric)})"
    mean = format_difference(pair["mean_difference"], metric, signed=True)
    return (
        f"{letter} against A, over {count_of(configs, 'config')} in common: {metric.name} {mean} on average{known}, "
        f"ahead in {pair['ahead']} of {configs}."
    )


def _letter(place: int) -> str:
    return chr(ord("A") + place) if place < 26 else f"run {place + 1}"
