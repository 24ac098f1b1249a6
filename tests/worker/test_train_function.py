"""Ray Train functions that were not written for raysweep, as trials; those of `foreign/` run as they are.

Where no cluster is needed, a function runs in Ray Train's local mode in this process, as in a trial's.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import re
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import ray.train
import ray.train.collective
import torch
from ray.train import Checkpoint
from running import Command

from raysweep.config import LoopConfig
from raysweep.errors import Interrupted, StorageError, UserError
from raysweep.loops import Epoch, TrainFunctionLoop, TrialContext, loop_named
from raysweep.loops.own import parameters_of
from raysweep.store.folders import files_in
from raysweep.worker import train_function
from raysweep.worker.looping import run_loop
from raysweep.worker.ranks import run_ranks
from raysweep.worker.states import going_on_from, state_of

FOREIGN = Path(__file__).parent / "foreign"
CLOCK = ("runtime", "per_second")
"""In the names of metrics that depend on the clock."""

pytestmark = pytest.mark.filterwarnings("default")


# ---------------------------------------------------------------------------------------------------------
# In this process


class Stopped(SystemExit):
    """Stands for Tune's."""


@dataclass
class Attempt:
    """What one attempt at a trial gave."""

    metrics: list[dict[str, float]] = field(default_factory=list)
    last: bytes | None = None  # of the last report that had a checkpoint
    epoch: int = 0  # that report's


def attempt(
    loop: TrainFunctionLoop,
    config: Any,
    before: Attempt | None = None,
    stop_after: int = 10**6,
    should_stop: Callable[[], bool] = lambda: False,
) -> Attempt:
    """Train a trial from where an attempt before it has come to, up to an epoch."""
    got = Attempt(last=before.last, epoch=before.epoch) if before else Attempt()
    begun_at = got.epoch

    def take(epoch: Epoch) -> None:
        got.metrics += without_clock([dict(epoch.metrics)])
        done = begun_at + len(got.metrics)
        if epoch.state is not None:
            got.last, got.epoch = state_of(epoch, loop)["last"], done
        if done == stop_after:
            raise Stopped

    def train() -> None:
        with going_on_from(got.last) as (saved, folder):
            trial = TrialContext(seed=3, epoch=begun_at, saved=saved, checkpoint=folder, should_stop=should_stop)
            with suppress(Stopped):
                run_loop(loop, config, trial, take, f"run-{os.getpid()}")

    fit(train)
    return got


def hosted(function: Callable[..., Any], take: Callable[[Epoch], None] = lambda epoch: None) -> None:
    """Run a function as a trial's loop, in this process."""
    trial = TrialContext(seed=3)
    arguments = [{"epochs": 2}] if parameters_of(function) else []
    fit(lambda: train_function.host(function, arguments, trial, take, "a-trial"))


def fit(train: Callable[[], None]) -> None:
    """Call it in Ray Train's local mode."""
    run_ranks(train, train, 1, lambda error: None, "sweep", "trial")


@pytest.fixture
def foreign(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], TrainFunctionLoop]]:
    """Yields a function for the loop of that name in `foreign/`; it skips where its library is not installed.

    Ray's callback for Lightning asks for the job, which starts a Ray in this process, where no trial would find the
    test's modules. It ends with the test.
    """
    monkeypatch.syspath_prepend(str(FOREIGN))

    def find(name: str) -> TrainFunctionLoop:
        need({"lightning": "lightning", "bert": "transformers"}.get(name))
        importlib.reload(importlib.import_module("foreign_loops"))
        loop = loop_named(name)
        assert isinstance(loop, TrainFunctionLoop)
        return loop

    yield find
    ray.shutdown()


def need(library: str | None) -> None:
    """Skip where a library is not installed, which it is in CI."""
    if library and not os.environ.get("CI"):
        pytest.importorskip(library)


@pytest.mark.parametrize(
    "name",
    [
        "torch",
        "mnist",  # which gives no checkpoint
        pytest.param("lightning", marks=(pytest.mark.slow, pytest.mark.ray)),
        pytest.param("bert", marks=pytest.mark.slow),
    ],
)
def test_a_foreign_function_that_was_stopped_ends_with_the_same_numbers(
    name: str, foreign: Callable[[str], TrainFunctionLoop]
) -> None:
    loop = foreign(name)
    config = loop.config(epochs=4)
    straight = attempt(loop, config)
    assert len(straight.metrics) == 4
    assert len({tuple(epoch.values()) for epoch in straight.metrics}) == 4
    for epoch in (1, 3):
        first = attempt(loop, config, stop_after=epoch)
        second = attempt(loop, config, first)
        assert first.metrics == straight.metrics[:epoch]
        assert second.metrics == straight.metrics[first.epoch :]


