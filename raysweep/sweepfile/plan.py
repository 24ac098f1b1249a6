"""Plans a sweep. In: a `Sweep`. Out: its list of trials, in order.

base -> cases -> grid x zip x random x seeds -> without what `exclude` names -> without duplicates
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import ValidationError

from raysweep.config import LoopConfig, kind_named, kinds_of
from raysweep.errors import SweepFileError, UserError, did_you_mean
from raysweep.loops import CLASSIFY, loop_named
from raysweep.sweepfile.document import Keys
from raysweep.sweepfile.messages import IS_MISSING, describe_errors
from raysweep.sweepfile.patch import contains, flatten, get, patch
from raysweep.sweepfile.proposals import Accepts, Generation, first_generations
from raysweep.sweepfile.schema import CaseAxes, Sweep, known_key
from raysweep.sweepfile.space import draw_value
from raysweep.terminal import some_of

FIRST_FRESH_SEED = 1000
"""The seeds of `confirm` begin here, away from those that people choose."""


@dataclass(frozen=True)
class StartedFrom:
    """The trial whose first epochs another one begins with."""

    run: str  # the path or URI of its run folder
    trial: str  # its id
    epoch: int  # how many of its epochs are taken over
    loop: str
    config: dict[str, Any]  # as JSON; with it and the seed these epochs can be trained again
    seed: int
    start: StartedFrom | None = None  # where that trial itself began
    conditions: dict[str, Any] = field(default_factory=dict)  # those of its conditions that decide its numbers


@dataclass(frozen=True)
class Trial:
    """One trial of a plan."""

    id: str  # a readable name, and a hash of config and seed
    name: str
    config: LoopConfig
    seed: int
    axes: dict[str, Any] = field(default_factory=dict)  # the keys that this sweep varies, with this trial's values
    hashed: str = ""  # what the hash is of; it has 48 bits, so two texts may share one by chance
    former_id: str = ""  # with the hash's first 32 bits, by which older run folders know the trial
    loop: str = CLASSIFY  # the loop that trains it
    start: StartedFrom | None = None  # the trial whose first epochs are its own, if it does not begin anew
    until: int | None = None  # the epoch after which it ends, if that is in the middle of its schedule
    generation: int | None = None  # the generation of the search that proposed it, from 0

    @property
    def epochs(self) -> int:
        """How many epochs it has."""
        return min(self.config.epochs, self.until or self.config.epochs)

    def __repr__(self) -> str:
        return f"<Trial {self.id}: {self.epochs} epochs>"


def plan_trials(sweep: Sweep) -> list[Trial]:
    """Return a sweep's trials, in order; they are worked out once.

    Those of a search are its generations so far or, before there are any, those that depend on no results.

    Raises:
        SweepFileError: a trial's config is wrong, or there are no trials or too many; all faults at once.
    """
    if sweep._plan is None:
        sweep._plan = _planned_search(sweep) if sweep.search else _expand(sweep)
    trials: list[Trial] = sweep._plan
    return trials


def fresh_seeds(sweep: Sweep) -> list[int]:
    """Return the seeds of `confirm`, which are none of the sweep's own."""
    own = {sweep.seed, *(sweep.seeds or ())}
    unused = (seed for seed in itertools.count(FIRST_FRESH_SEED) if seed not in own)
    return list(itertools.islice(unused, sweep.confirm.seeds if sweep.confirm else 0))


def with_seed(trial: Trial, seed: int) -> Trial:
    """Return the trial of the same config with another seed."""
    return _trial(trial.config, seed, trial.axes, trial.loop, trial.start, trial.until)


def config_key(config: Mapping[str, Any]) -> str:
    """Return a text that the seeds of one config, given as JSON, share, and no other trial has."""
    return json.dumps(config, sort_keys=True)


def plan_as_json(sweep: Sweep, trials: Sequence[Trial]) -> dict[str, Any]:
    """Return the document of `plan --json`, as far as the trials themselves tell it."""
    rows = [
        {"id": trial.id, "config": trial.config.model_dump(mode="json"), "seed": trial.seed}
        | {"status": "planned", "epoch": 0, "epochs": trial.epochs, "val_acc": None}
        | ({} if trial.generation is None else {"generation": trial.generation})
        for trial in trials
    ]
    return {"name": sweep.name, "epochs": sum(trial.epochs for trial in trials), "trials": rows}


# ---------------------------------------------------------------------------------------------------------
# Expansion


