"""What the user sees while a sweep runs: one live table on a terminal, plain lines elsewhere. All on stderr."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from raysweep.driver.events import Board, Progress
from raysweep.store import Record
from raysweep.table import format_acc

PLAIN_LINE_EVERY_S = 30.0


class View:
    """Follows a board; enter it as a context manager for the time of the run."""

    def __init__(self, console: Console, name: str, maximize: bool) -> None:
        self.console = console
        self.name = name
        self.board: Board | None = None
        self._maximize = maximize
        self._live = Live(get_renderable=self._render, console=console, refresh_per_second=4, transient=True)
        self._said_at = 0.0

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self.console.is_terminal:
            self._live.stop()

    def say(self, text: str) -> None:
        """Print a line above the table."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def notify(self, what: str, progress: Progress) -> None:
        """Take note of what happened to a trial; in plain mode, say it."""
        line = _line(what, progress)
        if line and (what == "died" or not self.console.is_terminal):
            self.say(line)
        elif not self.console.is_terminal and time.monotonic() - self._said_at > PLAIN_LINE_EVERY_S:
            self._said_at = time.monotonic()
            self.say(self._summary())

    def _render(self) -> RenderableType:
        if self.board is None:
            return Text(f"{self.name}: starting")
        with self.board.lock:
            running = [progress for progress in self.board.trials.values() if progress.status == "running"]
        return Group(_running_table(running), Text(self._summary()))

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
        if board.epochs_trained and left:
            parts.append(f"about {_duration(elapsed / board.epochs_trained * left)} left")
        if best is not None:
            parts.append(f"best score {best:.4f}")
        return ", ".join(parts)


def _running_table(running: list[Progress]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("running", overflow="fold")
    for name in ("epoch", "train_acc", "val_acc", "averaged", "best", "images/s"):
        table.add_column(name, justify="right", no_wrap=True)
    for progress in running:
        metrics = progress.metrics
        table.add_row(
            progress.record.id,
            f"{progress.epoch}/{progress.record.epochs}",
            format_acc(metrics.get("train_acc")),
            format_acc(metrics.get("val_acc")),
            format_acc(metrics.get("val_acc_ema")),
            "-" if progress.best is None else f"{progress.best:.4f}",
            f"{metrics['images_per_s']:,.0f}" if "images_per_s" in metrics else "-",
        )
    return table


def _line(what: str, progress: Progress) -> str:
    record: Record = progress.record
    if what == "started":
        return f"{record.id}: " + (f"goes on after epoch {progress.epoch}" if progress.epoch else "starts")
    if what == "died":
        return f"{record.id}: its process died; starts again from its last commit"
    if what == "ended":
        best = "" if progress.best is None else f", best score {progress.best:.4f}"
        return f"{record.id}: {progress.status} after {progress.epoch} of {record.epochs} epochs{best}"
    return ""


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
