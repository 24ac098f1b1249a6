"""Before the trials: what is known of them, what is left to train, the connection to Ray, and the data.

In: a checked sweep and its run folder. Out: a `Run`, which the parts after this one go on with, and prepared data.
"""

from __future__ import annotations

import importlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from rich.console import Console

from raysweep.cluster.hosts import (
    SAME_CODE,
    Host,
    different_code,
    different_storage,
    find_data,
    ids_of,
    live_hosts,
)
from raysweep.cluster.places import describe_job
from raysweep.cluster.slots import (
    Slot,
    alive_hosts,
    avoiding,
    connect,
    dashboard_url,
    find_slot,
    wait_for,
    wait_for_nodes,
)
from raysweep.cluster.token import is_token_asked_for, token_place
from raysweep.config import LoopConfig
from raysweep.driver.board import Board
from raysweep.driver.endings import Endings, begin_anew
from raysweep.driver.limits import Meter
from raysweep.driver.placing import Placed, Placing, PreparedSet
from raysweep.driver.sharing import Sharing
from raysweep.driver.stop import StopRequest
from raysweep.driver.view import View
from raysweep.errors import ClusterError, UserError
from raysweep.loops import loop_named
from raysweep.results.confirm import Race, fresh_of_last_run, plan_race, without_rungs
from raysweep.results.ranking import rank
from raysweep.results.rerun import GOING_ON, Rerun, rerun_of, trials_of, with_generation
from raysweep.results.search.generations import next_generation, proposed
from raysweep.store import Record, RunFolder
from raysweep.store.generations import drop_generations, write_generation
from raysweep.store.record import COSTS, FINAL
from raysweep.store.resolved import write_resolved
from raysweep.sweepfile import Sweep
from raysweep.sweepfile.named import Named
from raysweep.sweepfile.plan import StartedFrom, Trial, config_key, mark_of_proposal, trials_of_generation
from raysweep.sweepfile.prefixes import deciding
from raysweep.sweepfile.proposals import WITHOUT_RESULTS, Generation, left_to_propose, size_of
from raysweep.sweepfile.schema import SchedulerConfig
from raysweep.terminal import count_of, counting, say, some_of
from raysweep.worker.naming import name_of
from raysweep.worker.tasks import TaskSetting, costs_of_trial, prepare

MUST_MATCH = {
    "data": "the data changed",
    "precision": "precision resolves differently here (resources.accelerator names a kind of GPU)",
    "workers": "another number of workers",
    "weights": "the weights to begin with (model.weights) changed",
}
"""The conditions that must not change while a run lives, since its trials' numbers depend on them."""


class Run:
    """A sweep that is run: what is wanted, what the records say, and what the parts of the driver share."""

    def __init__(self, sweep: Sweep, named: Named, folder: RunFolder, imports: tuple[str, ...]) -> None:
        self.sweep, self.named, self.folder, self.imports = sweep, named, folder, imports
        self.loop = loop_named(sweep.loop)
        self.sweep_path = Path(named.path)  # paths in the sweep are relative to its folder
        self.trials = trials_of(sweep, folder)
        """Those of the sweep itself; a search adds to them."""
        _note_costs(sweep, self.trials, folder)
        self.fresh = fresh_of_last_run(self.trials, folder) if sweep.confirm else []
        """The trials that `confirm` has added so far."""
        self.rerun = _rerun_to_a_whole_winner(sweep, self.trials, self.fresh, folder)
        """What becomes of each trial that is trained now: those of the sweep, then those of `confirm`."""
        self.scheduler: SchedulerConfig = sweep.scheduler
        """Which of these are stopped early."""
        self.records = self.rerun.records
        """All trials' records when the run began or, for those of `confirm`, when their round did; in order."""
        self.tried: set[str] = set()
        """The trials that this run has trained, or tried to."""
        self.is_confirming = False
        """Whether the trials of the sweep itself are done, and those of `confirm` have begun."""
        self.board = Board(self.records, sweep.objective.maximize)
        self.view = View(Console(stderr=True), sweep.name, self.board, sweep.objective.metric)
        self.stop = StopRequest()
        self.meter = Meter(folder, sweep.limits)
        self.endings = Endings(folder, self.board)
        self.sharing: Sharing | None = None
        """What the trials that are trained now share; None before the first ones."""

        self.count_what_is_to_come()

    def count_what_is_to_come(self) -> None:
        """Tell the board how many trials the search is yet to propose."""
        if self.sweep.search is not None:
            proposed = sum(len(each.proposals) for each in self.sweep._generations)
            self.board.to_come = left_to_propose(self.sweep.search, proposed) * len(self.sweep.seeds or [0])

    def sweep_text(self) -> bytes:
        """Return the sweep file's text, as it was given."""
        return self.sweep_path.read_bytes() if self.named.text is None else self.named.text.encode()


