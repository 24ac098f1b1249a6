"""Where prepared data sets lie: in Ray's object store where they fit, else in the cache of each node."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from ray.exceptions import NodeDiedError, RayTaskError, TaskUnschedulableError, WorkerCrashedError
from rich.console import Console
from running import Command, curves, start_cluster
from safetensors.torch import load_file

from raysweep.cluster.hosts import Host
from raysweep.cluster.slots import Slot, Store
from raysweep.driver import placing
from raysweep.driver.board import Board
from raysweep.driver.placing import Placed, Placing, PreparedSet
from raysweep.driver.view import View
from raysweep.errors import DataError
from raysweep.loops import CLASSIFY, TrialContext, loop_named
from raysweep.registry import import_modules
from raysweep.vision.config import TrialConfig
from raysweep.worker.data import OnEachNode, prepare_here
from raysweep.worker.tasks import Prepared, TaskSetting

SWEEP = """
name: large
base:
  data: {name: synthetic, image_size: 160, classes: 3, per_class: 260}   # 75 MB
  model: watched
  epochs: 2
  batch_size: 64
grid: {lr: [0.1]}
retries: 0
resources: {cpus: 1}
checkpoints: {every_minutes: 0.0001}
"""
NET = """
import os
from pathlib import Path
from torch import nn
from raysweep import register_model

class Watched(nn.Sequential):
    '''Notes which files its process maps into memory; fails in its second epoch where that is asked.'''
    steps = 0

    def forward(self, images):
        mapped = Path("/proc/self/maps").read_text()
        Path({folder!r}, "mapped").write_text(mapped)
        self.steps += self.training
        if self.steps > 14 and Path({folder!r}, "fail").exists():  # an epoch has 13
            raise RuntimeError("as it was asked to")
        return super().forward(images)

@register_model("watched")
def watched(num_classes, width=None):
    return Watched(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, num_classes))
