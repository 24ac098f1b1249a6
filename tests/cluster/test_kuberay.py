"""What `submit --kuberay` writes is held against what reads it: KubeRay's schema, Ray's autoscaler, raysweep in a pod.

There is no Kubernetes here. The schemas of two versions of KubeRay lie in kuberay/ (scripts/kuberay_schema.py).
"""

from __future__ import annotations

import base64
import gzip
import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from drawn import values_of
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from packaging.version import Version
from pydantic import ValidationError
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from running import start_job_cluster

from raysweep.cli import main
from raysweep.cluster.kuberay import FOLDER, make_objects, object_name, to_yaml
from raysweep.errors import ClusterError, UserError
from raysweep.sweepfile import Sweep
from raysweep.sweepfile.cluster import Cluster
from raysweep.sweepfile.schema import Resources

ROOT = Path(__file__).parents[2]
SCHEMAS = sorted((Path(__file__).parent / "kuberay").glob("rayjob-*.json.gz"))
SWEEP = """
name: lr_and_wd
base: {data: digits, epochs: 2}
grid: {lr: [0.1, 0.01]}
"""
CLUSTER = {"image": "registry.example/raysweep:1", "gpus_per_node": 1, "nodes": 8}
EVERYTHING: dict[str, Any] = {
    "namespace": "team",
    "secret": "storage",
    "service_account": "sweeps",
    "volumes": {"runs": "/mnt/runs", "imagenet": "/data"},
    "env": {"RAYSWEEP_DATA": "/data", "SWITCH": "on", "LEVEL": "1e3"},
    "node_selector": {"cloud.google.com/gke-spot": "true"},
    "backoff_limit": 0,
}
CLUSTERS = [
    CLUSTER,
    {**CLUSTER, "gpus_per_node": 0, "nodes": 1},
    {**CLUSTER, "gpus_per_node": 8, "cpus_per_node": 90, "memory_per_node": "640G", "kuberay": EVERYTHING},
    {**CLUSTER, "kuberay": {"queue": "gpus"}},
    {**CLUSTER, "kuberay": {"suspend": True}},
]
JOB = {"job_name": "s", "raysweep": "s", "raysweep_run_folder": "s3://bucket/s"}


def objects_of(cluster: dict[str, Any], folder: Path, **more: Any) -> list[dict[str, Any]]:
    """What is written for such a `cluster`, as `kubectl` reads it."""
    sweep = Sweep.model_validate({"name": "lr_and_wd", "grid": {"lr": [0.1]}, "cluster": cluster, **more})
    (folder / "lr_and_wd.yaml").write_text(SWEEP)
    text = to_yaml(make_objects(sweep, ["run", "lr_and_wd.yaml", "--storage", "s3://bucket"], folder, JOB))
    return list(yaml.safe_load_all(text))


def workers_of(job: dict[str, Any]) -> dict[str, Any]:
    [group] = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    return dict(group)


@pytest.fixture(scope="module", params=SCHEMAS, ids=lambda path: path.name.split("-")[1].removesuffix(".json.gz"))
def schema(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The schema of a RayJob, made to refuse what Kubernetes would drop without a word."""
    return dict(closed(json.loads(gzip.decompress(request.param.read_bytes()))["schema"]))


def closed(schema: Any) -> Any:
    """Refuse keys that a schema does not name, unless it says that there may be some."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {key: closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        inner.setdefault("additionalProperties", False)
    return inner


def doubled(value: Any, schema: Any) -> Iterator[str]:
    """The entries of lists that are maps by their keys, and have a key twice."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield from doubled(each, schema.get("properties", {}).get(key, {}))
    elif isinstance(value, list):
        if keys := schema.get("x-kubernetes-list-map-keys"):
            found = [tuple(each.get(key) for key in keys) for each in value]
            yield from (str(each) for each in found if found.count(each) > 1)
        for each in value:
            yield from doubled(each, schema.get("items", {}))


def check_as_the_operator_does(job: dict[str, Any]) -> None:
    """The rules of KubeRay's operator for what is used here, which no schema has (its utils/validation.go)."""
    name, spec = job["metadata"]["name"], job["spec"]
    cluster = spec["rayClusterSpec"]
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name)
    assert len(name) <= 47
    assert spec["shutdownAfterJobFinishes"] or not (spec["suspend"] or spec["ttlSecondsAfterFinished"])
    assert spec["backoffLimit"] >= 0
    assert isinstance(yaml.safe_load(spec["runtimeEnvYAML"]), dict)
    assert cluster["authOptions"]["mode"] == "token"
    assert Version(cluster["rayVersion"]) >= Version("2.52.0")
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert "resources" not in group, "the rayStartParams have them"
        assert len(group["template"]["spec"]["containers"]) == 1
        assert "restartPolicy" not in group["template"]["spec"], "the autoscaler v2 sets it"
    for group in cluster["workerGroupSpecs"]:
        assert 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_a_ray_job_is_as_kuberay_defines_it(cluster: dict[str, Any], schema: dict[str, Any], tmp_path: Path) -> None:
    config_map, job = objects_of(cluster, tmp_path)
    jsonschema.validate(job, schema)
    assert not list(doubled(job, schema))
    check_as_the_operator_does(job)
    assert config_map["metadata"]["name"] == job["metadata"]["name"]
    assert config_map["metadata"].get("namespace") == job["metadata"].get("namespace")


