"""SIGKILL to the driver, to a trial's process, to both, when a state is kept or taken over; states torn and deleted.

Twenty kills in all, five to a sweep. In the end its records, metrics and weights are those of an undisturbed run that
shared nothing.
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
from running import Command, curves
from s3_server import BUCKET, S3Server, s3_server

from raysweep.store import RunFolder
from raysweep.store.states import StateStore
from raysweep.sweepfile import load_sweep
from raysweep.sweepfile.plan import plan_trials
from raysweep.sweepfile.prefixes import Prefixes

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(1200)]

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
seeds: [0, 1, 2]
retries: 9
resources: {gpus: 0}
checkpoints: {keep_best: 99, keep_last: none}
report: {images: false}
"""
SCHEDULERS = {"none": "", "asha": "scheduler: {name: asha, eta: 2, rungs: [1/4, 1/2], min_survivors: 1}\n"}
KILLED = ("worker", "driver", "both")
MOMENTS = ("keeps", "kept in part", "kept", "found", "taken over")
"""Those that fork_killer.py knows; each comes a dozen times in a run."""
SWEEPS = [
    pytest.param("none", False, 1),
    *(
        pytest.param(scheduler, on_s3, 5, marks=pytest.mark.long)
        for scheduler in ("none", "asha")
        for on_s3 in (False, True)
    ),
]
"""A scheduler, whether the run folder is on the object store, and how many kills there are, one after the other."""


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

    def carried_out(self) -> int:
        """How many orders have been."""
        return len(list(self.folder.glob("*.done")))

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


@pytest.mark.parametrize(("scheduler", "on_s3", "kills"), SWEEPS)
def test_kills_at_forks_and_reruns_end_as_the_undisturbed_run(
    make: Callable[..., Forks],
    undisturbed: Callable[[str], dict[str, Any]],
    scheduler: str,
    on_s3: bool,
    kills: int,
) -> None:
    forks, draw = make(scheduler, on_s3), random.Random(f"{scheduler} {on_s3}")
    deeds = [KILLED[number % 3] for number in range(kills)]
    deeds += ["tear", "delete"] if kills > 1 and not on_s3 else []
    draw.shuffle(deeds)
    orders = [order(draw, deed) for deed in deeds]
    (forks.folder / "orders.json").write_text(json.dumps(orders))
    code, said = forks.run()
    while code == -signal.SIGKILL:  # the driver was killed; a trial's process is started again by the command itself
        code, said = forks.run()
    assert code == 0, f"{orders[: forks.carried_out()]}\n{said}"
    assert "Traceback" not in said
    assert forks.carried_out() == len(orders), orders
    assert forks.outcome() == undisturbed(scheduler), orders
    assert forks.rubbish() == {}
    assert StateStore(forks.left).all() == {}


def order(draw: random.Random, deed: str) -> dict[str, Any]:
    """Draw the moment of a deed; there are states to tear or delete only once one is kept."""
    at = draw.choice(MOMENTS) if deed in KILLED else "kept"
    return {"what": deed, "at": at, "nth": draw.choice((1, 1, 2))}


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