def report_folder(text: str, metrics: Mapping[str, Any], **options: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "text").write_text(text)
        ray.train.report(dict(metrics), checkpoint=Checkpoint.from_directory(folder), **options)


def test_a_function_that_never_asks_for_its_checkpoint_is_led_through_its_epochs_again() -> None:
    begun = []

    def train(config: dict[str, Any]) -> None:
        begun.append(drawn := random.random())
        for epoch in range(config["epochs"]):
            report_folder(str(epoch), {"drawn": drawn + random.random() + float(torch.rand(())) + np.random.rand()})

    loop = TrainFunctionLoop("again", train, LoopConfig, {}, None, epochs_key="epochs")
    config = LoopConfig(epochs=3)
    straight = attempt(loop, config)
    first = attempt(loop, config, stop_after=2)
    second = attempt(loop, config, first)
    assert [first.metrics, second.metrics] == [straight.metrics[:2], straight.metrics[2:]]
    assert len(set(begun)) == 1
    with pytest.raises(Interrupted):
        attempt(loop, config, first, should_stop=lambda: True)


@pytest.mark.parametrize("stop_after", [1, 2, 3, 4, 5])
def test_a_function_that_reports_a_folder_now_and_then_goes_on_from_the_last_one(stop_after: int) -> None:
    def train(config: dict[str, Any]) -> None:
        done, total = 0, random.random()
        if checkpoint := ray.train.get_checkpoint():
            with checkpoint.as_directory() as folder:
                done, total = json.loads(Path(folder, "text").read_text())
        for epoch in range(done + 1, config["epochs"] + 1):
            total += random.random()
            if epoch % 2:
                ray.train.report({"total": total})
            else:
                report_folder(json.dumps([epoch, total]), {"total": total})

    loop = TrainFunctionLoop("seldom", train, LoopConfig, {}, None, epochs_key="epochs")
    config = LoopConfig(epochs=6)
    straight = attempt(loop, config)
    first = attempt(loop, config, stop_after=stop_after)
    assert first.epoch == max(stop_after - stop_after % 2, 1), "no folder yet: it is led through what there is"
    second = attempt(loop, config, first)
    assert second.metrics == straight.metrics[first.epoch :]


def test_a_report_becomes_an_epoch_of_its_numbers_and_its_folder() -> None:
    taken: list[tuple[Any, ...]] = []

    def train() -> None:
        odd = {"word": "x", "several": torch.ones(2), "none": None, "epoch": 7}
        report_folder("it", {"int": 1, "yes": True, "tensor": torch.tensor([2.5]), "numpy": np.float32(0.5), **odd})
        ray.train.report({"loss": 0.1}, checkpoint_dir_name="ignored")

    def take(epoch: Epoch) -> None:
        taken.append((epoch.metrics, epoch.checkpoint and (epoch.checkpoint / "text").read_text()))

    hosted(train, take)
    assert taken == [({"int": 1.0, "yes": 1.0, "tensor": 2.5, "numpy": 0.5}, "it"), ({"loss": 0.1}, None)]
    assert all(type(value) is float for value in taken[0][0].values())


def test_the_context_is_the_trials_and_its_directory_goes_with_the_function() -> None:
    seen: dict[str, Any] = {}
    before = os.getcwd()

    def train(config: dict[str, Any]) -> None:
        context = ray.train.get_context()
        seen["name"] = context.get_experiment_name()
        seen["ranks"] = context.get_world_rank(), context.get_local_rank(), context.get_world_size()
        seen["checkpoint"] = ray.train.get_checkpoint()
        seen["device"] = ray.train.torch.get_device()
        seen["broadcast"] = ray.train.collective.broadcast_from_rank_zero({"a": 1})
        ray.train.collective.barrier()
        seen["directory"] = os.getcwd()
        Path("left").touch()

    hosted(train)
    directory = seen.pop("directory")
    assert seen == {
        "name": "a-trial",
        "ranks": (0, 0, 1),
        "checkpoint": None,
        "device": torch.device("cuda:0" if torch.cuda.is_available() else "cpu"),
        "broadcast": {"a": 1},
    }
    assert not Path(directory).exists()
    assert os.getcwd() == before


def test_what_the_trial_raises_ends_the_function_even_where_that_catches_exceptions() -> None:
    went_on = []

    def train() -> None:
        for _ in range(3):
            try:
                ray.train.report({"loss": 1})
            except Exception:
                went_on.append("except Exception")
            went_on.append("after")

    def take(epoch: Epoch) -> None:
        raise StorageError("the disk is full")

    with pytest.raises(StorageError, match="the disk is full"):
        hosted(train, take)
    assert went_on == []


def test_a_function_that_goes_on_all_the_same_is_told_again_and_no_epoch_is_taken() -> None:
    taken = []

    def train() -> None:
        for _ in range(3):
            try:
                ray.train.report({"loss": 1})
            except BaseException:
                continue

    def take(epoch: Epoch) -> None:
        taken.append(epoch)
        raise Stopped

    with pytest.raises(Stopped):
        hosted(train, take)
    assert len(taken) == 1