def test_the_schema_refuses_what_it_does_not_know(schema: dict[str, Any], tmp_path: Path) -> None:
    _, job = objects_of(CLUSTER, tmp_path)
    workers_of(job)["template"]["spec"]["containers"][0]["gpu"] = 1
    with pytest.raises(jsonschema.ValidationError, match="'gpu' was unexpected"):
        jsonschema.validate(job, schema)


def test_whatever_the_section_cluster_says_is_a_ray_job_or_refused(tmp_path: Path) -> None:
    schema = closed(json.loads(gzip.decompress(SCHEMAS[0].read_bytes()))["schema"])
    validator = jsonschema.Draft202012Validator(schema)
    seen = set()

    @settings(max_examples=30, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(values_of(Cluster))
    def is_one(values: dict[str, Any]) -> None:
        try:
            cluster = Cluster.model_validate(
                {**values, "image": "i", "gpus_per_node": values.get("gpus_per_node") or 0}
            )
        except ValidationError:
            assume(False)
        try:
            _, job = objects_of(cluster.model_dump(mode="json"), tmp_path)
        except ClusterError:
            seen.add("more than a node has")
            return
        validator.validate(job)
        check_as_the_operator_does(job)
        seen.add("a job")

    is_one()
    assert "a job" in seen


TEXTS = st.text(max_size=30) | st.sampled_from(["on", "no", "1e3", "12:30:00", "~", "2.60", "a\r\nb", "a: b\n\n c\t\n"])


@settings(max_examples=100, deadline=None, database=None, derandomize=True)
@given(st.dictionaries(TEXTS, TEXTS))
def test_kubectl_reads_every_text_as_it_was(values: dict[str, str]) -> None:
    """`kubectl` reads YAML 1.1, as PyYAML does, where `on` is true and `12:30:00` a number."""
    once, twice = yaml.safe_load_all(to_yaml([values, {"all": [values, values]}]))
    assert once == values
    assert twice == {"all": [values, values]}


def test_the_autoscaler_starts_with_the_workers_of_a_trial_and_keeps_the_head_free(tmp_path: Path) -> None:
    resources = Resources(workers=3, gpus=1)
    _, job = objects_of({**CLUSTER, "gpus_per_node": 2}, tmp_path, resources=resources)
    spec = job["spec"]["rayClusterSpec"]
    config = _derive_autoscaling_config_from_ray_cr({"metadata": {"name": "s", "namespace": "n"}, "spec": spec})
    head, workers = (config["available_node_types"][name] for name in ("headgroup", "workers"))
    assert config["idle_timeout_minutes"] == 10
    assert head["resources"]["CPU"] == 0
    assert (workers["min_workers"], workers["max_workers"]) == (2, 8)
    assert workers["resources"] == {"CPU": 8, "GPU": 2}


def test_a_queue_grants_all_workers_or_none(tmp_path: Path) -> None:
    _, job = objects_of({**CLUSTER, "kuberay": {"queue": "gpus"}}, tmp_path)
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    assert job["spec"]["suspend"]
    assert not job["spec"]["rayClusterSpec"]["enableInTreeAutoscaling"]
    assert {workers_of(job)[key] for key in ("minReplicas", "replicas", "maxReplicas")} == {8}


def test_a_trial_that_no_worker_holds_is_refused_before_anything_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="4 GPUs, more than any node has"):
        objects_of({**CLUSTER, "gpus_per_node": 2}, tmp_path, resources=Resources(gpus=4))


