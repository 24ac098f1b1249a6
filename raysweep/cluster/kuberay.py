"""The objects by which Kubernetes runs a sweep: a ConfigMap with its files, and a RayJob of KubeRay's.

In: the sweep, the files that it needs, and raysweep's command line. Out: what `kubectl` takes, as plain values.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.representer import SafeRepresenter

from raysweep.errors import UserError
from raysweep.sweepfile import Sweep
from raysweep.sweepfile.cluster import Cluster
from raysweep.terminal import format_bytes

FOLDER = "/sweep"
"""Where the ConfigMap is mounted in each pod; the driver works there."""
LONGEST_NAME = 47
"""KubeRay appends to a RayJob's name what makes the names of its clusters, services and pods."""
MOST_BYTES = 2**20
"""Kubernetes takes no larger ConfigMap."""
USER = 1000
"""The user and group of the pods' processes; that of the image (docs/containers.md)."""
OF_DRIVER = {"PYTHONUNBUFFERED": "1", "RAY_BACKEND_LOG_LEVEL": "fatal", "RAY_JOB_STOP_WAIT_TIME_S": "60"}
"""Variables of the driver alone: no line of Ray's in its log, and a minute to commit where Ray gives three seconds."""
GRACE_S = 120
"""How long a worker that Kubernetes ends may live on; no cloud gives longer notice of taking a spot machine."""
DRAINING = {"RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": str(GRACE_S - 20)}
"""Has Ray tell its processes that the node goes away, and wait for so many seconds: trials commit, and train on."""
IDLE_S = 600
"""After how long without a trial a worker is given back, as in cluster.yaml."""
HEAD = {"requests": {"cpu": "2", "memory": "8Gi"}, "limits": {"memory": "8Gi"}}
"""What the head asks for: Ray's own services and the driver, and no trial."""
SUBMITTER = {"requests": {"cpu": "100m", "memory": "500Mi"}, "limits": {"memory": "1Gi"}}
"""What `ray job submit` asks for."""
CPUS_PER_GPU = 4
PORTS = {"gcs-server": 6379, "dashboard": 8265}
"""The head's ports that its service has, by KubeRay's names."""
CONFINED = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
"""What a namespace with the Pod Security Standard "restricted" asks of a container."""
AUTOSCALER = {"version": "v2", "idleTimeoutSeconds": IDLE_S, "securityContext": CONFINED}
GPU = "nvidia.com/gpu"
SPOT = (
    ("cloud.google.com/gke-spot", "true"),
    ("cloud.google.com/gke-preemptible", "true"),
    ("kubernetes.azure.com/scalesetpriority", "spot"),
    ("eks.amazonaws.com/capacityType", "SPOT"),
    ("karpenter.sh/capacity-type", "spot"),
)
"""The labels of spot nodes, which are taints as well on some clouds and in some clusters."""


def why_not(cluster: Cluster, storage: str | None) -> list[str]:
    """Return why Kubernetes cannot be asked for these machines, for a run folder in `storage`: a message a fault.

    `storage` None: it is not known, and not checked.
    """
    problems, paths = [], [PurePosixPath(path) for path in cluster.kuberay.volumes.values()]
    if cluster.image is None:
        problems.append(
            "cluster.image: must be given: a container image with raysweep, for all pods (docs/containers.md); or "
            "--image REGISTRY/raysweep:TAG"
        )
    if cluster.gpus_per_node is None:
        problems.append("cluster.gpus_per_node: must be given: how many GPUs each worker has; 0: train on CPUs")
    folder = storage.removeprefix("file://") if storage else "://"
    if "://" not in folder and not any(PurePosixPath(folder).is_relative_to(path) for path in paths):
        mounted = ", ".join(map(str, paths)) or "none"
        problems.append(
            f"storage: {storage!r} would be inside the pods, and gone with them; give s3://BUCKET/PREFIX, or a folder "
            f"below a volume of cluster.kuberay.volumes (there: {mounted})"
        )
    for path in sorted({path for path in paths if paths.count(path) > 1 or path.is_relative_to(FOLDER)}):
        problems.append(
            f"cluster.kuberay.volumes: {str(path)!r} is taken: {FOLDER} has the sweep's files, and each volume needs a "
            "path of its own"
        )
    return problems


def object_name(sweep: str) -> str:
    """Return the name of a sweep's objects: lower-case letters, digits and `-`, beginning with a letter."""
    name = re.sub(r"[^a-z0-9]+", "-", sweep.lower()).strip("-") or "sweep"
    if not name[0].isalpha():
        name = f"sweep-{name}"
    if len(name) <= LONGEST_NAME:
        return name
    digest = hashlib.sha256(sweep.encode()).hexdigest()[:6]
    return f"{name[: LONGEST_NAME - 7].rstrip('-')}-{digest}"


