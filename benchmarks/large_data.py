"""What an epoch costs whose images do not lie on the trial's device, and how much memory such a trial takes.

Three trials train alike in one process, an epoch of each in turn: one has its images on the device, one streams them
from host memory, one from the memory-mapped files of the cache. The ratios are medians over the rounds, without the
first, which warms up; all three must report the same numbers. The files are in the kernel's cache, as those of a set
are that fits the machine's memory: how fast a disk is, is not measured.

Memory is what a process has for itself (RssAnon in /proc/self/status), since pages of a file can be given back: its
largest over two epochs of a network that computes next to nothing, less that before the set was opened, each in a
process of its own; `limited` is one that the kernel gives half of the set's bytes (RLIMIT_DATA) beside what it had.
`store_limited` is a run of raysweep whose object store has 80 MiB, less than half of the set: its epoch's time over
that of a run whose store holds the set; both must report the same numbers. On a CPU images that lie in memory are on
the device, and streamed ones are read by one thread.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import _pooled_net  # noqa: F401  registers `pooled`
import psutil
from _report import emit, parse_arguments

from raysweep.vision.config import TrialConfig
from raysweep.vision.data import DataSet, open_data
from raysweep.vision.loop import train

MOST = 1.15
SAMPLE_S = 0.005


@dataclass(frozen=True)
class Case:
    """What is trained: a network on some images of some size."""

    model: dict[str, Any]
    image_size: int
    augment: str
    train_images: int
    batch_size: int

    def config(self, epochs: int) -> TrialConfig:
        """Return the trial's; a fifth of its images are validation images."""
        data = {"name": "synthetic", "image_size": self.image_size, "per_class": self.train_images // 10}
        return TrialConfig.model_validate(
            {
                "model": self.model,
                "data": data,
                "augment": self.augment,
                "batch_size": self.batch_size,
                "epochs": epochs,
                "lr": 0.01,
                "lr_schedule": "constant",
            }
        )


CASES = {
    "baseline_block_40px": Case({"name": "baseline_block"}, 40, "medium", 1280, 128),
    "resnet18_w16_40px": Case({"name": "resnet18", "width": 16}, 40, "flip_shift", 2560, 128),
    "resnet18_w16_224px": Case({"name": "resnet18", "width": 16}, 224, "flip_shift", 160, 32),
}
QUICK = {"baseline_block_40px": Case({"name": "baseline_block", "width": 8}, 40, "medium", 320, 64)}
LARGE = Case({"name": "pooled"}, 224, "none", 2000, 16)


def in_memory(data: DataSet) -> DataSet:
    """Return a memory-mapped set copied into memory."""
    train, val = (replace(split, images=split.images.clone()) for split in (data.train, data.val))
    return replace(data, train=train, val=val)


def compare(case: Case, folder: Path, rounds: int) -> dict[str, float]:
    """Return the seconds of an epoch on the device, and what it takes times as long where images are streamed."""
    config = case.config(rounds + 1)
    mapped = open_data(config.data, sweep_folder=folder)
    copied = in_memory(mapped)
    trials = {
        "resident": train(config, copied, seed=0, place="device"),
        "streamed": train(config, copied, seed=0, place="host"),
        "mapped": train(config, mapped, seed=0, place="host"),
    }
    taken: list[dict[str, float]] = []
    names = list(trials)
    for turn in range(rounds + 1):
        seconds, told = {}, set()
        for name in names[turn % 3 :] + names[: turn % 3]:
            start = time.perf_counter()
            epoch = next(trials[name])
            seconds[name] = time.perf_counter() - start
            told.add((epoch.metrics["train_loss"], epoch.metrics["val_loss"]))
        assert len(told) == 1, f"the same images made different numbers: {told}"
        taken.append(seconds)
    for trial in trials.values():
        trial.close()
    found = {"resident_epoch_s": statistics.median(each["resident"] for each in taken[1:])}
    for name in ("streamed", "mapped"):
        found[f"{name}_to_resident"] = statistics.median(each[name] / each["resident"] for each in taken[1:])
    return found


def own_bytes() -> int:
    """Return what of this process's memory is no file's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))


@contextmanager
def largest() -> Iterator[list[int]]:
    """Give a list that has the largest `own_bytes` of the block at its end."""
    found, over = [own_bytes()], threading.Event()

    def watch() -> None:
        while not over.wait(SAMPLE_S):
            found[0] = max(found[0], own_bytes())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()


def own_memory(case: Case, folder: Path, place: Literal["device", "host"], is_limited: bool) -> dict[str, float]:
    """Train two epochs; return the bytes of the set, those that the process has for itself beside what it had, and the
    seconds of the second epoch. If it `is_limited`, it may have half of the set's bytes.
    """
    config = case.config(2)
    network = replace(case, image_size=16, train_images=100).config(1)
    with closing(train(network, open_data(network.data, sweep_folder=folder), seed=0)) as warm:
        next(warm)  # what torch sets up once
    before, data = own_bytes(), open_data(config.data, sweep_folder=folder)
    size = data.train.images.nbytes + data.val.images.nbytes
    if is_limited:
        most = psutil.Process().memory_info().data + size // 2
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    with largest() as peak:
        data = in_memory(data) if place == "device" else data
        *_, last = train(config, data, seed=0, place=place)
    return {"set_bytes": size, "own_bytes": peak[0] - before, "epoch_s": last.metrics["seconds"]}


def own_memory_apart(case: Case, folder: Path, place: str, is_limited: bool = False) -> dict[str, float]:
    """Measure in a fresh process."""
    words = [sys.executable, __file__, "--contender", str(case.train_images), str(folder), place, str(is_limited)]
    done = subprocess.run(words, stdout=subprocess.PIPE, check=True)
    outcome: dict[str, float] = json.loads(done.stdout)
    return outcome


SWEEP = """
name: store_{store}
base:
  data: {{name: synthetic, image_size: {size}, per_class: {per_class}}}
  model: pooled
  epochs: {epochs}
  batch_size: {batch_size}
  lr: 0.01
resources: {{cpus: 1, gpus: 0}}
"""
STORES = {"held": 1000 * 2**20, "limited": 80 * 2**20}


def epochs_by_store(case: Case, folder: Path, epochs: int) -> dict[str, float]:
    """Run raysweep with an object store that holds the set and with one that does not; return an epoch's seconds."""
    import ray

    from raysweep.cli import main as raysweep

    found, told = {}, []
    for store, size in STORES.items():
        path = folder / f"{store}.yaml"
        per_class = case.train_images // 10
        numbers = {"size": case.image_size, "per_class": per_class, "batch_size": case.batch_size, "epochs": epochs}
        path.write_text(SWEEP.format(store=store, **numbers))
        ray.init(
            address="local",
            num_cpus=1,
            object_store_memory=size,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
        assert raysweep(["run", str(path), "--storage", str(folder), "--import", "_pooled_net"]) == 0
        (record,) = (folder / f"store_{store}" / "trials").glob("*/record.json")
        metrics = json.loads(record.read_text())["record"]["metrics"]
        found[store] = statistics.median(epoch["seconds"] for epoch in metrics[1:])
        told.append([(epoch["train_loss"], epoch["val_loss"]) for epoch in metrics])
    assert told[0] == told[1], "the same images made different numbers"
    return found


def main() -> None:
    arguments = parse_arguments(__doc__)
    figures: dict[str, float] = {}
    targets: dict[str, tuple[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["RAYSWEEP_CACHE"] = folder
        for name, case in (QUICK if arguments.quick else CASES).items():
            found = compare(case, Path(folder), rounds=3 if arguments.quick else 9)
            figures |= {f"{name}_{key}": value for key, value in found.items()}
            targets |= {f"{name}_{key}": ("<=", MOST) for key in found if key.endswith("_to_resident")}
        large = replace(LARGE, train_images=200) if arguments.quick else LARGE
        open_data(large.config(1).data, sweep_folder=Path(folder))
        resident, mapped = (own_memory_apart(large, Path(folder), place) for place in ("device", "host"))
        limited = own_memory_apart(large, Path(folder), "host", is_limited=not arguments.quick)
        figures["large_set_mb"] = resident["set_bytes"] / 1e6
        for name, told in {"resident": resident, "mapped": mapped, "limited": limited}.items():
            figures |= {f"large_{name}_own_mb": told["own_bytes"] / 1e6, f"large_{name}_epoch_s": told["epoch_s"]}
        if not arguments.quick:
            seconds = epochs_by_store(large, Path(folder), epochs=10)
            figures |= {f"store_{name}_epoch_s": value for name, value in seconds.items()}
            figures["store_limited_to_held"] = seconds["limited"] / seconds["held"]
            targets["store_limited_to_held"] = ("<=", MOST)
    emit("large_data", figures, targets, arguments)


if __name__ == "__main__":
    if "--contender" in sys.argv:
        _, _, count, of_set, where, limited = sys.argv
        measured = own_memory(replace(LARGE, train_images=int(count)), Path(of_set), where, limited == "True")  # type: ignore[arg-type]
        json.dump(measured, sys.stdout)
    else:
        main()
