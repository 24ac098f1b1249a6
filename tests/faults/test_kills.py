"""SIGKILL to the driver, to a trial's process or rank, to Ray's node, at seeded moments; then the same command again.

In mid-training, in the middle of writes to the disk, in the middle of uploads to an object store. Each time the run
folder ends as the undisturbed run's: the same files with the same weights, the same records but for what the clock says
and how many tries it took.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from running import Command, curves, wait_for
from s3_server import BUCKET, S3Server, s3_server
from sizes import IN_FULL

from raysweep.store import RunFolder

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(400)]

SWEEP = """
name: killed
base: {data: {name: synthetic, image_size: 8, classes: 3, per_class: 40}, epochs: 9, batch_size: 48}
grid: {model.width: [4], lr: [0.2, 0.1, 0.05, 0.000001]}
scheduler: {name: asha, eta: 2, rungs: [1/3, 2/3], min_survivors: 1}
checkpoints: {every_minutes: 1.0e-7, keep_best: 2}
"""
VICTIMS = (
    "driver",
    "trial",
    "trial while it writes",
    "driver while it writes",
    "node",
    "rank",
    "trial while it uploads",
    "trial",
    "driver while it uploads",
    "rank",
)
"""`rank`: one that does not commit, of a trial of two. `node`: Ray's own process on it, the raylet, with which dies all
that runs there."""
KINDS = {"rank": "ranks", "uploads": "object store"}
"""The kind of the sweep, by a victim's last word; else "local": trials of one worker, in a local folder."""

KILLS = range(60) if IN_FULL else (0, *(pytest.param(number, marks=pytest.mark.long) for number in (1, 2, 3, 4, 6)))
"""Each is the seed of its moment and, counted through VICTIMS, names its victim. A killed rank is among those of
`make faults` alone: tests/worker/test_trials_of_several_ranks.py has one in any case."""

DRIVER_WRITES = 18
"""Writes that the driver makes in any case; they are more if the run takes so long that it refreshes the exports."""


class Sweep:
    """A sweep in a folder of its own whose processes count their writes, and die when told to.

    Args:
        kind: "local"; "ranks", with trials of two workers; or "object store", for which `server` must run.
        cluster: Ray's address.
        folder: of the sweep file, and of the runs unless they are on an object store.
    """

    def __init__(self, kind: str, cluster: str, folder: Path) -> None:
        self.kind = kind
        self.folder = folder
        self.command = Command(cluster, folder)
        self.storage = f"s3://{BUCKET}/{folder.name}" if kind == "object store" else str(folder / "runs")
        self.command.environment["RAYSWEEP_STORAGE"] = self.storage
        self.path = folder / "killed.yaml"
        self.path.write_text(SWEEP + ("resources: {workers: 2, cpus: 1}\n" if kind == "ranks" else ""))
        shutil.copy(Path(__file__).with_name("killer.py"), folder)

    @property
    def run(self) -> RunFolder:
        """A new one each time: it remembers what it found damaged."""
        return RunFolder(self.storage, "killed", has_answered=True)

    def start(self) -> subprocess.Popen[str]:
        return self.command.start(self.path, "--import", "killer")

    def writes(self, kind: str) -> int:
        path = self.folder / f"writes.{kind}"
        return path.stat().st_size if path.exists() else 0

    def processes(self, kind: str) -> list[int]:
        """Return the processes that have left a file in the folder `kind`, the last one first."""
        paths = sorted((self.folder / kind).iterdir(), key=lambda path: path.stat().st_mtime_ns)
        return [int(path.name) for path in reversed(paths)]

    def records(self) -> dict[str, dict[str, Any]]:
        """All that is recorded, but for the clock and the tries."""
        run = self.run
        found = {trial_id: run.record(trial_id) for trial_id in run.trial_ids()}
        assert not run.damaged
        records = {name: json.loads(record.to_bytes())["record"] for name, record in found.items() if record}
        for name, curve in curves(records).items():
            records[name] |= {"metrics": curve, "attempts": None, "error": None}
        return records

    def files(self) -> set[str]:
        """All but drivers' tombstones; TensorBoard's have the time in their names, those of weights their checksum."""
        paths = [path for path in self.run.files.list_files(recursive=True) if not path.startswith(".lease/")]
        return {path.partition("events.out")[0] if path.startswith("tensorboard/") else path for path in paths}

    def views(self) -> list[int]:
        """How many of TensorBoard's files each trial has."""
        folders = Counter(path.rpartition("/")[0] for path in self.run.files.list_files("tensorboard", recursive=True))
        return list(folders.values())

    def weights_are_whole(self) -> bool:
        run = self.run
        records = [run.record(trial_id) for trial_id in run.trial_ids()]
        return all(record and run.read_weights(record, kind) for record in records for kind in record.weights)

    def rubbish(self) -> dict[str, str]:
        run = self.run
        return run.rubbish(run.files.list_sizes())


@dataclass(frozen=True)
class Undisturbed:
    """What a run without kills leaves, and how many files its processes write."""

    records: dict[str, dict[str, Any]]
    files: set[str]
    trial_writes: int


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server() as running:
        yield running


