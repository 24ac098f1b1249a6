"""What the user sees while a sweep runs: one live table on a terminal, plain lines elsewhere. All on stderr."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from raysweep.driver.costs import Costs, curve_of
from raysweep.driver.events import Board, Progress
from raysweep.driver.sparkline import sparkline
from raysweep.results.table import format_acc
from raysweep.store import Record
from raysweep.terminal import can_redraw, moving_bars

PLAIN_LINE_EVERY_S = 30.0
WIDE = 100
"""Columns from which on the live table has room for all of a trial's numbers."""
CURVE, CURVE_WIDTH = "curve", 10


class View:
    """Follows a board; enter it as a context manager for the time of the run.

    Args:
        console: on stderr.
        name: of the sweep.
        maximize: whether a larger score is better.
        records: of all trials, as they were when the run began.
    """

    def __init__(self, console: Console, name: str, maximize: bool, records: Iterable[Record] = ()) -> None:
        self.console = console
        self.name = name
        self.board: Board | None = None
        self.costs = Costs(records)
        self._is_live = can_redraw(console)
        self._steps = moving_bars(console)
        self._maximize = maximize
        self._live = Live(get_renderable=self._render, console=console, refresh_per_second=4, transient=True)
        self._said_at = 0.0

    def __enter__(self) -> Self:
        if self._is_live:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._is_live:
            self._live.stop()

    def say(self, text: str) -> None:
        """Print a line above the table."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """Show a step of the run beside the table, for as long as it takes; in plain mode say it."""
        if not self._is_live:
            self.say(what)
        task = self._steps.add_task(what, total=None)
        try:
            yield
        finally:
            self._steps.remove_task(task)

    def notify(self, what: str, progress: Progress) -> None:
        """Take note of what happened to a trial; say it in plain mode, and on a terminal if it is worth a line."""
        self.costs.note(what, progress)
        line = _line(what, progress)
        is_news = what == "died" or progress.status == "stopped"
        if line and (is_news or not self._is_live):
            self.say(line)
        elif not self._is_live and time.monotonic() - self._said_at > PLAIN_LINE_EVERY_S:
            self._said_at = time.monotonic()
            self.say(self._summary())

    def _render(self) -> RenderableType:
        if self.board is None:
            return Text(f"{self.name}: starting")
        with self.board.lock:
            running = [progress for progress in self.board.trials.values() if progress.status == "running"]
        table = _running_table(running, self.console.width >= WIDE, self.console.options.ascii_only)
        return Group(
            *([table] if running else []), Text(self._summary()), *([self._steps] if self._steps.tasks else [])
        )

    def _summary(self) -> str:
        board = self.board
        if board is None:
            return ""
        with board.lock:
            trials = list(board.trials.values())
        done = sum(progress.status not in ("planned", "running", "paused") for progress in trials)
        scores = [progress.best for progress in trials if progress.best is not None]
        best = (max if self._maximize else min)(scores, default=None)
        elapsed = time.monotonic() - board.began
        parts = [f"{self.name}: {done}/{len(trials)} trials done", f"elapsed {_duration(elapsed)}"]
        left = sum(p.record.epochs - p.epoch for p in trials if p.status in ("planned", "running", "paused"))
        if board.first_epoch_at is not None and board.epochs_trained > 1 and left:
            an_epoch = (time.monotonic() - board.first_epoch_at) / (board.epochs_trained - 1)
            parts.append(f"about {_duration(an_epoch * left)} left")
        if paused := sum(progress.status == "paused" for progress in trials):
            parts.append(f"{paused} wait at rungs")
        if best is not None:
            parts.append(f"best score {best:.4f}")
        parts.append(str(self.costs))
        return ", ".join(parts)


def _running_table(running: list[Progress], is_wide: bool, ascii_only: bool) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("running", overflow="fold")
    cells = [_cells(progress, ascii_only) for progress in running]
    shown = [name for name in (cells[0] if cells else {}) if is_wide or name not in ("train_acc", "best")]
    for name in shown:
        table.add_column(name, justify="left" if name == CURVE else "right", no_wrap=True)
    for progress, row in zip(running, cells, strict=True):
        table.add_row(progress.record.id, *(row[name] for name in shown))
    return table


def _cells(progress: Progress, ascii_only: bool) -> dict[str, str]:
    """A trial's numbers, by column."""
    metrics, epochs = progress.metrics, progress.record.epochs
    values = [row.get("val_acc") for row in curve_of(progress)]
    return {
        "epoch": f"{progress.epoch}/{epochs}",
        "train_acc": format_acc(metrics.get("train_acc")),
        "val_acc": format_acc(metrics.get("val_acc")),
        "averaged": format_acc(metrics.get("val_acc_ema")),
        CURVE: sparkline(values, epochs, CURVE_WIDTH, ascii_only),
        "best": "-" if progress.best is None else f"{progress.best:.4f}",
        "images/s": f"{metrics['images_per_s']:,.0f}" if "images_per_s" in metrics else "-",
    }


def _line(what: str, progress: Progress) -> str:
    record: Record = progress.record
    if what == "started":
        return f"{record.id}: " + (f"goes on after epoch {progress.epoch}" if progress.epoch else "starts")
    if what == "died":
        return f"{record.id}: {progress.reason}; starts again from its last commit"
    if what in ("paused", "ended"):
        best = "" if progress.best is None else f"best score {progress.best:.4f}"
        detail = f", {text}" if (text := progress.reason or best) else ""
        return f"{record.id}: {progress.status} after {progress.epoch} of {record.epochs} epochs{detail}"
    return ""


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
