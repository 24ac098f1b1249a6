"""What an epoch costs whose images do not lie on the trial's device, and how much memory such a trial takes.

Three trials train alike in one process, an epoch of each in turn: one has its images on the device, one streams them
from host memory, one from the memory-mapped files of the cache. The ratios are medians over the rounds, without the
first, which warms up; all three must report the same numbers. The files are in the kernel's cache, as those of a set
are that fits the machine's memory: how fast a disk is, is not measured.

Memory is what a process has for itself (RssAnon in /proc/self/status), since pages of a file can be given back: its
largest over an epoch of a network that computes next to nothing, less that before the set was opened, each in a process
of its own. On a CPU images that lie in memory are on the device, and streamed ones are read by one thread.
"""

from __future__ import annotations

import json
import os
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


def own_memory(case: Case, folder: Path, place: Literal["device", "host"]) -> dict[str, int]:
    """Train two epochs; return the bytes of the set, and those that the process has for itself beside what it had."""
    config = case.config(2)
    network = replace(case, image_size=16, train_images=100).config(1)
    with closing(train(network, open_data(network.data, sweep_folder=folder), seed=0)) as warm:
        next(warm)  # what torch sets up once
    before = own_bytes()
    with largest() as most:
        data = open_data(config.data, sweep_folder=folder)
        data = in_memory(data) if place == "device" else data
        for _ in train(config, data, seed=0, place=place):
            pass
    return {"set_bytes": data.train.nbytes + data.val.nbytes, "own_bytes": most[0] - before}


def own_memory_apart(case: Case, folder: Path, place: str) -> dict[str, int]:
    """Measure in a fresh process."""
    words = [sys.executable, __file__, "--contender", str(case.train_images), str(folder), place]
    done = subprocess.run(words, stdout=subprocess.PIPE, check=True)
    outcome: dict[str, int] = json.loads(done.stdout)
    return outcome


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
        for name, place in {"resident": "device", "mapped": "host"}.items():
            told = own_memory_apart(large, Path(folder), place)
            figures |= {"large_set_mb": told["set_bytes"] / 1e6, f"large_{name}_own_mb": told["own_bytes"] / 1e6}
    emit("large_data", figures, targets, arguments)


if __name__ == "__main__":
    if "--contender" in sys.argv:
        count, place = int(sys.argv[2]), sys.argv[4]
        json.dump(own_memory(replace(LARGE, train_images=count), Path(sys.argv[3]), place), sys.stdout)  # type: ignore[arg-type]
    else:
        main()
