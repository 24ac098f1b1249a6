"""AWS, its EC2 mocked: docs/aws.md from `ray up` on, with zero spot machines, one of them reclaimed, back to none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from namespace_hosts import DASHBOARD, Hosts, following, wait_until
from pages import page_commands, put_in
from test_on_premise import NAMES, check_equal, undisturbed, write_sweep

HOSTS = 8
"""Each launch takes the next: a head, two workers, one instead of the reclaimed one, and some to spare."""
ENVIRONMENT = """
export AWS_ENDPOINT_URL=http://10.77.0.2:5000 AWS_ACCESS_KEY_ID=testing AWS_SECRET_ACCESS_KEY=testing
export AWS_DEFAULT_REGION=us-west-2 AWS_EC2_METADATA_DISABLED=true
"""
V2 = {"RAY_UP_enable_autoscaler_v2": "1"}  # Ray's default
FILE = "/tmp/shared/cluster.yaml"


def words(step: str, more: str = "") -> tuple[str, ...]:
    """A command of docs/aws.md, with the names of here; `more`: options beside."""
    commands = {name: put_in(command, NAMES) for name, command in page_commands("aws").items()}
    return ("bash", "-c", f"{commands['export RAY_AUTH_MODE=token']}; {commands[step]} {more}")


class Ec2:
    """The mock, in `ops`."""

    def __init__(self, hosts: Hosts, script: Path) -> None:
        self.hosts, self.script = hosts, script
        hosts.start("python", script, "serve")
        ask = "import urllib.request as r; r.urlopen('http://10.77.0.2:5000/moto-api/')"
        wait_until(lambda: "Error" not in hosts.run("python", "-c", ask, code=None), 60, "the mock answers")

    def machines(self) -> list[dict[str, Any]]:
        """The machines that run or are about to."""
        lines = self.hosts.run("python", self.script, "instances").splitlines()
        found = [json.loads(line) for line in lines if line.startswith("{")]
        return [machine for machine in found if machine["state"] in ("pending", "running")]

    def workers(self) -> list[dict[str, Any]]:
        return [machine for machine in self.machines() if machine["node_type"] != "head"]

    def reclaim(self, machine: dict[str, Any]) -> None:
        """Take a spot machine away, as EC2 does: the host dies, and the API says terminated."""
        self.hosts.control("kill", f"h{int(machine['address'].rpartition('.')[2]) - 3}")
        self.hosts.run("python", self.script, "reclaim", machine["address"])

    def adapt(self) -> dict[str, Any]:
        """cluster.yaml, changed in image, subnet, key, roles, what is installed, and how long idle machines stay."""
        self.hosts.run("python", self.script, "adapt", "cluster.yaml", FILE)
        path = self.hosts.shared / "cluster.yaml"
        config: dict[str, Any] = yaml.safe_load(path.read_text())
        config["setup_commands"] = [
            command for command in config["setup_commands"] if "raysweep-environment" in command
        ]
        config["idle_timeout_minutes"] = 0.5
        for key in ("head_start_ray_commands", "worker_start_ray_commands"):
            config[key] = [
                command.replace("ray start", "ray start --object-store-memory=200000000") for command in config[key]
            ]
        path.write_text(yaml.safe_dump(config, sort_keys=False))
        return config


@pytest.mark.long
@pytest.mark.timeout(600)
def test_spot_machines_come_from_zero_are_replaced_and_leave(
    make_hosts: Callable[..., Hosts], shared: Path, tmp_path: Path
) -> None:
    pytest.importorskip("moto")
    epochs = 40
    alone = undisturbed(tmp_path, shared, epochs)
    hosts = make_hosts(HOSTS, first=4, environment=ENVIRONMENT)
    ec2 = Ec2(hosts, shared / "netns" / "example" / "mock_aws.py")
    hosts.run(*words("ray get-auth-token"))
    ec2.adapt()
    write_sweep(hosts.shared / "sweep.yaml", shared, epochs)
    sweep = hosts.shared / "sweep.yaml"
    sweep.write_text(sweep.read_text().replace("resources: {cpus: 1}", "resources: {gpus: 1, cpus: 1}"))
    with sweep.open("a") as file:
        file.write("limits: {max_concurrent: 2}\n")

    hosts.run(*words("ray up"), env=V2)
    assert [machine["lifecycle"] for machine in ec2.machines()] == ["on-demand"]
    hosts.start(*words("ray dashboard"))
    ask = f"import urllib.request as r; r.urlopen('{DASHBOARD}')"
    wait_until(lambda: "Error" not in hosts.run("python", "-c", ask, code=None), 60, "the dashboard answers")
    examined = hosts.run(*words("raysweep doctor"))
    assert "waiting: no node holds a trial yet" in examined
    assert "gpu_spot" in examined

    with following(hosts.start(*words("raysweep submit"))) as lines:
        wait_until(lambda: any("waiting: no node holds a trial yet" in line for line in lines), 60, f"{lines}")
        running = lambda: list((hosts.shared / "runs/cluster/trials").glob("*/last.*"))  # noqa: E731
        wait_until(running, 240, f"a first commit; {lines}")
        spot = ec2.workers()
        assert {(machine["node_type"], machine["lifecycle"], machine["type"]) for machine in spot} == {
            ("gpu_spot", "spot", "g5.xlarge")
        }
        ec2.reclaim(spot[0])
        known = {machine["id"] for machine in spot}
        wait_until(lambda: {machine["id"] for machine in ec2.workers()} - known, 120, "a machine in its place")
        wait_until(lambda: any("best checkpoint" in line for line in lines), 300, f"the sweep ends; {lines[-5:]}")
    print("".join(lines))
    paths = (hosts.shared / "runs" / "cluster" / "trials").glob("*/record.json")
    check_equal({path.parent.name: json.loads(path.read_text())["record"] for path in paths}, alone)
    hosts.run(*words("raysweep pull", "--to /tmp/shared/best"))
    assert (hosts.shared / "best" / "model.safetensors").stat().st_size > 0
    wait_until(lambda: not ec2.workers(), 180, "idle machines leave")
    hosts.run(*words("ray down"), env=V2)
    assert ec2.machines() == []
