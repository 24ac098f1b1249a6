"""A node of the cluster goes away, with the only copy of the prepared data: not the trials' failure; they go on."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from metadata_server import Metadata, serve_metadata
from running import Command, curves, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(900)]

CLUSTER = """
import sys
from ray._raylet import GcsClient
from ray.cluster_utils import Cluster
from ray.core.generated.autoscaler_pb2 import DRAIN_NODE_REASON_PREEMPTION

soon = {"health_check_period_ms": 500, "health_check_timeout_ms": 1000, "health_check_failure_threshold": 3}
head = {"num_cpus": 0, "include_dashboard": False, "_system_config": soon}
cluster = Cluster(initialize_head=True, head_node_args=head)
node = cluster.add_node(num_cpus=1)
print(cluster.address, flush=True)
for line in sys.stdin:
    if "drain" in line:
        GcsClient(address=cluster.address).drain_node(node.node_id, DRAIN_NODE_REASON_PREEMPTION, "a test", 0)
    if "kill" in line:
        cluster.remove_node(node, allow_graceful=False)
    if "add" in line:
        node = cluster.add_node(num_cpus=1)
    print("done", flush=True)
cluster.shutdown()
"""

SLOW = """
import time
from raysweep import register_model
from raysweep.vision.models.resnets import baseline_block

@register_model("slow")
def slow(num_classes, width=None):
    net = baseline_block(num_classes, width)
    net.register_forward_pre_hook(lambda module, inputs: time.sleep(0.02 * module.training))
    return net
"""
"""A network whose trials take a while on a quick machine too."""

SET = (
    "data.image_size=32",
    "data.per_class=150",  # 1.4 MB: a smaller set travels with the trials, and is never lost
    "retries=0",
    "checkpoints.every_minutes=0.0001",
)


class Nodes:
    """A head without CPUs for trials, and a node with one."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.address = self._read()

    def tell(self, words: str) -> None:
        """Kill the node, add one, or both; or drain it."""
        assert self._process.stdin
        print(words, file=self._process.stdin, flush=True)
        assert self._read() == "done"

    def _read(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline().strip()


@pytest.fixture
def metadata() -> Iterator[Metadata]:
    with serve_metadata() as running:
        yield running


@pytest.fixture
def nodes(tmp_path: Path, metadata: Metadata) -> Iterator[Nodes]:
    command = Command("", tmp_path)
    aws = {"AWS_EC2_METADATA_SERVICE_ENDPOINT": metadata.url, "AWS_EC2_METADATA_DISABLED": "false"}
    process = subprocess.Popen(
        [sys.executable, "-c", CLUSTER],
        env={**command.environment, "RAY_AUTH_MODE": "disabled", **aws},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    yield Nodes(process)
    process.communicate(timeout=60)


@pytest.fixture
def command(nodes: Nodes, tmp_path: Path) -> Command:
    command = Command(nodes.address, tmp_path, apart=True)  # Ray has read this process's way of authentication
    command.environment["RAY_AUTH_MODE"] = "disabled"
    return command


def epochs(command: Command) -> int:
    return sum(len(record["metrics"]) for record in command.records("small").values())


def trained_further(command: Command, process: subprocess.Popen[str], seconds: float = 200) -> None:
    """Wait until the trials have trained, and committed, some more epochs."""
    before = epochs(command)
    wait_for(lambda: epochs(command) > before + 2 or process.poll() is not None, seconds)
    assert process.poll() is None, process.communicate()[1]


def test_a_trial_whose_node_dies_with_the_data_goes_on_on_another_though_it_may_not_be_retried(
    nodes: Nodes, command: Command
) -> None:
    process = command.start(command.sweep("[0.1]"), "epochs=60", *SET)
    trained_further(command, process)
    nodes.tell("kill add")
    _, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    assert re.search(r"its node went away.*; starts again from its last commit", err), err
    (record,) = command.records("small").values()
    assert record["status"] == "finished"
    assert record["error"]["type"] == "NodeDied"
    assert record["attempts"] == 1, "it does not count"
    assert [row["epoch"] for row in record["metrics"]] == list(range(1, 61))


@pytest.mark.long
@pytest.mark.parametrize("who", ["ray", "ec2"])
def test_a_trial_whose_node_is_to_go_away_commits_in_time_and_goes_on_elsewhere(
    metadata: Metadata, nodes: Nodes, command: Command, who: str
) -> None:
    process = command.start(command.sweep("[0.1]"), "epochs=2", "batch_size=4", "data.per_class=4000", "retries=0")
    assert process.stderr
    wait_for(lambda: process.poll() is not None or ": starts" in process.stderr.readline())  # type: ignore[union-attr]
    assert not command.records("small")
    if who == "ray":
        nodes.tell("drain")
    else:
        metadata.documents["spot/instance-action"] = '{"action": "terminate", "time": "2033-03-03T03:03:03Z"}'
    wait_for(lambda: command.records("small") or process.poll() is not None, 40)
    (record,) = command.records("small").values()
    assert record["status"] == "running"
    assert set(record["weights"]) == {"last"}, "it commits in the middle of its first epoch"
    nodes.tell("add kill")
    _, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    assert "this node is to go away: trials there commit now" in err
    assert re.search(r"its node went away.*; starts again from its last commit", err), err
    (record,) = command.records("small").values()
    assert (record["status"], record["attempts"]) == ("finished", 1)


@pytest.mark.long
@pytest.mark.timeout(2000)
def test_the_only_node_killed_ten_times_in_a_row_costs_nothing_but_time(nodes: Nodes, command: Command) -> None:
    (command.folder / "my_nets.py").write_text(SLOW)
    words = (command.sweep("[0.1, 0.01]", model="slow"), "--import", "my_nets", "epochs=100", *SET)
    process = command.start(*words)
    took = []
    for _ in range(10):
        trained_further(command, process)
        nodes.tell("kill add")
        began = time.monotonic()
        trained_further(command, process)
        took.append(time.monotonic() - began)
    _, err = process.communicate(timeout=900)
    assert process.returncode == 0, err
    print("recoveries took", " ".join(f"{seconds:.0f}" for seconds in took), "s")
    disturbed = curves(command.records("small"))
    command.start(*words, "--fresh").communicate(timeout=900)
    assert disturbed == curves(command.records("small"))


@pytest.mark.long
@pytest.mark.parametrize("after", ["kill", "kill add"])
@pytest.mark.parametrize("seconds", [0, 2, 5, 10])
def test_ctrl_c_is_answered_while_no_node_is_there_and_while_the_data_is_rebuilt(
    nodes: Nodes, command: Command, after: str, seconds: float
) -> None:
    process = command.start(command.sweep("[0.1]"), "epochs=2000", *SET)
    trained_further(command, process)
    nodes.tell(after)
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    assert process.stderr
    said = next((line for line in process.stderr if line.startswith("stopped;")), "")
    assert said, "it ended otherwise"
    assert time.monotonic() - began < 5
    process.communicate(timeout=60)
    assert process.returncode == 130
