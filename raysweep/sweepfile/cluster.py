"""The section `cluster` of a sweep file: what `raysweep submit --slurm` and `--kuberay` ask for.

Nothing of it decides a number, so it may change between runs.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, NonNegativeInt, PositiveInt, WithJsonSchema

from raysweep.config import Config, is_secret

Word = Annotated[str, Field(min_length=1, pattern=r"^\S+$")]
"""A name or an address: no blanks."""
TIME = re.compile(r"(\d+-\d+(:\d+){0,2}|\d+(:\d+){0,2})")
SIZE = re.compile(r"[1-9]\d*[KMGT]")
ASSIGNMENT = re.compile(r"(?<![\w$-])([A-Za-z_]\w*)\+?=(?=(\S*))")
"""An assignment of the shell's, anywhere in a line: its variable, and how its value begins."""
FROM_ELSEWHERE = re.compile(r"\"?(`|\$[({\w])|(\"\"|'')?;?$")
"""Values that are a command's output, a variable's value, or empty."""


def _as_time(value: Any) -> Any:
    """Take minutes as a number too, as Slurm does."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _check_time(value: str) -> str:
    if not TIME.fullmatch(value):
        raise ValueError(f"got {value!r}, must be a time as Slurm writes it: 90 (minutes), 12:00:00 or 2-12:00:00")
    return value


def _check_size(value: str) -> str:
    if not SIZE.fullmatch(value):
        raise ValueError(f"got {value!r}, must be a size with its unit: 64G, 512M")
    return value


def seconds_of(time: str) -> int:
    """Return how many seconds a time as Slurm writes it is: 90 (minutes), 1:30 (minutes), 12:00:00, 2-12 (hours)."""
    days, _, rest = time.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if days:
        hours, minutes, seconds = [*parts, 0, 0][:3]
    elif len(parts) == 3:
        hours, minutes, seconds = parts
    else:
        hours, (minutes, seconds) = 0, [*parts, 0][:2]
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds


Time = Annotated[
    str,
    BeforeValidator(_as_time),
    AfterValidator(_check_time),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": f"^{TIME.pattern}$"}]}),
]
Size = Annotated[str, AfterValidator(_check_size), WithJsonSchema({"type": "string", "pattern": f"^{SIZE.pattern}$"})]


def _check_no_secret(name: str) -> str:
    if is_secret(name):
        raise ValueError(f"{name} looks like a secret, which the run folder would show; put it into a Secret: `secret`")
    return name


def _check_assigns_no_secret(line: str) -> str:
    for variable, value in ASSIGNMENT.findall(line):
        if is_secret(variable) and not FROM_ELSEWHERE.match(value):
            raise ValueError(
                f"{variable} looks like a secret, which the run folder would show; export it in the shell that "
                f"submits, since sbatch hands its environment on, or read it in `setup`: export {variable}=$(cat FILE)"
            )
    return line


def _check_option(value: str) -> str:
    if not re.match(r"--?\w", value):
        raise ValueError(f"got {value!r}, must be an option of sbatch with its dash: --constraint=a100")
    return value


ObjectName = Annotated[str, Field(max_length=253, pattern=r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$")]
"""The name of an object of Kubernetes."""
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$"), AfterValidator(_check_no_secret)]
"""The name of an environment variable."""
MountPath = Annotated[str, Field(pattern=r"^/[^:\s]+$")]
"""An absolute path inside a container."""
Line = Annotated[str, AfterValidator(_check_assigns_no_secret)]
"""A line of bash."""


class Slurm(Config):
    """What `submit --slurm` asks Slurm for beside nodes (docs/slurm.md)."""

    partition: Word | None = None
    """The partition; default: the site's."""
    account: Word | None = None
    """The account that pays; default: yours."""
    time: Time | None = None
    """The time limit of each run of the job; a sweep that has not ended by then commits, and goes on in the next run.
    Default: the partition's."""
    signal_seconds: Annotated[int, Field(ge=10, le=65_535)] = 120
    """How long before the time limit the sweep is told to commit and end; it must exceed what a commit takes."""
    setup: list[Line] = []
    """Lines of bash that the job begins with: `module load cuda`, `export NAME=value`. They run on the first
    node, and what they export reaches all."""
    options: list[Annotated[Line, AfterValidator(_check_option)]] = []
    """More options of sbatch, as they are: `--constraint=a100`, `--qos=long`."""


class KubeRay(Config):
    """What `submit --kuberay` writes into the RayJob beside nodes (docs/kubernetes.md)."""

    namespace: ObjectName | None = None
    """The namespace of all objects; default: that of kubectl's context."""
    secret: ObjectName | None = None
    """A Secret whose keys become environment variables of all pods: the credentials of the storage."""
    service_account: ObjectName | None = None
    """The service account of the pods: who may use the storage, where the cloud knows pods by it."""
    volumes: dict[ObjectName, MountPath] = {}
    """Where PersistentVolumeClaims are mounted in all pods, by claim: `{runs: /mnt/runs}`, with storage below it."""
    env: dict[Variable, str] = {}
    """Environment variables of all pods: `{RAYSWEEP_DATA: /data}`; secrets belong in `secret`."""
    node_selector: dict[Word, str] = {}
    """Labels that a worker's node must have: `{cloud.google.com/gke-accelerator: nvidia-l4}`."""
    queue: ObjectName | None = None
    """Kueue's LocalQueue: the job waits there until all its nodes are granted, and keeps them until it ends."""
    suspend: bool = False
    """Whether the job waits until somebody resumes it."""
    backoff_limit: NonNegativeInt = 2
    """How often a job that failed is started anew, on a new Ray cluster; it goes on where it was."""


class Cluster(Config):
    """The machines that `raysweep submit --slurm` and `--kuberay` ask for."""

    nodes: PositiveInt = 1
    """How many nodes; on Kubernetes, how many workers at most."""
    gpus_per_node: NonNegativeInt | None = None
    """How many GPUs each node has for the sweep; 0: train on CPUs. It has to be said."""
    cpus_per_node: PositiveInt | None = None
    """How many CPUs of each node; default: on Slurm whole nodes, on Kubernetes 4 for each GPU."""
    memory_per_node: Size | None = None
    """How much memory of each node (64G); default: on Slurm all of whole nodes, else the site's own."""
    image: Word | None = None
    """The container image (docs/containers.md); on Slurm a file of Apptainer's, and none by default."""
    slurm: Slurm = Slurm()
    """What Slurm is asked for."""
    kuberay: KubeRay = KubeRay()
    """What KubeRay is asked for."""