def test_workers_may_run_on_spot_nodes_and_the_head_may_not(tmp_path: Path) -> None:
    _, job = objects_of(CLUSTER, tmp_path)
    head = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    worker = workers_of(job)["template"]["spec"]
    [term] = head["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    avoided = {(each["key"], *each["values"]) for each in term["matchExpressions"]}
    tolerated = {(each["key"], each.get("value")) for each in worker["tolerations"]}
    assert avoided == tolerated - {("nvidia.com/gpu", None)}
    assert "tolerations" not in head
    [ray] = worker["containers"]
    [drain] = [int(each["value"]) for each in ray["env"] if "DRAIN" in each["name"]]
    assert drain < worker["terminationGracePeriodSeconds"]


@pytest.mark.parametrize(
    ("sweep", "name"),
    [
        ("lr_and_wd", "lr-and-wd"),
        ("ResNet-18.v2", "resnet-18-v2"),
        ("18-layers", "sweep-18-layers"),
        ("_", "sweep"),
    ],
)
def test_objects_are_named_like_their_sweep(sweep: str, name: str) -> None:
    assert object_name(sweep) == name


def test_long_names_stay_different() -> None:
    names = {object_name(f"{'a_long_name_' * 5}{end}") for end in ("one", "two")}
    assert len(names) == 2
    assert max(map(len, names)) <= 47


def submit(folder: Path, *words: str) -> list[dict[str, Any]]:
    """Run the command in a folder; return the objects that it wrote, and first what it said."""
    assert main(["submit", "lr_and_wd.yaml", *words, "--kuberay", "--write", str(folder / "rayjob.yaml")]) == 0
    return list(yaml.safe_load_all((folder / "rayjob.yaml").read_text()))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a sweep file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAYSWEEP_STORAGE", raising=False)
    (tmp_path / "lr_and_wd.yaml").write_text(SWEEP)
    return tmp_path


ASKED = ("--image", "i", "--gpus-per-node", "1", "--storage", "s3://bucket/raysweep")


def test_the_command_says_what_to_do_next(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*ASKED, "--json", "cluster.kuberay.namespace=team"]
    config_map, job = submit(folder, *words)
    out, err = capsys.readouterr()
    told = {"name": "lr-and-wd", "namespace": "team", "run_folder": "s3://bucket/raysweep/lr_and_wd"}
    assert json.loads(out) == {"file": str(folder / "rayjob.yaml"), **told}
    assert "kubectl --namespace team replace --force --filename" in err
    assert "kubectl --namespace team logs --follow job/lr-and-wd" in err
    assert job["spec"]["metadata"]["raysweep_run_folder"] == told["run_folder"]
    assert config_map["data"] == {"lr_and_wd.yaml": SWEEP}
    assert config_map["immutable"], "a change of it would reach the processes of a sweep that runs"


def test_stdout_has_the_objects_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["submit", "lr_and_wd.yaml", *ASKED, "--kuberay", "--write", "-"]) == 0
    assert [each["kind"] for each in yaml.safe_load_all(capsys.readouterr().out)] == ["ConfigMap", "RayJob"]
    assert main(["submit", "lr_and_wd.yaml", *ASKED, "--kuberay", "--write", "-", "--json"]) == 2
    assert "stdout can have only one of them" in capsys.readouterr().err


def test_all_that_is_missing_is_said_at_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["submit", "lr_and_wd.yaml", "data.path=here", "--kuberay", "--write", "rayjob.yaml"]) == 2
    said = capsys.readouterr().err
    for what in ("storage: './runs' is relative", "'here' is relative", "cluster.image", "cluster.gpus_per_node"):
        assert what in said
    assert not (folder / "rayjob.yaml").exists()


