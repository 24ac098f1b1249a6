"""Running the raysweep command against the tests' own Ray cluster, and reading what it left."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from raysweep.cli import main

T = TypeVar("T")

SMALL = """
name: small
base: {{data: {{name: synthetic, image_size: 8, classes: 3, per_class: 40}}, model: {model}, epochs: 3, batch_size: 32}}
grid: {{model.width: [4], lr: {lrs}}}
retries: 1
"""


START = """
import json, ray, sys
options = {"include_dashboard": False, **json.loads(sys.argv[1])}
context = ray.init(address="local", log_to_driver=False, **options).address_info
node = ray.nodes()[0]
told = {
    "gcs_address": context["gcs_address"],
    "metrics_url": f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics",
    "dashboard": context["webui_url"],
}
print(json.dumps(told), flush=True)
sys.stdin.read()
"""


@contextmanager
def start_cluster(environment: Mapping[str, str] | None = None, **options: Any) -> Iterator[dict[str, str]]:
    """A Ray cluster of one node; yields its `gcs_address`, the `metrics_url` for Prometheus, and the `dashboard`.

    Args:
        environment: variables that its workers see, beside this process's.
        options: of `ray.init`.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", START, json.dumps(options)],
        env={**os.environ, **(environment or {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout
    assert process.stdin
    try:
        yield json.loads(process.stdout.readline())
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait(30)


JOBS = """
import json, pathlib, socket, sys, tempfile
from ray.cluster_utils import Cluster

with socket.socket() as one:  # Ray's own choice, 52365, may be another cluster's
    one.bind(("127.0.0.1", 0))
    port = one.getsockname()[1]
with tempfile.TemporaryDirectory(prefix="rs-") as folder:  # jobs connect to the cluster that is named in it
    listens = {"dashboard_port": 0, "dashboard_agent_listen_port": port}
    arguments = {"num_cpus": 2, "include_dashboard": True, "temp_dir": folder, **listens}
    cluster = Cluster(initialize_head=True, head_node_args=arguments)
    pathlib.Path(folder, "ray_current_cluster").write_text(cluster.address)
    print(json.dumps([cluster.address, f"http://{cluster.webui_url}"]), flush=True)
    sys.stdin.read()
    cluster.shutdown()
"""


@contextmanager
def start_job_cluster(
    folder: Path | None = None, environment: Mapping[str, str] | None = None
) -> Iterator[tuple[str, str]]:
    """A cluster of two CPUs that takes jobs, which run in a folder; yields the addresses of Ray and its dashboard."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # `python`, of the jobs
    process = subprocess.Popen(
        [sys.executable, "-c", JOBS],
        cwd=folder,
        env={**os.environ, "PATH": path, **(environment or {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout
    ray, url = json.loads(process.stdout.readline())
    try:
        yield ray, url
    finally:
        process.communicate(timeout=200)  # it deletes the environments of jobs, gigabytes


@contextmanager
def ray_cluster(num_cpus: int, num_gpus: int = 0) -> Iterator[str]:
    """A Ray cluster of one node that claims so many CPUs and GPUs; yields its address."""
    with start_cluster(num_cpus=num_cpus, num_gpus=num_gpus) as answer:
        yield answer["gcs_address"]


class Command:
    """The raysweep command in a folder of its own, against the tests' cluster.

    A call runs it in this process, which has imported Ray and torch already; `start` runs it in one of its own, for a
    test that kills it or reads its terminal.

    Args:
        cluster: Ray's address.
        folder: the working directory; run folders go below it.
        apart: whether calls run in processes of their own, too: where the environment must be another from the start,
            or what a module changes would outlive the call.
    """

    def __init__(self, cluster: str, folder: Path, apart: bool = False) -> None:
        self.folder = folder
        self.apart = apart
        self.environment = {**os.environ, "RAY_ADDRESS": cluster, "RAYSWEEP_STORAGE": str(folder / "runs")}

    def start(self, *words: str | Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "raysweep", *map(str, words)],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *words: str | Path, code: int = 0) -> tuple[str, str]:
        """Run it; return (stdout, stderr)."""
        if self.apart:
            process = self.start(*words)
            out, err = process.communicate(timeout=300)
            ended = process.returncode
        else:
            ended, out, err = self._here(*words)
        assert ended == code, f"exit {ended}\n{out}\n{err}"
        assert code != 2 or "Traceback" not in err
        return out, err

    def _here(self, *words: str | Path) -> tuple[int, str, str]:
        out, err = io.StringIO(), io.StringIO()
        with (
            pytest.MonkeyPatch.context() as patch,
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("default")
            for name in self.environment.keys() - os.environ.keys() | {"RAY_ADDRESS", "RAYSWEEP_STORAGE"}:
                patch.setenv(name, self.environment[name])
            patch.chdir(self.folder)
            patch.setattr(sys, "path", list(sys.path))
            try:
                ended = main([*map(str, words)])
            except Exception:
                traceback.print_exc(file=err)
                ended = 1
        return ended, out.getvalue(), err.getvalue()

    def records(self, name: str) -> dict[str, dict[str, Any]]:
        paths = (self.folder / "runs" / name / "trials").glob("*/record.json")
        return {path.parent.name: json.loads(path.read_text())["record"] for path in paths}

    def sweep(self, lrs: str = "[0.1, 0.01]", model: str = "baseline_block") -> Path:
        path = self.folder / "small.yaml"
        path.write_text(SMALL.format(lrs=lrs, model=model))
        return path


def curves(records: dict[str, dict[str, Any]]) -> dict[str, list[dict[str, float]]]:
    """Metric histories without what depends on the clock."""
    clock = ("seconds", "images_per_s")
    return {
        name: [{key: value for key, value in epoch.items() if key not in clock} for epoch in record["metrics"]]
        for name, record in records.items()
    }


def records_in(run_folder: Path) -> dict[str, dict[str, Any]]:
    """The records of a run folder's trials by id."""
    paths = (run_folder / "trials").glob("*/record.json")
    return {path.parent.name: json.loads(path.read_text())["record"] for path in paths}


def records_alone(sweep: Path, *more: str, **variables: str) -> dict[str, dict[str, Any]]:
    """The records of a sweep that is run undisturbed, on this machine alone; its run folder goes beside the file.

    `more` are further words of the command, and `variables` of its environment; a module of `--import` lies beside the
    file, too.
    """
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"} | variables
    words = [sys.executable, "-m", "raysweep", sweep, "--storage", sweep.parent / "runs", *more]
    subprocess.run(words, cwd=sweep.parent, env=environment, check=True, capture_output=True, timeout=500)
    (run_folder,) = (sweep.parent / "runs").iterdir()
    return records_in(run_folder)


def check_equal(records: dict[str, dict[str, Any]], alone: dict[str, dict[str, Any]]) -> None:
    """Same trials, same ends, the same numbers each epoch, and no epoch twice."""
    assert {id: record["status"] for id, record in records.items()} == {
        id: record["status"] for id, record in alone.items()
    }
    assert curves(records) == curves(alone)
    for record in records.values():
        epochs = [metrics["epoch"] for metrics in record["metrics"]]
        assert epochs == list(range(1, len(epochs) + 1))


def settled(read: Callable[[], T]) -> T:
    """What `read` returns once it is the same for a second: a trial whose driver was killed may commit once more."""
    found = read()
    while time.sleep(1) or found != (again := read()):
        found = again
    return found


def wait_for(condition: Any, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