def _note_costs(sweep: Sweep, trials: Sequence[Trial], folder: RunFolder) -> None:
    """Commit what trials cost that were trained before the sweep had such objectives."""
    if not sweep.costs:
        return
    records = folder.records([trial.id for trial in trials], tell=counting)
    for trial in trials:
        record = records[trial.id]
        if record and record.conditions and not {*sweep.costs} <= record.conditions.get(COSTS, {}).keys():
            costs = costs_of_trial(loop_named(sweep.loop), trial.config, record.conditions)
            folder.commit(record.with_(conditions={**record.conditions, COSTS: costs}), {})


def _rerun_to_a_whole_winner(sweep: Sweep, trials: Sequence[Trial], fresh: Sequence[Trial], folder: RunFolder) -> Rerun:
    """Return what a rerun finds; if the best weights of the trial that leads are damaged, it begins anew.

    To read the weights of all trials would take too long: one that goes on looks at its own, and `pull` at what it
    copies.
    """
    rerun, confirmed = rerun_of(sweep, trials, folder), rerun_of(without_rungs(sweep), fresh, folder)
    ranked = rank([*rerun.records, *confirmed.records], sweep.objective, confirmed.fates)
    leader, fates = ranked[0].best, {**rerun.fates, **confirmed.fates}
    if leader is None or fates[leader.id] in GOING_ON or folder.is_whole(leader, "best"):
        return rerun
    path = str(folder.weights_path(leader, "best"))
    say(f"{leader.id}: {path}: {folder.damaged[path]}; it was the best, so it is trained anew", stderr=True)
    begin_anew(folder, leader.id)
    return rerun_of(sweep, trials, folder)


def trials_left(run: Run) -> list[Record]:
    """Return the trials that have to go on, those on fresh seeds once the sweep itself is done; none at the end.

    The end of trials that wait and now have no chance is committed.
    """
    halving = run.rerun.halving
    for record in run.rerun.records:
        if run.rerun.fates[record.id] == "stopped" and not record.is_final:
            run.endings.stop(record.id, halving.explain(record.id))
    return run.rerun.left if halving.next_trial() is not None else next_round(run)


def next_round(run: Run) -> list[Record]:
    """Plan the trials that the records ask for, now that all of before have ended; return those that are left.

    These are the next generation of a search and, once there is no further one, the next fresh seeds of `confirm`.
    """
    if left := next_proposals(run):
        return left
    run.endings.wait()
    search = rerun_of(run.sweep, run.trials, run.folder)
    race = plan_race(run.sweep, run.trials, search, run.folder, given_up=run.tried)
    run.fresh = [*race.trials, *_others_of(race, run.fresh)]
    if not race.trials:
        return []
    sweep = without_rungs(run.sweep)
    run.rerun, run.scheduler = rerun_of(sweep, race.trials, run.folder), sweep.scheduler
    conditions = {config_key(record.config): record.conditions for record in search.records if record.conditions}
    fresh = [record.with_(conditions=conditions[config_key(record.config)]) for record in run.rerun.records]
    run.records = [*search.records, *fresh]
    run.board.add(fresh)
    run.is_confirming = True
    ids = {record.id for record in run.rerun.left} - run.tried
    return [record for record in fresh if record.id in ids]


def next_proposals(run: Run, are_ready: Callable[[Sequence[Trial]], bool] = lambda trials: True) -> list[Record]:
    """Propose the next generation of the search, if its time has come; return the trials that have not been tried.

    It waits where its trials are not `are_ready`, and is then proposed again, to the same.
    """
    if run.sweep.search is None or run.stop.requested or run.is_confirming:
        return []
    if untried := [record for record in run.rerun.left if record.id not in run.tried]:
        return untried
    if not _next_generation_is_due(run):
        return []
    run.endings.wait()
    ids = [trial.id for trial in run.trials]
    committed = run.folder.records(ids)
    records = {planned.id: committed[planned.id] or planned for planned in run.rerun.records}
    generation = next_generation(run.sweep, run.sweep._generations, records, run.endings.failed)
    trials = [trial for own in trials_of_generation(run.sweep, generation) for trial in own] if generation else []
    if generation is None or not are_ready(trials):
        return []
    run.sweep._generations = [*run.sweep._generations, generation]
    run.trials = [*run.trials, *trials]
    run.rerun = with_generation(run.rerun, run.sweep, trials, [records[id] for id in generation.knows], run.folder)
    new = run.rerun.records[-len(trials) :]
    run.records = [*run.records, *new]
    run.board.add(new)
    run.count_what_is_to_come()
    return [record for record in new if run.rerun.fates[record.id] in GOING_ON]


