"""Nodes that differ are found before anything is trained: in code, in the data's files, in what they see of storage."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from running import Command

import raysweep
from raysweep.cluster import hosts
from raysweep.cluster.hosts import UNSEEN, Host, different_storage, find_data, use_storage
from raysweep.config import LoopConfig
from raysweep.errors import DataError, UnfitNodeError
from raysweep.store import Record, RunFolder
from raysweep.store.filesystem import Storage
from raysweep.sweepfile.schema import Objective
from raysweep.vision.config import TrialConfig
from raysweep.worker.tasks import Assignment, TaskSetting

CLUSTER = """
import json, sys
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
for variables in json.loads(sys.argv[1]):
    cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20, env_vars=variables)
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""
HERE = socket.gethostname()
"""The name of every node, since all run on this machine."""
POOLED = """
from torch import nn
from raysweep import register_model

@register_model("pooled")
def pooled(num_classes, width=None):
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, num_classes))
"""
FOLDER_SWEEP = """
name: small
base: {data: {name: folder, image_size: 8, val_fraction: 0.5}, model: baseline_block, epochs: 1, batch_size: 2}
grid: {model.width: [4]}
resources: {cpus: 1}
"""


@dataclass
class Nodes:
    """A head that runs no trials, and two workers, each with its own folders of data and prepared data and its own copy
    of raysweep. Theirs are small object stores."""

    address: str
    data: tuple[Path, Path]
    cache: tuple[Path, Path]
    code: tuple[Path, Path]


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    folders = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("other")
    data, cache, code = (tuple(folder / name for folder in folders) for name in ("data", "cache", "code"))
    for folder in code:
        package = Path(raysweep.__file__).parent
        shutil.copytree(package, folder / "raysweep", ignore=shutil.ignore_patterns("__pycache__"))
    environments = [
        {"PYTHONPATH": str(package), "RAYSWEEP_DATA": str(images), "RAYSWEEP_CACHE": str(prepared)}
        for package, images, prepared in zip(code, data, cache, strict=True)
    ]
    process = subprocess.Popen(
        [sys.executable, "-c", CLUSTER, json.dumps(environments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout
    yield Nodes(process.stdout.readline().strip(), data, cache, code)
    process.communicate(timeout=60)


@pytest.fixture
def command(nodes: Nodes, tmp_path: Path) -> Command:
    (tmp_path / "folder.yaml").write_text(FOLDER_SWEEP)
    return Command(nodes.address, tmp_path)


def found(document: str, check: str) -> list[tuple[str, str]]:
    """What doctor found: each finding's level and message."""
    return [(each["level"], each["message"]) for each in json.loads(document)["findings"] if each["check"] == check]


@pytest.mark.slow
@pytest.mark.ray
def test_old_code_on_a_worker_is_refused_before_training_and_doctor_names_the_file(
    nodes: Nodes, command: Command
) -> None:
    edited = nodes.code[1] / "raysweep" / "halving" / "rules.py"
    text = edited.read_text()
    edited.write_text(f"{text}# edited\n")
    out, _ = command("doctor", "--json", code=1)
    _, said = command(command.sweep(), code=2)
    edited.write_text(text)
    ((level, message),) = found(out, "code")
    assert level == "error", message
    assert f"raysweep/halving/rules.py on {HERE}" in message
    assert f"other code than here, on {HERE}: raysweep/halving/rules.py on {HERE}" in said
    assert "take the cluster down and up again" in said
    assert command.records("small") == {}


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.long
def test_images_on_one_worker_alone_are_prepared_there_and_doctor_warns(nodes: Nodes, command: Command) -> None:
    write_images(nodes.data[1], 4)
    out, _ = command("doctor", "folder.yaml", "--json", code=1)  # Ray's own file for the token is open to all
    ((level, message),) = found(out, "data")
    assert level == "warning", message
    assert f"{HERE}: folder: no such folder" in message
    assert str(nodes.data[0]) in message
    _, said = command("folder.yaml")
    assert f"{nodes.data[0]}" in said
    assert "prepared on another node that has the files" in said
    assert [record["status"] for record in command.records("small").values()] == ["finished"]


@pytest.mark.slow
@pytest.mark.ray
def test_images_that_fit_no_object_store_are_prepared_by_each_worker_or_the_run_ends_before_any_trial(
    nodes: Nodes, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RAYSWEEP_DATA", "RAYSWEEP_CACHE"):  # each worker has its own
        monkeypatch.delenv(name, raising=False)
    (command.folder / "pooled.py").write_text(POOLED)
    words = ("folder.yaml", "--import", "pooled", "data.image_size=1024", "model=pooled")
    for folder in (nodes.data[0], *nodes.cache):  # of the test before
        shutil.rmtree(folder, ignore_errors=True)
    write_images(nodes.data[1], 12)
    _, said = command(*words, code=2)
    told = re.search(
        rf"^{HERE}: folder: no such folder.*; looked at {nodes.data[0]}.*--object-store-memory=\d+$", said, re.M
    )
    assert told, said
    assert f"(Ray's object store would need 94.4 MB, that of {HERE} has 83.9 MB)" in told[0]
    assert command.records("small") == {}
    write_images(nodes.data[0], 12)
    _, said = command(*words)
    assert "preparing folder on 1 more node" in said
    assert [len(list(cache.glob("sets/folder-*/train_images.npy"))) for cache in nodes.cache] == [1, 1]
    assert [record["status"] for record in command.records("small").values()] == ["finished"]


# -- hosts that are pretended: nodes of one machine see the same folders


H1, H2, H3 = (Host(name, name, f"10.0.0.{name[1]}", {}) for name in ("h1", "h2", "h3"))


@pytest.fixture
def see(monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """By each host's name the folder that it sees where all are told of one."""
    seen: dict[str, Path] = {}

    def pretend(asked: list[Host], question: Any, uri: str, *arguments: Any) -> dict[str, Any]:
        return {host.id: question(str(seen[host.id]), *arguments) for host in asked}

    monkeypatch.setattr(hosts, "SEEN_WITHIN_S", 0.0)
    monkeypatch.setattr(hosts, "ask", pretend)
    return seen


def test_storage_that_is_private_to_each_host_is_told_in_one_sentence_and_nothing_stays(
    tmp_path: Path, see: dict[str, Path]
) -> None:
    see |= {"h2": tmp_path / "2", "h3": tmp_path / "3"}
    fault = different_storage([H1, H2, H3], Storage(str(tmp_path / "1")))
    assert fault == "what h1 wrote there is not seen on h2, h3"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert not (tmp_path / "2").exists(), "no folder is made where the storage is not"


def test_storage_that_all_share_is_well_and_one_that_a_host_cannot_write_is_not(
    tmp_path: Path, see: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    see |= {"h2": tmp_path, "h3": tmp_path}
    assert different_storage([H1, H2, H3], Storage(str(tmp_path))) == ""
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "name").write_bytes(b"x")
    monkeypatch.setattr(Storage, "write", lambda *_: (_ for _ in ()).throw(OSError("Read-only file system")))
    assert use_storage(str(tmp_path), "name", b"x") == "OSError: Read-only file system"
    assert use_storage(str(tmp_path), "name", b"y") == "name has other bytes than were written"
    assert use_storage(str(tmp_path), "other", b"x") == UNSEEN


def test_a_trial_on_a_node_that_joined_later_and_does_not_see_the_run_folder_ends_with_the_node_to_blame(
    tmp_path: Path,
) -> None:
    from raysweep.worker.trial import check_node

    record = Record("net-1a2b3c4d", "net", 0, {}, {"batch_size": 32}, 10)
    assignment = Assignment(record, str(tmp_path), "run", Objective(), 1, commit_every_s=300, threads=1, conditions={})
    with pytest.raises(UnfitNodeError, match=f"{HERE} does not see the run folder {tmp_path}/run: mount it there"):
        check_node(assignment)
    RunFolder(str(tmp_path), "run").files.write("resolved.yaml", b"")
    check_node(assignment)


def test_storage_that_cannot_be_written_here_is_told(tmp_path: Path, see: dict[str, Path]) -> None:
    (tmp_path / "file").write_text("")
    fault = different_storage([H1, H2], Storage(str(tmp_path / "file")))
    assert fault.startswith("h1 cannot use it: ")
    assert str(tmp_path / "file") in fault


def write_images(folder: Path, count: int) -> None:
    """Write so many images of each of two classes, in place of what is there."""
    shutil.rmtree(folder, ignore_errors=True)
    for path in (folder / label / f"{number}.png" for label in ("cat", "dog") for number in range(count)):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)


def test_images_that_differ_between_hosts_are_refused_and_those_that_some_lack_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pretend(asked: list[Host], question: Any, setting: TaskSetting, config: LoopConfig) -> dict[str, Any]:
        variables = {host.id: {"RAYSWEEP_DATA": str(tmp_path / host.id)} for host in asked}
        return {host.id: question(replace(setting, variables=variables[host.id]), config) for host in asked}

    monkeypatch.setattr(hosts, "ask", pretend)
    monkeypatch.setenv("RAYSWEEP_DATA", "")  # put back at the end
    setting = TaskSetting(str(tmp_path), (), threads=1, device="auto")
    config = TrialConfig.model_validate({"data": {"name": "folder", "image_size": 8, "val_fraction": 0.5}})
    with pytest.raises(DataError) as nowhere:
        find_data([H1, H2], setting, config)
    for host, problem in zip((H1, H2), nowhere.value.problems, strict=True):
        assert problem.startswith(
            f"{host.name}: folder: no such folder or zip archive; looked at {tmp_path}/{host.name};"
        )
    write_images(tmp_path / "h2", 4)
    write_images(tmp_path / "h3", 4)
    ((problem, without),) = find_data([H1, H2, H3], setting, config).items()
    assert without == [H1]
    assert "no such folder" in problem
    write_images(tmp_path / "h1", 4)
    assert find_data([H1, H2, H3], setting, config) == {}
    write_images(tmp_path / "h3", 5)
    with pytest.raises(DataError, match=r"^folder: not the same .*: 8 files of \d+ bytes on h1, h2; 10 files .* h3;"):
        find_data([H1, H2, H3], setting, config)
