"""Memory of trials that share a prepared data set: eight at once on one machine, as the kernel counts it.

A page that several processes map is shared out among them in their PSS (proportional set size, /proc/PID/smaps_rollup),
so that a sum over processes counts it once. The same sweep, in which every trial reads every image each epoch, is run
with a large set and with a small one. What the sum over the trials' processes grows by, over what the set grows by, is
the number of copies that they hold: 1 if they share one, 8 if each has its own. What they hold beside the set (torch,
Ray) is the constant of each process. The large set is measured in Ray's object store and, where the store is too small
for it, as it is mapped from the cache of the node.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median
from typing import Any

from _report import emit, parse_arguments, skip

TRIALS = 8
SWEEP = """
name: shared
base:
  data: {{name: synthetic, image_size: {size}, classes: {classes}, per_class: {per_class}}}
  model: pooled
  epochs: 100000
  batch_size: 64
  lr_schedule: constant
seeds: {seeds}
checkpoints: {{every_minutes: 0.02}}
resources: {{cpus: 1, gpus: 0}}
"""
SIZE, CLASSES = 64, 10  # small batches of few classes: a process's own buffers are small beside the set
SAMPLES = 9
SMALL_STORE = 80 * 2**20  # about as small as Ray lets an object store be


def measure(per_class: int, store: int | None) -> dict[str, float]:
    """Run the sweep until every trial has read the set; return bytes of the set and of the processes.

    Ray's object store has so many bytes, or Ray's default.
    """
    import ray

    from raysweep.cli import main as raysweep

    quiet: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.ERROR}
    ray.init(address="local", num_cpus=TRIALS, object_store_memory=store, **quiet)
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shared.yaml"
        path.write_text(SWEEP.format(size=SIZE, classes=CLASSES, per_class=per_class, seeds=list(range(TRIALS))))
        watcher = threading.Thread(target=_watch, args=(Path(folder) / "shared" / "trials", found))
        watcher.start()
        code = raysweep(["run", str(path), "--storage", folder, "--import", "_pooled_net"])
        watcher.join()
    assert code == 130, f"raysweep ended with {code}"
    assert found, "no memory was sampled"
    images = CLASSES * (per_class + per_class // 4)  # synthetic: the validation split is a quarter of the other
    return found | {"set_bytes": images * 3 * SIZE * SIZE}


def _watch(trials: Path, found: dict[str, float]) -> None:
    """Wait until all trials have trained an epoch; sample memory; then stop the run as Ctrl-C does."""
    try:
        end = time.monotonic() + 300
        while sum(_epoch(path) >= 1 for path in trials.glob("*/record.json")) < TRIALS:
            if time.monotonic() > end:
                raise TimeoutError(f"not all trials have trained: {trials}")
            time.sleep(0.5)
        samples = []
        for _ in range(SAMPLES):
            samples.append(_pss())
            time.sleep(0.5)
        for name in samples[0]:
            found[name] = median(sample[name] for sample in samples)
    finally:
        os.kill(os.getpid(), signal.SIGINT)


def _epoch(record: Path) -> int:
    return len(json.loads(record.read_text())["record"]["metrics"])


def _pss() -> dict[str, float]:
    """Bytes of the trials' processes, and of all that this process has started."""
    processes = _descendants(os.getpid())
    named = {pid: name for pid in processes if (name := _read(pid, "cmdline")).startswith(b"ray::raysweep shared")}
    trials = [pid for pid, name in named.items() if b"stop flag" not in name]
    assert len(trials) == TRIALS, f"{len(trials)} trials run, not {TRIALS}"
    return {
        "trials_bytes": sum(_size(pid, b"Pss:") for pid in trials),
        "shared_bytes": sum(_size(pid, b"Pss_Shmem:") for pid in trials),
        "cluster_bytes": sum(_size(pid, b"Pss:") for pid in processes),
        "rss_bytes": sum(_size(pid, b"Rss:") for pid in trials),
    }


def _descendants(pid: int) -> list[int]:
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    children = [int(child) for each in lists for child in _words(each)]
    return [pid, *(each for child in children for each in _descendants(child))]


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:  # it has ended
        return []


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def _size(pid: int, kind: bytes) -> int:
    """Bytes of a process: its `Pss:`, what of it is in shared memory, or its `Rss:`, with shared pages in full."""
    lines = _read(pid, "smaps_rollup").splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(kind))


def run_apart(per_class: int, store: int | None = None) -> dict[str, float]:
    """Measure in a fresh process; return what it tells."""
    with tempfile.TemporaryDirectory() as folder:
        told, log = Path(folder) / "told.json", Path(folder) / "log"
        words = [sys.executable, __file__, "--contender", json.dumps([per_class, store]), str(told)]
        environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAYSWEEP_CACHE": f"{folder}/cache"}
        environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent)}
        with log.open("w") as output:
            done = subprocess.run(words, stdout=output, stderr=subprocess.STDOUT, env=environment)
        if done.returncode:
            raise SystemExit(f"{words} ended with {done.returncode}:\n{log.read_text()[-3000:]}")
        outcome: dict[str, float] = json.loads(told.read_text())
    print(", ".join(f"{name} {value / 1e6:.0f} MB" for name, value in outcome.items()), file=sys.stderr)
    return outcome


def main() -> None:
    arguments = parse_arguments(__doc__)
    if not Path("/proc/self/smaps_rollup").exists():
        skip("proportional memory is Linux's: /proc/self/smaps_rollup")
    per_class = 640 if arguments.quick else 3_200
    large, mapped, small = run_apart(per_class), run_apart(per_class, SMALL_STORE), run_apart(80)
    grown: dict[str, Any] = {name: large[name] - small[name] for name in large}
    figures = {
        "trials": TRIALS,
        "set_mb": large["set_bytes"] / 1e6,
        "trials_pss_mb": large["trials_bytes"] / 1e6,
        "trials_rss_mb": large["rss_bytes"] / 1e6,
        "small_set_mb": small["set_bytes"] / 1e6,
        "small_set_trials_pss_mb": small["trials_bytes"] / 1e6,
        "own_mb_a_trial": (small["trials_bytes"] - small["set_bytes"]) / TRIALS / 1e6,
        "copies": grown["trials_bytes"] / grown["set_bytes"],
        "copies_in_shared_memory": grown["shared_bytes"] / grown["set_bytes"],
        "copies_of_the_whole_cluster": grown["cluster_bytes"] / grown["set_bytes"],
        "copies_mapped": (mapped["trials_bytes"] - small["trials_bytes"]) / grown["set_bytes"],
    }
    emit("shared_data", figures, {"copies": ("<=", 1.1), "copies_mapped": ("<=", 1.1)}, arguments)


if __name__ == "__main__":
    if "--contender" in sys.argv:
        logging.disable(logging.WARNING)
        Path(sys.argv[3]).write_text(json.dumps(measure(*json.loads(sys.argv[2]))))
    else:
        main()
