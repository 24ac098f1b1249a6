"""Own machines: the commands of the docs, the cluster file and real images, on hosts that die in the middle."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from namespace_hosts import DASHBOARD, Hosts, following, wait_until
from pages import cluster_commands, page_commands, put_in
from running import check_equal, records_alone, records_in
from test_cluster_file import on_premise

TOKEN = {"RAY_AUTH_MODE": "token"}
STORAGE = "/tmp/shared/runs"
NAMES = {
    " cluster.yaml": " /tmp/shared/cluster.yaml",
    " hosts.yaml": " /tmp/shared/cluster.yaml",
    " sweep.yaml": " /tmp/shared/sweep.yaml",
    "sweeps/quickstart.yaml": "/tmp/shared/sweep.yaml",
    "s3://BUCKET/raysweep": STORAGE,
    "/mnt/shared/raysweep": STORAGE,
}
"""What stands in the commands, and what here."""
SWEEP = """
name: cluster
base:
  data: {{name: tiny_imagenet, path: {data}, image_size: 24, classes: 10, per_class: 200}}
  epochs: {epochs}
  batch_size: 64
grid: {{model: [baseline_block, resnet18], model.width: [8], lr: [0.1, 0.01]}}
scheduler: {{name: asha, eta: 2, rungs: [1/3], min_survivors: 2}}
checkpoints: {{every_minutes: 0.02}}
resources: {{cpus: 1}}
"""


class Cluster:
    """The example's cluster: h1 is the head, the others are workers, and `ops` drives it as docs/clusters.md says."""

    def __init__(self, hosts: Hosts, workers: int, commands: Mapping[str, str] | None = None) -> None:
        self.hosts, self.workers = hosts, workers
        self.commands = commands or cluster_commands()
        self.file = hosts.shared / "cluster.yaml"
        self.sweep = hosts.shared / "sweep.yaml"
        self.done: list[str] = []
        self.exported = ""
        for step in itertools.takewhile(lambda step: step != "ray up", self.commands):
            self.step(step)
        self.write()

    def words(self, step: str, more: str = "") -> list[str]:
        """A command with the names of here; `more`: options beside."""
        command = put_in(self.commands[step], NAMES)
        if step not in self.done:
            self.done.append(step)
        if command.startswith(("export ", "source ")):
            self.exported += f"{command}; "
        return ["bash", "-c", f"{self.exported}{command} {more}"]

    def step(self, step: str, more: str = "", code: int | None = 0, timeout: float = 240) -> str:
        """Run a command on the laptop; return what it printed."""
        return self.hosts.run(*self.words(step, more), code=code, timeout=timeout)

    def write(self, worker_start: str = "ray start") -> None:
        """Write the example, changed in addresses, user, key, what is installed, and the object store's size."""
        config = on_premise()
        addresses = [self.hosts.address(f"h{n}") for n in range(1, self.workers + 2)]
        config["provider"].update(head_ip=addresses[0], worker_ips=addresses[1:])
        config["auth"] = {"ssh_user": "root", "ssh_private_key": "~/.ssh/raysweep_netns"}
        config["setup_commands"] = [
            command for command in config["setup_commands"] if "raysweep-environment" in command
        ]
        for key, start in (("head_start_ray_commands", "ray start"), ("worker_start_ray_commands", worker_start)):
            config[key] = [
                command.replace("ray start", f"{start} --object-store-memory=200000000") for command in config[key]
            ]
        self.file.write_text(yaml.safe_dump(config, sort_keys=False))

    def up(self) -> None:
        self.step("ray up")

    def exec(self, command: str) -> str:
        return self.hosts.run("ray", "exec", "/tmp/shared/cluster.yaml", command, env=TOKEN)

    def tunnel(self) -> None:
        """Keep `ray dashboard` open, and wait until the dashboard answers."""
        self.hosts.start(*self.words("ray dashboard"))
        ask = f"import urllib.request as r; r.urlopen('{DASHBOARD}')"
        wait_until(lambda: "Error" not in self.hosts.run("python", "-c", ask, code=None), 60, "the dashboard answers")

    def raysweep(self, *words: str, code: int | None = 0, env: dict[str, str] | None = None) -> str:
        return self.hosts.run("python", "-m", "raysweep", *words, code=code, env=TOKEN if env is None else env)

    def doctor(self, code: int = 0) -> dict[str, Any]:
        out = self.step("raysweep doctor", "--json", code=code)
        return dict(json.loads(next(line for line in out.splitlines() if line.startswith('{"ok"'))))

    def records(self) -> dict[str, dict[str, Any]]:
        return records_in(self.hosts.shared / "runs" / "cluster")

    def hosts_that_train(self) -> list[str]:
        """Workers on which a trial has begun to train, as their processes tell."""
        busy, title = [f"h{n}" for n in range(2, self.workers + 2)], "^ray::raysweep cluster/[^ ]*-[0-9a-f]{12}"
        return [host for host in busy if self.hosts.run("pgrep", "-f", title, host=host, code=None).strip()]


