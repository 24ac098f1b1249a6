"""A node of the cluster goes away in the middle of a trial: not the trial's failure; it goes on on another one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from running import Command, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(400)]

CLUSTER = """
import sys
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
node = cluster.add_node(num_cpus=1)
print(cluster.address, flush=True)
for line in sys.stdin:
    cluster.remove_node(node, allow_graceful=False)
    node = cluster.add_node(num_cpus=1)
    print("replaced", flush=True)
cluster.shutdown()
"""


class Nodes:
    """A head without CPUs for trials, and a node with one."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.address = self._read()

    def replace(self) -> None:
        """Kill the node, and start another one."""
        assert self._process.stdin
        print("replace", file=self._process.stdin, flush=True)
        assert self._read() == "replaced"

    def _read(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline().strip()


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    command = Command("", tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-c", CLUSTER],
        env={**command.environment, "RAY_AUTH_MODE": "disabled"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    yield Nodes(process)
    process.communicate(timeout=60)


def test_a_trial_whose_node_dies_goes_on_on_another_one_though_it_may_not_be_retried(
    nodes: Nodes, tmp_path: Path
) -> None:
    command = Command(nodes.address, tmp_path)
    command.environment["RAY_AUTH_MODE"] = "disabled"
    words = (command.sweep("[0.1]"), "epochs=300", "retries=0", "checkpoints.every_minutes=0.0001")
    process = command.start(*words)
    wait_for(lambda: any(record["metrics"] for record in command.records("small").values()) or process.poll(), 120)
    nodes.replace()
    _, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    assert "its node went away; starts again from its last commit" in err
    (record,) = command.records("small").values()
    assert record["status"] == "finished"
    assert record["error"]["type"] == "NodeDied"
    assert record["attempts"] == 1, "it does not count"
    assert [row["epoch"] for row in record["metrics"]] == list(range(1, 301))