def _next_generation_is_due(run: Run) -> bool:
    """Whether there is one, and all trials have ended that it depends on, by what the board knows."""
    generations: list[Generation] = run.sweep._generations
    assert run.sweep.search is not None
    if not size_of(run.sweep.search, sum(len(each.proposals) for each in generations)):
        return False
    last = len(generations) - WITHOUT_RESULTS
    earlier = [trial.id for trial in run.trials if trial.generation is not None and trial.generation <= last]
    return all(run.board.trials[id].status in FINAL or id in run.endings.failed for id in earlier)


def _write_generations(run: Run) -> None:
    """Write the generations that the run folder does not have."""
    if run.sweep.search is None:
        return
    made = proposed(run.sweep, run.folder).made
    if new := run.sweep._generations[made:]:
        drop_generations(run.folder, made)
    for generation in new:
        marks = [mark_of_proposal(run.sweep, each) for each in generation.proposals]
        write_generation(run.folder, generation, marks)


def write_plan(run: Run, conditions: Mapping[str, Mapping[str, Any]] | None = None) -> None:
    """Write resolved.yaml, with the data of the conditions on record and of those that were found now.

    Generations are written before it, so that what it names was made.
    """
    known = {record.id: record.conditions for record in run.records if record.conditions}
    data = {str(entry["data"]) for entry in {**known, **(conditions or {})}.values() if "data" in entry}
    _write_generations(run)
    write_resolved(run.folder, run.sweep, run.sweep_text(), run.trials, data, run.fresh)


@contextmanager
def connected(run: Run, address: str | None, if_several_nodes: str | None, nodes: int = 1) -> Iterator[Slot]:
    """Connect to Ray for the time of the block, with the view and the signals on; yield a trial's slot there.

    `nodes`: how many the cluster should have before anything is compared or trained.

    Raises:
        ClusterError: a trial fits nowhere, or there are several nodes and `if_several_nodes` says why that cannot
            work, or their code or storage is not the same.
    """
    with run.stop.on_signals(), run.view.live:
        with run.view.step(f"connecting to Ray at {address}" if address else "connecting to Ray, or starting it here"):
            connect(address, describe_job(run.sweep.name, run.folder.path))
        try:
            with run.stop.on_signals():  # again: connecting sets a handler of Ray's
                wait_for_nodes(nodes, run.view.say, lambda: run.stop.requested)
                if if_several_nodes and len(alive_hosts()) > 1:
                    raise ClusterError(if_several_nodes)
                slot = find_slot(run.sweep.resources, run.view.say, lambda: run.stop.requested)
                _check_hosts(run)
                run.board.gpus = slot.workers * slot.gpus
                yield slot
        finally:
            ray.shutdown()


@dataclass(frozen=True)
class TrainedOn:
    """What the trials that are left train on."""

    placed: dict[str, Placed] = field(default_factory=dict)
    """Each data set that the run has placed, by `Loop.data_key`."""
    conditions: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What each trial's numbers depend on beside its config, by its id."""

    @property
    def data(self) -> dict[str, Any]:
        """The object reference of each data set's arrays, or an `OnEachNode`, by `Loop.data_key`."""
        return {key: each.at for key, each in self.placed.items()}


def _check_hosts(run: Run) -> None:
    """Refuse to train where nodes have other code than this one, or do not see the run folder."""
    hosts, is_stopped = live_hosts(), lambda: run.stop.requested
    if len(hosts) == 1:
        return
    with run.view.step(f"comparing code and storage on {count_of(len(hosts), 'node')}"):
        if fault := different_code(hosts, ["raysweep", *run.imports], is_stopped=is_stopped):
            raise ClusterError(f"{fault}; {SAME_CODE}")
        fault = different_storage(hosts, run.folder.files, is_stopped=is_stopped)
        if fault and not run.stop.requested:
            raise ClusterError(
                f"{run.folder.path}: {fault}; every node must see the run folder: name a folder that all share, "
                "or --storage s3://BUCKET/PREFIX"
            )


