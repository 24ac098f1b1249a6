"""What commands print: lines, and steps that take a while; bytes in words. rich is imported on first use."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

WIDTH_IN_A_PIPE = 120


def say(line: str, stderr: bool = False, style: str | None = None) -> None:
    """Print a line as it is: whatever looks like markup stays, and it is wrapped nowhere."""
    from rich.console import Console

    Console(stderr=stderr).print(line, style=style, highlight=False, markup=False, soft_wrap=True)


def print_columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows in columns as wide as their widest cells; for a thousand rows rich's tables would take a second."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    first, *lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in (head, *rows))
    say(first, style="bold")
    print("\n".join(lines))


def table_console() -> Console:
    """Return a console for tables, as wide as the terminal; in a pipe it has a width of its own."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, WIDTH_IN_A_PIPE)
    return console


def can_redraw(console: Console) -> bool:
    """Whether it is a terminal that takes back what was written: a dumb one (TERM=dumb) gets plain lines."""
    return console.is_terminal and not console.is_dumb_terminal


def moving_bars(console: Console) -> Progress:
    """Bars of steps whose length is not known; on the console once started, or part of what else is shown there."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(20), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True)


@contextmanager
def step(what: str) -> Iterator[None]:
    """Show a step on stderr for as long as it takes: a moving bar on a terminal, which leaves nothing; else a line."""
    from rich.console import Console

    console = Console(stderr=True)
    if not can_redraw(console):
        console.print(what, highlight=False, markup=False, soft_wrap=True)
        yield
        return
    with moving_bars(console) as bars:
        bars.add_task(what, total=None)
        yield


def format_acc(value: float | None) -> str:
    """Return an accuracy of 0..1 as a percentage."""
    return "-" if value is None else f"{100 * value:.2f} %"


def format_bytes(count: float) -> str:
    """Bytes with three digits and a decimal prefix."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def count_of(count: float, noun: str) -> str:
    """A count with its noun: 1 node, 2 nodes, 0.5 GPUs."""
    number = f"{count:,}" if isinstance(count, int) else f"{count:g}"
    return f"{number} {noun}{'' if count == 1 else 's'}"


def percent(value: float) -> str:
    """Return an accuracy of 0..1 within a sentence."""
    return f"{100 * value:.1f} %"


def points(value: float) -> str:
    """Return a difference of accuracies within a sentence."""
    return f"{100 * value:.1f} points"


def format_score(score: float | None, metric: str) -> str:
    """Return a score: an accuracy in percent, a loss as it is."""
    if score is None or not math.isfinite(score):
        return "-"
    return format_acc(score) if "acc" in metric else f"{score:.4g}"


def format_difference(difference: float, metric: str) -> str:
    """Return a difference of scores: of accuracies in points."""
    return f"{100 * difference:.2f} points" if "acc" in metric else f"{difference:.4g}"


def format_hours(hours: float) -> str:
    """Return a duration in hours, or in minutes where those are few."""
    return f"{hours:.2f} hours" if hours >= 0.2 else f"{60 * hours:.1f} minutes"
