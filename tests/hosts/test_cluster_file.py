"""`cluster.yaml` and what belongs to it, read and not run: each of Ray's defaults that hurts is overridden."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from pages import PAGES, STEPS, cluster_commands, page_commands

CHECKOUT = Path(__file__).resolve().parents[2]
AWS = CHECKOUT / "cluster.yaml"


def on_premise() -> dict[str, Any]:
    """The cluster file of docs/own_machines.md."""
    return dict(yaml.safe_load((CHECKOUT / "docs" / "own_machines.yaml").read_text()))


def load(which: str) -> dict[str, Any]:
    return dict(yaml.safe_load(AWS.read_text())) if which == "aws" else on_premise()


def node_configs() -> dict[str, dict[str, Any]]:
    return {name: node_type["node_config"] for name, node_type in load("aws")["available_node_types"].items()}


BOTH = pytest.mark.parametrize("which", ["aws", "on-premise"])


@BOTH
def test_it_is_a_cluster_file_to_ray_and_names_every_command_itself(which: str) -> None:
    from ray.autoscaler._private.util import fillout_defaults, validate_config

    config = load(which)
    validate_config(fillout_defaults(config))
    if which == "aws":  # what Ray would add of its own: nothing that runs, nothing that listens
        assert set(fillout_defaults(config)) - set(config) <= {"docker", "cluster_synced_files", "rsync_filter"}
    for commands in ("setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray", "initialization"):
        assert isinstance(config[f"{commands}_commands"], list)


@BOTH
def test_what_is_installed_has_the_versions_of_the_constraints(which: str) -> None:
    config = load(which)
    constraints = dict(
        line.strip().split("==") for line in (CHECKOUT / "constraints.txt").read_text().splitlines() if "==" in line
    )
    installs = [command for command in config["setup_commands"] if "pip install" in command]
    assert len(installs) == 2
    for command in installs:
        assert "--constraint ~/raysweep/constraints.txt" in command
        for name, given in re.findall(r"([\w-]+)==([\w.]+)", command):
            assert constraints[name] == given
    assert any("torch torchvision" in command for command in installs)
    assert re.search(r'~/raysweep$|\$HOME/raysweep\[aws\]"$', installs[-1])
    assert {"ray", "torch", "torchvision"} <= set(constraints)
    assert config["file_mounts"]["~/raysweep/constraints.txt"] == "constraints.txt"
    assert "nightly" not in str(config)
    assert ".whl" not in str(config)


@BOTH
def test_what_is_copied_is_there_and_is_enough_to_install_raysweep(which: str) -> None:
    mounts = load(which)["file_mounts"]
    for there, here in mounts.items():
        assert here.startswith("~") or (CHECKOUT / here).exists(), there
    assert {"raysweep", "pyproject.toml", "README.md", "LICENSE"} <= set(mounts.values())


@BOTH
def test_the_dashboard_is_on_loopback_and_every_connection_needs_the_token(which: str) -> None:
    config = load(which)
    head, worker = " ".join(config["head_start_ray_commands"]), " ".join(config["worker_start_ray_commands"])
    assert "--dashboard-host=127.0.0.1" in head
    assert "0.0.0.0" not in head + worker
    for command in (head, worker):
        assert command.index("RAY_AUTH_MODE=token") < command.index("ray start")
        assert command.index("ulimit -n 65536") < command.index("ray start")
        assert "--port=6379" in command or "$RAY_HEAD_IP:6379" in command
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert any("RAY_AUTH_MODE=token" in command for command in config["setup_commands"])  # for shells and jobs


@BOTH
def test_a_head_that_runs_is_not_started_anew(which: str) -> None:
    (start,) = load(which)["head_start_ray_commands"]
    assert re.search(r"ray status > /dev/null 2>&1 \|\| \{ ray stop;.* ray start .*; \}$", start)


def test_the_head_runs_no_trials_and_is_on_demand() -> None:
    config = load("aws")
    head = config["available_node_types"][config["head_node_type"]]
    assert (head["resources"]["CPU"], head["resources"]["GPU"]) == (0, 0)
    assert head["resources"]["head"] > 0
    assert "InstanceMarketOptions" not in head["node_config"]
    assert "--num-cpus=0" in on_premise()["head_start_ray_commands"][0]


def test_workers_are_spot_machines_from_none_with_an_on_demand_type_to_fall_back_on() -> None:
    config = load("aws")
    spot, fallback = (config["available_node_types"][name] for name in ("gpu_spot", "gpu_on_demand"))
    assert spot["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert "InstanceMarketOptions" not in fallback["node_config"]
    assert spot.get("priority", 0) > fallback.get("priority", 0)
    assert spot["min_workers"] == fallback["min_workers"] == 0
    assert 0 < spot["max_workers"] <= config["max_workers"]
    assert len(config["provider"]["availability_zone"].split(",")) > 1
    assert config["provider"]["cache_stopped_nodes"] is False
    assert config["idle_timeout_minutes"] > 0


@pytest.mark.parametrize("name", ["head", "gpu_spot", "gpu_on_demand"])
def test_each_machine_has_its_own_image_group_role_and_imdsv2(name: str) -> None:
    node = node_configs()[name]
    assert node["ImageId"].startswith("ami-")
    assert node["SecurityGroupIds"]  # without one Ray makes a group that is open to the world
    assert node["IamInstanceProfile"]["Arn"].endswith("-head" if name == "head" else "-worker")
    assert node["MetadataOptions"] == {
        "HttpEndpoint": "enabled",
        "HttpTokens": "required",
        "HttpPutResponseHopLimit": 1,
    }
    assert all(disk["Ebs"]["Encrypted"] for disk in node["BlockDeviceMappings"])


# -- the pages


def test_the_commands_of_the_docs_are_those_that_the_proofs_run() -> None:
    assert tuple(cluster_commands()) == STEPS


@pytest.mark.parametrize("page", PAGES)
def test_a_page_leads_from_nothing_to_the_best_checkpoint_in_ten_commands(page: str) -> None:
    commands = page_commands(page)
    assert tuple(commands) == PAGES[page]
    assert list(commands).index("raysweep pull") < 10
    file = {"own_machines": "hosts.yaml", "aws": "cluster.yaml"}[page]
    for step in ("ray up", "ray dashboard", "ray down"):
        assert file in commands[step]


# -- docs/aws_account.yaml


class Tagged(yaml.SafeLoader):
    """Reads CloudFormation's `!Ref x` as the mapping that it stands for."""


