"""Where a sweep's trials begin, if its file says `start`. In: a checked sweep and its trials. Out: what is wrong.

Another run folder, which `start: {run, trial, epoch}` names, is not read here: what finds the trial there is given.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from raysweep.errors import SweepFileError, did_you_mean
from raysweep.loops import loop_named
from raysweep.sweepfile.document import Keys, read_document
from raysweep.sweepfile.patch import as_section, get
from raysweep.sweepfile.plan import StartedFrom, Trial, settings_of_start
from raysweep.sweepfile.schema import Sweep

FindStart = Callable[[Sweep], StartedFrom]
"""Finds the trial that a sweep's `start` names; raises SweepFileError if it cannot."""


def set_start(sweep: Sweep, find: FindStart | None) -> list[str]:
    """Find where the trials of a sweep begin, before they are planned; return what is wrong."""
    start, source = sweep.start, sweep.source
    if start is None:
        return []
    if start.weights:
        message = f"loop {sweep.loop!r} has no key model.weights: let it load the weights that it begins with by itself"
        return [] if settings_of_start(sweep) else [source.problem(("start", "weights"), message)]
    try:
        sweep._started_from = find(sweep) if find else None
    except SweepFileError as error:
        return list(error.problems)
    return [] if find else [source.problem(("start", "run"), "cannot be looked up here: no run folder is read")]


def why_not_to_start(sweep: Sweep, trials: Sequence[Trial]) -> Iterator[str]:
    """Yield why trials cannot begin where their sweep says."""
    started: StartedFrom | None = sweep._started_from
    if started is not None:
        yield from _unfit(sweep, trials, started)
    elif sweep.start and sweep.start.weights:
        yield from _of_another_network(sweep, trials, sweep.start.weights)


def paths_of(sweep: Sweep, trials: Sequence[Trial]) -> list[tuple[str, str]]:
    """Return the paths that trials read, sorted, each after the key by which the sweep file gives it."""
    paths = {place for trial in trials for place in trial.config.paths().items()}
    is_of_start = bool(sweep.start and sweep.start.weights)
    return sorted(("start.weights" if is_of_start and key == "model.weights" else key, path) for key, path in paths)


def check_weights_are_here(sweep: Sweep, trials: Sequence[Trial]) -> None:
    """Refuse a sweep that is to run on this machine, which has not the weights that its `start` names.

    Raises:
        SweepFileError: they are not here.
    """
    for key, path in paths_of(sweep, trials):
        folder = beside(sweep, path)
        if key == "start.weights" and not folder.exists():
            near = did_you_mean(folder.name, [each.name for each in folder.parent.glob("*")])
            message = f"no such folder: {folder}{near}; `raysweep pull SWEEP --to {path}` makes one"
            raise SweepFileError(sweep.source.problem(("start", "weights"), message))


def beside(sweep: Sweep, path: str) -> Path:
    """Return where a path lies that is relative to the sweep file."""
    return Path(sweep.source.path or "a sweep").absolute().parent / Path(path).expanduser()


def _unfit(sweep: Sweep, trials: Sequence[Trial], started: StartedFrom) -> Iterator[str]:
    way, loop = ("start", "epoch"), loop_named(sweep.loop)
    short = sorted({trial.epochs for trial in trials if trial.epochs <= started.epoch})
    if short:
        message = (
            f"begins after epoch {started.epoch}, and there are trials of {_in_words(short)} epochs, which would have "
            "nothing to train: epochs are counted from the first one of the trial that is gone on from"
        )
        yield sweep.source.problem(way, message)
    before = loop.config.model_validate(started.config)
    reasons = Counter(why for trial in trials if (why := loop.why_not_from(trial.config, before)))
    for why, count in reasons.items():
        unfit = f"its state does not fit {count} of {len(trials)} trials: {why}"
        message = f"{unfit}; to take its weights alone: start: {{weights: DIR}}"
        yield sweep.source.problem(("start", "trial"), message)


def _in_words(numbers: Sequence[int]) -> str:
    *others, last = map(str, numbers)
    return f"{', '.join(others)} and {last}" if others else last


def _of_another_network(sweep: Sweep, trials: Sequence[Trial], weights: str) -> Iterator[str]:
    """Yield a problem for each network of the trials that is not the one of which the pulled folder has weights."""
    way: Keys = ("start", "weights")
    try:
        given = _network_of(beside(sweep, weights))
    except SweepFileError as error:
        yield sweep.source.problem(way, f"is not as `raysweep pull` wrote it: {error}")
        return
    if given is None:
        return
    networks = Counter(_network(trial.config.model_dump(mode="json")["model"]) for trial in trials)
    for network, count in networks.items():
        if network != _network(given):
            message = (
                f"{weights} has weights of {_network(given)}, and {count} of {len(trials)} trials are of {network}"
            )
            yield sweep.source.problem(way, message)


def _network_of(folder: Path) -> Mapping[str, Any] | None:
    """Return the network that a pulled folder was trained with; None if that cannot be told."""
    file = folder / "config.yaml"
    if not file.is_file():
        return None
    values = read_document(str(file), expected="must be a mapping with `config` and `input`").values
    return as_section(get(values, "config.model")) or None


def _network(model: Mapping[str, Any]) -> str:
    """Return what decides a network, in words."""
    options = [f"{key} {model[key]}" for key in ("width", "options") if model.get(key)]
    return ", ".join([str(model.get("name")), *options])
