"""Where prepared data sets lie: in Ray's object store where they fit, else in the cache of each node."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from ray.exceptions import RayTaskError
from rich.console import Console
from running import Command, curves, start_cluster
from safetensors.torch import load_file

from raysweep.cluster.hosts import Host
from raysweep.cluster.slots import Slot, Store
from raysweep.driver import placing
from raysweep.driver.board import Board
from raysweep.driver.placing import Placing, PreparedSet
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


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], tuple[OnEachNode, str]]:
    """Places a set of so many bytes, which a has prepared, where the store of b has 1 MB; each has its own folders."""

    def pretend(asked: Sequence[Host], question: Any, setting: TaskSetting, config: TrialConfig, **how: Any) -> Any:
        return {host.id: answer(host, question, setting, config) for host in asked}

    def answer(host: Host, question: Any, setting: TaskSetting, config: TrialConfig) -> Any:
        try:
            return question(replace(setting, variables=variables_of(host)), config)
        except DataError as error:
            return RayTaskError("prepare_here", "", error)

    def variables_of(host: Host) -> dict[str, str]:
        return {"RAYSWEEP_DATA": str(tmp_path / host.id), "RAYSWEEP_CACHE": str(tmp_path / "caches" / host.id)}

    def place(size: int) -> tuple[Any, str]:
        out, setting = io.StringIO(), TaskSetting(str(tmp_path), (), 1, "cpu", variables=variables_of(H1))
        view = View(Console(file=out, width=1000), "small", Board([], maximize=True), "val_acc")
        placing = Placing("small", Slot(1, 0, 1), setting, view, lambda: False)
        content = prepare_here(setting, IMAGES)[1]
        prepared = Prepared(H1.id, [{**content, "precision": "fp32"}], size)
        return placing.place({"": PreparedSet(IMAGES, prepared, [])})[""], out.getvalue()

    monkeypatch.setenv("RAYSWEEP_DATA", "")  # put back at the end
    monkeypatch.setenv("RAYSWEEP_CACHE", "")
    monkeypatch.setattr(placing, "ask", pretend)
    monkeypatch.setattr(placing, "live_hosts", lambda: [H1, H2, H3, HEAD])
    monkeypatch.setattr(placing, "smallest_store", lambda slot: Store(10**6, "b"))
    monkeypatch.setattr(Placing, "_share", lambda *_: "shared")
    return place


def write_images(folder: Path, red: int = 0) -> None:
    for path in (folder / label / f"{number}.png" for label in ("cat", "dog") for number in range(4)):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (red, 0, 0)).save(path)


def test_a_set_is_shared_up_to_80_percent_of_the_smallest_store_and_above_each_node_that_trains_prepares_it(
    tmp_path: Path, place: Callable[[int], tuple[Any, str]]
) -> None:
    for host in (H1, H2, H3):
        write_images(tmp_path / host.id)
    assert place(800_000) == ("shared", "")
    placed, said = place(800_001)
    assert said == (
        "folder: 800 kB, memory-mapped from each node's cache: Ray's object store would need 1 MB, that of b has 1 MB\n"
        "preparing folder on 2 more nodes\n"
    )
    assert placed.nodes == {"a", "b", "c"}
    assert [len(list((tmp_path / "caches" / id / "sets").iterdir())) for id in "abc"] == [1, 1, 1]
    arrays = placed.open()
    assert arrays["train_images"].shape == (4, 3, 8, 8)
    assert placed.open() is arrays, "a process keeps what it has opened"


def test_nodes_that_cannot_prepare_a_set_or_have_other_images_are_told_in_one_sentence(
    tmp_path: Path, place: Callable[[int], tuple[Any, str]]
) -> None:
    write_images(tmp_path / "a")
    write_images(tmp_path / "c", red=1)
    with pytest.raises(DataError) as refused:
        place(900_000)
    (problem,) = refused.value.problems
    assert problem.startswith(f"b: folder: no such folder or zip archive; looked at {tmp_path}/b")
    assert "; c: its files make other data than those of the node that prepared it first; each node has to" in problem
    assert problem.endswith(
        "each node has to prepare folder itself (Ray's object store would need 1.12 MB, that of b has 1 MB): "
        "mend that, or start Ray with --object-store-memory=1125000"
    )