@dataclass(frozen=True)
class Setting:
    """A key, its value, and where the file sets it."""

    key: str
    value: Any
    way: Keys

    @property
    def way_of_key(self) -> Keys:
        """The way to the key: on an axis, `way` goes on to one value in its list."""
        return self.way[: len(self.way) - self.way[::-1].index(self.key)]


Axis = list[list[Setting]]
"""The points of an axis, each with the keys that it sets together."""


@dataclass(frozen=True)
class Row:
    """A case, or the whole sweep if it has no cases: its own settings, and its axes."""

    settings: list[Setting]
    axes: list[Axis]


def _expand(sweep: Sweep) -> list[Trial]:
    rows = rows_of(sweep, _random_axis(sweep))
    if twice := _twice_set(sweep, rows):
        raise SweepFileError(*twice, *_exclude_problems(sweep))
    seeds = sweep.seeds if sweep.seeds is not None else [sweep.seed]
    count, limit = len(seeds) * sum(math.prod(map(len, row.axes)) for row in rows), sweep.limits.trials
    if count > limit:
        message = f"the plan has {count:,} trials, more than limits.trials, {limit:,}; raise it or plan fewer"
        raise SweepFileError(sweep.source.problem(("limits", "trials"), message))
    varied = _varied_keys(rows)
    problems = _exclude_problems(sweep)
    trials: dict[str, Trial] = {}
    matched: set[int] = set()
    for config in _configs(sweep, rows, problems):
        document = config.model_dump(mode="json") if varied or sweep.exclude else {}
        if matching := {index for index, partial in enumerate(sweep.exclude) if contains(document, partial)}:
            matched |= matching
            continue
        axes = {key: get(document, key) for key in varied}
        for seed in seeds:
            trial = _trial(config, seed, axes, sweep.loop, sweep._started_from, sweep.until)
            first = trials.setdefault(trial.id, trial)
            if trial.hashed != first.hashed:
                unlike = difference(first, config, seed)
                message = f"two trials have the id {trial.id} by chance, with {unlike}; exclude one of them"
                problems.append(sweep.source.problem(("exclude",), message))
    if problems:
        raise SweepFileError(*dict.fromkeys(problems))
    if not trials:
        raise SweepFileError(sweep.source.problem(("exclude",), "the plan has no trials: all are excluded"))
    sweep._idle_exclusions = sorted(set(range(len(sweep.exclude))) - matched)
    return list(trials.values())


def _planned_search(sweep: Sweep) -> list[Trial]:
    generations = first_of_search(sweep) if sweep._generations is None else sweep._generations
    own = [trial for each in generations for trials in trials_of_generation(sweep, each) for trial in trials]
    return list({trial.id: trial for trial in reversed(own)}.values())[::-1]  # of equal ones the first


def first_of_search(sweep: Sweep) -> list[Generation]:
    """Return the generations of a search that depend on no results.

    Raises:
        SweepFileError: no proposal has a valid config.
    """
    problems: list[str] = []
    generations = first_generations(sweep, accepting(sweep, [], problems))
    if not generations:
        raise SweepFileError(*dict.fromkeys(problems))
    return generations


def accepting(sweep: Sweep, before: Iterable[Mapping[str, Any]], problems: list[str]) -> Accepts:
    """Return what takes a proposal if its config is valid and new after those of `before`; else why goes to `problems`.

    A loop's own check may refuse values together that are each within the space. Settings may differ where a config
    does not.
    """
    known = {mark_of_proposal(sweep, proposal) for proposal in before}

    def accepts(proposal: Mapping[str, Any]) -> bool:
        mark = mark_of_proposal(sweep, proposal, problems)
        is_new = bool(mark) and mark not in known
        known.add(mark)
        return is_new

    return accepts


def mark_of_proposal(sweep: Sweep, proposal: Mapping[str, Any], problems: list[str] | None = None) -> str:
    """Return a hash of all that decides a proposal's trials but their seeds, as their ids do; empty if it is wrong."""
    config = config_of_proposal(sweep, proposal, [] if problems is None else problems)
    if config is None or sweep.search is None:
        return ""
    axes = dict.fromkeys(sweep.search.space)
    until = sweep.until if sweep.until and sweep.until < config.epochs else None
    hashed = _hashed(config, 0, axes, sweep.loop, sweep._started_from, until)
    return hashlib.sha256(hashed.encode()).hexdigest()[:32]