Tagged.add_constructor("!Ref", lambda loader, node: {"Ref": loader.construct_scalar(node)})
Tagged.add_constructor("!Sub", lambda loader, node: loader.construct_scalar(node))
Tagged.add_constructor("!GetAtt", lambda loader, node: {"GetAtt": loader.construct_scalar(node)})


@pytest.fixture(scope="module")
def account() -> dict[str, Any]:
    text = (CHECKOUT / "docs" / "aws_account.yaml").read_text()
    assert not re.search(r": [&*]\w", text), "CloudFormation knows no YAML aliases"
    return dict(yaml.load(text, Tagged))


def statements(policy: dict[str, Any]) -> list[dict[str, Any]]:
    found = policy["Statement"]
    assert all(each["Effect"] == "Allow" for each in found)
    return list(found)


def test_the_security_group_opens_ssh_from_one_address_and_all_among_its_nodes(account: dict[str, Any]) -> None:
    resources = account["Resources"]
    groups = {name: each for name, each in resources.items() if "SecurityGroup" in each["Type"]}
    assert set(groups) == {"SecurityGroup", "AmongNodes"}
    (ssh,) = resources["SecurityGroup"]["Properties"]["SecurityGroupIngress"]
    assert ssh == {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "CidrIp": {"Ref": "SshFrom"}}
    inside = resources["AmongNodes"]["Properties"]
    assert inside["SourceSecurityGroupId"] == inside["GroupId"]
    allowed = account["Parameters"]["SshFrom"]["AllowedPattern"]
    assert re.match(allowed, "203.0.113.7/32")
    assert not re.match(allowed, "0.0.0.0/0")


