"""`raysweep doctor`: each fault is found and comes with its remedy; a cluster that is well passes."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from run_folders import make_run
from running import Command

from raysweep.cli import main
from raysweep.cluster import slots
from raysweep.cluster.autoscaler import NO_AUTOSCALER, Autoscaler, find_config, parse_autoscaler
from raysweep.cluster.doctor.checks import Finding, check_nodes
from raysweep.cluster.doctor.facts import NodeFacts
from raysweep.cluster.slots import Slot, check_slot, resolve_slot
from raysweep.errors import ClusterError
from raysweep.sweepfile.schema import Resources

VERSIONS = {"python": "3.11.7", "ray": "2.60.0", "torch": "2.14.1", "cuda": "13.0", "raysweep": "0.1.0"}
NODE = NodeFacts(
    host="h1",
    address="10.0.0.1",
    is_head=False,
    cpus=4,
    gpus=2,
    gpus_seen=2,
    versions=VERSIONS,
    has_token_mode=True,
    token_file_mode=0o600,
    shm_bytes=2**33,
    object_store_bytes=2**32,
    disk_free_bytes=2**36,
    disk_free_share=0.5,
    open_files=65536,
)
OTHER = replace(NODE, host="h2", address="10.0.0.2")


def faults(*nodes: NodeFacts) -> list[Finding]:
    return [finding for finding in check_nodes(nodes) if finding.level != "ok"]


def test_nodes_that_are_alike_and_well_give_no_fault() -> None:
    assert faults(NODE, OTHER) == []
    assert {finding.check for finding in check_nodes([NODE, OTHER])} >= {"versions", "gpus", "token", "clocks", "disk"}


@pytest.mark.parametrize("name", VERSIONS)
def test_a_version_that_differs_names_the_hosts(name: str) -> None:
    (fault,) = faults(NODE, replace(OTHER, versions={**VERSIONS, name: "9.9"}))
    assert fault.level == "error"
    assert fault.message == f"{name}: {VERSIONS[name]} on h1; 9.9 on h2"
    assert "constraints.txt" in fault.remedy


def test_what_is_not_installed_anywhere_is_a_fault() -> None:
    (fault,) = faults(*(replace(node, versions={**VERSIONS, "torch": ""}) for node in (NODE, OTHER)))
    assert "torch: absent on h1, h2" in fault.message


@pytest.mark.parametrize(
    ("change", "check", "level", "words"),
    [
        ({"gpus_seen": 0}, "gpus", "error", "Ray schedules 2 GPUs, but torch sees 0"),
        ({"has_token_mode": False}, "token", "error", "no authentication on h2"),
        ({"token_file_mode": 0o644}, "token", "error", "mode 644"),
        ({"clock_ahead_s": -40.0, "clock_error_s": 0.1}, "clocks", "warning", "40.0 s behind"),
        ({"shm_bytes": 2**26}, "shared memory", "warning", "/dev/shm has 67.1 MB"),
        ({"disk_free_share": 0.03}, "disk", "error", "spills no objects there"),
        ({"disk_free_bytes": 2**30}, "disk", "warning", "1.07 GB"),
        ({"open_files": 1024}, "open files", "warning", "1024 files"),
    ],
)
def test_each_fault_of_a_node_is_found_alone_with_a_remedy(
    change: dict[str, float], check: str, level: str, words: str
) -> None:
    (fault,) = faults(NODE, replace(OTHER, **change))  # type: ignore[arg-type]
    assert (fault.check, fault.level) == (check, level)
    assert words in fault.message
    assert "h2" in fault.message
    assert fault.remedy


def test_a_clock_that_was_measured_too_roughly_is_no_fault() -> None:
    assert faults(NODE, replace(OTHER, clock_ahead_s=5.0, clock_error_s=4.0)) == []


@pytest.mark.parametrize(
    ("versions", "asked", "message"),
    [
        (("1.0", "0.9"), "timm>=1", "timm>=1: 0.9 on h2"),
        ((None, None), "timm", "timm: absent on h1, h2"),
        (("2.0rc1", "2.0rc1"), "timm>=1", ""),
        (("", ""), "timm==1.0", ""),
    ],
)
def test_what_is_expected_must_be_on_every_node_in_a_version_that_will_do(
    versions: tuple[str | None, str | None], asked: str, message: str
) -> None:
    nodes = [
        replace(node, packages={} if version is None else {"timm": version})
        for node, version in zip((NODE, OTHER), versions, strict=True)
    ]
    found = [each.message for each in check_nodes(nodes, expected=[Requirement(asked)]) if each.level == "error"]
    assert found == ([message] if message else [])


def test_a_package_that_cannot_be_imported_or_is_another_one_elsewhere_names_the_hosts() -> None:
    fault = "ImportError: libGL.so.1: cannot open shared object file"
    nodes = (replace(NODE, packages={"einops": "0.7", "pip": "23"}), replace(OTHER, import_faults={"cv2": fault}))
    imported, differing = faults(*nodes)
    assert (imported.level, imported.message) == ("error", f"cv2 cannot be imported: {fault} on h2")
    assert (differing.level, differing.message) == (
        "warning",
        "not the same on all nodes: einops (0.7 on h1; absent on h2)",
    )


def test_gpus_that_the_autoscaler_may_add_are_not_taken_for_none() -> None:
    alone = replace(NODE, gpus=0, gpus_seen=None)
    (now,) = (each.message for each in check_nodes([alone]) if each.check == "gpus")
    assert now == "none; trials run on CPUs"
    (later,) = (each.message for each in check_nodes([alone], parse_autoscaler(AWS)) if each.check == "gpus")
    assert later == "none; the autoscaler may add nodes with GPUs (spot)"


def test_one_machine_alone_is_only_warned_of_its_token() -> None:
    assert [fault.level for fault in faults(replace(NODE, token_file_mode=0o644))] == ["warning"]


# -- slots


GPU_NODE = {"CPU": 8.0, "GPU": 2.0}
HEAD = {"CPU": 0.0, "head": 1000.0}
AWS = {
    "head_node_type": "head",
    "max_workers": 4,
    "provider": {"type": "aws"},
    "available_node_types": {
        "head": {"resources": {"CPU": 0, "GPU": 0, "head": 1000}},
        "spot": {"resources": {"CPU": 4, "GPU": 1, "memory": 1e10}, "min_workers": 0, "max_workers": 8},
    },
}
ON_PREMISE = {
    "head_node_type": "local.cluster.node",
    "max_workers": 2,
    "provider": {"type": "local", "head_ip": "10.0.0.1", "worker_ips": ["10.0.0.2", "10.0.0.3"]},
    "available_node_types": {"local.cluster.node": {"resources": {}, "min_workers": 2, "max_workers": 2}},
}


def test_a_slot_that_a_node_holds_need_not_wait() -> None:
    assert check_slot(Slot(1, 1.0, 4.0), [HEAD, GPU_NODE]) is None


def test_a_slot_that_only_the_autoscaler_can_give_waits_with_a_message() -> None:
    waiting = check_slot(Slot(1, 1.0, 4.0), [HEAD], parse_autoscaler(AWS))
    assert waiting is not None
    assert "the autoscaler should add spot" in waiting


@pytest.mark.parametrize("autoscaler", [NO_AUTOSCALER, parse_autoscaler(AWS), parse_autoscaler(ON_PREMISE)])
def test_a_slot_that_nothing_can_give_is_an_error_now(autoscaler: Autoscaler) -> None:
    with pytest.raises(ClusterError, match="more than any node has"):
        check_slot(Slot(1, 3.0, 1.0), [HEAD, GPU_NODE], autoscaler)


def test_more_workers_than_all_nodes_to_come_is_an_error_that_says_what_may_come() -> None:
    with pytest.raises(ClusterError, match=r"may add 4 spot \(4 CPUs and 1 GPU\)"):
        check_slot(Slot(5, 1.0, 1.0), [HEAD], parse_autoscaler(AWS))
    assert check_slot(Slot(4, 1.0, 1.0), [HEAD], parse_autoscaler(AWS)) is not None


def test_auto_counts_the_nodes_that_may_come() -> None:
    assert resolve_slot(Resources(), [HEAD], parse_autoscaler(AWS)) == Slot(1, 1.0, 4.0)
    assert resolve_slot(Resources(), [HEAD]) == Slot(1, 0.0, 1.0)


def test_fractions_of_a_gpu_pack() -> None:
    assert Slot(1, 0.25, 1.0).fits({"CPU": 8.0, "GPU": 2.0}) == 8
    assert resolve_slot(Resources(gpus=0.25), [GPU_NODE]) == Slot(1, 0.25, 1.0)


A100, T4 = ({**GPU_NODE, f"accelerator_type:{kind}": 1.0} for kind in ("A100", "T4"))


def test_a_slot_of_a_kind_of_gpu_fits_nodes_of_that_kind_alone() -> None:
    slot = resolve_slot(Resources(accelerator="A100"), [HEAD, A100, {**T4, "CPU": 2.0}])
    assert slot == Slot(1, 1.0, 4.0, "A100")
    assert slot.bundle == {"CPU": 4.0, "GPU": 1.0, "accelerator_type:A100": 0.001}
    assert [slot.fits(node) for node in (HEAD, GPU_NODE, A100, T4)] == [0, 0, 2, 0]
    assert check_slot(slot, [HEAD, A100, T4]) is None


def test_a_kind_of_gpu_that_no_node_has_is_told_with_those_that_there_are() -> None:
    slot = resolve_slot(Resources(accelerator="A10"), [A100, T4])
    with pytest.raises(ClusterError) as error:
        check_slot(slot, [HEAD, A100, T4])
    assert str(error.value) == (
        "resources.accelerator: no node has a GPU of kind 'A10' (did you mean 'A100'?); kinds in the cluster: A100, T4"
    )
    with pytest.raises(
        ClusterError, match=r"9 CPUs and 1 GPU \(T4\), more than any node has; .* 8 CPUs and 2 GPUs \(T4\)"
    ):
        check_slot(resolve_slot(Resources(accelerator="T4", cpus=9), [T4]), [T4])


def test_a_run_whose_last_node_is_gone_says_now_and_then_that_it_waits_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes, said = [{"NodeID": "1", "Resources": GPU_NODE}], list[str]()
    monkeypatch.setattr(slots, "alive_nodes", lambda: nodes)
    shortage = slots.Shortage(Slot(1, 1.0, 4.0), said.append)
    shortage.look()
    assert said == []
    nodes.clear()
    shortage.look()
    (line,) = said
    assert line.startswith("still waiting for a node with 4 CPUs and 1 GPU, for 0 s so far")


def test_hosts_that_have_not_joined_are_named() -> None:
    autoscaler = parse_autoscaler(ON_PREMISE)
    assert autoscaler.missing(["10.0.0.1", "10.0.0.2"]) == "10.0.0.3 of 2 hosts"
    assert autoscaler.missing(["10.0.0.1", "10.0.0.2", "10.0.0.3"]) == ""
    assert parse_autoscaler(AWS).missing(["10.0.0.1"]) == NO_AUTOSCALER.missing(["10.0.0.1"]) == ""


def test_the_autoscalers_file_is_that_of_the_clusters_own_monitor(tmp_path: Path) -> None:
    (tmp_path / "ours.yaml").write_text("max_workers: 3\n")
    (tmp_path / "theirs.yaml").write_text("max_workers: 9\n")
    with contextlib.ExitStack() as stack:
        for port, name in ((16379, "ours"), (16380, "theirs")):
            words = [f"--gcs-address=10.0.0.1:{port}", f"--autoscaling-config={tmp_path}/{name}.yaml"]
            process = subprocess.Popen([sys.executable, "-c", "input()", *words], stdin=subprocess.PIPE)
            stack.callback(process.communicate, b"\n")
        assert find_config("10.0.0.1:16379") == {"max_workers": 3}
        assert find_config("10.0.0.1:16390") is None


@pytest.mark.slow
@pytest.mark.ray
def test_doctor_passes_a_cluster_that_is_well_and_fails_a_sweep_that_does_not_fit(command: Command) -> None:
    out, _ = command("doctor", command.sweep(), "--json")
    document = json.loads(out)
    assert document["ok"]
    assert [node["cpus"] for node in document["nodes"]] == [2.0]
    checks = {finding["check"]: finding["level"] for finding in document["findings"]}
    assert checks["slots"] == checks["storage"] == checks["versions"] == "ok"
    out, _ = command("doctor", "--expect", "pillow", "--expect", "nowhere-to-be-found>=1", code=1)
    assert "error   packages: nowhere-to-be-found>=1: absent on" in out
    out, _ = command("doctor", command.sweep(), "resources.cpus=5", code=1)
    assert "error   slots: resources: a worker asks for 5 CPUs" in out
    assert "-> ask for less" in out


def test_doctor_checks_the_storage_and_slots_of_a_run_folder_through_the_dashboard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path, epochs=2)
    sent: list[str] = []

    class Server:
        def __init__(self, address: str) -> None: ...

        def submit(self, words: list[str], folder: Path, metadata: dict[str, str], environment: object) -> str:
            sent.extend(words)
            assert list(folder.iterdir()) == []
            return "1"

        def follow(self, job: str, write: Callable[[str], None]) -> None:
            write('a warning\n{"ok": true, "nodes": [], "findings": []}\n')

    monkeypatch.setattr("raysweep.cluster.jobs.JobServer", Server)
    run = str(tmp_path / "runs" / "made")
    assert main(["doctor", run, "--address", "http://127.0.0.1:1"]) == 0
    assert capsys.readouterr().out == "the cluster can run sweeps\n"
    assert sent == ["python", "-m", "raysweep", "doctor", "--json", run]
