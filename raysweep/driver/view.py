"""What the user sees while a sweep runs: one live table on a terminal, plain lines elsewhere; all of it on stderr."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from statistics import fmean
from typing import Any

from rich.console import Console, ConsoleRenderable, Group, RenderableType
from rich.control import Control
from rich.live import Live
from rich.table import Table
from rich.text import Text

from raysweep.driver.board import Board, Progress
from raysweep.results.settings import are_numbers, most_telling, setting_texts, varied_settings
from raysweep.store.metrics import BASES, EMA, Family, families_of
from raysweep.sweepfile.patch import short_labels
from raysweep.terminal import WIDEST, Metric, can_redraw, count_of, fitting, format_score, moving_bars

PLAIN_LINE_EVERY_S = 30.0
AVERAGED, BEST, SPEED = "averaged", "best", "images/s"
"""Columns beside those that are called as their metrics are; the first is the objective with the EMA weights."""
SPEED_METRIC = "images_per_s"
MANY = 1000
"""Trials of which it would take too long to ask each, several times a second, whether it waits for another one."""
MOST_OTHERS = 3
"""Validation metrics that have a column beside the objective; those that are known best come first."""
SAID_AGAIN = 10
"""So many of the last lines are said again after the terminal's width has changed."""
CURVE, CURVE_WIDTH = "curve", 10
BLOCKS, ASCII = "▁▂▃▄▅▆▇█", "_.-=+*#%"


class View:
    """Shows the board of the sweep `name`, which notifies it of what happens; `metric` is the objective's."""

    def __init__(self, console: Console, name: str, board: Board, metric: str) -> None:
        self.console, self._name, self._board = console, name, board
        self._is_live = can_redraw(console)
        self._steps = moving_bars(console)
        records = [progress.record for progress in board.trials.values()]
        self._metric = Metric.of(metric, (record.best.score for record in records if record.best))
        labels = short_labels(varied_settings(records))
        self._settings = {key: labels[key] for key in most_telling(records, list(labels))}
        self._said = deque[str](maxlen=SAID_AGAIN)
        live = _Live(self._said, get_renderable=self.render, console=console, refresh_per_second=4, transient=True)
        self.live: AbstractContextManager[Any] = live if self._is_live else nullcontext()
        """Shows the table while the block lasts, where the terminal can."""
        self._said_at = 0.0
        board.notify = self._on_update

    def say(self, text: str) -> None:
        """Print a line, above the table if there is one."""
        self._said.append(text)
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
        table = [_running_table(running, self._settings, self._metric.name, self.console)] if running else []
        return Group(*table, Text(self.summary()), *([self._steps] if self._steps.tasks else []))

    def summary(self) -> str:
        """Return in one line how far the sweep has come."""
        board, trials = self._board, self._board.trials.values()
        unfinished, running = (
            board.with_status("planned", "running", "interrupted", "paused"),
            board.with_status("running"),
        )
        in_all = count_of(len(trials) + board.to_come, "trial")
        parts = [f"{self._name}: {len(trials) - len(unfinished)} of {in_all} done"]
        parts.append(f"elapsed {_clock(time.monotonic() - board.began)}")
        left = board.epochs_left() if board.epochs_trained > 1 else 0
        if board.first_epoch_at is not None and left:
            an_epoch = (time.monotonic() - board.first_epoch_at) / (board.epochs_trained - 1)
            parts.append(f"about {_clock(an_epoch * left)} left")
        if not running and unfinished and not self._steps.tasks:
            parts.append("processes start")
        waiting = set(filter(board.waits, _ids(unfinished) - _ids(running))) if len(unfinished) < MANY else set()
        if paused := len(_ids(board.with_status("paused")) - waiting):
            parts.append(f"{paused} wait at rungs")
        if waiting:
            parts.append(f"{len(waiting)} wait for epochs that others train")
        if (best := board.best_score()) is not None:
            parts.append(f"best {self._metric.name} {format_score(best, self._metric)}")
        return ", ".join([*parts, *self._hours()])

    def _hours(self) -> Iterator[str]:
        """Say what the sweep has spent, and what early stopping has saved: GPU-hours, or a slot's without GPUs."""
        gpus = self._board.gpus
        spent = sum(progress.trained_hours + progress.lost_hours for progress in self._board.trials.values())
        yield f"{spent * (gpus or 1):.2f} {'GPU' if gpus else 'slot'}-hours spent"
        if self._board.with_status("stopped"):
            yield f"{self._board.saved_hours() * (gpus or 1):.2f} saved by early stopping"

    def _on_update(self, what: str, progress: Progress) -> None:
        """Say what happened to a trial where there is no table, and beside a table if it is worth a line."""
        if self._metric.percent:  # until a score is none of 0..1
            self._metric = Metric.of(self._metric.name, [progress.best])
        line = _line(what, progress, self._metric)
        is_news = what in ("died", "remarked") or progress.status == "stopped"
        if line and (is_news or not self._is_live):
            self.say(line)
        elif not self._is_live and time.monotonic() - self._said_at > PLAIN_LINE_EVERY_S:
            self._said_at = time.monotonic()
            self.say(self.summary())


def _ids(of: Iterable[Progress]) -> set[str]:
    return {progress.record.id for progress in of}