def prepare_data(run: Run, left: Sequence[Record], slot: Slot, before: TrainedOn) -> TrainedOn:
    """Prepare each data set of what is left on a trial's slot, and check that the networks can be built for it.

    Then place those that were not placed `before`. What is returned counts only if the run is not to stop.

    Raises:
        DataError: a data set cannot be read as asked.
        UserError: a network cannot be built, or data, precision or workers are not those that the run began with.
    """
    run.view.say(_first_line(run, left))
    # Imports torch, for seconds: now, while this process waits for others to prepare the data.
    threading.Thread(target=importlib.import_module, args=("raysweep.store.tensorboard",)).start()
    found, sets = TrainedOn(), dict[str, PreparedSet]()
    for key, of_trials in _by_data_set(run, left).items():
        alike = list(of_trials.values())
        lacking = nodes_without(run, slot, alike[0])
        what = f"preparing {run.loop.data_name(alike[0])}"
        prepared = run_task(
            run, slot, what, prepare, alike, slot.workers, bool(run.sweep.costs), without=ids_of(lacking)
        )
        if prepared is None:
            return found
        sets[key] = PreparedSet(alike[0], prepared, lacking)
        found.conditions.update(zip(of_trials, prepared.conditions, strict=True))
    _check_conditions(run.folder.path, left, found.conditions)
    _check_start(run.sweep._started_from, left, found.conditions)
    placing = Placing(run.sweep.name, slot, _setting(run, slot), run.view, lambda: run.stop.requested)
    found.placed.update(placing.place(sets, before.placed))
    write_plan(run, found.conditions)
    return found


def _others_of(race: Race, before: Sequence[Trial]) -> list[Trial]:
    """Return the fresh seeds of before that may be asked for again: they stay known if the run stops meanwhile."""
    if not race.waits:
        return []
    ids = {trial.id for trial in race.trials}
    return [
        trial
        for trial in before
        if trial.id not in ids
        and (not race.configs or config_key(trial.config.model_dump(mode="json")) in race.configs)
    ]


def conditions_by_likeness(run: Run, on: TrainedOn, trials: Sequence[Trial]) -> dict[str, dict[str, Any]] | None:
    """Return the conditions of trials, by those that were prepared for others like them; None where one has no like."""
    configs = {trial.id: trial.config for trial in (*run.trials, *run.fresh)}
    known: dict[str, dict[str, Any]] = {}
    for id, conditions in on.conditions.items():
        known[_alike(run, configs[id])] = known[config_key(configs[id].model_dump(mode="json"))] = conditions
    found: dict[str, dict[str, Any]] = {}
    for trial in trials:
        own = known.get(config_key(trial.config.model_dump(mode="json"))) or known.get(_alike(run, trial.config))
        if own is None:
            return None
        costs = {COSTS: costs_of_trial(run.loop, trial.config, own)} if COSTS in own else {}
        found[trial.id] = {**own, **costs}
    return found


def is_prepared(run: Run, on: TrainedOn, left: Sequence[Record]) -> bool:
    """Whether trials can be trained on what was prepared for others like them; they are noted there."""
    ids = {record.id for record in left}
    found = conditions_by_likeness(run, on, [trial for trial in (*run.trials, *run.fresh) if trial.id in ids])
    if found is None:
        return False
    on.conditions.update(found)
    run.view.say(_first_line(run, left))
    write_plan(run, on.conditions)
    return True


def _alike(run: Run, config: LoopConfig) -> str:
    """Return a text that is equal for trials of one data set that have the same conditions."""
    return json.dumps([run.loop.data_key(config), run.loop.same_conditions(config)])


def nodes_without(run: Run, slot: Slot, config: LoopConfig) -> dict[str, list[Host]]:
    """Return the nodes that have room for a trial and not the files of a data set, by what is wrong there."""
    hosts = live_hosts()
    able = [host for host in hosts if slot.fits(host.resources)]
    if len(hosts) == 1 or not able:
        return {}
    with run.view.step(f"looking for {run.loop.data_name(config)} on {count_of(len(able), 'node')}"):
        return find_data(able, _setting(run, slot), config, is_stopped=lambda: run.stop.requested)


def _by_data_set(run: Run, left: Sequence[Record]) -> dict[str, dict[str, LoopConfig]]:
    """Return the configs of the trials that share a data set, by its key and then by the trial's id."""
    ids, sharing = {record.id for record in left}, dict[str, dict[str, LoopConfig]]()
    for trial in (*run.trials, *run.fresh):
        if trial.id in ids:
            sharing.setdefault(run.loop.data_key(trial.config), {})[trial.id] = trial.config
    return sharing