def write_sweep(path: Path, shared: Path, epochs: int) -> None:
    path.write_text(SWEEP.format(data=shared / "data", epochs=epochs))


def undisturbed(folder: Path, shared: Path, epochs: int) -> dict[str, dict[str, Any]]:
    """The records of the same sweep on this machine alone."""
    write_sweep(folder / "sweep.yaml", shared, epochs)
    return records_alone(folder / "sweep.yaml")


class Proof:
    """A day with a cluster, up to the sweep: `ray up`, the tunnel, all workers there, `doctor`."""

    def __init__(
        self, hosts: Hosts, shared: Path, workers: int, epochs: int, commands: Mapping[str, str] | None = None
    ) -> None:
        self.hosts = hosts
        self.cluster = Cluster(hosts, workers, commands)
        write_sweep(self.cluster.sweep, shared, epochs)
        self.cluster.up()
        self.cluster.tunnel()
        joined = f"{workers + 1} local.cluster.node"
        wait_until(lambda: joined in self.cluster.exec("ray status"), 120, "all workers joined")
        document = self.cluster.doctor()
        assert document["ok"], document["findings"]
        assert sorted(node["is_head"] for node in document["nodes"]) == [False] * workers + [True]
        levels = {finding["check"]: finding["level"] for finding in document["findings"]}
        assert levels["storage"] == levels["token"] == levels["slots"] == levels["dashboard"] == "ok"

    def submit_and_leave(self) -> None:
        """Begin the sweep, and end the laptop's command once a trial has committed."""
        with following(self.hosts.start(*self.cluster.words("raysweep submit"))) as lines:
            committed = lambda: any(record["metrics"] for record in self.cluster.records().values())  # noqa: E731
            wait_until(committed, 180, f"a first commit; {lines}")

    def look_how_far_it_is(self) -> None:
        assert "of 4 trials done" in self.cluster.step("raysweep status")
        jobs = self.hosts.run("ray", "job", "list", "--address", DASHBOARD, env=TOKEN)
        assert re.search(r"'job_name': 'cluster'", jobs), jobs

    def follow_to_the_end(self) -> None:
        """Come back with the same command."""
        again = self.cluster.step("raysweep submit", timeout=400)
        assert "is already running, as job raysubmit_" in again
        assert "best checkpoint" in again

    def pull_and_take_down(self, alone: dict[str, dict[str, Any]]) -> None:
        check_equal(self.cluster.records(), alone)
        pulled = self.cluster.step("raysweep pull", "--to /tmp/shared/best")
        best = max(alone.values(), key=lambda record: max(each["val_acc"] for each in record["metrics"]))
        assert best["id"] in pulled
        assert (self.hosts.shared / "best" / "model.safetensors").stat().st_size > 0
        self.cluster.step("ray down")
        ended = lambda: not self.hosts.run("pgrep", "gcs_server", host="h1", code=None).strip()  # noqa: E731
        wait_until(ended, 60, "Ray ended on the head")
        assert self.cluster.done == list(self.cluster.commands), "all of the commands, in their order"