class _Live(Live):
    """A live view that survives a change of the terminal's width.

    A terminal may wrap anew what it shows, so that no one knows how many lines the last table takes. So the screen is
    cleared then, and begins again with the lines that were said last.
    """

    def __init__(self, said: Iterable[str], **options: Any) -> None:
        super().__init__(**options)
        self._lines, self._width = said, self.console.width

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """Return what is to be printed so that the table comes last."""
        processed = super().process_renderables(renderables)
        if self.console.width == self._width or not self.console.is_interactive:
            return processed
        self._width = self.console.width
        return [Control.clear(), Control.home(), *map(Text, self._lines), *processed[1:]]  # the first goes to the table


def _running_table(running: list[Progress], settings: Mapping[str, str], metric: str, console: Console) -> Table:
    """Return the table of running trials, which are told apart by `settings`, labels by key, the most telling first."""
    shown = _shown_metrics(running, metric)
    cells = [_cells(progress, shown, console.options.ascii_only) for progress in running]
    hidden = {"node"} if len({progress.node for progress in running} - {""}) < 2 else set[str]()
    hidden |= set() if any(SPEED_METRIC in progress.metrics for progress in running) else {SPEED}
    columns = {name: [row[name] for row in cells] for name in cells[0] if name not in hidden}
    records = [progress.record for progress in running]
    heads = {key: f"config {label}" if label in columns else label for key, label in settings.items()}
    texts = {head: list(map(_short, setting_texts(records, key))) for key, head in heads.items()}
    texts |= {"seed": [str(record.seed) for record in records]} if any(record.seed for record in records) else {}
    texts = texts or {"running": [_short(record.name) for record in records]}
    optional = [*reversed([metric.name for metric in shown.others]), SPEED, AVERAGED, BEST, shown.train]
    columns = fitting({**texts, **columns}, [*optional, *reversed(list(texts)[1:])], console.width)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name, column in columns.items():
        is_left = name in (CURVE, "node") or (name in texts and not are_numbers(set(column) - {"-"}))
        table.add_column(name, justify="left" if is_left else "right", no_wrap=True)
    for row in zip(*columns.values(), strict=True):
        table.add_row(*map(Text, row))
    return table


def _short(text: str) -> str:
    return text[:WIDEST]


@dataclass(frozen=True)
class _Shown:
    """The metrics that have a column."""

    objective: Metric
    train: str  # what is called as the objective, of the training data; empty if nothing is
    averaged: str  # the objective with the EMA weights; empty if it is not reported
    others: list[Metric]


def _shown_metrics(running: Sequence[Progress], objective: str) -> _Shown:
    """Return what is shown of running trials: the objective, its companions, and others that it may be read with."""
    names = tuple(dict.fromkeys(name for progress in running for name in progress.metrics if name != "epoch"))
    own, *rest = families_of(names, objective) or [Family(objective, {"val": objective})]
    if objective not in own and objective.removesuffix(EMA) not in own:  # it has not come yet
        own, rest = Family(objective, {"val": objective}), [own, *rest]
    known = [family.metrics["val"] for family in rest if family.name in BASES or family.words.get("val")]
    plain = objective.removesuffix(EMA) if objective.removesuffix(EMA) in own else objective
    metrics = [_written(running, name) for name in (plain, *known[:MOST_OTHERS])]
    train, averaged = (name if (name := own.metrics.get(kind, "")) != plain else "" for kind in ("train", "averaged"))
    return _Shown(metrics[0], train, averaged, metrics[1:])


def _written(running: Sequence[Progress], name: str) -> Metric:
    return Metric.of(name, (row.get(name) for progress in running for row in progress.curve))


def _cells(progress: Progress, shown: _Shown, ascii_only: bool) -> dict[str, str]:
    """Return a trial's cells by column."""
    metrics, epochs, objective = progress.metrics, progress.record.epochs, shown.objective
    values = [row.get(objective.name) for row in progress.curve]
    train = {shown.train: format_score(metrics.get(shown.train), objective)} if shown.train else {}
    averaged = {AVERAGED: format_score(metrics.get(shown.averaged), objective)} if shown.averaged else {}
    return {
        "epoch": f"{progress.epoch}/{epochs}",
        **train,
        objective.name: format_score(metrics.get(objective.name), objective),
        **averaged,
        CURVE: sparkline(values, epochs, CURVE_WIDTH, ascii_only),
        BEST: format_score(progress.best, objective),
        **{metric.name: format_score(metrics.get(metric.name), metric) for metric in shown.others},
        SPEED: f"{metrics[SPEED_METRIC]:,.0f}" if SPEED_METRIC in metrics else "-",
        "node": progress.node or "-",
    }


def _line(what: str, progress: Progress, metric: Metric) -> str:
    """Return in words what happened to a trial, or nothing for an ordinary epoch."""
    id, epochs = progress.record.id, progress.record.epochs
    if what == "started":
        return f"{id}: " + (f"goes on after epoch {progress.epoch}" if progress.epoch else "starts")
    if what == "remarked":
        return f"{id}: {progress.remark}"
    if what == "died":
        return f"{id}: {progress.reason}; starts again from its last commit"
    if what in ("paused", "ended"):
        best = "" if progress.best is None else f"best {metric.name} {format_score(progress.best, metric)}"
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