def test_errors_of_the_function_are_raised_as_they_are_and_an_exit_is_one() -> None:
    def fails() -> None:
        raise ZeroDivisionError("of the user's")

    def exits() -> None:
        sys.exit(3)

    with pytest.raises(ZeroDivisionError, match="of the user's"):
        hosted(fails)
    with pytest.raises(RuntimeError, match="ended its process"):
        hosted(exits)


def test_a_checkpoint_can_be_read_after_its_report_while_its_folder_is_there() -> None:
    def train() -> None:
        folder = tempfile.mkdtemp()
        Path(folder, "text").write_text("kept")
        ray.train.report({"loss": 1}, checkpoint=Checkpoint.from_directory(folder))
        with ray.train.get_checkpoint().as_directory() as found:
            assert Path(found, "text").read_text() == "kept"
        upload = ray.train.CheckpointUploadMode.ASYNC
        ray.train.report({"loss": 1}, checkpoint=Checkpoint.from_directory(folder), checkpoint_upload_mode=upload)
        assert not Path(folder).exists(), "an asynchronous upload's folder is Ray's to delete"
        ray.train.get_checkpoint()

    with pytest.raises(UserError, match="is gone; to read a checkpoint after its report, keep its folder"):
        hosted(train)


@pytest.mark.parametrize(
    ("ask", "answer"),
    [
        (lambda: ray.train.get_dataset_shard("train"), "a trial has no Ray data sets; read the data in the function"),
        (lambda: ray.train.get_context().get_storage(), "lie in the run folder alone; report the folder itself"),
        (lambda: report_folder("", {}, validation=True), "has no validation function"),
    ],
)
def test_what_a_trial_does_not_have_is_said_with_what_to_do(ask: Callable[[], Any], answer: str) -> None:
    with pytest.raises(UserError, match=answer):
        hosted(lambda: ask())


def test_the_installed_ray_is_made_as_the_seam_knows_it_and_is_left_as_it_was() -> None:
    """Where this fails, Ray has changed: see `worker/train_function`, the only module that knows its insides."""
    found = []

    def train() -> None:
        rays = train_function._rays.get_train_fn_utils()
        train_function.host(lambda: ray.train.report({"loss": 1}), {}, TrialContext(), found.append, "it")
        assert train_function._rays.get_train_fn_utils() is rays

    asked = train_function._tunes._in_tune_session
    fit(train)
    assert [epoch.metrics for epoch in found] == [{"loss": 1.0}]
    assert train_function._tunes._in_tune_session is asked


@pytest.mark.parametrize(
    ("place", "name"), [("_Base", "report"), ("_rays", "set_train_fn_utils"), ("_tunes", "_in_tune_session")]
)
def test_a_ray_that_is_made_otherwise_is_named_with_what_it_lacks(
    place: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Other:
        pass

    monkeypatch.setattr(train_function, place, Other)
    with pytest.raises(UserError, match=rf"ray {ray.__version__} hosts .* differently .*{name}.*install ray"):
        train_function.host(lambda: None, {}, TrialContext(), lambda epoch: None)


def test_a_ray_that_looks_elsewhere_is_named_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_function._rays, "set_train_fn_utils", lambda utils: None)
    with pytest.raises(UserError, match="looks elsewhere"):
        hosted(lambda: None)


# ---------------------------------------------------------------------------------------------------------
# On a real Ray

RANKS = """
import os, tempfile
from pathlib import Path
import raysweep, ray.train
from ray.train import Checkpoint

class Config(raysweep.Config):
    height: float = 0.5

def train(config):
    context = ray.train.get_context()
    rank, begin, before = context.get_world_rank(), 0, ""
    if checkpoint := ray.train.get_checkpoint():
        with checkpoint.as_directory() as folder:
            before = Path(folder, f"rank{rank}").read_text()
            assert sorted(os.listdir(folder)) == ["rank0", "rank1", "shared"]
        begin = len(before.split())
    for epoch in range(begin, config["epochs"]):
        before += f"{rank}/{context.get_world_size()} "
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, f"rank{rank}").write_text(before)
            Path(folder, "shared").write_text(str(rank))
            ray.train.report({"height": config["height"], "rank": rank}, checkpoint=Checkpoint.from_directory(folder))

raysweep.register_loop("ranks", config=Config, metrics={"height": "max"})(train)
"""


