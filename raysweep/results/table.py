"""The table of trials, best first, and the winner's evaluation, as a run ends with and `raysweep status` prints."""

from __future__ import annotations

from collections.abc import Sequence

from raysweep.results.evaluation import Evaluation
from raysweep.results.ranking import can_win
from raysweep.store import Record
from raysweep.terminal import format_acc, print_columns, table_console, table_of

HEAD = ("rank", "trial", "status", "epoch", "val_acc", "best at", "weights")
RIGHT = ("rank", *HEAD[3:])
MANY = 500
"""More trials than these are printed in plain columns, since a table that fits the terminal would take seconds."""


def print_trials(records: Sequence[Record], stderr: bool = False) -> None:
    """Print the table of trials that are already in ranked order."""
    rows = [(str(place) if can_win(record) else "-", *_cells(record)) for place, record in enumerate(records, 1)]
    if len(rows) > MANY:
        print_columns(HEAD, rows, RIGHT, stderr)
    else:
        table_console(stderr).print(table_of(HEAD, rows, RIGHT))


def _cells(record: Record) -> tuple[str, ...]:
    best, epoch = record.best, f"{record.epoch}/{record.epochs}"
    if best is None:
        return (record.id, record.status, epoch, "-", "-", "-")
    weights = "averaged" if best.averaged else "plain"
    return (record.id, record.status, epoch, format_acc(best.val_acc), str(best.epoch), weights)


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
