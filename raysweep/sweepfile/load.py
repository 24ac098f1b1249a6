"""Loads a sweep. In: a sweep file and overrides. Out: a checked `Sweep`, or all faults at once, each with its place."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from raysweep.config import LoopConfig
from raysweep.errors import SweepFileError
from raysweep.loops import CLASSIFY, LOOPS, loop_named
from raysweep.sweepfile.document import Keys, Source, document_of, read_document
from raysweep.sweepfile.idle import what_is_idle
from raysweep.sweepfile.messages import IS_MISSING, describe_errors, objective_way
from raysweep.sweepfile.overrides import apply_overrides
from raysweep.sweepfile.plan import StartedFrom, Trial, plan_trials
from raysweep.sweepfile.schema import AXES, AshaConfig, Sweep, check_storage, known_key, known_metric
from raysweep.sweepfile.search import why_not_to_search
from raysweep.sweepfile.start import FindStart, set_start, why_not_to_start


def load_sweep(path: str | Path, overrides: Sequence[str] = (), find_start: FindStart | None = None) -> Sweep:
    """Read a sweep file, patched by overrides of the form `key=value`.

    `find_start` finds the trial of `start` in its run folder (`results.start`); without it such a file is refused.

    Raises:
        SweepFileError: something is wrong, in the planned trials too; one message a fault, all of them.
    """
    source = read_document(str(path))
    return _checked(source, apply_overrides(source, overrides), find_start, to_run=True)


def sweep_of(
    values: Mapping[str, Any], overrides: Sequence[str] = (), find_start: FindStart | None = None
) -> tuple[Sweep, str]:
    """Check a sweep given as values, as of a sweep file; return it and its text as a file (see `load_sweep`).

    Raises:
        SweepFileError: something is wrong; messages name keys instead of lines.
    """
    source, text = document_of(values)
    return _checked(source, apply_overrides(source, overrides), find_start, to_run=True), text


def load_name_and_storage(path: str | Path, overrides: Sequence[str] = ()) -> Sweep:
    """Read no more of a sweep file than what finds its run folder, whatever else is wrong in it.

    Raises:
        SweepFileError: `name` or `storage` is wrong, the file is not YAML, or an override sets an unknown key.
    """
    source = read_document(str(path))
    problems, trial = apply_overrides(source, overrides), _kind_of_trial(source)
    for way in source.overridden if trial else ():
        if trial and way[0] == "base" and len(way) > 1:
            try:
                known_key(str(way[1]), trial)
            except ValueError as error:
                problems.append(source.problem(way, str(error)))
    source.values = {key: source.values[key] for key in ("name", "storage") if key in source.values}
    sweep, more = _validate(source)
    if problems or more or sweep is None:
        raise SweepFileError(*problems, *more)
    return sweep


def restore_sweep(document: Mapping[str, Any], place: str, started: StartedFrom | None = None) -> Sweep:
    """Check the sweep of a run folder's resolved.yaml again, which has every default; `place` is for messages.

    `started` is where its trials began, as that file has it.

    Raises:
        SweepFileError: it is not a sweep that this raysweep knows.
    """
    source = Source(place, values={key: value for key, value in document.items() if value or key not in AXES})
    return _checked(source, find_start=(lambda sweep: started) if started else None)


def storage_of(sweep: Sweep, sweep_path: str | Path, override: str | None = None) -> str:
    """Return where the run folder lies: `override`, else $RAYSWEEP_STORAGE, else the sweep file's, relative to it.

    Raises:
        SweepFileError: it is a URL that holds credentials, or names no bucket.
    """
    chosen = override or os.environ.get("RAYSWEEP_STORAGE")
    if chosen:
        try:
            check_storage(chosen)
        except ValueError as error:
            raise SweepFileError(f"{'--storage' if override else '$RAYSWEEP_STORAGE'}: {error}") from error
        return chosen if "://" in chosen else str(Path(chosen).absolute())
    if "://" in sweep.storage:
        return sweep.storage
    return str(Path(os.path.normpath(Path(sweep_path).absolute().parent / Path(sweep.storage).expanduser())))


def _checked(
    source: Source,
    wrong_overrides: Sequence[str] = (),
    find_start: FindStart | None = None,
    to_run: bool = False,
) -> Sweep:
    sweep, wrong_sections = _validate(source)
    empty = [axis for axis in AXES if source.values.get(axis) == {}]
    problems = [*wrong_overrides, *wrong_sections]
    problems += [source.problem((axis,), "is empty; it must have at least one key with a list") for axis in empty]
    problems += [*_wrong_for_the_loop(sweep), *set_start(sweep, find_start)] if sweep is not None else []
    unsearchable = why_not_to_search(sweep) if sweep is not None else []
    problems += unsearchable
    try:
        if sweep is not None and not unsearchable:
            trials = plan_trials(sweep)
            problems += _why_not_to_run(sweep, trials) if to_run else []
    except SweepFileError as error:
        # What the plan misses may have been left out by `_validate`, because of another fault.
        more = [problem for problem in error.problems if not (problems and problem.endswith(IS_MISSING))]
        problems = list(dict.fromkeys([*problems, *more]))
    if problems or sweep is None:
        raise SweepFileError(*problems)
    return sweep


def _wrong_for_the_loop(sweep: Sweep) -> Iterator[str]:
    """Yield a problem for objectives that the loop does not measure, and each key of `group_by` that no trial has."""
    others, seen = sweep.objective.against, set[str]()
    for place, each in enumerate((sweep.objective, *others)):
        try:
            known_metric(each, sweep.loop, is_first=place == 0)
            if each.metric in seen:
                raise ValueError(f"{each.metric} is an objective twice; leave one out")
        except ValueError as error:
            yield sweep.source.problem(objective_way(sweep.source.values, place), str(error))
        seen.add(each.metric)
    if sweep.costs and isinstance(sweep.scheduler, AshaConfig) and sweep.scheduler.tolerance:
        yield sweep.source.problem(
            ("scheduler", "tolerance"),
            f"is of one score, and with {sweep.costs[0]} among the objectives configs are compared by several; "
            "leave it out",
        )
    for index, key in enumerate(sweep.scheduler.group_by if isinstance(sweep.scheduler, AshaConfig) else ()):
        try:
            known_key(key, loop_named(sweep.loop).config)
        except ValueError as error:
            yield sweep.source.problem(("scheduler", "group_by", index), str(error))


def _why_not_to_run(sweep: Sweep, trials: Sequence[Trial]) -> list[str]:
    """Return what is wrong with a valid sweep, though a run folder that has it from an older raysweep can be read."""
    problems, gpus = [], sweep.resources.gpus
    if gpus != "auto" and gpus > 1:
        workers = f"workers: {math.ceil(gpus * sweep.resources.workers)}, gpus: 1"
        message = f"got {gpus:g}, must be at most 1, since each worker trains on one GPU; for more a trial: {workers}"
        problems.append(sweep.source.problem(("resources", "gpus"), message))
    for metric in (sweep.objective.metric, *(each.metric for each in sweep.objective.against)):
        known = metric in loop_named(sweep.loop).metrics
        reasons = Counter(why for trial in trials if known and (why := trial.config.why_without(metric)))
        for why, count in reasons.items():
            message = (
                f"{metric} is not measured with {why} ({count} of {len(trials)} trials); choose another, or change that"
            )
            problems.append(sweep.source.problem(("objective",), message))
    return [*problems, *why_not_to_start(sweep, trials), *what_is_idle(sweep, trials)]


def _validate(source: Source) -> tuple[Sweep | None, list[str]]:
    """Validate the sections; if some are wrong, return the sweep without them, so that its plan is checked as well."""
    found: list[tuple[Keys, str]] = []
    sweep: Sweep | None = None
    trial = _kind_of_trial(source)
    try:
        sweep = Sweep.model_validate(source.values)
    except ValidationError as error:
        found = describe_errors(error, Sweep, source.values, trial)
        if trial is not None:  # without the loop nothing can be said of the trials
            with suppress(ValidationError):
                sweep = Sweep.model_validate({"name": "unnamed", **_without(source.values, [way for way, _ in found])})
    if sweep is not None:
        sweep._source = source
    return sweep, [source.problem(way, message) for way, message in found]


def _kind_of_trial(source: Source) -> type[LoopConfig] | None:
    """Return the class of a trial's config; None if the file names a loop that is not known."""
    name = source.values.get("loop", CLASSIFY)
    return loop_named(name).config if name in LOOPS.names() else None


