"""`raysweep rehearse`: what an epoch costs on this machine, and whether trials resume exactly."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import fmean
from typing import TYPE_CHECKING, Any

from raysweep.commands.context import DATA_LIES_BESIDE_IT, Context, add_sweep_flags
from raysweep.terminal import format_bytes, print_fitting, say, shortened, step

if TYPE_CHECKING:
    from raysweep.sweepfile.plan import Trial
    from raysweep.sweepfile.prefixes import Prefixes
    from raysweep.worker.rehearsal import RehearsalError, Rehearsed

SUMMARY = "train two epochs of each kind of trial here: seconds, memory, bytes, and whether it resumes exactly"
IN_WORDS = {
    "exactly": "exactly",
    "nearly": "nearly",
    "no": "to other numbers",
    "anew": "begins anew",
    "unknown": "cannot be told",
}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    add_sweep_flags(parser)


def run(arguments: argparse.Namespace) -> int:
    """Rehearse the first trial of each kind, and print what was found; return 0 if none failed."""
    from raysweep.commands.whereabouts import Whereabouts

    context = Context.of(arguments, DATA_LIES_BESIDE_IT)
    kinds = _kinds(context)
    found, failed = _rehearse(context, kinds)
    totals = _totals(context, kinds, found) if len(found) == len(kinds) else None
    where = Whereabouts.of(context)  # only now: to rehearse has prepared data
    if arguments.json:
        print(json.dumps({**_document(kinds, found, failed, totals), "memory": where and where.as_json()}))
    else:
        _print(kinds, found, failed)
        if where and found:
            say("\n".join(where.in_words(arguments.sweep)))
        if totals:
            say(_totals_line(totals))
    return max((error.exit_code for error in failed.values()), default=0)


def _kinds(context: Context) -> dict[str, list[Trial]]:
    """Return the trials of equal cost together, in the plan's order."""
    from raysweep.loops import loop_named

    loop = loop_named(context.sweep.loop)
    kinds: dict[str, list[Trial]] = {}
    for trial in context.trials:
        kinds.setdefault(loop.same_cost(trial.config), []).append(trial)
    return kinds


def _rehearse(
    context: Context, kinds: Mapping[str, Sequence[Trial]]
) -> tuple[dict[str, Rehearsed], dict[str, RehearsalError]]:
    """Return what was found of each kind, or why it failed."""
    from raysweep.worker.rehearsal import RehearsalError, rehearse
    from raysweep.worker.tasks import TaskSetting

    sweep = context.sweep
    device = "cpu" if sweep.resources.gpus == 0 else "auto"
    folder = str(context.file.absolute().parent)
    setting = TaskSetting(folder, context.named.imports, _threads(context), device, sweep.loop)
    found: dict[str, Rehearsed] = {}
    failed: dict[str, RehearsalError] = {}
    for number, (kind, trials) in enumerate(kinds.items(), 1):
        with step(f"rehearsing {trials[0].id} ({number} of {len(kinds)})"):
            try:
                found[kind] = rehearse(setting, trials[0].config, trials[0].seed)
            except RehearsalError as error:
                failed[kind] = error
    return found, failed


def _threads(context: Context) -> int:
    """Return as many threads as a trial of the sweep computes with on this machine."""
    import os

    cpus = context.sweep.resources.cpus
    return 1 if cpus == "auto" else max(1, min(int(cpus), os.cpu_count() or 1))


def _print(
    kinds: Mapping[str, Sequence[Trial]], found: Mapping[str, Rehearsed], failed: Mapping[str, RehearsalError]
) -> None:
    columns, settings = _columns({kind: trials for kind, trials in kinds.items() if kind in found}, found)
    if found:
        print_fitting(columns, settings, right=("trials", "an epoch", "memory", "state", "weights"))
    for why, ids in _alike({kinds[kind][0].id: each.why for kind, each in found.items()}).items():
        say(f"{', '.join(ids) if len(ids) < len(kinds) else 'all'}: {why}")
    for kind, error in failed.items():
        say(f"{kinds[kind][0].id} failed:\n{error.message}", stderr=True)


def _alike(whys: Mapping[str, str]) -> dict[str, list[str]]:
    alike: dict[str, list[str]] = {}
    for id, why in whys.items():
        alike.setdefault(why, []).append(id)
    return alike


