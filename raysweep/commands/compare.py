"""`raysweep compare A B ...`: runs side by side, as tables or as one JSON document."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from raysweep.commands.context import Context, add_common_flags
from raysweep.errors import UserError
from raysweep.terminal import count_of, points, say, table_console, table_of

if TYPE_CHECKING:
    from rich.table import Table

    from raysweep.results.comparison import Common, Comparison, CurveDifference, Scores

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
        print(json.dumps(asdict(comparison)))
        return 0
    console = table_console()
    for table in _tables(comparison):
        console.print(table)
        console.print()
    for pair in comparison.pairs:
        say(_sentence(pair, comparison.metric))
    return 0


def _tables(comparison: Comparison) -> Iterator[Table]:
    letters = [_letter(place) for place in range(len(comparison.runs))]
    head = ["run", "name", "trials", "finished", "epochs", f"best {comparison.metric}", "best trial"]
    runs = [_run_cells(run) for run in comparison.runs]
    yield table_of(head, [[letter, *run] for letter, run in zip(letters, runs, strict=True)])
    if comparison.settings:
        rows = [[key, *(", ".join(side) for side in sides)] for key, sides in comparison.settings.items()]
        yield table_of(["setting", *letters], rows)
    if comparison.common:
        head = ["config", *letters, *(f"{letter} - A" for letter in letters[1:])]
        head += [f"curves {letter} / A" for letter in letters[1:]]
        yield table_of(head, map(_row, comparison.common))


def _run_cells(run: dict[str, Any]) -> list[str]:
    """Return a run's cells: its best config's mean, with its standard error where that is known."""
    score = "-" if run["score"] is None else f"{run['score']:.4f}"
    error = "" if run["standard_error"] is None else f" ± {run['standard_error']:.4f} ({run['seeds']} seeds)"
    return [*(str(run[name]) for name in ("name", "trials", "finished", "epochs")), score + error, run["best"] or "-"]


def _row(config: Common) -> list[str]:
    means = [scores.mean if scores else None for scores in config.scores]
    first = means[0]
    return [
        config.name,
        *(_scores_text(scores) for scores in config.scores),
        *("-" if first is None or mean is None else f"{mean - first:+.4f}" for mean in means[1:]),
        *(_curves_text(curves) for curves in config.curves[1:]),
    ]


def _scores_text(scores: Scores | None) -> str:
    if scores is None:
        return "-"
    if scores.mean is None:
        return ", ".join(scores.statuses)
    error = "" if scores.standard_error is None else f" ± {scores.standard_error:.4f} ({scores.seeds} seeds)"
    unfinished = [status for status in scores.statuses if status != "finished"]
    return f"{scores.mean:.4f}{error}" + (f" ({', '.join(unfinished)})" if unfinished else "")


def _curves_text(curves: Sequence[CurveDifference]) -> str:
    if not curves:
        return "-"
    if all(curve.identical for curve in curves):
        return f"identical, {count_of(min(curve.epochs for curve in curves), 'epoch')}"
    worst = max(curves, key=lambda curve: curve.largest)
    return f"up to {points(worst.largest)}, epoch {worst.at}"


def _sentence(pair: dict[str, Any], metric: str) -> str:
    letter, configs = _letter(pair["run"]), pair["configs"]
    if not configs:
        return f"{letter} and A have no scored config in common."
    error = "" if pair["standard_error"] is None else f" (standard error {pair['standard_error']:.4f})"
    return (
        f"{letter} against A, over {count_of(configs, 'config')} in common: {metric} {pair['mean_difference']:+.4f} on "
        f"average{error}, ahead in {pair['ahead']} of {configs}."
    )


def _letter(place: int) -> str:
    return chr(ord("A") + place) if place < 26 else f"run {place + 1}"
