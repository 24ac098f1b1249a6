"""Runs side by side: settings that differ, trials in common, their scores and curves: `raysweep compare A B ...`.

Trials of two runs are the same config if they agree in every setting but those in which the runs as a whole differ
(each run has one value, and not the same), such as the epochs of a short and of a long run.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from raysweep.commands.context import Context, add_common_flags, add_storage_flag
from raysweep.errors import UserError
from raysweep.terminal import say, table_console

if TYPE_CHECKING:
    from rich.table import Table

    from raysweep.results.run import SweepResult
    from raysweep.store import Record

SUMMARY = "hold runs side by side: settings, scores, curves"
CLOCK = ("seconds", "images_per_s")
"""Metrics that depend on the machine."""


@dataclass(frozen=True)
class Scores:
    """One config in one run, over its seeds."""

    seeds: int
    mean: float | None
    spread: float | None
    """Standard deviation; None for fewer than two seeds."""
    statuses: dict[str, int]


@dataclass(frozen=True)
class CurveDifference:
    """The validation accuracies of one seed of one config, in a run against the first run."""

    seed: int
    epochs: int
    """That both trained."""
    largest: float
    """Difference, in either direction."""
    at: int
    """The epoch of it."""
    identical: bool
    """Whether all metrics of those epochs are equal, but those of the clock."""


@dataclass(frozen=True)
class Common:
    """A config that at least two runs have."""

    name: str
    scores: list[Scores | None]
    """By run."""
    curves: list[list[CurveDifference]]
    """By run; empty for the first."""


@dataclass(frozen=True)
class Comparison:
    """What runs have in common, and what not."""

    runs: list[dict[str, Any]]
    metric: str
    settings: dict[str, list[list[str]]]
    """Keys whose values differ between the runs; by run, its values."""
    common: list[Common]
    pairs: list[dict[str, Any]]
    """By run but the first: configs in common with the first, their mean difference of score, its standard error,
    and in how many of them it is ahead."""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run folder, or a sweep file that was run")
    add_common_flags(parser)
    add_storage_flag(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print runs side by side; return the exit code.

    Raises:
        UserError: there are fewer than two runs, or they have no common score.
        StorageError: one of them is no run folder.
    """
    if len(arguments.runs) < 2:
        raise UserError(f"compare needs at least two runs, got {len(arguments.runs)}")
    comparison = compare([Context(run, storage=arguments.storage).results(live=True) for run in arguments.runs])
    if arguments.json:
        print(json.dumps(asdict(comparison)))
        return 0
    console = table_console()
    for table in _tables(comparison):
        console.print(table)
        console.print()
    for line in _lines(comparison):
        say(line)
    return 0


def compare(results: Sequence[SweepResult]) -> Comparison:
    """Compare runs; differences are against the first.

    Raises:
        UserError: they are ranked by different metrics.
    """
    metrics = {result.objective.metric for result in results}
    if len(metrics) > 1:
        raise UserError(f"the runs are ranked by different metrics ({', '.join(sorted(metrics))}): no common score")
    flat = {id(record): dict(_flatten(record.config)) for result in results for record in result.trials}
    values = [_values(result, flat) for result in results]
    keys = dict.fromkeys(key for run in values for key in run)
    settings = {key: [run.get(key, ["-"]) for run in values] for key in keys}
    settings = {key: sides for key, sides in settings.items() if any(side != sides[0] for side in sides)}
    apart = {key for key, sides in settings.items() if all(len(side) == 1 for side in sides)}
    common = _common(results, flat, apart)
    return Comparison(
        runs=[_describe(result) for result in results],
        metric=results[0].objective.metric,
        settings=settings,
        common=common,
        pairs=[_pair(common, place, results[0].objective.maximize) for place in range(1, len(results))],
    )


# ---------------------------------------------------------------------------------------------------------
# What differs, and what is common