def trials_of_generation(sweep: Sweep, generation: Generation, lenient: bool = False) -> list[list[Trial]]:
    """Return the trials of each proposal of a generation, one for each seed; `lenient`: none of one that is wrong.

    Raises:
        SweepFileError: a proposal's config is wrong; all faults at once.
    """
    problems: list[str] = []
    trials = [_trials_of_proposal(sweep, each, generation.number, problems) for each in generation.proposals]
    if problems and not lenient:
        raise SweepFileError(*dict.fromkeys(problems))
    return trials


def _trials_of_proposal(sweep: Sweep, proposal: Mapping[str, Any], number: int, problems: list[str]) -> list[Trial]:
    config = config_of_proposal(sweep, proposal, problems)
    if config is None or sweep.search is None:
        return []
    document = config.model_dump(mode="json")
    keys = [key for key in sweep.search.space if key in proposal or get(document, key) is not None]
    axes = {key: get(document, key) for key in keys}
    seeds = sweep.seeds if sweep.seeds is not None else [sweep.seed]
    own = [_trial(config, seed, axes, sweep.loop, sweep._started_from, sweep.until) for seed in seeds]
    return [replace(trial, generation=number) for trial in own]


def config_of_proposal(
    sweep: Sweep, proposal: Mapping[str, Any], problems: list[str], ways: Mapping[str, Keys] | None = None
) -> LoopConfig | None:
    """Return the config of a proposal; its faults go to `problems`, each with the place that set the value.

    That is where the space has the key, unless `ways` says otherwise.
    """
    of_space = {key: ("search", "space", key) for key in proposal}
    chosen = [Setting(key, value, (ways or {}).get(key, of_space[key])) for key, value in proposal.items()]
    # a section comes before the keys inside it, and its name before all others, since that decides which it has
    own = sorted(chosen, key=lambda each: (each.key.count("."), not each.key.endswith(".name")))
    return _config(sweep, [*settings_of_base(sweep), *own, *settings_of_start(sweep)], problems)


def _varied_keys(rows: Sequence[Row]) -> list[str]:
    axes = [axis for row in rows for axis in row.axes if len(axis) > 1]
    varied = {setting.key for axis in axes for point in axis for setting in point}
    return sorted(varied.union(setting.key for row in rows for setting in row.settings))


def _configs(sweep: Sweep, rows: Sequence[Row], problems: list[str]) -> Iterator[LoopConfig]:
    base, start = settings_of_base(sweep), settings_of_start(sweep)
    for row in rows:
        for points in itertools.product(*row.axes):
            # a section comes before the keys inside it, wherever the file has them
            own = sorted([*row.settings, *itertools.chain.from_iterable(points)], key=lambda each: each.key.count("."))
            config = _config(sweep, [*base, *own, *start], problems)
            if config is not None:
                yield config


def settings_of_base(sweep: Sweep) -> list[Setting]:
    """Return what every trial starts from."""
    return [Setting(key, value, ("base", key)) for key, value in sweep.base.items()]


def settings_of_start(sweep: Sweep) -> list[Setting]:
    """Return the weights that `start` gives every trial; none if the loop knows no such key."""
    if not (sweep.start and sweep.start.weights):
        return []
    with suppress(ValueError):
        key = known_key("model.weights", loop_named(sweep.loop).config)
        return [Setting(key, sweep.start.weights, ("start", "weights"))]
    return []


def rows_of(sweep: Sweep, drawn: Sequence[Axis]) -> list[Row]:
    """Return a sweep's rows, with `drawn` for the axes of `random`; raise SweepFileError if a case's axes are wrong."""
    shared = [*_axes(sweep.grid, sweep.zip, ()), *drawn]
    if not sweep.cases:
        return [Row([], shared)]
    rows, problems = [], []
    for name, case in sweep.cases.items():
        way = ("cases", name)
        settings = [Setting(key, value, (*way, key)) for key, value in case.items() if key not in ("grid", "zip")]
        try:
            own = CaseAxes.model_validate({kind: case[kind] for kind in ("grid", "zip") if kind in case})
            rows.append(Row(settings, [*_axes(own.grid, own.zip, way), *shared]))
        except ValidationError as error:
            faults = describe_errors(error, CaseAxes, case, loop_named(sweep.loop).config)
            problems += [sweep.source.problem((*way, *inside), message) for inside, message in faults]
    if problems:
        raise SweepFileError(*problems)
    return rows


def _axes(grid: Mapping[str, list[Any]], zipped: Mapping[str, list[Any]], way: Keys) -> list[Axis]:
    """An axis for each list of a grid, and one for all lists of a zip."""
    axes = [_axis({key: values}, (*way, "grid")) for key, values in grid.items()]
    return [*axes, _axis(zipped, (*way, "zip"))] if zipped else axes