def test_roles_reach_one_prefix_of_one_bucket(account: dict[str, Any]) -> None:
    objects, listing = statements(account["Resources"]["Storage"]["Properties"]["PolicyDocument"])
    assert objects["Resource"] == "arn:aws:s3:::${Bucket}/${Prefix}/*"
    assert set(objects["Action"]) == {"s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"}
    assert listing["Action"] == ["s3:ListBucket"]
    assert listing["Condition"] == {"StringLike": {"s3:prefix": [{"Ref": "Prefix"}, "${Prefix}/*"]}}
    worker = account["Resources"]["WorkerRole"]["Properties"]
    assert worker["ManagedPolicyArns"] == [{"Ref": "Storage"}]
    assert "Policies" not in worker


def test_the_head_may_launch_machines_and_end_only_its_own(account: dict[str, Any]) -> None:
    head = account["Resources"]["HeadRole"]["Properties"]
    assert head["ManagedPolicyArns"] == [{"Ref": "Storage"}]
    (policy,) = head["Policies"]
    for each in statements(policy["PolicyDocument"]):
        actions = [each["Action"]] if isinstance(each["Action"], str) else each["Action"]
        assert not any("*" in action for action in actions)
        if not all(action.startswith("ec2:Describe") for action in actions):
            assert each["Resource"] != "*"
        if "ec2:TerminateInstances" in actions:
            assert each["Condition"] == {"StringEquals": {"aws:ResourceTag/ray-cluster-name": {"Ref": "ClusterName"}}}
        if "iam:PassRole" in actions:
            assert each["Resource"] == {"GetAtt": "WorkerRole.Arn"}


# -- scripts/instance_store.sh, with stand-ins for every command it knows

STANDINS = {
    "cat": 'echo "$VENDOR"',
    "mountpoint": "exit 1",
    "lsblk": 'printf "%s\\n" "/dev/nvme0n1 Amazon Elastic Block Store" "/dev/nvme1n1 Amazon EC2 NVMe Instance Storage"',
    "wipefs": 'printf "%s" "$SIGNATURE"',
    "sudo": '"$@"',
    "id": "echo 1000",
    **{name: f'echo "{name} $*" >> "$LOG"' for name in ("mkfs.ext4", "mkdir", "mount", "chown")},
}


@pytest.mark.parametrize(
    ("vendor", "signature", "formatted"),
    [("Amazon EC2", "", True), ("Amazon EC2", "0x438 ext4", False), ("QEMU", "", False), ("", "", False)],
)
def test_only_an_empty_instance_store_disk_of_ec2_is_formatted(
    tmp_path: Path, vendor: str, signature: str, formatted: bool
) -> None:
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, body in STANDINS.items():
        (commands / name).write_text(f"#!/bin/bash\n{body}\n")
        (commands / name).chmod(0o755)
    log = tmp_path / "log"
    environment = {"PATH": str(commands), "LOG": str(log), "VENDOR": vendor, "SIGNATURE": signature}
    script = CHECKOUT / "scripts" / "instance_store.sh"
    subprocess.run(["/bin/bash", str(script)], env=environment, check=True, stderr=subprocess.DEVNULL)
    done = log.read_text().splitlines() if log.exists() else []
    assert any(line.startswith("mkfs.ext4") for line in done) == formatted
    if formatted:
        assert done[0] == "mkfs.ext4 -q -L raysweep /dev/nvme1n1"
        assert "mount /dev/nvme1n1 /mnt/scratch" in done
    assert os.access(script, os.X_OK)
