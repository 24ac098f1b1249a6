"""The table of trials, best first, and the winner's evaluation, as a run ends with and `raysweep status` prints."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from raysweep.results.evaluation import Evaluation
from raysweep.results.ranking import can_win
from raysweep.store import Record
from raysweep.terminal import format_acc

WIDTH_IN_A_PIPE = 120


def print_trials(records: Sequence[Record], stderr: bool = False) -> None:
    """Print the table of trials that are already in ranked order."""
    console = Console(stderr=stderr)
    if not console.is_terminal:
        console.width = WIDTH_IN_A_PIPE
    console.print(trial_table(records))


def trial_table(records: Sequence[Record]) -> Table:
    """Build the table of trials that are already in ranked order."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("rank", justify="right")
    table.add_column("trial", overflow="fold")
    table.add_column("status")
    for name in ("epoch", "val_acc", "best at", "weights"):
        table.add_column(name, justify="right", no_wrap=True)
    for place, record in enumerate(records, 1):
        best = record.best
        table.add_row(
            str(place) if can_win(record) else "-",
            record.id,
            record.status,
            f"{record.epoch}/{record.epochs}",
            format_acc(best.val_acc) if best else "-",
            str(best.epoch) if best else "-",
            ("averaged" if best.averaged else "plain") if best else "-",
        )
    return table


def print_evaluation(evaluation: Evaluation | None, stderr: bool = False) -> None:
    """Print the winner's accuracies, if it was evaluated."""
    if evaluation is None:
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("best trial's accuracy")
    table.add_column("val_acc", justify="right")
    table.add_column("test_acc", justify="right")
    for row in evaluation.accuracies:
        views = "the image alone" if row.tta == 0 else f"tta {row.tta}"
        table.add_row(views, format_acc(row.val_acc), format_acc(row.test_acc))
    Console(stderr=stderr).print(table)