@pytest.mark.slow
@pytest.mark.ray
def test_two_ranks_pause_at_rungs_and_go_on_from_the_folders_of_both(four_cpus: str, tmp_path: Path) -> None:
    command = Command(four_cpus, tmp_path)
    (tmp_path / "my_loop.py").write_text(RANKS)
    (tmp_path / "ranks.yaml").write_text(
        "{name: ranks, loop: ranks, base: {epochs: 9}, grid: {height: [0.1, 0.4, 0.2, 0.3]}, "
        "scheduler: {name: asha, rungs: [1/9, 1/3], min_survivors: 1}, resources: {workers: 2, gpus: 0, cpus: 1}}"
    )
    command("ranks.yaml", "--import", "my_loop")
    records = {record["config"]["height"]: record for record in command.records("ranks").values()}
    assert {height: record["status"] for height, record in records.items()} == {
        0.1: "stopped",
        0.2: "stopped",
        0.3: "stopped",
        0.4: "finished",
    }
    assert {metrics["rank"] for record in records.values() for metrics in record["metrics"]} == {0.0}
    command("pull", "ranks.yaml", "--import", "my_loop", "--to", "pulled")
    pulled = tmp_path / "pulled" / "checkpoint"
    assert files_in(pulled) == ["rank0", "rank1", "shared"]
    assert (pulled / "rank1").read_text() == "1/2 " * records[0.4]["best"]["epoch"]
    assert (pulled / "shared").read_text() == "0"
    (pulled / "rank1").write_text("another")
    _, err = command("pull", "ranks.yaml", "--import", "my_loop", "--to", "pulled", code=2)
    assert "exists already, with other content" in err


SWEEP = """
{{name: {name}, loop: {name}, base: {{epochs: {epochs}}}, seed: 3, checkpoints: {{every_minutes: 0.0001}}, retries: 9,
resources: {{workers: {workers}, gpus: 0, cpus: 1}}}}
"""


class Killer(threading.Thread):
    """Kills the process of a sweep's only trial so many times, each time up to half a second after a first commit."""

    def __init__(self, command: Command, name: str, times: int) -> None:
        super().__init__()
        self.command, self.times = command, times
        self.name = name  # the thread's, too
        self.killed: list[int] = []
        self.over = threading.Event()

    def run(self) -> None:
        delays = random.Random(self.times)
        while len(self.killed) < self.times and not self.over.wait(0.02):
            for process in self.at_work():
                if process.pid not in self.killed and self.has_committed_since(process.create_time()):
                    self.over.wait(delays.uniform(0, 0.5))
                    with suppress(psutil.NoSuchProcess):
                        process.kill()
                        self.killed.append(process.pid)

    def at_work(self) -> Iterator[psutil.Process]:
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if re.fullmatch(rf"ray::raysweep {self.name}/\S+", " ".join(process.cmdline()).strip()):
                    yield process

    def has_committed_since(self, begun_at: float) -> bool:
        paths = (self.command.folder / "runs" / self.name / "trials").glob("*/record.json")
        return any(path.stat().st_mtime > begun_at for path in paths)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("name", "epochs", "workers", "kills"),
    [
        ("torch", 60, 1, 1),
        pytest.param("torch", 300, 1, 5, marks=pytest.mark.long),
        pytest.param("torch", 60, 2, 5, marks=pytest.mark.long),
        pytest.param("mnist", 100, 1, 5, marks=pytest.mark.long),
        pytest.param("lightning", 60, 1, 5, marks=pytest.mark.long),
        pytest.param("bert", 40, 1, 5, marks=pytest.mark.long),
    ],
)
def test_a_foreign_function_whose_process_is_killed_at_random_moments_ends_with_the_same_numbers(
    name: str,
    epochs: int,
    workers: int,
    kills: int,
    four_cpus: str,
    tmp_path: Path,
    foreign: Callable[[str], TrainFunctionLoop],
) -> None:
    loop = foreign(name)
    command = Command(four_cpus, tmp_path)
    for path in FOREIGN.glob("*.py"):
        shutil.copy(path, tmp_path)
    (tmp_path / "sweep.yaml").write_text(SWEEP.format(name=name, epochs=epochs, workers=workers))
    killer = Killer(command, name, kills)
    killer.start()
    try:
        command("sweep.yaml", "--import", "foreign_loops")
    finally:
        killer.over.set()
        killer.join()
    assert len(killer.killed) == kills
    (record,) = command.records(name).values()
    assert record["status"] == "finished"
    assert record["attempts"] == kills + 1
    if workers == 1:
        straight = attempt(loop, loop.config(epochs=epochs)).metrics
    else:
        command("sweep.yaml", "--import", "foreign_loops", "name=straight")
        (undisturbed,) = command.records("straight").values()
        straight = without_clock(undisturbed["metrics"])
    assert without_clock(record["metrics"]) == straight


def without_clock(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    """Return a record's metrics without those that depend on the clock, and without the epoch's number."""
    return [
        {key: value for key, value in row.items() if key != "epoch" and not any(map(key.count, CLOCK))} for row in rows
    ]
