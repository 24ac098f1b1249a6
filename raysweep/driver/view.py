"""What the user sees while a sweep runs: one live table on a terminal, plain lines elsewhere; all of it on stderr."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from statistics import fmean
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from raysweep.driver.board import Board, Progress
from raysweep.terminal import can_redraw, format_acc, moving_bars

PLAIN_LINE_EVERY_S = 30.0
WIDE = 100
"""The columns that a terminal must have for the live table to show all of a trial's numbers."""
CURVE, CURVE_WIDTH = "curve", 10
BLOCKS, ASCII = "▁▂▃▄▅▆▇█", "_.-=+*#%"


class View:
    """Shows the board of the sweep `name`, which notifies it of what happens."""

    def __init__(self, console: Console, name: str, board: Board) -> None:
        self.console, self._name, self._board = console, name, board
        self._is_live = can_redraw(console)
        self._steps = moving_bars(console)
        live = Live(get_renderable=self.render, console=console, refresh_per_second=4, transient=True)
        self.live: AbstractContextManager[Any] = live if self._is_live else nullcontext()
        """Shows the table while the block lasts, where the terminal can."""
        self._said_at = 0.0
        board.notify = self._on_update

    def say(self, text: str) -> None:
        """Print a line, above the table if there is one."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """Show a step of the run as a moving bar below the table while the block lasts, or say it once elsewhere."""
        if not self._is_live:
            self.say(what)
        task = self._steps.add_task(what, total=None)
        try:
            yield
        finally:
            self._steps.remove_task(task)

    def render(self) -> RenderableType:
        """Return what the live table shows now."""
        running = self._board.with_status("running")
        table = [_running_table(running, self.console)] if running else []
        return Group(*table, Text(self.summary()), *([self._steps] if self._steps.tasks else []))

    def summary(self) -> str:
        """Return in one line how far the sweep has come."""
        board, trials = self._board, self._board.trials.values()
        unfinished = board.with_status("planned", "running", "paused")
        parts = [f"{self._name}: {len(trials) - len(unfinished)}/{len(trials)} trials done"]
        parts.append(f"elapsed {_clock(time.monotonic() - board.began)}")
        left = sum(progress.record.epochs - progress.epoch for progress in unfinished)
        if board.first_epoch_at is not None and board.epochs_trained > 1 and left:
            an_epoch = (time.monotonic() - board.first_epoch_at) / (board.epochs_trained - 1)
            parts.append(f"about {_clock(an_epoch * left)} left")
        if paused := len(board.with_status("paused")):
            parts.append(f"{paused} wait at rungs")
        if (best := board.best_score()) is not None:
            parts.append(f"best score {best:.4f}")
        return ", ".join([*parts, *self._hours()])

    def _hours(self) -> Iterator[str]:
        """Say what the sweep has spent, and what early stopping has saved: GPU-hours, or a slot's without GPUs."""
        gpus = self._board.gpus
        spent = sum(progress.trained_hours + progress.lost_hours for progress in self._board.trials.values())
        yield f"{spent * (gpus or 1):.2f} {'GPU' if gpus else 'slot'}-hours spent"
        if stopped := self._board.with_status("stopped"):
            saved = sum(progress.saved_hours for progress in stopped)
            yield f"{saved * (gpus or 1):.2f} saved by early stopping"

    def _on_update(self, what: str, progress: Progress) -> None:
        """Say what happened to a trial where there is no table, and beside a table if it is worth a line."""
        line = _line(what, progress)
        is_news = what in ("died", "remarked") or progress.status == "stopped"
        if line and (is_news or not self._is_live):
            self.say(line)
        elif not self._is_live and time.monotonic() - self._said_at > PLAIN_LINE_EVERY_S:
            self._said_at = time.monotonic()
            self.say(self.summary())


def _running_table(running: list[Progress], console: Console) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("running", overflow="fold")
    cells = [_cells(progress, console.options.ascii_only) for progress in running]
    hidden = set() if console.width >= WIDE else {"train_acc", "best"}
    if len({progress.node for progress in running} - {""}) < 2:
        hidden.add("node")
    shown = [name for name in cells[0] if name not in hidden]
    for name in shown:
        table.add_column(name, justify="left" if name in (CURVE, "node") else "right", no_wrap=True)
    for progress, row in zip(running, cells, strict=True):
        table.add_row(progress.record.id, *(row[name] for name in shown))
    return table


def _cells(progress: Progress, ascii_only: bool) -> dict[str, str]:
    """Return a trial's cells by column."""
    metrics, epochs = progress.metrics, progress.record.epochs
    values = [row.get("val_acc") for row in progress.curve]
    return {
        "epoch": f"{progress.epoch}/{epochs}",
        "train_acc": format_acc(metrics.get("train_acc")),
        "val_acc": format_acc(metrics.get("val_acc")),
        "averaged": format_acc(metrics.get("val_acc_ema")),
        CURVE: sparkline(values, epochs, CURVE_WIDTH, ascii_only),
        "best": "-" if progress.best is None else f"{progress.best:.4f}",
        "images/s": f"{metrics['images_per_s']:,.0f}" if "images_per_s" in metrics else "-",
        "node": progress.node or "-",
    }


def _line(what: str, progress: Progress) -> str:
    """Return in words what happened to a trial, or nothing for an ordinary epoch."""
    id, epochs = progress.record.id, progress.record.epochs
    if what == "started":
        return f"{id}: " + (f"goes on after epoch {progress.epoch}" if progress.epoch else "starts")
    if what == "remarked":
        return f"{id}: {progress.remark}"
    if what == "died":
        return f"{id}: {progress.reason}; starts again from its last commit"
    if what in ("paused", "ended"):
        best = "" if progress.best is None else f"best score {progress.best:.4f}"
        detail = f", {text}" if (text := progress.reason or best) else ""
        return f"{id}: {progress.status} after {progress.epoch} of {epochs} epochs{detail}"
    return ""


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=int(seconds)))


def sparkline(values: Sequence[float | None], total: int, width: int, ascii_only: bool = False) -> str:
    """Draw a curve from its lowest to its highest value, as far as it has come of `total` epochs.

    The whole curve is `width` characters wide; None and values that are not finite leave a gap. Terminals whose
    encoding has no block elements get ASCII.
    """
    known = [value if value is not None and math.isfinite(value) else None for value in values]
    finite = [value for value in known if value is not None]
    if not finite:
        return ""
    steps = ASCII if ascii_only else BLOCKS
    low, span = min(finite), max(finite) - min(finite) or 1.0
    cells = max(1, round(width * min(1.0, len(known) / max(1, total))))

    def cell(index: int) -> str:
        start, end = index * len(known) // cells, (index + 1) * len(known) // cells
        part = [value for value in known[start : max(start + 1, end)] if value is not None]
        return steps[round((fmean(part) - low) / span * (len(steps) - 1))] if part else " "

    return "".join(map(cell, range(cells)))