def make_objects(sweep: Sweep, words: Sequence[str], folder: Path, job: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the ConfigMap and the RayJob that run `raysweep WORDS` where the files of `folder` lie.

    `job` is what Ray's dashboard shows beside the job.

    Raises:
        UserError: the files are more than a ConfigMap holds.
        ClusterError: a trial asks for more than all workers have.
    """
    kuberay = sweep.cluster.kuberay
    spec = {
        "entrypoint": shlex.join(["python", "-m", "raysweep", *words]),
        "metadata": dict(job),
        "submissionMode": "K8sJobMode",  # its pod has the log, and submits anew if the head was started anew
        "submitterPodTemplate": {"spec": _submitter(sweep.cluster)},
        "runtimeEnvYAML": f"env_vars: {json.dumps(OF_DRIVER)}",
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": 60,
        "backoffLimit": kuberay.backoff_limit,
        "suspend": kuberay.suspend or kuberay.queue is not None,
        "rayClusterSpec": _ray_cluster(sweep, folder),
    }
    name = object_name(sweep.name)
    labels = {"app.kubernetes.io/name": "raysweep", "app.kubernetes.io/instance": name}
    metadata = {"name": name, **_if("namespace", kuberay.namespace), "labels": labels}
    queued = {**metadata, "labels": {**labels, **_if("kueue.x-k8s.io/queue-name", kuberay.queue)}}
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, **_contents(folder)},
        {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": queued, "spec": spec},
    ]


def to_yaml(objects: Sequence[Mapping[str, Any]]) -> str:
    """Return objects as documents of YAML 1.1, which is what `kubectl` reads: it takes an unquoted `on` for true."""
    yaml, text = YAML(typ="safe", pure=True), io.StringIO()
    settings = {"version": (1, 1), "default_flow_style": False, "width": sys.maxsize}
    for name, value in {**settings, "sort_base_mapping_type_on_output": False}.items():
        setattr(yaml, name, value)
    yaml.Representer = _Representer
    for each in objects:
        yaml.dump(each, text)
    return text.getvalue().replace("%YAML 1.1\n", "")


class _Representer(SafeRepresenter):
    """Writes files as they look, and what is alike as often as it occurs."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_str(self, data: str) -> Any:
        is_plain = data.replace("\n", "").replace("\t", "").isprintable()
        style = ("|" if "\n" in data else None) if is_plain else '"'
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_Representer.add_representer(str, _Representer.represent_str)


# ---------------------------------------------------------------------------------------------------------
# The files


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the files of a folder, each with its key in the ConfigMap, which has no folders."""
    keys: set[str] = set()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        key = re.sub(r"[^-._a-zA-Z0-9]", "_", path.relative_to(folder).as_posix().replace("/", "__"))
        while key in keys:
            key += "_"
        keys.add(key)
        yield key, path


def _contents(folder: Path) -> dict[str, Any]:
    """Return what a ConfigMap holds of a folder's files; it cannot be changed while a sweep runs with it."""
    files = [(key, path.read_bytes()) for key, path in _files(folder)]
    if (size := sum(len(content) for _, content in files)) > MOST_BYTES:
        largest, content = max(files, key=lambda file: len(file[1]))
        raise UserError(
            f"--import: the sweep file and its modules are {format_bytes(size)}, {largest} alone "
            f"{format_bytes(len(content))}, more than the 1 MiB that a ConfigMap of Kubernetes holds; move what is no "
            "code elsewhere, or make a package of them: what pip has installed here is left to the image"
        )
    data: dict[str, str] = {}
    binary: dict[str, str] = {}
    for key, content in files:
        try:
            data[key] = content.decode()
        except UnicodeDecodeError:
            binary[key] = base64.b64encode(content).decode()
    return {"immutable": True, "data": data, **_if("binaryData", binary)}


# ---------------------------------------------------------------------------------------------------------
# The Ray cluster


def _ray_cluster(sweep: Sweep, folder: Path) -> dict[str, Any]:
    cluster, kuberay = sweep.cluster, sweep.cluster.kuberay
    least = cluster.nodes if kuberay.queue else _workers_of_a_trial(sweep)  # Kueue grants all or nothing
    grows = least < cluster.nodes
    pod = _node(sweep, folder)
    ports = [{"name": name, "containerPort": number} for name, number in PORTS.items()]
    head = {
        **pod,
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": _not_on_spot()}},
        "containers": [{"name": "ray-head", **_ray(cluster), "ports": ports, "resources": HEAD}],
    }
    worker = {
        **pod,
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": GRACE_S,
        **_if("nodeSelector", dict(kuberay.node_selector)),
        "tolerations": _tolerations(),
        "containers": [{"name": "ray-worker", **_ray(cluster, DRAINING), "resources": _resources(cluster)}],
    }
    workers = {
        "groupName": "workers",
        "replicas": least,
        "minReplicas": least,
        "maxReplicas": cluster.nodes,
        "rayStartParams": {},
        "template": {"spec": worker},
    }
    return {
        "rayVersion": version("ray"),
        "authOptions": {"mode": "token"},
        "enableInTreeAutoscaling": grows,
        **_if("autoscalerOptions", grows and AUTOSCALER),
        "headGroupSpec": {"rayStartParams": {"num-cpus": "0"}, "template": {"spec": head}},
        "workerGroupSpecs": [workers],
    }


def _if(key: str, value: Any) -> dict[str, Any]:
    """Return the key with its value, or nothing where that is empty."""
    return {key: value} if value else {}


def _node(sweep: Sweep, folder: Path) -> dict[str, Any]:
    """Return what the pods of head and workers have alike, beside their container."""
    kuberay = sweep.cluster.kuberay
    items = [{"key": key, "path": path.relative_to(folder).as_posix()} for key, path in _files(folder)]
    claims = [
        {"name": f"volume-{n}", "persistentVolumeClaim": {"claimName": claim}}
        for n, claim in enumerate(kuberay.volumes)
    ]
    return {
        **_pod(sweep.cluster),
        "volumes": [{"name": "sweep", "configMap": {"name": object_name(sweep.name), "items": items}}, *claims],
    }


def _ray(cluster: Cluster, env: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return a node's container; KubeRay adds the command, the token, probes, and a /dev/shm as large as the memory."""
    kuberay = cluster.kuberay
    mounts = [{"name": f"volume-{n}", "mountPath": path} for n, path in enumerate(kuberay.volumes.values())]
    return {
        "image": cluster.image,
        "workingDir": FOLDER,  # the driver's too
        "env": [
            {"name": name, "value": value}
            for name, value in {"PYTHONPATH": FOLDER, **(env or {}), **kuberay.env}.items()
        ],
        **_if("envFrom", kuberay.secret and [{"secretRef": {"name": kuberay.secret}}]),
        "securityContext": CONFINED,
        "volumeMounts": [{"name": "sweep", "mountPath": FOLDER, "readOnly": True}, *mounts],
    }


def _pod(cluster: Cluster) -> dict[str, Any]:
    """Return what all pods have alike, the submitter's too."""
    user = {"runAsNonRoot": True, "runAsUser": USER, "runAsGroup": USER, "fsGroup": USER}
    gently = {"fsGroupChangePolicy": "OnRootMismatch"}  # not every file of a large volume at every start
    return {
        **_if("serviceAccountName", cluster.kuberay.service_account),
        "securityContext": {**user, **gently, "seccompProfile": {"type": "RuntimeDefault"}},
    }


def _submitter(cluster: Cluster) -> dict[str, Any]:
    """Return the pod in which KubeRay runs `ray job submit`; KubeRay adds the command."""
    container = {"image": cluster.image, "resources": SUBMITTER, "securityContext": CONFINED}
    return {
        **_pod(cluster),
        "automountServiceAccountToken": False,
        "restartPolicy": "Never",
        "containers": [{"name": "ray-job-submitter", **container}],
    }


def _cpus(cluster: Cluster) -> int:
    return cluster.cpus_per_node or CPUS_PER_GPU * max(1, cluster.gpus_per_node or 0)


def _resources(cluster: Cluster) -> dict[str, Any]:
    memory = f"{cluster.memory_per_node}i" if cluster.memory_per_node else None  # 64G of Slurm's are 64Gi here
    asked = {"cpu": str(_cpus(cluster)), **_if("memory", memory), **_if(GPU, str(cluster.gpus_per_node or ""))}
    return {"requests": asked, "limits": asked}


def _workers_of_a_trial(sweep: Sweep) -> int:
    """Return how many workers one trial needs: the job begins once these are there, and more follow as it needs them.

    Raises:
        ClusterError: a trial asks for more than all workers have.
    """
    from raysweep.cluster.slots import KIND, check_slot, resolve_slot

    gpus, kind = sweep.cluster.gpus_per_node or 0, sweep.resources.accelerator
    node = {"CPU": float(_cpus(sweep.cluster)), **_if("GPU", float(gpus)), **_if(f"{KIND}{kind}", kind and 1.0)}
    slot = resolve_slot(sweep.resources, [node])
    check_slot(slot, [node] * sweep.cluster.nodes)
    return math.ceil(slot.workers / slot.fits(node))


def _tolerations() -> list[dict[str, str]]:
    spot = [{"key": key, "operator": "Equal", "value": value, "effect": "NoSchedule"} for key, value in SPOT]
    return [{"key": GPU, "operator": "Exists", "effect": "NoSchedule"}, *spot]


def _not_on_spot() -> dict[str, Any]:
    """Return the node selector of the head, which a sweep loses minutes with; a label that no node has forbids none."""
    terms = [{"key": key, "operator": "NotIn", "values": [value]} for key, value in SPOT]
    return {"nodeSelectorTerms": [{"matchExpressions": terms}]}