"""


@pytest.fixture(scope="module")
def small_store() -> Iterator[str]:
    """The address of a cluster whose object store has 80 MiB, of which data may take 67 MB."""
    with start_cluster(num_cpus=1, object_store_memory=80 * 2**20) as told:
        yield told["gcs_address"]


@pytest.mark.slow
@pytest.mark.ray
def test_a_run_that_goes_on_where_its_data_does_not_fit_the_object_store_maps_them_and_ends_with_the_same_bits(
    cluster: str, small_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYSWEEP_CACHE", str(tmp_path / "cache"))
    (tmp_path / "large.yaml").write_text(SWEEP)
    (tmp_path / "watched.py").write_text(NET.replace("{folder!r}", repr(str(tmp_path))))

    def run(address: str, code: int) -> tuple[str, dict[str, Any]]:
        command = Command(address, tmp_path)
        _, said = command("large.yaml", "--import", "watched", code=code)
        (record,) = command.records("large").values()
        return said, record

    (tmp_path / "fail").touch()
    said, begun = run(cluster, code=1)
    assert "cache" not in said
    assert len(begun["metrics"]) == 1, "it fails in its second epoch"
    assert "train_images.npy" not in (tmp_path / "mapped").read_text(), "it reads the object store"
    (tmp_path / "fail").unlink()
    said, moved = run(small_store, code=0)
    assert "synthetic: 74.9 MB, memory-mapped from each node's cache: Ray's object store would need 93.6 MB" in said
    assert str(next((tmp_path / "cache").rglob("train_images.npy"))) in (tmp_path / "mapped").read_text()
    metrics, weights = undisturbed(moved, tmp_path, monkeypatch)
    assert curves({"": moved})[""] == metrics
    (best,) = (tmp_path / "runs" / "large" / "trials").glob("*/best.*.safetensors")
    kept = load_file(best)
    assert all(torch.equal(kept[name], weight) for name, weight in weights.items())


def undisturbed(
    record: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[dict[str, float]], dict[str, torch.Tensor]]:
    """The curve of a trial that is trained here, and its best weights."""
    monkeypatch.syspath_prepend(str(folder))
    import_modules(["watched"])
    loop = loop_named(CLASSIFY)
    config = loop.config.model_validate(record["config"])
    trial = TrialContext(seed=record["seed"], data=loop.prepare(config, folder), conditions=record["conditions"])
    metrics, weights = [], []
    for number, epoch in enumerate(loop.train(config, trial), start=1):
        metrics.append({"epoch": number, **epoch.metrics})
        give = epoch.ema_weights if record["best"]["averaged"] else epoch.weights
        assert give
        weights.append({name: weight.clone() for name, weight in give().items()})
    return curves({"": {"metrics": metrics}})[""], weights[record["best"]["epoch"] - 1]


# -- hosts that are pretended: nodes of one machine see the same folders


H1, H2, H3 = (Host(name, name, "10.0.0.1", {"CPU": 1}) for name in "abc")
HEAD = Host("head", "head", "10.0.0.4", {"CPU": 0})
IMAGES = TrialConfig.model_validate({"data": {"name": "folder", "image_size": 8, "val_fraction": 0.5}})


class Nodes:
    """The head and three nodes that hold a trial each, of which `a` has prepared the data; the store of b has 1 MB.

    Each has its own folders, unless its answer is set.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.out = folder, io.StringIO()
        self.answers: dict[str, Exception] = {}
        self.lacking: Mapping[str, Sequence[Host]] = {}
        self.that_die_meanwhile: set[str] = set()
        self.is_stopped_meanwhile = False
        self.have_been_asked = False

    def live_hosts(self) -> list[Host]:
        gone = self.that_die_meanwhile if self.have_been_asked else set()
        return [host for host in (H1, H2, H3, HEAD) if host.id not in gone]

    def is_stopped(self) -> bool:
        return self.is_stopped_meanwhile and self.have_been_asked

    def ask(self, asked: Sequence[Host], question: Any, *arguments: Any, **how: Any) -> dict[str, Any]:
        self.have_been_asked = True
        return {host.id: self._answer(host, question, *arguments) for host in asked}

    def _answer(self, host: Host, question: Any, setting: TaskSetting, config: TrialConfig) -> Any:
        if host.id in self.answers:
            return self.answers[host.id]
        try:
            return question(replace(setting, variables=self._variables_of(host)), config)
        except DataError as error:
            return RayTaskError("prepare_here", "", error)

    def _variables_of(self, host: Host) -> dict[str, str]:
        return {"RAYSWEEP_DATA": str(self.folder / host.id), "RAYSWEEP_CACHE": str(self.folder / "caches" / host.id)}

    def place(self, before: Mapping[str, Placed] = MappingProxyType({}), **sizes: int) -> dict[str, Placed]:
        """Place sets of so many bytes."""
        setting = TaskSetting(str(self.folder), (), 1, "cpu", variables=self._variables_of(H1))
        view = View(Console(file=self.out, width=1000), "small", Board([], maximize=True), "val_acc")
        content = prepare_here(setting, IMAGES)[1]
        sets = {
            name: PreparedSet(IMAGES, Prepared(H1.id, [{**content, "precision": "fp32"}], size), self.lacking)
            for name, size in sizes.items()
        }
        return Placing("small", Slot(1, 0, 1), setting, view, self.is_stopped).place(sets, before)


@pytest.fixture
def nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Nodes:
    """A cluster where the references of all sets are called `shared`."""
    nodes = Nodes(tmp_path)
    task = SimpleNamespace(remote=lambda *arguments: "shared")
    monkeypatch.setenv("RAYSWEEP_DATA", "")  # put back at the end
    monkeypatch.setenv("RAYSWEEP_CACHE", "")
    monkeypatch.setattr(placing, "ask", nodes.ask)
    monkeypatch.setattr(placing, "live_hosts", nodes.live_hosts)
    monkeypatch.setattr(placing, "smallest_store", lambda slot: Store(10**6, "b"))
    monkeypatch.setattr(placing, "where_trials_run", lambda *where: {})
    monkeypatch.setattr(
        placing.ray, "remote", lambda **how: lambda function: SimpleNamespace(options=lambda **how: task)
    )
    return nodes


def write_images(folder: Path, red: int = 0) -> None:
    for path in (folder / label / f"{number}.png" for label in ("cat", "dog") for number in range(4)):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (red, 0, 0)).save(path)


