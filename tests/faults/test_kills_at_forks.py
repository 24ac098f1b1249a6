"""SIGKILL to the driver, to a trial's process, to both, when a state is kept or taken over; states torn and deleted.

In the end the records, the metrics and the weights are those of an undisturbed run that shared nothing.
"""

from __future__ import annotations

import json
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from fork_killer import MOMENTS
from running import Command, curves
from s3_server import BUCKET, S3Server, s3_server

from raysweep.store import RunFolder
from raysweep.store.states import StateStore
from raysweep.sweepfile import load_sweep
from raysweep.sweepfile.plan import plan_trials
from raysweep.sweepfile.prefixes import Prefixes

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(600)]

SWEEP = """
name: forks
base:
  data: {name: synthetic, image_size: 8, classes: 3, per_class: 40}
  model: {name: baseline_block, width: 4}
  batch_size: 32
  lr: 0.05
cases:
  steps:
    epochs: 6
    grid: {lr_schedule: [{name: step, milestones: [3]}, {name: step, milestones: [5]}]}
  wsd: {lr_schedule: {name: wsd, decay: 0.5}, grid: {epochs: [4, 8]}}
  constant: {lr_schedule: {name: constant}, grid: {epochs: [3, 6]}}
seeds: [0, 1]
resources: {gpus: 0}
checkpoints: {keep_best: 99, keep_last: none}
"""
SCHEDULERS = {"none": "", "asha": "scheduler: {name: asha, eta: 2, rungs: [1/4, 1/2], min_survivors: 1}\n"}
KILLED = ("worker", "driver", "both")
KILLS = [pytest.param(number, marks=[pytest.mark.long] if number else []) for number in range(20)]
"""Each is the seed of its moment; its number says who is killed, where the run folder is, and the scheduler."""
MOST = {"keeps": 6, "kept in part": 12, "kept": 6, "found": 6, "taken over": 6}
"""How often each moment comes in any case."""


class Forks:
    """A sweep in a folder of its own."""

    def __init__(self, cluster: str, folder: Path, scheduler: str, storage: str | None = None) -> None:
        self.folder, self.command = folder, Command(cluster, folder, apart=True)
        self.storage = storage or str(folder / "runs")
        self.command.environment["RAYSWEEP_STORAGE"] = self.storage
        self.path = folder / "forks.yaml"
        self.path.write_text(SWEEP + SCHEDULERS[scheduler])
        shutil.copy(Path(__file__).with_name("fork_killer.py"), folder)

    def run(self, *words: str) -> tuple[int, str]:
        """Run the command to its end, or to its driver's; return its exit code and what it said."""
        process = self.command.start(self.path, "--import", "fork_killer", *words)
        out, err = process.communicate(timeout=300)
        return process.returncode, out + err

    def is_ordered(self) -> bool:
        return (self.folder / "order.json").exists()

    def order(self, at: str, nth: int, what: str) -> None:
        (self.folder / "order.json").write_text(json.dumps({"at": at, "nth": nth, "what": what}))

    @property
    def left(self) -> RunFolder:
        """A new one each time: it remembers what it found damaged."""
        return RunFolder(self.storage, "forks", has_answered=True)

    def outcome(self) -> dict[str, Any]:
        """How trials ended, each metric of each epoch, the best, each weight; all weights are whole."""
        run = self.left
        records = {id: record for id in run.trial_ids() if (record := run.record(id))}
        for record in records.values():
            assert all(run.read_weights(record, kind) for kind in record.weights), record.id
        rows = curves({id: json.loads(record.to_bytes())["record"] for id, record in records.items()})
        return {
            id: (record.status, rows[id], record.best, {kind: each.sha256 for kind, each in record.weights.items()})
            for id, record in records.items()
        }

    def trained(self) -> tuple[int, int]:
        """How many epochs were trained, and how many different ones there are."""
        prefixes, records = Prefixes(plan_trials(load_sweep(self.path))), self.left.records(self.left.trial_ids())
        there = [record for record in records.values() if record]
        different = {prefixes.key(each.id, epoch, {}) for each in there for epoch in range(1, each.epoch + 1)}
        return sum(len(each.own_metrics) for each in there), len(different)

    def rubbish(self) -> dict[str, str]:
        run = self.left
        return run.rubbish(run.files.list_sizes())


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server() as running:
        yield running


@pytest.fixture(scope="module")
def make(cluster: str, server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Forks]:
    """Make a sweep of a scheduler; one on the object store gets a Ray of its own, since its environment is another."""

    def make(scheduler: str, on_s3: bool = False) -> Forks:
        folder = tmp_path_factory.mktemp("forks")
        if not on_s3:
            return Forks(cluster, folder, scheduler)
        forks = Forks("local", folder, scheduler, f"s3://{BUCKET}/{folder.name}")
        forks.command.environment |= server.environment()
        return forks

    return make


@pytest.fixture(scope="module")
def undisturbed(make: Callable[..., Forks]) -> Callable[[str], dict[str, Any]]:
    """The outcome of a run that shares nothing, with a scheduler; each is run once."""

    @cache
    def outcome(scheduler: str) -> dict[str, Any]:
        forks = make(scheduler)
        code, said = forks.run("share=false")
        assert code == 0, said
        return forks.outcome()

    return outcome


@pytest.mark.parametrize("number", KILLS)
def test_a_kill_at_a_fork_and_a_rerun_end_as_the_undisturbed_run(
    make: Callable[..., Forks], undisturbed: Callable[[str], dict[str, Any]], number: int
) -> None:
    draw, killed = random.Random(f"fork {number}"), KILLED[number % 3]
    scheduler, on_s3 = "asha" if number % 4 > 1 else "none", number % 2 == 1
    forks = make(scheduler, on_s3)
    moment = MOMENTS[number % len(MOMENTS)]
    nth = draw.randint(1, MOST[moment])
    forks.order(moment, nth, killed)
    code, said = forks.run()
    assert not forks.is_ordered(), f"{moment} {nth}: was not carried out\n{said}"
    assert code == (0 if killed == "worker" else -signal.SIGKILL), said
    if killed != "worker":  # a trial's process is started again by the command itself
        code, said = forks.run()
        assert code == 0, said
        assert "Traceback" not in said
    assert forks.outcome() == undisturbed(scheduler), f"{killed} killed, {moment} {nth}"
    assert forks.rubbish() == {}
    assert StateStore(forks.left).all() == {}


@pytest.mark.long
@pytest.mark.parametrize("deed", ["tear", "delete"])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_states_that_are_torn_or_deleted_meanwhile_cost_training_and_change_no_number(
    make: Callable[..., Forks], undisturbed: Callable[[str], dict[str, Any]], deed: str, scheduler: str
) -> None:
    forks = make(scheduler)
    forks.order("kept", 5, deed)
    code, said = forks.run()
    assert code == 0, said
    assert not forks.is_ordered()
    assert forks.outcome() == undisturbed(scheduler)
    assert StateStore(forks.left).all() == {}


@pytest.mark.long
def test_trials_of_two_ranks_share_epochs_to_the_same_numbers(four_cpus: str, tmp_path: Path) -> None:
    two_ranks = {}
    for name, word in (("shared", "share=true"), ("alone", "share=false")):
        (tmp_path / name).mkdir()
        forks = two_ranks[name] = Forks(four_cpus, tmp_path / name, "asha")
        code, said = forks.run(word, "resources.workers=2", "resources.cpus=1")
        assert code == 0, said
    shared, alone = two_ranks["shared"], two_ranks["alone"]
    assert shared.outcome() == alone.outcome()
    trained, different = shared.trained()
    assert trained == different < alone.trained()[0]