def run_task(
    run: Run, slot: Slot, what: str, task: Callable[..., Any], *arguments: Any, without: Sequence[str] = ()
) -> Any:
    """Run a task with the resources of a trial's worker, as often as its node goes away, showing `what` it does.

    It does not run on the nodes `without`.

    Return its result, or None if the run is to stop before it is there.

    Raises:
        ClusterError: its process died again and again.
    """
    of_a_worker: dict[str, Any] = {
        "name": name_of(run.sweep.name, what),
        "num_cpus": slot.cpus,
        "num_gpus": slot.gpus,
        "accelerator_type": slot.accelerator,
        "label_selector": avoiding(without),
        "scheduling_strategy": "SPREAD",  # where a process died, Ray tries again three times: not all on a bad node
    }
    start: Any = ray.remote(**of_a_worker)(task)
    with run.view.step(what):
        while not run.stop.requested:
            reference = start.remote(_setting(run, slot), *arguments)
            try:
                found = wait_for(reference, slot, run.view.say, lambda: run.stop.requested)
                if run.stop.requested:  # what follows takes a while
                    run.view.say(f"stopping: {what} ends here (again to end at once)")
                return found
            except ray.exceptions.NodeDiedError:
                run.view.say(f"{what}: the node went away; starts again")
            except ray.exceptions.WorkerCrashedError as error:
                raise ClusterError(
                    f"{what}: its process died four times in a row, ended by the kernel for want of memory (then dmesg "
                    "on a node says so), or by a crash of native code; see /tmp/ray/session_latest/logs"
                ) from error
    return None


def _setting(run: Run, slot: Slot) -> TaskSetting:
    return TaskSetting(
        str(run.sweep_path.absolute().parent),
        run.imports,
        slot.threads,
        slot.device,
        run.sweep.loop,
        several_hosts=len(alive_hosts()) > 1,
    )


def _first_line(run: Run, left: Sequence[Record]) -> str:
    if {record.id for record in left} <= {trial.id for trial in run.fresh}:
        seeds = some_of([str(seed) for seed in dict.fromkeys(record.seed for record in left)])
        return f"{run.sweep.name}: is the winner the winner? {count_of(len(left), 'trial')} with fresh seeds ({seeds})"
    begun = sum(record.has_begun for record in left)
    of_search = run.sweep._generations[-1] if run.sweep.search else None
    if of_search and of_search.knows and all(record.generation == of_search.number for record in left) and not begun:
        known = count_of(len(of_search.knows), "trial")
        new = count_of(len(left), "new trial")
        return f"{run.sweep.name}: generation {of_search.number}: {new}, proposed from the results of {known}"
    done = len(run.records) - len(left)
    parts = [f"{run.sweep.name}: {count_of(len(run.records) + run.board.to_come, 'trial')}"]
    parts += [f"{len(run.records)} proposed"] if run.board.to_come else []
    parts += [f"{count} {words}" for count, words in ((done, "done"), (begun, "to continue")) if count]
    url = dashboard_url()
    asks = f", which asks for the token in {token_place()}" if is_token_asked_for() else ""
    return ", ".join(parts) + (f"; dashboard: {url}{asks}" if url else "")


def _check_conditions(path: str, left: Sequence[Record], now: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse to go on with trials under other conditions than they began with; each change is told once."""
    problems = {}
    for record in left:
        for key, meaning in MUST_MATCH.items():
            if key in record.conditions and record.conditions[key] != now[record.id][key]:
                problems[key] = (
                    f"{path}: {meaning} since the run began: {key} was {record.conditions[key]!r}, "
                    f"is {now[record.id][key]!r}; put it back, or start anew with --fresh"
                )
    if problems:
        raise UserError(*problems.values())


def _check_start(start: StartedFrom | None, left: Sequence[Record], now: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse to begin with epochs of another run's trial that come to other numbers here; each change is told once."""
    before = deciding(start.conditions) if start else {}
    problems = {}
    for record in left:
        for key, value in before.items():
            if start and (here := now[record.id].get(key)) != value:
                problems[key] = (
                    f"start: {MUST_MATCH.get(key, key)} since {start.trial} was trained: {key} was {value!r}, is "
                    f"{here!r}, so its epochs would come out otherwise; put it back, or take its weights alone "
                    "(start: {weights: DIR})"
                )
    if problems:
        raise UserError(*problems.values())
