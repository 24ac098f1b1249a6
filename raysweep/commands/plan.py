"""`raysweep plan`: the trials of a sweep and what they would cost, before anything is spent. No torch, no Ray."""

from __future__ import annotations

import argparse
import glob
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from raysweep.commands.context import Context, add_sweep_flags
from raysweep.terminal import count_of, print_fitting, say, shortened

if TYPE_CHECKING:
    from raysweep.halving.cost import Cohort, Cost
    from raysweep.results.rerun import Edits
    from raysweep.sweepfile import Sweep
    from raysweep.sweepfile.plan import StartedFrom, Trial

SUMMARY = "list the trials of a sweep, without running anything"
COHORTS_SHOWN = 12
GPU_DEVICES = ("/dev/nvidia[0-9]*", "/dev/kfd", "/dev/dxg")
"""Devices that a machine with a GPU has, on Linux: NVIDIA's, AMD's, and under Windows; torch takes seconds to tell."""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    add_sweep_flags(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the plan, its cost, and what a rerun makes of a run that was begun before; return the exit code."""
    from raysweep.commands.whereabouts import Whereabouts
    from raysweep.halving.cost import cost_of
    from raysweep.sweepfile.search import warnings_of

    context = Context.of(arguments)
    sweep, edits = context.sweep, _edits(context)
    trials = edits.trials if edits else context.trials
    if edits:
        from raysweep.results.rerun import keep_confirming

        sweep = keep_confirming(sweep, context.folder)
    cost = cost_of(sweep, trials)
    if edits is None or edits.is_anything_left:
        _check_weights(context)
    where = None if context.is_run_folder else Whereabouts.of(context)
    there = _epochs_there(context, sweep, trials)
    if arguments.json:
        document = {**_document(sweep, trials, cost), "memory": where.as_json() if where else None}
        document["start"] = {**asdict(sweep._started_from), "epochs_kept": there} if sweep._started_from else None
        print(json.dumps({**document, "run": edits.as_json() if edits else None}))
        return 0
    columns, settings = _columns(trials, cost)
    print_fitting(columns, ["rungs", *settings], right=("#", "generation", "seed", "epochs"))
    lines = [*_cohort_lines(cost), _epochs_line(trials, cost), *_search_lines(sweep, trials, cost)]
    lines += _objective_lines(sweep)
    if race := _race(sweep, trials):
        more = count_of(race["trials_at_most"], "more trial")
        seeds = f"{race['seeds']} fresh seeds at most"
        lines.append(f"confirm: the best {race['configs']} configs, with {seeds}: up to {more}")
    lines += _start_lines(sweep, cost, there, edits)
    lines += where.in_words(context.named.path) if where else []
    lines += edits.in_words() if edits else []
    lines += [f"warning: {each}" for each in [*warnings_of(sweep), *_warnings(context)]]
    say("\n".join(lines))
    return 0


def _objective_lines(sweep: Sweep) -> list[str]:
    """Say by what halving goes where there are several objectives; their values are not known without torch."""
    from raysweep.sweepfile.schema import AshaConfig

    others, costs = [each.metric for each in sweep.objective.against], sweep.costs
    if not others:
        return []
    line = f"objectives: {', '.join([sweep.objective.metric, *others])}"
    if not isinstance(sweep.scheduler, AshaConfig):
        return [line]
    if not costs:
        return [f"{line}; halving goes by {sweep.objective.metric} alone, since no other is known before training"]
    left_out = [name for name in others if name not in costs]
    without = f"; {', '.join(left_out)} cannot be known by then" if left_out else ""
    by = ", ".join([sweep.objective.metric, *costs])
    return [f"{line}; halving goes by how many configs dominate one in {by}{without}"]


def _check_weights(context: Context) -> None:
    """Refuse a sweep that would run on this machine, and begin with weights that are not here."""
    if not (context.is_run_folder or os.environ.get("RAY_ADDRESS")):
        from raysweep.sweepfile.start import check_weights_are_here

        check_weights_are_here(context.sweep, context.trials)


def _epochs_there(context: Context, sweep: Sweep, trials: Sequence[Trial]) -> int | None:
    """Return how many of the epochs that the trials begin with need not be trained again; None if each trains them."""
    if sweep._started_from is None or not sweep.shares_epochs:
        return None
    from raysweep.results.offers import epochs_there

    return epochs_there(trials[0], context.folder)


def _start_lines(sweep: Sweep, cost: Cost, there: int | None, edits: Edits | None) -> list[str]:
    started: StartedFrom | None = sweep._started_from
    if started is None:
        return []
    line = f"start: all go on after epoch {started.epoch} of {started.trial}, in {started.run}"
    if edits and not edits.counts["new"]:
        return [line]
    if there is None:
        return [f"{line}; each trial trains {_span(1, started.epoch)} again"]
    again = f"{_span(there + 1, started.epoch)} {'are' if there + 1 < started.epoch else 'is'} trained again, once"
    line += f"; {again if there < started.epoch else 'its state is kept'}"
    if edits:  # of a run that has begun fewer are left; what it keeps says how many
        return [line]
    left = cost.unique_epochs - there
    return [f"{line}: {'at most ' * bool(cost.rungs)}{count_of(left, 'epoch')} {'is' if left == 1 else 'are'} left"]


def _span(first: int, last: int) -> str:
    return f"epochs {first} to {last}" if first < last else f"epoch {last}"


def _warnings(context: Context) -> list[str]:
    """Return what a run on this machine would miss; on a cluster it may be there."""
    gpus, problems = context.sweep.resources.gpus, []
    if gpus not in ("auto", 0) and not os.environ.get("RAY_ADDRESS") and not any(map(glob.glob, GPU_DEVICES)):
        problems.append(
            f"resources.gpus is {gpus:g}, and this machine has no GPU; a run here would be refused, unless it goes to "
            "a cluster (--address); `gpus: auto` takes what there is"
        )
    if context.is_run_folder:
        return problems
    from raysweep.sweepfile.start import beside, paths_of

    paths = [(key, path) for key, path in paths_of(context.sweep, context.trials) if "://" not in path]
    missing = [(key, path) for key, path in paths if not beside(context.sweep, path).exists()]
    return [*problems, *(f"{key}: {path} is not on this machine" for key, path in missing)]


def _edits(context: Context) -> Edits | None:
    """Return what a rerun makes of the run folder, if there is one on this machine."""
    if not os.path.isfile(os.path.join(*context.place, "resolved.yaml")):
        return None  # the modules that read a run folder take as long to import as a small plan to print
    from raysweep.results.rerun import edits_of

    return edits_of(context.sweep, context.place[0])


def _document(sweep: Sweep, trials: Sequence[Trial], cost: Cost) -> dict[str, Any]:
    from raysweep.sweepfile.plan import plan_as_json

    document = plan_as_json(sweep, trials)
    if sweep.shares_epochs:
        document["unique_epochs"] = cost.unique_epochs
    document["expected_epochs"] = round(cost.expected, 3)
    document["rungs"] = [str(rung) for rung in cost.rungs]
    document["confirm"] = _race(sweep, trials)
    document["cohorts"] = [
        {key: value for key, value in vars(cohort).items() if value is not None} for cohort in cost.cohorts
    ]
    document["search"] = _search(sweep, trials, cost)
    for row in document["trials"]:
        row["rung_epochs"] = cost.rung_epochs[row["id"]]
        row["expected_epochs"] = cost.expected_epochs[row["id"]]
    return document


def _columns(trials: Sequence[Trial], cost: Cost) -> tuple[dict[str, list[str]], list[str]]:
    """Return the table of trials, cells by head, and the heads of settings, those of the fewest values first."""
    from raysweep.results.settings import in_few_digits
    from raysweep.sweepfile.patch import short_labels
    from raysweep.sweepfile.plan import short_id

    labels = short_labels(list(dict.fromkeys(key for trial in trials for key in trial.axes if key != "epochs")))
    settings = {
        label: shortened(in_few_digits([_in_words(trial, key) for trial in trials])) for key, label in labels.items()
    }
    rungs = {"rungs": [", ".join(map(str, cost.rung_epochs[trial.id])) for trial in trials]} if cost.rungs else {}
    numbers = [trial.generation for trial in trials]
    columns = {
        "#": [str(number) for number, _ in enumerate(trials, 1)],
        **({} if None in numbers else {"generation": list(map(str, numbers))}),
        **settings,
        "seed": [str(trial.seed) for trial in trials],
        "epochs": [str(trial.epochs) for trial in trials],
        **rungs,
        "trial": [short_id(trial.id) for trial in trials],
    }
    return columns, sorted(settings, key=lambda label: len(set(settings[label])))


def _in_words(trial: Trial, key: str) -> str:
    """Return the value of an axis; that of a section as its name and what differs from the defaults."""
    if key not in trial.axes:
        return "-"
    value = trial.axes[key]
    if not isinstance(value, Mapping):
        return str(value)
    if "name" not in value:
        return " ".join(f"{part}={each}" for part, each in value.items())
    from raysweep.sweepfile.patch import get

    given = get(trial.config.model_dump(mode="json", exclude_defaults=True), key) or {}
    return " ".join([str(value["name"]), *(f"{part}={value}" for part, value in given.items() if part != "name")])


def _cohort_lines(cost: Cost) -> list[str]:
    if not cost.rungs:
        return []
    alike: dict[str, list[int | None]] = {}  # generations, by what is said of them
    for cohort in cost.cohorts:
        alike.setdefault(_cohort_line(cohort, cost), []).append(cohort.generation)
    lines = [f"{_generations(numbers)}{line}" for line, numbers in alike.items()]
    hidden = len(lines) - COHORTS_SHOWN
    return [*lines[:COHORTS_SHOWN], f"... and {count_of(hidden, 'more group')}"] if hidden > 0 else lines


def _generations(numbers: Sequence[int | None]) -> str:
    first, last = numbers[0], numbers[-1]
    if first is None:
        return ""
    joined = "and" if len(numbers) == 2 else "to"
    return f"generation {first}: " if first == last else f"generations {first} {joined} {last}, each: "


def _cohort_line(cohort: Cohort, cost: Cost) -> str:
    group = ", ".join(f"{key} {value or 'not set'}" for key, value in cohort.group.items())
    who = count_of(cohort.configs, "config") + (f" ({cohort.trials} trials)" if cohort.trials != cohort.configs else "")
    if cohort.rivals:
        who += f" beside {cohort.rivals} of earlier generations"
    steps = (
        f"{count} go on from rung {r} ({share})"
        for r, (count, share) in enumerate(zip(cohort.goes_on, cost.rungs, strict=True), 1)
    )
    return f"{group + ': ' if group else ''}{who}, {', '.join(steps)}"


def _search_lines(sweep: Sweep, trials: Sequence[Trial], cost: Cost) -> list[str]:
    """Return a line about a whole search, of which only the first generations are known before there are results."""
    from raysweep.halving.cost import cost_of_search

    search, whole = sweep.search, cost_of_search(sweep, trials, cost)
    if search is None or whole is None:
        return []
    seeds = f" with {len(sweep.seeds)} seeds each" if sweep.seeds and len(sweep.seeds) > 1 else ""
    line = f"search: {search.name}, {count_of(search.trials, 'config' if seeds else 'trial')}{seeds}"
    line += f" in generations of {search.generation}" if search.learns else ""
    if not whole.left:
        few = f"the space has only {count_of(whole.proposed, 'config')}"
        return [f"{line}; {few if whole.proposed < search.trials else 'all of them are above'}"]
    if not search.learns:
        rest = f"{whole.left:,} more to come"
    else:
        rest = f"the {whole.left:,} others depend on results" if whole.left > 1 else "the last one depends on results"
    line += f"; {rest}, at most {whole.epochs_at_most:,} epochs in all"
    if cost.rungs:
        line += f", about {whole.expected_epochs:,.0f} ({whole.expected_epochs / whole.epochs_at_most:.0%}) expected"
    return [line]


def _search(sweep: Sweep, trials: Sequence[Trial], cost: Cost) -> dict[str, Any] | None:
    from raysweep.halving.cost import cost_of_search

    whole = cost_of_search(sweep, trials, cost)
    if sweep.search is None or whole is None:
        return None
    section = sweep.search.model_dump(mode="json", exclude_none=True)
    return {**section, **asdict(whole), "expected_epochs": round(whole.expected_epochs, 3)}


def _epochs_line(trials: Sequence[Trial], cost: Cost) -> str:
    line = f"{count_of(len(trials), 'trial')}, {count_of(cost.epochs, 'epoch')} asked for"
    shares = cost.unique_epochs < cost.epochs
    line += f", {cost.unique_epochs:,} unique" if shares else ""
    if not cost.rungs:
        return line
    return line + f", {'at most ' * shares}{cost.expected:,.0f} ({cost.expected / cost.epochs:.0%}) expected"


def _race(sweep: Sweep, trials: Sequence[Trial]) -> dict[str, int] | None:
    """Return how many trials `confirm` adds at most; they are in no other number of the plan."""
    if sweep.confirm is None:
        return None
    from raysweep.sweepfile.plan import config_key

    configs = min(sweep.confirm.top, len({config_key(trial.config.model_dump(mode="json")) for trial in trials}))
    seeds = sweep.confirm.seeds
    return {"configs": configs, "seeds": seeds, "trials_at_most": configs * seeds}