def _flatten(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, entry in value.items():
        if isinstance(entry, Mapping):
            yield from _flatten(entry, f"{prefix}{key}.")
        elif entry is not None:
            yield f"{prefix}{key}", entry if isinstance(entry, str) else json.dumps(entry, default=str)


def _values(result: SweepResult, flat: Mapping[int, Mapping[str, str]]) -> dict[str, list[str]]:
    keys = dict.fromkeys(key for record in result.trials for key in flat[id(record)])
    return {key: sorted({flat[id(record)].get(key, "-") for record in result.trials}) for key in keys}


def _common(results: Sequence[SweepResult], flat: Mapping[int, Mapping[str, str]], apart: set[str]) -> list[Common]:
    groups: dict[str, list[list[Record]]] = defaultdict(lambda: [[] for _ in results])
    for place, result in enumerate(results):
        for record in result.trials:
            settings = {key: value for key, value in flat[id(record)].items() if key not in apart}
            groups[json.dumps(settings, sort_keys=True)][place].append(record)
    shared = [sides for sides in groups.values() if sum(map(bool, sides)) > 1]
    return [
        Common(
            name=next(side[0].name for side in sides if side),
            scores=[_scores(side) if side else None for side in sides],
            curves=[[], *([*_curve_differences(sides[0], side)] for side in sides[1:])],
        )
        for sides in shared
    ]


def _scores(records: Sequence[Record]) -> Scores:
    from raysweep.results.ranking import can_win

    scores = [record.best.score for record in records if can_win(record) and record.best]
    statuses: dict[str, int] = defaultdict(int)
    for record in records:
        statuses[record.status] += 1
    return Scores(
        seeds=len(scores),
        mean=statistics.fmean(scores) if scores else None,
        spread=statistics.stdev(scores) if len(scores) > 1 else None,
        statuses=dict(statuses),
    )


def _curve_differences(first: Sequence[Record], other: Sequence[Record]) -> Iterator[CurveDifference]:
    by_seed = {record.seed: record for record in first}
    for record in other:
        before = by_seed.get(record.seed)
        rows = list(zip(before.metrics, record.metrics, strict=False)) if before else []
        differences = [
            (abs(a["val_acc"] - b["val_acc"]), int(b["epoch"]))
            for a, b in rows
            if _is_number(a.get("val_acc")) and _is_number(b.get("val_acc"))
        ]
        if differences:
            largest, at = max(differences, key=lambda pair: (pair[0], -pair[1]))
            identical = all(_without_clock(a) == _without_clock(b) for a, b in rows)
            yield CurveDifference(record.seed, len(rows), largest, at, identical)


def _without_clock(row: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in row.items() if name not in CLOCK}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _pair(common: Sequence[Common], place: int, maximize: bool) -> dict[str, Any]:
    """How a run stands against the first, over the configs that both have scores of."""
    differences = [difference for config in common if (difference := _difference(config, place)) is not None]
    error = statistics.stdev(differences) / math.sqrt(len(differences)) if len(differences) > 1 else None
    return {
        "run": place,
        "configs": len(differences),
        "mean_difference": statistics.fmean(differences) if differences else None,
        "standard_error": error,
        "ahead": sum(difference > 0 if maximize else difference < 0 for difference in differences),
    }


def _difference(config: Common, place: int) -> float | None:
    first, other = config.scores[0], config.scores[place]
    if first is None or other is None or first.mean is None or other.mean is None:
        return None
    return other.mean - first.mean


def _describe(result: SweepResult) -> dict[str, Any]:
    best = result.best
    return {
        "name": result.name,
        "path": result.path,
        "trials": len(result.trials),
        "finished": sum(record.status == "finished" for record in result.trials),
        "epochs": sum(record.epoch for record in result.trials),
        "best": best.id if best else None,
        "score": best.best.score if best and best.best else None,
    }


# ---------------------------------------------------------------------------------------------------------
# In words


def _tables(comparison: Comparison) -> Iterator[Table]:
    places = range(len(comparison.runs))
    letters = [_letter(place) for place in places]
    yield _table(
        ["run", "name", "trials", "finished", "epochs", f"best {comparison.metric}", "best trial"],
        [
            [
                letter,
                run["name"],
                run["trials"],
                run["finished"],
                run["epochs"],
                _number(run["score"]),
                run["best"] or "-",
            ]
            for letter, run in zip(letters, comparison.runs, strict=True)
        ],
    )
    if comparison.settings:
        rows = [[key, *(", ".join(side) for side in sides)] for key, sides in comparison.settings.items()]
        yield _table(["setting", *letters], rows)
    if comparison.common:
        head = ["config", *letters, *(f"{letter} - A" for letter in letters[1:])]
        head += [f"curves {letter} / A" for letter in letters[1:]]
        yield _table(head, [_row(config, places) for config in comparison.common])


def _row(config: Common, places: range) -> list[str]:
    differences = [_difference(config, place) for place in places[1:]]
    return [
        config.name,
        *(_scores_text(scores) for scores in config.scores),
        *("-" if difference is None else f"{difference:+.4f}" for difference in differences),
        *(_curves_text(curves) for curves in config.curves[1:]),
    ]


def _table(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in names:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(escape(str(text)) for text in row))
    return table


def _scores_text(scores: Scores | None) -> str:
    if scores is None:
        return "-"
    if scores.mean is None:
        return ", ".join(scores.statuses)
    spread = "" if scores.spread is None else f" ± {scores.spread:.4f}"
    unfinished = [status for status in scores.statuses if status != "finished"]
    return f"{scores.mean:.4f}{spread}" + (f" ({', '.join(unfinished)})" if unfinished else "")


def _curves_text(curves: Sequence[CurveDifference]) -> str:
    if not curves:
        return "-"
    if all(curve.identical for curve in curves):
        return f"identical, {min(curve.epochs for curve in curves)} epochs"
    worst = max(curves, key=lambda curve: curve.largest)
    return f"up to {100 * worst.largest:.1f} points, epoch {worst.at}"


def _lines(comparison: Comparison) -> Iterator[str]:
    for pair in comparison.pairs:
        letter = _letter(pair["run"])
        if not pair["configs"]:
            yield f"{letter} and A have no scored config in common."
            continue
        error = "" if pair["standard_error"] is None else f" (standard error {pair['standard_error']:.4f})"
        yield (
            f"{letter} against A, over {pair['configs']} configs in common: {comparison.metric} "
            f"{pair['mean_difference']:+.4f} on average{error}, ahead in {pair['ahead']} of {pair['configs']}."
        )


def _letter(place: int) -> str:
    return chr(ord("A") + place) if place < 26 else f"run {place + 1}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