@pytest.fixture(scope="module")
def make_sweep(
    cluster: str, four_cpus: str, server: S3Server, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Sweep]:
    """Make a sweep for a victim, or of a kind; those that kill Ray's node or need the server get a Ray of their own."""

    def make(kind: str, own_cluster: bool = False) -> Sweep:
        own = own_cluster or kind == "object store"
        address = "local" if own else four_cpus if kind == "ranks" else cluster
        sweep = Sweep(kind, address, tmp_path_factory.mktemp("killed"))
        if kind == "object store":
            sweep.command.environment |= server.environment()
        return sweep

    return make


@pytest.fixture(scope="module")
def undisturbed(make_sweep: Callable[..., Sweep]) -> Callable[[str], Undisturbed]:
    """What a sweep of a kind leaves; each is run once, when it is first asked for."""

    @cache
    def run(kind: str) -> Undisturbed:
        sweep = make_sweep(kind)
        process = sweep.start()
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, out + err
        records = sweep.records()
        assert sorted({record["status"] for record in records.values()}) == ["finished", "stopped"]
        assert sweep.rubbish() == {}
        assert sweep.writes("driver") >= DRIVER_WRITES
        return Undisturbed(records, sweep.files(), sweep.writes("trial"))

    return run


@pytest.mark.parametrize("number", KILLS)
def test_a_kill_and_a_rerun_end_as_the_undisturbed_run(
    make_sweep: Callable[..., Sweep], undisturbed: Callable[[str], Undisturbed], server: S3Server, number: int
) -> None:
    victim = VICTIMS[number % len(VICTIMS)]
    kind = KINDS.get(victim.split()[-1], "local")
    expected = undisturbed(kind)
    sweep = make_sweep(kind, own_cluster=victim == "node")
    said = kill(sweep, victim, expected, random.Random(f"kill {number}"), server)
    if IN_FULL or victim.split()[0] in ("driver", "node"):  # other processes are started again by the command itself
        process = sweep.start()
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, f"{said}\n{out}\n{err}"
        assert "Traceback" not in err
    assert sweep.records() == expected.records, said
    assert sweep.files() == expected.files, said
    assert set(sweep.views()) <= {1}, said
    assert sweep.rubbish() == {}, said
    assert sweep.weights_are_whole(), said


def kill(sweep: Sweep, victim: str, undisturbed: Undisturbed, draw: random.Random, server: S3Server) -> str:
    """Start the sweep and kill the victim at a random moment; wait for the command's end. Returns what was done."""
    if victim.endswith(("writes", "uploads")):
        return kill_in_a_write(sweep, victim.split()[0], undisturbed, draw, server)
    process = sweep.start()
    write, pause = draw.randint(1, undisturbed.trial_writes * 3 // 4), draw.uniform(0, 0.05)
    wait_for(lambda: sweep.writes("trial") >= write or process.poll() is not None, 240)
    time.sleep(pause)
    said = f"{victim} killed {pause:.3f} s after write {write}"
    assert process.poll() is None, f"{said}: it had ended, {process.communicate()}"
    if victim == "driver":
        process.kill()
    elif victim == "node":
        os.kill(child(process.pid, "raylet"), signal.SIGKILL)
    else:
        kill_first(sweep.processes("ranks" if victim == "rank" else "processes"))
    out, err = process.communicate(timeout=300)
    if victim in ("trial", "rank"):
        assert process.returncode == 0, f"{said}\n{out}\n{err}"
    return said


def kill_in_a_write(sweep: Sweep, victim: str, undisturbed: Undisturbed, draw: random.Random, server: S3Server) -> str:
    """Two trials run at a time: of their processes at least one does half of the writes."""
    most = undisturbed.trial_writes // 2 if victim == "trial" else DRIVER_WRITES
    order = {
        "victim": victim,
        "write": draw.randint(1, most),
        "step": "upload" if sweep.kind == "object store" else draw.choice(("nothing", "half", "unnamed", "done")),
    }
    is_stored = draw.random() < 0.5
    server.fault = kill_who_uploads(sweep.folder / "upload.json", is_stored)
    (sweep.folder / "order.json").write_text(json.dumps(order))
    process = sweep.start()
    out, err = process.communicate(timeout=300)
    assert not (sweep.folder / "order.json").exists(), f"{order} was not carried out\n{err}"
    assert not (sweep.folder / "upload.json").exists(), f"{order}: nothing was put\n{err}"
    assert process.returncode == (0 if victim == "trial" else -signal.SIGKILL), f"{order}\n{out}\n{err}"
    return f"{order}, the object is stored: {is_stored}" if sweep.kind == "object store" else str(order)


def kill_who_uploads(told: Path, is_stored: bool) -> Callable[[str, str], tuple[int, str] | None]:
    """A fault of the server: whoever puts the object of which `told` speaks is killed while it waits for the answer."""

    def fault(method: str, path: str) -> tuple[int, str] | None:
        if method != "PUT" or not told.exists():
            return None
        order = json.loads(told.read_text())
        if not path.endswith(order["path"]):
            return None
        told.unlink()
        os.kill(order["process"], signal.SIGKILL)
        return None if is_stored else (500, "InternalError")

    return fault


def kill_first(processes: list[int]) -> None:
    """Kill the first that still lives: Tune lets the last trials' spare processes go."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
            return
    raise AssertionError("no trial's process is left")


def child(parent: int, name: str) -> int:
    """The process id of the child of that name."""
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            command, fields = (folder / "stat").read_text().split("(", 1)[1].rsplit(")", 1)
            if command == name and int(fields.split()[1]) == parent:
                return int(folder.name)
    raise AssertionError(f"process {parent} has no child {name}")