SUBMIT = ("python", "-m", "raysweep", "submit", "/tmp/shared/sweep.yaml", "--storage", STORAGE)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_sweep_outlives_the_laptop_and_a_killed_host_and_ends_as_if_undisturbed(
    make_hosts: Callable[..., Hosts], shared: Path, tmp_path: Path
) -> None:
    epochs = 30
    alone = undisturbed(tmp_path, shared, epochs)
    proof = Proof(make_hosts(3), shared, 2, epochs, page_commands("own_machines"))
    relative = proof.cluster.raysweep("submit", "/tmp/shared/sweep.yaml", code=2)
    assert "'./runs' is relative" in relative
    assert "--storage s3://" in relative
    proof.submit_and_leave()
    proof.hosts.control("kill", proof.cluster.hosts_that_train()[0])
    proof.look_how_far_it_is()
    proof.follow_to_the_end()
    proof.pull_and_take_down(alone)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_sweep_outlives_a_killed_and_an_unplugged_host(
    make_hosts: Callable[..., Hosts], shared: Path, tmp_path: Path
) -> None:
    epochs = 60
    alone = undisturbed(tmp_path, shared, epochs)
    proof = Proof(make_hosts(4), shared, 3, epochs)
    proof.submit_and_leave()
    proof.look_how_far_it_is()
    proof.hosts.control("kill", proof.cluster.hosts_that_train()[0])
    training = wait_until(proof.cluster.hosts_that_train, 120, "a trial on a host that is left")
    proof.hosts.control("unplug", training[0])
    proof.follow_to_the_end()
    proof.pull_and_take_down(alone)


def status_of(hosts: Hosts, token: str | None) -> int:
    """What the job server answers to a request with that token."""
    header = f"headers={{'Authorization': 'Bearer {token}'}}" if token else ""
    ask = f"""
import urllib.error, urllib.request
request = urllib.request.Request("{DASHBOARD}/api/jobs/", {header})
try:
    print(urllib.request.urlopen(request).status)
except urllib.error.HTTPError as error:
    print(error.code)
"""
    return int(hosts.run("python", "-c", ask))


@pytest.mark.long
@pytest.mark.timeout(600)
def test_tokens_are_asked_for_and_a_second_ray_up_changes_nothing(
    make_hosts: Callable[..., Hosts], shared: Path
) -> None:
    hosts = make_hosts(2)
    proof = Proof(hosts, shared, 1, 3)
    cluster = proof.cluster
    token = hosts.run("bash", "-c", "cat ~/.ray/auth_token").strip()
    wrong = "0" * len(token)
    assert [status_of(hosts, each) for each in (None, wrong, token)] == [401, 403, 200]
    for command in (SUBMIT[3:], ("doctor", "--address", DASHBOARD)):
        absent = cluster.raysweep(*command, code=2, env={"RAY_AUTH_MODE": "disabled"})
        refused = cluster.raysweep(*command, code=2, env={**TOKEN, "RAY_AUTH_TOKEN": wrong})
        assert "Missing authentication token" in absent
        assert "Invalid authentication token" in refused
        assert "~/.ray/auth_token here must be the cluster's own, mode 600, and RAY_AUTH_MODE=token exported" in absent
        assert "$RAY_AUTH_TOKEN here must be the cluster's own, and RAY_AUTH_MODE=token exported" in refused
        for said in (absent, refused):
            assert token not in said
            assert "Traceback" not in said
    arguments = [hosts.run("bash", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '", host=host) for host in ("h1", "h2")]
    assert all(token not in each for each in arguments)

    before = [hosts.run("pgrep", "-x", name, host=host) for host, name in (("h1", "gcs_server"), ("h2", "raylet"))]
    cluster.up()
    after = [hosts.run("pgrep", "-x", name, host=host) for host, name in (("h1", "gcs_server"), ("h2", "raylet"))]
    assert before == after
    assert cluster.doctor()["ok"]


@pytest.mark.long
@pytest.mark.timeout(600)
def test_doctor_notices_broken_start_commands(make_hosts: Callable[..., Hosts], shared: Path) -> None:
    hosts = make_hosts(2)
    cluster = Cluster(hosts, workers=1)
    write_sweep(cluster.sweep, shared, 3)
    cluster.write(worker_start="ray start --no-such-option")
    cluster.up()  # ends well all the same
    cluster.tunnel()
    faults = [finding for finding in cluster.doctor(code=1)["findings"] if finding["level"] == "error"]
    assert any(fault["check"] == "nodes" and hosts.address("h2") in fault["message"] for fault in faults)
    assert any(fault["check"] == "slots" and "more than any node has" in fault["message"] for fault in faults)
    cluster.step("ray down")
    said = cluster.raysweep("doctor", "--address", DASHBOARD, code=2)
    assert "no Ray job server answers there" in said
    assert "ray dashboard cluster.yaml" in said