def test_a_local_run_folder_lies_on_a_volume(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["submit", "lr_and_wd.yaml", *ASKED[:4], "--kuberay", "--write", "rayjob.yaml"]
    assert main([*command, "--storage", "/mnt/runs"]) == 2
    assert "'/mnt/runs' would be inside the pods" in capsys.readouterr().err
    assert main([*command, "--storage", "/mnt/runs/mine", "cluster.kuberay.volumes={runs: /mnt/runs}"]) == 0
    assert "raysweep status" not in capsys.readouterr().err, "this machine does not see the volume"


@pytest.mark.parametrize("volumes", ["{runs: /sweep/runs}", "{runs: /data, images: /data/}"])
def test_a_path_has_one_volume(volumes: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["submit", "lr_and_wd.yaml", *ASKED, f"cluster.kuberay.volumes={volumes}"]
    assert main([*command, "--kuberay", "--write", "rayjob.yaml"]) == 2
    assert "is taken" in capsys.readouterr().err


@pytest.mark.parametrize("variable", ["AWS_SECRET_ACCESS_KEY", "wandb_api_key", "DB_PASSWD"])
@pytest.mark.parametrize("is_in_file", [True, False])
def test_a_secret_among_the_variables_is_refused_and_not_repeated(
    variable: str, is_in_file: bool, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    env = f"{{{variable}: hunter2}}"
    (folder / "lr_and_wd.yaml").write_text(f"{SWEEP}cluster: {{kuberay: {{env: {env}}}}}\n" if is_in_file else SWEEP)
    words = [*ASKED, *([] if is_in_file else [f"cluster.kuberay.env={env}"])]
    assert main(["submit", "lr_and_wd.yaml", *words, "--kuberay", "--write", "rayjob.yaml"]) == 2
    said = capsys.readouterr().err
    assert f"{variable} looks like a secret" in said
    assert "hunter2" not in said


def test_more_than_a_config_map_holds_is_refused(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(bytes(2**20))
    with pytest.raises(UserError, match=r"weights\.bin alone 1\.05 MB, more than the 1 MiB"):
        objects_of(CLUSTER, tmp_path)


def test_installed_packages_are_left_to_the_image(folder: Path) -> None:
    config_map, job = submit(folder, *ASKED, "--import", "yaml")
    assert list(config_map["data"]) == ["lr_and_wd.yaml"]
    assert job["spec"]["entrypoint"].endswith("--import yaml")


NETS = """
from torch import nn
from raysweep import register_model
from kernels import sizes

@register_model("one_layer")
def one_layer(num_classes, width=None):
    return nn.Sequential(nn.Conv2d(3, 4, sizes.THREE), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes))
"""


def mount(config_map: dict[str, Any], items: list[dict[str, str]], folder: Path) -> None:
    """Lay a ConfigMap out as kubelet does: what is seen are links into a folder that can be changed as a whole."""
    (folder / "..2026").mkdir(parents=True)
    (folder / "..data").symlink_to("..2026")
    for item in items:
        path = folder / "..2026" / item["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        text, binary = (config_map.get(key, {}).get(item["key"]) for key in ("data", "binaryData"))
        path.write_bytes(base64.b64decode(binary) if text is None else text.encode())
        seen = item["path"].partition("/")[0]
        if not (folder / seen).exists():
            (folder / seen).symlink_to(f"..data/{seen}")


@pytest.mark.slow
@pytest.mark.ray
def test_the_entrypoint_runs_the_sweep_from_the_mounted_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the shell and the command by which KubeRay's submitter hands it on, in a folder in the place of /sweep."""
    (folder / "nets.py").write_text(NETS)
    (folder / "kernels").mkdir()
    (folder / "kernels" / "__init__.py").write_text("")
    (folder / "kernels" / "sizes.py").write_text("THREE = 3\n")
    (folder / "kernels" / "table.bin").write_bytes(b"\xff\xfe")
    monkeypatch.syspath_prepend(str(folder))
    importlib.invalidate_caches()
    data = "data={name: synthetic, image_size: 8, classes: 3, per_class: 40}"
    volumes = f"cluster.kuberay.volumes={{runs: {folder}}}"
    storage = str(folder / "the runs")
    words = [*ASKED[:2], "--gpus-per-node", "0", "--storage", storage, "--import", "nets", "model=one_layer"]
    config_map, job = submit(folder, *words, "grid={lr: [0.1, 0.01]}", data, volumes)

    spec = job["spec"]
    pods = [group["template"]["spec"] for group in (spec["rayClusterSpec"]["headGroupSpec"], workers_of(job))]
    [mounted] = {json.dumps(pod["volumes"][0]["configMap"]) for pod in pods}
    assert {pod["containers"][0]["workingDir"] for pod in pods} == {FOLDER}
    pod = folder / "pod"
    mount(config_map, json.loads(mounted)["items"], pod)
    assert (pod / "kernels" / "table.bin").read_bytes() == b"\xff\xfe"

    monkeypatch.syspath_prepend(str(pod))
    with start_job_cluster(pod, {"PYTHONPATH": f"{pod}:{ROOT}"}) as (address, url):
        given = [f"--metadata-json {shlex.quote(json.dumps(spec['metadata']))}"]
        given.append(f"--runtime-env-json {shlex.quote(json.dumps(yaml.safe_load(spec['runtimeEnvYAML'])))}")
        line = f"ray job submit --address {url} {' '.join(given)} -- {spec['entrypoint']} ;"
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "RAY_ADDRESS": address}
        done = subprocess.run(["bash", "-ec", line], env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    records = sorted((Path(storage) / "lr_and_wd" / "trials").glob("*/record.json"))
    assert [json.loads(path.read_text())["record"]["status"] for path in records] == ["finished"] * 2