def _without(values: Mapping[str, Any], faulty: Iterable[Keys]) -> dict[str, Any]:
    """Return the file's values without the wrong ones: single axes and cases, otherwise whole sections."""
    rest = dict(values)
    for section, *inner in faulty:
        table = rest.get(str(section))
        if section in (*AXES, "cases") and inner and inner[0] != "samples" and isinstance(table, dict):
            rest[str(section)] = {key: value for key, value in table.items() if key != inner[0]}
        elif section == "search" and inner and isinstance(table, dict):
            rest["search"] = _search_without(table, inner)
        else:
            rest.pop(str(section), None)
    if not rest.get("search"):
        rest.pop("search", None)
    if set(rest.get("random") or ()) == {"samples"}:
        del rest["random"]
    return rest


def _search_without(search: dict[str, Any], faulty: Sequence[str | int]) -> dict[str, Any]:
    """Return a search without what is wrong in it, so that the rest is checked as well; nothing if that is too much."""
    given, enqueue = search.get("space"), search.get("enqueue")
    if not isinstance(given, dict) or faulty == ["space"]:
        return {}
    key = str(faulty[0])
    if key != "space":
        left = {other: value for other, value in search.items() if other != key}
        return {"trials": max(1, len(enqueue) if isinstance(enqueue, list) else 1), **left}
    key = str(faulty[1])
    space = {other: each for other, each in given.items() if other != key and not _needs(each, key)}
    items = [each for each in enqueue if isinstance(each, dict)] if isinstance(enqueue, list) else []
    lost = given.keys() - space.keys()
    enqueue = [{other: value for other, value in item.items() if other not in lost} for item in items]
    return {**search, "space": space, "enqueue": enqueue} if space else {}


def _needs(dimension: Any, key: str) -> bool:
    return isinstance(dimension, dict) and isinstance(dimension.get("when"), dict) and key in dimension["when"]