def _axis(lists: Mapping[str, list[Any]], way: Keys) -> Axis:
    rows = enumerate(zip(*lists.values(), strict=True))
    return [[Setting(key, value, (*way, key, i)) for key, value in zip(lists, row, strict=True)] for i, row in rows]


def _random_axis(sweep: Sweep) -> list[Axis]:
    draws: dict[str, Any] = dict(sweep.random)
    samples = draws.pop("samples", 0)
    if samples > sweep.limits.trials:
        message = f"is more than limits.trials, {sweep.limits.trials:,}"
        raise SweepFileError(sweep.source.problem(("random", "samples"), message))
    axis = [
        [Setting(key, draw_value(draw, f"{sweep.seed}/{key}/{i}"), ("random", key)) for key, draw in draws.items()]
        for i in range(samples)
    ]
    return [axis] if axis else []


def _twice_set(sweep: Sweep, rows: Sequence[Row]) -> list[str]:
    """Return problems: keys set by two axes of a row, or by a case and an axis, of which one would silently win."""
    problems = []
    for row in rows:
        first: dict[str, Keys] = {}
        for setting in [*row.settings, *(setting for axis in row.axes for setting in axis[0])]:
            before = first.setdefault(setting.key, setting.way_of_key)
            if before != setting.way_of_key:
                message = f"is set in {'.'.join(map(str, before[:-1]))} too; set it in one place"
                problems.append(sweep.source.problem(setting.way_of_key, message))
    return list(dict.fromkeys(problems))


def _exclude_problems(sweep: Sweep) -> list[str]:
    """Return problems: values that no config can have, since a misspelt exclusion would silently exclude nothing."""
    problems, kind_of_trial = [], loop_named(sweep.loop).config
    for index, partial in enumerate(sweep.exclude):
        merged: dict[str, Any] = {}
        for key, value in partial.items():
            patch(merged, key, value)
        try:
            kind_of_trial.model_validate(merged)
        except ValidationError as error:
            for way, message in describe_errors(error, kind_of_trial, merged):
                kinds = kinds_of(kind_of_trial, str(way[0]))
                of_another_kind = len(way) > 1 and any(way[1] in kind.model_fields for kind in kinds)
                if message != IS_MISSING and not (of_another_kind and message.startswith("unknown key")):
                    problems.append(sweep.source.problem(("exclude", index, *way), message))
    return problems


def _config(sweep: Sweep, settings: Sequence[Setting], problems: list[str]) -> LoopConfig | None:
    """Merge settings into a config; its faults go to `problems`, each with the place that set the value."""
    merged: dict[str, Any] = {}
    kind = loop_named(sweep.loop).config
    for setting in settings:
        if setting.way[0] == "start" and get(merged, setting.key) is not None:
            message = "is given by start.weights too; give it in one place"
            problems.append(sweep.source.problem(_way_in_file(settings[:-1], (*setting.key.split("."),), ""), message))
        patch(merged, setting.key, setting.value)
        if setting.key.endswith(".name") and setting.key.count(".") == 1:  # only whole sections are of several kinds
            _forget_other_kinds(kind, merged, setting.key.removesuffix(".name"))
    try:
        return kind.model_validate(merged)
    except ValidationError as error:
        for way, message in describe_errors(error, kind, merged):
            chosen_by = _chosen_by(settings, way) if message == IS_MISSING else None
            if chosen_by:
                needs = f"{_name_in(chosen_by)} needs {'.'.join(map(str, way))}, which {IS_MISSING}"
                problems.append(sweep.source.problem(chosen_by.way, needs))
            else:
                problems.append(sweep.source.problem(_way_in_file(settings, way, message), message))
        return None


def _chosen_by(settings: Sequence[Setting], way: Keys) -> Setting | None:
    """Return what chose by its name the kind of section that needs a key; None if `base` did, or nothing."""
    section = ".".join(map(str, way[:-1]))
    names = (each for each in reversed(settings) if each.key == f"{section}.name" or _name_in(each, section))
    chosen = next(names, None)
    return chosen if chosen and chosen.way[0] != "base" else None


def _name_in(setting: Setting, section: str | None = None) -> str:
    """Return the name that a setting gives its section, or `section` alone; nothing if it gives none."""
    if section is not None and setting.key != section:
        return ""
    value = setting.value.get("name") if isinstance(setting.value, Mapping) else setting.value
    return str(value) if isinstance(value, str) else ""


