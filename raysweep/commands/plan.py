"""`raysweep plan`: the trials of a sweep and what they would cost, before anything is spent.

Only `--time` imports torch, and nothing here imports Ray.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Column, Table

from raysweep.halving.cost import Cohort, Cost, cost_of
from raysweep.results.rerun import edits_of
from raysweep.sweepfile import Sweep, load_sweep, storage_of
from raysweep.sweepfile.patch import get
from raysweep.sweepfile.plan import Trial, plan_as_json, plan_trials
from raysweep.terminal import format_bytes

if TYPE_CHECKING:
    from raysweep.vision.timing import Timing

COHORTS_SHOWN = 12
WIDTH_IN_A_PIPE = 140


def print_plan(
    sweep_path: str,
    overrides: Sequence[str] = (),
    timed: bool = False,
    storage: str | None = None,
    as_json: bool = False,
) -> int:
    """Print the plan, its cost, and what a run makes of it that was begun before; return the exit code.

    Args:
        sweep_path: of the sweep file.
        overrides: `key=value` each, patched into it.
        timed: train a few steps of each network on this machine, and say hours and bytes.
        storage: where the run folder lies; default: $RAYSWEEP_STORAGE, else the sweep file's.
        as_json: print one JSON document.

    Raises:
        UserError: something about the input is wrong.
    """
    sweep = load_sweep(sweep_path, overrides)
    trials = plan_trials(sweep)
    cost = cost_of(sweep, trials)
    timings = _time(trials, Path(sweep_path).absolute().parent) if timed else None
    edits = edits_of(sweep, trials, storage_of(sweep, sweep_path, storage))
    if as_json:
        document = _document(sweep, trials, cost, timings)
        print(json.dumps({**document, "run": edits.as_json() if edits else None}))
        return 0
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, WIDTH_IN_A_PIPE)
    console.print(_table(trials, cost))
    for line in [*_cohort_lines(cost), _epochs_line(trials, cost), *(edits.in_words() if edits else [])]:
        console.print(line, highlight=False, soft_wrap=True)
    if timings:
        totals = _totals(sweep, trials, cost, timings)
        console.print(
            f"on this machine: {totals['slot_hours']:.3g} slot-hours expected ({totals['slot_hours_in_full']:.3g} in "
            f"full); disk: at most {format_bytes(totals['disk_bytes_at_most'])} meanwhile, "
            f"{format_bytes(totals['disk_bytes'])} then",
            highlight=False,
            soft_wrap=True,
        )
    return 0


def _time(trials: Sequence[Trial], folder: Path) -> list[Timing]:
    from raysweep.vision.timing import time_trials

    return time_trials([trial.config for trial in trials], folder)


def _document(sweep: Sweep, trials: Sequence[Trial], cost: Cost, timings: Sequence[Timing] | None) -> dict[str, Any]:
    document = plan_as_json(sweep, trials)
    document["expected_epochs"] = sum(cost.expected_epochs.values())
    document["rungs"] = [str(rung) for rung in cost.rungs]
    document["cohorts"] = [vars(cohort) for cohort in cost.cohorts]
    for row in document["trials"]:
        row["rung_epochs"] = cost.rung_epochs[row["id"]]
        row["expected_epochs"] = cost.expected_epochs[row["id"]]
    if timings:
        document["time"] = _totals(sweep, trials, cost, timings)
        for row, timing in zip(document["trials"], timings, strict=True):
            row["epoch_s"] = timing.epoch_s
    return document


def _table(trials: Sequence[Trial], cost: Cost) -> Table:
    axes = list(dict.fromkeys(key for trial in trials for key in trial.axes if key != "epochs"))
    rungs = ["rungs"] if cost.rungs else []
    columns = [Column(name, overflow="fold") for name in ("#", "trial", *axes, "seed", "epochs", *rungs)]
    table = Table(*columns, box=None, header_style="bold", pad_edge=False)
    for number, trial in enumerate(trials, 1):
        values = (_in_words(trial, key) for key in axes)
        stops = [", ".join(map(str, cost.rung_epochs[trial.id]))] if cost.rungs else []
        table.add_row(str(number), trial.id, *values, str(trial.seed), str(trial.config.epochs), *stops)
    return table


def _in_words(trial: Trial, key: str) -> str:
    """The value of an axis; a section as its name and what differs from its defaults."""
    if key not in trial.axes:
        return "-"
    value = trial.axes[key]
    if not (isinstance(value, Mapping) and "name" in value):
        return str(value)
    given = get(trial.config.model_dump(mode="json", exclude_defaults=True), key) or {}
    return " ".join([str(value["name"]), *(f"{part}={value}" for part, value in given.items() if part != "name")])


def _cohort_lines(cost: Cost) -> list[str]:
    if not cost.rungs:
        return []
    lines = [_cohort_line(cohort, cost) for cohort in cost.cohorts[:COHORTS_SHOWN]]
    if hidden := len(cost.cohorts) - COHORTS_SHOWN:
        lines += [f"... and {hidden} more groups"] if hidden > 0 else []
    return lines


def _cohort_line(cohort: Cohort, cost: Cost) -> str:
    group = ", ".join(f"{key} {value or 'not set'}" for key, value in cohort.group.items())
    who = f"{cohort.configs} configs" + (f" ({cohort.trials} trials)" if cohort.trials != cohort.configs else "")
    steps = (
        f"{count} go on from rung {r} ({share})"
        for r, (count, share) in enumerate(zip(cohort.goes_on, cost.rungs, strict=True), 1)
    )
    return f"{group + ': ' if group else ''}{who}, {', '.join(steps)}"


def _epochs_line(trials: Sequence[Trial], cost: Cost) -> str:
    line = f"{len(trials)} trials, {cost.epochs:,} epochs asked for"
    expected = sum(cost.expected_epochs.values())
    return line + (f", {expected:,.0f} ({expected / cost.epochs:.0%}) expected" if cost.rungs else "")


def _totals(sweep: Sweep, trials: Sequence[Trial], cost: Cost, timings: Sequence[Timing]) -> Mapping[str, float]:
    """Hours and bytes of the whole sweep; `disk_bytes_at_most`: all trials wait at a rung at once, or all are done."""
    pairs = list(zip(trials, timings, strict=True))
    best = sorted((timing.best_bytes for timing in timings), reverse=True)
    return {
        "slot_hours": sum(cost.expected_epochs[trial.id] * timing.epoch_s for trial, timing in pairs) / 3600,
        "slot_hours_in_full": sum(trial.config.epochs * timing.epoch_s for trial, timing in pairs) / 3600,
        "disk_bytes_at_most": sum(timing.last_bytes + timing.best_bytes for timing in timings),
        "disk_bytes": sum(best[: sweep.checkpoints.keep_best]),
    }
