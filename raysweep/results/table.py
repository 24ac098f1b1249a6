"""What a run ends with and `raysweep status` prints: configs with their seeds, best first; the winner's evaluation."""

from __future__ import annotations

from collections.abc import Sequence

from raysweep.results.evaluation import Evaluation
from raysweep.results.ranking import RankedConfig, SeedScores
from raysweep.store import Record
from raysweep.terminal import count_of, format_acc, format_score, print_columns, table_console, table_of

RIGHT = ("rank", "epoch", "best at")
MANY = 500
"""More rows than these are printed in plain columns, since a table that fits the terminal would take seconds."""


def print_ranking(configs: Sequence[RankedConfig], metric: str, stderr: bool = False) -> None:
    """Print the table of ranked configs, with the seeds of each below it where there are several.

    `metric` is the objective's.
    """
    repeated = any(len(config.trials) > 1 for config in configs)
    confirmed = any(config.fresh for config in configs)
    others = ("val_acc",) if metric != "val_acc" else ()
    head = ("rank", "config" if repeated else "trial", "status", "epoch", metric)
    head += (*(("fresh seeds",) if confirmed else ()), *others, "best at", "weights")
    rows = []
    for place, config in enumerate(configs, 1):
        rank = str(place) if config.best else "-"
        if repeated:
            rows.append([rank, *_config_cells(config, metric, confirmed), *("" for _ in others), "", ""])
        for record in config.trials:
            cells = _trial_cells(record, metric, confirmed and record.id in config.fresh_ids, confirmed)
            rows.append(["", f"  {cells[0]}", *cells[1:]] if repeated else [rank, *cells])
    right = (*RIGHT, metric, "fresh seeds", *others)
    if len(rows) > MANY:
        print_columns(head, rows, right, stderr)
    else:
        table_console(stderr).print(table_of(head, rows, right))


def _config_cells(config: RankedConfig, metric: str, confirmed: bool) -> list[str]:
    """Return name, seeds and mean scores of a config."""
    fresh = [format_mean(config.fresh_scores, metric)] if confirmed else []
    return [config.name, count_of(len(config.search), "seed"), "", format_mean(config.scores, metric), *fresh]


def _trial_cells(record: Record, metric: str, is_fresh: bool, confirmed: bool) -> list[str]:
    best = record.best
    score = format_score(best.score, metric) if best else "-"
    scores = [score] if not confirmed else ["", score] if is_fresh else [score, ""]
    others = [format_acc(best.val_acc if best else None)] if metric != "val_acc" else []
    weights = [str(best.epoch), "averaged" if best.averaged else "plain"] if best else ["-", "-"]
    return [record.id, record.status, f"{record.epoch}/{record.epochs}", *scores, *others, *weights]


def format_mean(scores: SeedScores, metric: str) -> str:
    """Return the mean over seeds with its standard error, if there is one: 22.10 ± 0.60 %."""
    if scores.mean is None or scores.standard_error is None:
        return format_score(scores.mean, metric)
    if "acc" in metric:
        return f"{100 * scores.mean:.2f} ± {100 * scores.standard_error:.2f} %"
    return f"{scores.mean:.4g} ± {scores.standard_error:.2g}"


def print_evaluation(evaluation: Evaluation | None, stderr: bool = False) -> None:
    """Print the winner's accuracies, if it was evaluated."""
    if evaluation is None:
        return
    right = ("val_acc", "test_acc")
    rows = [
        ("the image alone" if row.tta == 0 else f"tta {row.tta}", format_acc(row.val_acc), format_acc(row.test_acc))
        for row in evaluation.accuracies
    ]
    table_console(stderr).print(table_of(("best trial's accuracy", *right), rows, right))