def test_a_set_is_shared_up_to_80_percent_of_the_smallest_store_and_above_each_node_that_trains_prepares_it(
    tmp_path: Path, nodes: Nodes
) -> None:
    for host in (H1, H2, H3):
        write_images(tmp_path / host.id)
    assert nodes.place(it=800_000)["it"].at == "shared"
    assert nodes.out.getvalue() == ""
    placed = nodes.place(it=800_001)["it"].at
    assert nodes.out.getvalue() == (
        "folder: 800 kB, memory-mapped from each node's cache: Ray's object store would need 1 MB, that of b has 1 MB\n"
        "preparing folder on 2 more nodes\n"
    )
    assert placed.nodes == {"a", "b", "c"}
    assert [len(list((tmp_path / "caches" / id / "sets").iterdir())) for id in "abc"] == [1, 1, 1]
    arrays = placed.open()
    assert arrays["train_images"].shape == (4, 3, 8, 8)
    assert placed.open() is arrays, "a process keeps what it has opened"


def test_nodes_that_cannot_prepare_a_set_or_have_other_images_are_told_in_one_sentence(
    tmp_path: Path, nodes: Nodes
) -> None:
    write_images(tmp_path / "a")
    write_images(tmp_path / "c", red=1)
    with pytest.raises(DataError) as refused:
        nodes.place(it=900_000)
    (problem,) = refused.value.problems
    assert problem.startswith(f"b: folder: no such folder or zip archive; looked at {tmp_path}/b")
    assert "; c: its files make other data than those of the node that prepared it first; each node has to" in problem
    assert problem.endswith(
        "each node has to prepare folder itself (Ray's object store would need 1.12 MB, that of b has 1 MB): "
        "mend that, or start Ray with --object-store-memory=1125000"
    )


def test_of_nodes_that_fail_otherwise_all_are_told_for_each_set_that_they_should_prepare(
    tmp_path: Path, nodes: Nodes
) -> None:
    write_images(tmp_path / "a")
    no_file = FileNotFoundError(2, "No such file or directory", "/data/corpus.npy")
    nodes.answers["b"] = RayTaskError("prepare_here", f"Traceback ...\nFileNotFoundError: {no_file}", no_file)
    nodes.answers["c"] = WorkerCrashedError()
    nodes.lacking = {"no such file": [H2]}
    with pytest.raises(DataError) as refused:
        nodes.place(small=100_000, one=900_000, other=1_000_000)
    assert [problem.partition("; each node has to")[0] for problem in refused.value.problems] == [
        "b: cannot prepare it: FileNotFoundError: [Errno 2] No such file or directory: '/data/corpus.npy'; "
        "c: a process there died: The worker died unexpectedly while executing this task. "
        "Check python-core-worker-*.log files for more information."
    ] * 2
    assert "prepared on another node" not in nodes.out.getvalue(), "that would contradict it"
    nodes.place(small=100_000)
    assert nodes.out.getvalue().endswith("\nb: no such file; prepared on another node that has the files\n")


@pytest.mark.parametrize("error", [NodeDiedError("gone"), TaskUnschedulableError("it is drained"), None])
def test_nodes_that_go_away_meanwhile_and_a_run_that_is_to_stop_meanwhile_are_no_problems_of_the_data(
    tmp_path: Path, nodes: Nodes, error: Exception | None
) -> None:
    write_images(tmp_path / "a")  # b and c have none
    nodes.answers |= {"b": error} if error else {}
    nodes.that_die_meanwhile = {"c"} if error else set()
    nodes.is_stopped_meanwhile = error is None
    assert nodes.place(it=900_000)["it"].at.nodes == {"a"}, "another one prepares it when a trial comes"


def test_what_an_earlier_round_has_placed_stays_there_and_takes_its_part_of_the_store(
    tmp_path: Path, nodes: Nodes
) -> None:
    for host in (H1, H2, H3):
        write_images(tmp_path / host.id)
    before = {"it": Placed("placed before", 500_000)}
    now = nodes.place(before, it=500_000, small=300_000, large=400_000)
    assert (now["it"].at, now["small"].at) == ("placed before", "shared")
    assert isinstance(now["large"].at, OnEachNode)
    assert "Ray's object store would need 1.5 MB" in nodes.out.getvalue()
    assert nodes.place({**now, "it": now["large"]}, more=500_000)["more"].at == "shared", "mapped ones take nothing"
