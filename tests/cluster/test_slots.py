"""How many trials run at the same time: fractions of a GPU, and nodes that come and go. The GPUs are pretended."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from running import Command, ray_cluster, start_cluster, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(400)]

MEETING = """
import json, os, pathlib, time
import ray
from raysweep import register_model
from raysweep.vision.models.resnets import baseline_block

HERE = pathlib.Path({folder!r})

@register_model("meeting")
def meeting(num_classes, width=None):
    net = baseline_block(num_classes, width)
    def meet(module, inputs):
        if not module.training or inputs[0].is_meta:  # only the shapes are checked, beforehand
            return
        node = ray.get_runtime_context().get_node_id()
        seen = {{"node": node, "gpus": ray.get_gpu_ids(), "visible": os.environ.get("CUDA_VISIBLE_DEVICES")}}
        part = HERE / f"{{os.getpid()}}.part"
        part.write_text(json.dumps(seen))
        part.rename(part.with_suffix(".json"))
        end = time.monotonic() + 200
        while len(list(HERE.glob("*.json"))) < {least} or (HERE / "wait").exists():
            if time.monotonic() > end:
                raise RuntimeError("the others did not come")
            time.sleep(0.05)
    net.register_forward_pre_hook(meet)
    return net
"""
"""A network that trains only once so many processes have begun to, and only while no file `wait` is there."""
DIED = "; starts again from its last commit"


def write_meeting(command: Command, least: int) -> Path:
    """Write the module `my_nets`; return the folder in which the processes meet."""
    here = command.folder / "here"
    here.mkdir()
    (command.folder / "my_nets.py").write_text(MEETING.format(folder=str(here), least=least))
    return here


def who_met(here: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in here.glob("*.json")]


def most_at_once(said: str) -> int:
    """The largest number of trials that the command's lines show running at the same time."""
    running: set[str] = set()
    most = 0
    for line in said.splitlines():
        trial, _, what = line.partition(": ")
        if what == "starts" or what.startswith("goes on after epoch "):
            running.add(trial)
        elif what.startswith("finished after ") or what.endswith(DIED):
            running.discard(trial)
        most = max(most, len(running))
    return most


@pytest.mark.long
def test_a_quarter_of_a_gpu_each_packs_four_trials_on_one_device(tmp_path: Path) -> None:
    with ray_cluster(num_cpus=8, num_gpus=1) as address:
        command = Command(address, tmp_path)
        here = write_meeting(command, least=4)
        sweep = command.sweep(lrs="[0.1, 0.05, 0.02, 0.01, 0.005, 0.002]", model="meeting")
        _, said = command(sweep, "--import", "my_nets", "resources={gpus: 0.25, cpus: 1}")
    records = command.records("small")
    assert [record["status"] for record in records.values()] == ["finished"] * 6
    assert most_at_once(said) == 4
    met = who_met(here)
    assert len(met) >= 4
    assert {(tuple(each["gpus"]), each["visible"]) for each in met} == {((0,), "0")}


@pytest.mark.long
def test_a_run_keeps_to_the_kind_of_gpu_that_its_file_names(tmp_path: Path) -> None:
    with start_cluster(num_cpus=4, num_gpus=2, resources={"accelerator_type:A100": 1}) as answer:
        command = Command(answer["gcs_address"], tmp_path)
        sweep = command.sweep(lrs="[0.1]")
        _, said = command(sweep, "resources={accelerator: T4}", code=2)
        assert "resources.accelerator: no node has a GPU of kind 'T4'; kinds in the cluster: A100" in said
        out, _ = command(sweep, "resources={accelerator: A100, workers: 2, cpus: 1}", "--json")
    assert [trial["status"] for trial in json.loads(out)["trials"]] == ["finished"]


NODES = """
import sys
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
print(cluster.address, flush=True)
node = None
for line in sys.stdin:
    if line == "add\\n":
        node = cluster.add_node(num_cpus=1)
    else:
        cluster.remove_node(node, allow_graceful=False)
    print("done", flush=True)
cluster.shutdown()
"""


class Nodes:
    """A cluster of one node, to which another can be added, and which can lose it; each holds one trial."""

    def __init__(self) -> None:
        self.environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        self.process = subprocess.Popen(
            [sys.executable, "-c", NODES],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **self.environment, "RAY_USAGE_STATS_ENABLED": "0"},
        )
        assert self.process.stdin
        assert self.process.stdout
        self.stdin, self.stdout = self.process.stdin, self.process.stdout
        self.address = self.stdout.readline().strip()

    def tell(self, what: str) -> None:
        self.stdin.write(f"{what}\n")
        self.stdin.flush()
        assert self.stdout.readline() == "done\n"


@contextmanager
def nodes() -> Iterator[Nodes]:
    """Start such a cluster, and let its own process end it."""
    cluster = Nodes()
    try:
        yield cluster
    finally:
        cluster.stdin.close()
        cluster.process.wait(60)
        cluster.stdout.close()


@pytest.mark.long
def test_a_node_that_joins_takes_trials_at_once_and_one_that_goes_leaves_the_sweep_whole(tmp_path: Path) -> None:
    with nodes() as cluster:
        command = Command(cluster.address, tmp_path)
        command.environment |= cluster.environment
        here = write_meeting(command, least=2)
        (here / "wait").touch()
        sweep = command.sweep(lrs="[0.1, 0.05, 0.02, 0.01]", model="meeting")
        process = command.start(sweep, "--import", "my_nets", "resources={gpus: 0, cpus: 1}")
        wait_for(lambda: process.poll() is not None or len(who_met(here)) == 1)
        cluster.tell("add")
        wait_for(lambda: process.poll() is not None or len(who_met(here)) == 2)
        assert len({each["node"] for each in who_met(here)}) == 2
        cluster.tell("remove")
        (here / "wait").unlink()
        _, said = process.communicate(timeout=200)
    assert process.returncode == 0, said
    records = command.records("small")
    assert [record["status"] for record in records.values()] == ["finished"] * 4
    assert most_at_once(said) == 2
    assert DIED in said
