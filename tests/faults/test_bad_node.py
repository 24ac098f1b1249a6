"""On one node of the cluster processes die as soon as a trial begins in them, as on a broken GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from running import Command

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(300)]

CLUSTER = """
import sys
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
cluster.add_node(num_cpus=1, node_name="good")
cluster.add_node(num_cpus=1, node_name="bad", env_vars={"THIS_NODE_IS_BAD": "1"})
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""
BROKEN = """
import os
if "THIS_NODE_IS_BAD" in os.environ:
    os._exit(1)
"""


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Command]:
    """The command on a cluster of a good node and a bad one, each with a slot."""
    process = subprocess.Popen(
        [sys.executable, "-c", CLUSTER],
        env={**os.environ, "RAY_AUTH_MODE": "disabled", "PYTHONPATH": f"{os.environ.get('PYTHONPATH', '')}:{tmp_path}"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout
    command = Command(process.stdout.readline().strip(), tmp_path, apart=True)
    command.environment |= {"RAY_AUTH_MODE": "disabled"}
    yield command
    process.communicate(timeout=60)


def test_a_node_on_which_processes_die_costs_no_trial_changes_no_ranking_and_is_named(
    command: Command, cluster: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    undisturbed = Command(cluster, tmp_path_factory.mktemp("undisturbed"))
    lrs = "[0.1, 0.09, 0.08, 0.07, 0.06, 0.05, 0.04, 0.03]"
    # So many epochs that the good node is busy until two processes have started, and died, on the bad one.
    undisturbed(undisturbed.sweep(lrs), "scheduler=asha", "epochs=250")
    (command.folder / "broken.py").write_text(BROKEN)
    _, err = command(command.sweep(lrs), "--import", "broken", "scheduler=asha", "epochs=250", "retries=0")
    records = command.records("small")
    assert statuses(records) == statuses(undisturbed.records("small")), err
    assert set(statuses(records).values()) == {"finished", "stopped"}
    assert "bad: 2 processes in a row died on this node; new ones start on other nodes" in err
    hit = [record["error"] for record in records.values() if record["error"]]
    assert {error["node"] for error in hit} == {"bad"}
    assert "died (on bad)" in hit[0]["message"]


def statuses(records: dict[str, Any]) -> dict[str, str]:
    return {id: record["status"] for id, record in records.items()}
