"""Cluster files of clouds, not run: docs/cluster_gcp.yaml, docs/cluster_azure.yaml, and cluster.yaml with an image."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml

CHECKOUT = Path(__file__).resolve().parents[2]
FILES = {"gcp": CHECKOUT / "docs" / "cluster_gcp.yaml", "azure": CHECKOUT / "docs" / "cluster_azure.yaml"}


def load(which: str) -> dict[str, Any]:
    """A cluster file; `aws` is cluster.yaml with what docs/containers.md changes in it."""
    if which in FILES:
        return dict(yaml.safe_load(FILES[which].read_text()))
    found = re.search(r"```yaml other\n(docker:.*?)```", (CHECKOUT / "docs" / "containers.md").read_text(), re.DOTALL)
    assert found
    return {**yaml.safe_load((CHECKOUT / "cluster.yaml").read_text()), **yaml.safe_load(found[1])}


ALL = pytest.mark.parametrize("which", [*FILES, "aws"])


@ALL
def test_it_is_a_cluster_file_to_ray_and_names_every_command_itself(which: str) -> None:
    from ray.autoscaler._private.util import fillout_defaults, validate_config

    config = load(which)
    full = fillout_defaults(config)
    validate_config(full)
    assert set(full) - set(config) <= {"cluster_synced_files", "rsync_filter", "rsync_exclude"}
    for commands in ("setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray", "initialization"):
        assert full[f"{commands}_commands"] == config[f"{commands}_commands"]


@ALL
def test_all_runs_in_the_image_with_the_token_and_workers_see_their_gpus(which: str) -> None:
    config = load(which)
    assert config["docker"]["image"] == "REGISTRY/raysweep"
    assert config["setup_commands"] == []
    assert "--env=RAY_AUTH_MODE=token" in config["docker"]["run_options"]
    assert config["docker"]["worker_run_options"] == ["--gpus=all"]  # the image itself asks for none
    assert config["file_mounts"] == {"~/.ray/auth_token": "~/.ray/auth_token"}
    assert config["auth"]["ssh_user"] == "ubuntu"


@ALL
def test_the_dashboard_is_on_loopback_and_a_head_that_runs_is_left_alone(which: str) -> None:
    (start,) = load(which)["head_start_ray_commands"]
    assert re.search(r"ray status > /dev/null 2>&1 \|\| \{ ray stop;.* ray start .*; \}$", start)
    assert "--dashboard-host=127.0.0.1" in start


@pytest.mark.parametrize("which", FILES)
def test_the_head_runs_no_trials_and_workers_are_spot_machines_from_none(which: str) -> None:
    types = load(which)["available_node_types"]
    assert types["head"]["resources"] == {"CPU": 0, "GPU": 0, "head": 1000}
    told = {name: json.dumps(types[name]["node_config"]).lower().count("spot") for name in types}
    assert (told["head"], told["gpu_on_demand"]) == (0, 0)
    assert told["gpu_spot"] > 0
    assert types["gpu_spot"]["priority"] > types["gpu_on_demand"].get("priority", 0)
    assert types["gpu_spot"]["min_workers"] == types["gpu_on_demand"]["min_workers"] == 0
    assert types["gpu_spot"]["resources"]["GPU"] == 1
    assert load(which)["provider"]["cache_stopped_nodes"] is False


def test_azures_machines_have_no_parameter_that_rays_template_does_not_take() -> None:
    template = Path(ray.__file__).parent / "autoscaler" / "_private" / "_azure" / "azure-vm-template.json"
    known = json.loads(template.read_text())["parameters"]
    for node_type in load("azure")["available_node_types"].values():
        assert set(node_type["node_config"]["azure_arm_parameters"]) <= set(known)


def test_googles_workers_have_an_account_that_may_write_and_do_not_migrate() -> None:
    types = load("gcp")["available_node_types"]
    assert "serviceAccounts" not in types["head"]["node_config"]  # Ray gives the head one that starts machines
    for name in ("gpu_spot", "gpu_on_demand"):
        assert types[name]["node_config"]["serviceAccounts"][0]["scopes"]
        assert types[name]["node_config"]["scheduling"]["onHostMaintenance"] == "TERMINATE"


@pytest.mark.parametrize("which", FILES)
def test_it_says_that_it_was_never_run_and_which_extra_the_image_needs(which: str) -> None:
    head = FILES[which].read_text().split("\n\n")[0]
    assert "Never run on" in head
    assert f"EXTRAS={which}" in head
    extras = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert which in extras
