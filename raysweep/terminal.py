"""What commands print: lines, tables, steps that take a while, numbers for people. rich is imported on first use."""

from __future__ import annotations

import math
import re
import sys
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

WIDTH_IN_A_PIPE = 120
COUNT_AFTER_S, COUNT_EVERY_S = 1.0, 10.0
"""Counted steps shorter than this are not shown; where nothing can be drawn, longer ones are told of this often."""
WIDEST = 24
"""The most characters that a setting takes in a table."""
GAP = "  "
"""What stands between the columns of `print_columns`."""
Tell = Callable[[str, int | None], AbstractContextManager[Callable[[], None]]]
"""Shows a step of many things, as `counting` does; called with the step in words and how many there are, if known."""


def say(line: str, stderr: bool = False, style: str | None = None) -> None:
    """Print a line as it is: what looks like markup stays, and nothing is wrapped."""
    from rich.console import Console

    Console(stderr=stderr).print(line, style=style, highlight=False, markup=False, emoji=False, soft_wrap=True)


def print_columns(
    head: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[str] = (), stderr: bool = False
) -> None:
    """Print rows in columns as wide as their widest cells, those named in `right` ending at the right.

    Nothing is wrapped, and a thousand rows cost nothing; rich's tables would take a second.
    """
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    places = [str.rjust if name in right else str.ljust for name in head]
    first, *lines = (
        GAP.join(place(cell, width) for place, cell, width in zip(places, row, widths, strict=True)).rstrip()
        for row in (head, *rows)
    )
    say(first, stderr, style="bold")
    print("\n".join(lines), file=sys.stderr if stderr else sys.stdout)


def print_fitting(
    columns: Mapping[str, list[str]], droppable: Sequence[str], right: Collection[str] = (), stderr: bool = False
) -> None:
    """Print cells by head side by side, without those columns that the terminal has no room for.

    The first of `droppable` go first; a line below the table names those of them that went.
    """
    shown = fitting(columns, droppable, table_console(stderr).width)
    print_columns(list(shown), list(zip(*shown.values(), strict=True)), right, stderr)
    if gone := columns.keys() - shown.keys():
        say(
            f"columns hidden for lack of room: {', '.join(head for head in columns if head in gone)}",
            stderr,
            style="dim",
        )


def fitting(columns: Mapping[str, list[str]], droppable: Sequence[str], room: int) -> dict[str, list[str]]:
    """Return the columns, cells by head, without as many of `droppable`, the first first, as there is no room for."""
    widths = {head: max(map(len, (head, *cells))) + len(GAP) for head, cells in columns.items()}
    going = [head for head in droppable if head in columns]
    while going and sum(widths.values()) > room + len(GAP):
        del widths[going.pop(0)]
    return {head: columns[head] for head in widths}


def shortened(texts: Sequence[str]) -> list[str]:
    """Return a column of settings cut to at most WIDEST characters; whole where cutting would make two the same."""
    half = (WIDEST - 1) // 2
    for head, tail in ((WIDEST - 1, 0), (half, half)):
        cut = [text if len(text) <= WIDEST else f"{text[:head]}…{text[len(text) - tail :]}" for text in texts]
        if len(set(cut)) == len(set(texts)):
            return cut
    return list(texts)


def table_of(head: Sequence[str], rows: Iterable[Sequence[object]], right: Collection[str] = ()) -> Table:
    """Return a table without lines; the columns named in `right` end at the right and are never wrapped."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in head:
        is_right = name in right
        table.add_column(name, justify="right" if is_right else "left", no_wrap=is_right, overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    return table


def table_console(stderr: bool = False) -> Console:
    """Return a console for tables, as wide as the terminal, or WIDTH_IN_A_PIPE at least where there is none."""
    from rich.console import Console

    console = Console(stderr=stderr)
    if not console.is_terminal:
        console.width = max(console.width, WIDTH_IN_A_PIPE)
    return console


def can_redraw(console: Console) -> bool:
    """Whether the console can overwrite what it shows; a pipe or a dumb terminal (TERM=dumb) gets plain lines."""
    return console.is_terminal and not console.is_dumb_terminal


def moving_bars(console: Console) -> Progress:
    """Return moving bars for steps of unknown length, to start on the console or to show within something else."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(20), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True)


@contextmanager
def step(what: str, is_news: bool = True) -> Iterator[None]:
    """Show a step on stderr while it lasts: on a terminal a moving bar that leaves no trace, elsewhere a line if it
    `is_news`.
    """
    from rich.console import Console

    console = Console(stderr=True)
    if not can_redraw(console):
        if is_news:
            say(what, stderr=True)
        yield
        return
    with moving_bars(console) as bars:
        bars.add_task(what, total=None)
        yield


@contextmanager
def counting(what: str, total: int | None = None) -> Iterator[Callable[[], None]]:
    """Show how far a step of many things has come if it takes a while; yield what is to be called after each.

    It goes to stderr: on a terminal a bar that leaves no trace, elsewhere a line now and then.
    """
    done, over = 0, threading.Event()

    def advance() -> None:
        nonlocal done
        done += 1

    thread = threading.Thread(target=_show_count, args=(what, total, lambda: done, over))
    thread.start()
    try:
        yield advance
    finally:
        over.set()
        thread.join()