def _forget_other_kinds(trial: type[LoopConfig], merged: dict[str, Any], section: str) -> None:
    """Drop the keys that a section's new kind does not have, such as sgd's momentum after `optimizer.name: adamw`."""
    kind = kind_named(kinds_of(trial, section), merged[section]["name"])
    if kind is not None:
        merged[section] = {key: value for key, value in merged[section].items() if key in kind.model_fields}


def _way_in_file(settings: Sequence[Setting], way: Keys, message: str) -> Keys:
    """Find the last setting of a config's value, or of a mapping that holds it."""
    dotted = ".".join(map(str, way))
    for setting in reversed(settings):
        if f"{setting.key}.".startswith(f"{dotted}."):
            return setting.way_of_key if message.startswith("unknown key") else setting.way
        if dotted.startswith(f"{setting.key}.") and isinstance(setting.value, Mapping):
            return (*setting.way, *way[len(setting.key.split(".")) :])
    return ("base", *way)


# ---------------------------------------------------------------------------------------------------------
# Ids


def _trial(
    config: LoopConfig, seed: int, axes: dict[str, Any], loop: str, start: StartedFrom | None, until: int | None
) -> Trial:
    """Name a trial after what it trains alone, so that edits elsewhere in the sweep never change its id."""
    until = until if until and until < config.epochs else None
    label = config.label() + (f"-seed{seed}" if seed else "")
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", label).strip("._-")[:60]
    hashed = _hashed(config, seed, axes, loop, start, until)
    digest = hashlib.sha256(hashed.encode()).hexdigest()
    return Trial(f"{name}-{digest[:12]}", name, config, seed, axes, hashed, f"{name}-{digest[:8]}", loop, start, until)


def short_id(id: str) -> str:
    """Return the end of a trial's id, by which commands find it: the hash of its config and seed."""
    return id.rpartition("-")[2]


def id_named(given: str, ids: Collection[str]) -> str:
    """Return the id that is given, or the only one that begins or ends with it, or whose hash begins with it.

    Raises:
        UserError: there is none, or there are several.
    """
    found = [
        id for id in ids if given and (id.startswith(given) or id.endswith(given) or short_id(id).startswith(given))
    ]
    if given in ids or len(found) == 1:
        return given if given in ids else found[0]
    if found:
        raise UserError(f"{given}: {len(found)} trials match: {some_of(found)}")
    meant = did_you_mean(given, [*ids, *map(short_id, ids)])
    raise UserError(f"{given}: no such trial{meant}; there are: {some_of(list(ids))}")


def keep_ids(trials: Sequence[Trial], known: Collection[str]) -> list[Trial]:
    """Return a plan's trials, by their former ids where these are `known`; where two share one, neither keeps it."""
    shared = Counter(trial.former_id for trial in trials)
    return [
        replace(trial, id=trial.former_id) if trial.former_id in known and shared[trial.former_id] == 1 else trial
        for trial in trials
    ]


def difference(trial: Trial, config: LoopConfig, seed: int) -> str:
    """Return how a config and seed of the same id differ from a trial's, in words; nothing if they are the trial's."""
    if _hashed(config, seed, trial.axes, trial.loop, trial.start, trial.until) == trial.hashed:
        return ""
    one, other = (
        dict(flatten({**each.model_dump(mode="json"), "seed": own}))
        for each, own in ((trial.config, trial.seed), (config, seed))
    )
    keys = [key for key in one | other if one.get(key) != other.get(key)]
    return ", ".join(f"{key} {one.get(key)} and {other.get(key)}" for key in keys)


def is_same_but_for_axes(trial: Trial, config: LoopConfig, seed: int) -> bool:
    """Whether they differ only in settings that are in an id where the sweep varies them."""
    return _hashed(config, seed, {}, trial.loop) == _hashed(trial.config, trial.seed, {}, trial.loop)


def _hashed(
    config: LoopConfig,
    seed: int,
    axes: Mapping[str, Any],
    loop: str,
    start: StartedFrom | None = None,
    until: int | None = None,
) -> str:
    """Return what differs from the defaults, so that keys added to raysweep later change no id."""
    content = config.model_dump(mode="json", exclude_defaults=True)
    for key in config.not_in_id:
        section, _, last = key.rpartition(".")
        inner = content.get(section) if section else content
        if key not in axes and isinstance(inner, dict):
            inner.pop(last, None)
            if section and not inner:
                del content[section]
    parts = [
        content,
        seed,
        *([loop] if loop != CLASSIFY or start or until else []),
        *([start.trial, start.epoch] if start else []),
        *([{"until": until}] if until else []),
    ]
    return json.dumps(parts, sort_keys=True)