def _columns(
    kinds: Mapping[str, Sequence[Trial]], found: Mapping[str, Rehearsed]
) -> tuple[dict[str, list[str]], list[str]]:
    """Return the table, cells by head, and the heads of the settings in which the kinds differ."""
    from raysweep.sweepfile.patch import flatten, short_labels
    from raysweep.sweepfile.plan import short_id

    firsts = [trials[0] for trials in kinds.values()]
    flat = [dict(flatten(trial.config.model_dump(mode="json"))) for trial in firsts]
    keys = [key for key in dict.fromkeys(key for each in flat for key in each) if key != "epochs"]
    varied = [key for key in keys if len({json.dumps(each.get(key)) for each in flat}) > 1]
    cells = {key: ["-" if each.get(key) is None else str(each[key]) for each in flat] for key in varied}
    settings = {label: shortened(cells[key]) for key, label in short_labels(varied).items()}
    rows = [found[kind] for kind in kinds]
    columns = {
        **settings,
        "trials": [str(len(trials)) for trials in kinds.values()],
        "an epoch": [f"{each.epoch_s:.3g} s" for each in rows],
        "memory": [format_bytes(each.memory_bytes) for each in rows],
        "state": [format_bytes(each.last_bytes) if each.last_bytes else "-" for each in rows],
        "weights": [format_bytes(each.best_bytes) if each.best_bytes else "-" for each in rows],
        "resumes": [IN_WORDS[each.resumes] for each in rows],
        "trial": [short_id(trial.id) for trial in firsts],
    }
    return columns, list(settings)


def _document(
    kinds: Mapping[str, Sequence[Trial]],
    found: Mapping[str, Rehearsed],
    failed: Mapping[str, RehearsalError],
    totals: Mapping[str, float] | None,
) -> dict[str, Any]:
    rehearsed = [
        {"trial": trials[0].id, "trials": [trial.id for trial in trials]}
        | (asdict(found[kind]) if kind in found else {"error": failed[kind].message})
        for kind, trials in kinds.items()
    ]
    return {"rehearsed": rehearsed, "totals": totals}


def _totals(context: Context, kinds: Mapping[str, Sequence[Trial]], found: Mapping[str, Rehearsed]) -> dict[str, float]:
    """Return hours and bytes of the whole sweep; the disk is fullest if all trials wait at a rung at once.

    Epochs that trials share count once; the states that are kept for others take disk as well.
    """
    from raysweep.halving.cost import cost_of
    from raysweep.sweepfile.prefixes import Prefixes

    cost = cost_of(context.sweep, context.trials)
    pairs = [(trial, found[kind]) for kind, trials in kinds.items() for trial in trials]
    best = sorted((each.best_bytes for _, each in pairs), reverse=True)
    prefixes = Prefixes(context.trials if context.sweep.shares_epochs else ())
    states, stays = _bytes_of_states(context, pairs, prefixes, cost.rung_epochs)
    epoch_s = {trial.id: each.epoch_s for trial, each in pairs}
    return {
        "slot_hours": sum(epochs * epoch_s[id] for id, epochs in cost.expected_epochs.items()) / 3600,
        "slot_hours_in_full": _seconds_in_full(context.trials, prefixes, epoch_s) / 3600,
        "disk_bytes_at_most": sum(each.last_bytes + each.best_bytes for _, each in pairs) + states,
        "disk_bytes": sum(best[: context.sweep.checkpoints.keep_best]) + stays,
    }


def _seconds_in_full(trials: Sequence[Trial], prefixes: Prefixes, epoch_s: Mapping[str, float]) -> float:
    """Return the seconds of all epochs, given those that one takes by trial; one that trials share counts once."""
    asked_for = sum(trial.epochs * epoch_s[trial.id] for trial in trials)
    return asked_for - sum(fmean(epoch_s[id] for id in level.ids) * (len(level.ids) - 1) for level in prefixes.levels())


def _bytes_of_states(
    context: Context,
    pairs: Sequence[tuple[Trial, Rehearsed]],
    prefixes: Prefixes,
    rungs: Mapping[str, Sequence[int]],
) -> tuple[int, int]:
    """Return the bytes of all states that trials may keep for others at once, and of those that stay in the end."""
    checkpoints = context.sweep.checkpoints
    stops = prefixes.stops(lambda id: rungs[id])
    states, last_states = dict[str, int](), dict[str, int]()
    for trial, each in pairs:
        size = each.last_bytes + each.best_bytes
        states |= {prefixes.key(trial.id, epoch, {}): size for epoch in stops.get(trial.id, ())}
        if checkpoints.keep_last != "none" and (last := prefixes.last_state(trial.id)):
            last_states[prefixes.key(trial.id, last, {})] = size
    stay = sorted(last_states.values(), reverse=True)
    stay = stay if checkpoints.keep_last == "all" else stay[: checkpoints.keep_best]
    return sum((states | last_states).values()), sum(stay)


def _totals_line(totals: Mapping[str, float]) -> str:
    hours = f"{totals['slot_hours']:.3g} slot-hours expected ({totals['slot_hours_in_full']:.3g} in full)"
    most, least = format_bytes(totals["disk_bytes_at_most"]), format_bytes(totals["disk_bytes"])
    return f"the sweep on this machine: {hours}; disk: at most {most} during the run, {least} in the end"