def _show_count(what: str, total: int | None, done: Callable[[], int], over: threading.Event) -> None:
    if over.wait(COUNT_AFTER_S):
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    console = Console(stderr=True)
    if can_redraw(console):
        count = () if total is None else (MofNCompleteColumn(),)
        columns = (TextColumn("{task.description}", markup=False), BarColumn(20), *count)
        with Progress(*columns, console=console, transient=True) as bars:
            task = bars.add_task(what, total=total)
            while not over.wait(0.1):
                bars.update(task, completed=done())
        return
    say(what, stderr=True)
    while not over.wait(COUNT_EVERY_S):
        say(what if total is None else f"{what}: {done():,} of {total:,}", stderr=True)


def silently(what: str, total: int | None = None) -> AbstractContextManager[Callable[[], None]]:
    """Show nothing."""
    return nullcontext(lambda: None)


def format_acc(value: float | None) -> str:
    """Return an accuracy of 0..1 as a percentage."""
    return "-" if value is None else f"{100 * value:.2f} %"


def format_bytes(count: float) -> str:
    """Return bytes with three digits and a decimal prefix."""
    return format_large(count, "B")


def format_large(count: float, unit: str = "") -> str:
    """Return a count with three digits and a decimal prefix, such as 23.9 M."""
    from rich.filesize import pick_unit_and_suffix

    size, prefix = pick_unit_and_suffix(int(count), ["", "k", "M", "G", "T"], 1000)
    return f"{count / size:.3g} {prefix}{unit}".rstrip()


def count_of(count: float, noun: str) -> str:
    """Return a count with its noun: 1 node, 2 nodes, 0.5 GPUs."""
    number = f"{count:,}" if isinstance(count, int) else f"{count:g}"
    return f"{number} {noun}{'' if count == 1 else 's'}"


def some_of(names: Sequence[str], most: int = 10) -> str:
    """Return the first of many names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")


def percent(value: float) -> str:
    """Return an accuracy of 0..1 within a sentence."""
    return f"{100 * value:.1f} %"


def points(value: float) -> str:
    """Return a difference of accuracies within a sentence."""
    return f"{100 * value:.1f} points"


def significant(value: float) -> str:
    """Return a number with four significant digits, or all those before the point; `significant` of state.js agrees."""
    rounded = float(f"{value:.4g}")
    if 1e4 <= abs(rounded) < 1e7:
        return f"{value:,.0f}"
    return _PADDED_EXPONENT.sub(r"e\1", f"{value:.4g}")


_PADDED_EXPONENT = re.compile(r"e(-?)\+?0*(?=\d)")
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


def words_of(metric: str) -> list[str]:
    """Return the words of a metric's name, in small letters: val and acc of `valAcc`, `val/acc@1`, `val_acc`."""
    return [word.lower() for word in _WORD.findall(metric)]


@dataclass(frozen=True)
class Metric:
    """How the values of a metric are written."""

    name: str
    percent: bool  # whether they are accuracies of 0..1, which people read in percent

    @classmethod
    def of(cls, name: str, values: Iterable[float | None]) -> Metric:
        """Return how a metric with these values is written: in percent if it is called an accuracy and all are 0..1.

        Values that are not finite, or None, say nothing.
        """
        words = words_of(name)
        is_accuracy = bool({"acc", "accuracy"}.intersection(words)) and "loss" not in words
        return cls(
            name, is_accuracy and all(0 <= value <= 1 for value in values if value is not None and math.isfinite(value))
        )

    def tick(self, value: float) -> str:
        """Return a round value, as axes have it."""
        return f"{100 * value:.4g} %" if self.percent else significant(value)


def format_score(score: float | None, metric: Metric) -> str:
    """Return a value of a metric: an accuracy in percent, another with four significant digits."""
    if score is None or not math.isfinite(score):
        return "-"
    return format_acc(score) if metric.percent else significant(score)


def format_score_and_error(score: float | None, error: float | None, metric: Metric) -> str:
    """Return a score with its standard error, if there is one: 22.10 ± 0.60 %."""
    if score is None or error is None:
        return format_score(score, metric)
    return f"{100 * score:.2f} ± {100 * error:.2f} %" if metric.percent else f"{significant(score)} ± {error:.2g}"


def format_difference(difference: float, metric: Metric, signed: bool = False) -> str:
    """Return a difference of scores: of accuracies in points; `signed` puts a + before what is larger."""
    sign = "+" if signed else ""
    if metric.percent:
        return f"{100 * difference:{sign}.2f} points"
    return f"{'+' if signed and difference > 0 else ''}{significant(difference)}"


def format_hours(hours: float) -> str:
    """Return a duration in hours, or in minutes where those are few."""
    return f"{hours:.2f} hours" if hours >= 0.2 else f"{60 * hours:.1f} minutes"
