"""Whole epochs on real images of Tiny ImageNet at 40x40, against the loop that one writes by hand.

* author: ImageFolder, torchvision.transforms.v2 image by image, a DataLoader with as many workers as the machine has
  cores, fp32, `loss.item()` every step. Images are stored as JPEG, 64x64, and resized in the transform.
* raysweep: `train`, as sweeps call it, EMA weights and all, in fp32 and in bf16.

Both train baseline_block on the same images with the same settings and evaluate after each epoch. Each runs in a
process of its own, raysweep's set up as it sets up its trials', and their epochs alternate. A ratio is
the median over the epochs of all seeds, each run's first left out, which warms up. Preparing (decoding and resizing
once) is counted apart.

* forward_backward: resnet18 on ready, normalised batches, with no optimizer, evaluation or data; against the training
  part of raysweep's epoch.

On a GPU every network of the report is timed at 100,000 images; the 25 runs are summed up from that.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from _report import emit, parse_arguments, skip
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from raysweep.sweepfile import load_sweep
from raysweep.sweepfile.plan import plan_trials
from raysweep.vision.augment.batch import Normalize
from raysweep.vision.config import DataConfig, ModelConfig, TrialConfig
from raysweep.vision.data import DataSet, open_data
from raysweep.vision.device import resolve_device, resolve_precision
from raysweep.vision.loop import train
from raysweep.vision.models.build import build_model
from raysweep.vision.models.summary import summarize
from raysweep.worker.process import keep_freed_memory

IMAGE_SIZE, BATCH, LR, MOMENTUM, WEIGHT_DECAY = 40, 128, 0.05, 0.9, 5e-4
HALF = (0.5, 0.5, 0.5)
REPORT = Path(__file__).parents[1] / "sweeps" / "report.yaml"
BF16_PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
"""Dense FLOP/s of the SXM boards, from NVIDIA's data sheets."""
BRIEFLY = 4
"""Epochs of the precision that raysweep would not choose by itself."""
WITHIN_NOISE = 2.78
"""A difference of two means of three, in standard errors, up to which it is noise: Student's t, 95 %, 4 degrees."""


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    classes: int
    per_class: int
    epochs: int
    seeds: int
    pairs: int
    """Epochs of resnet18, in turn with forward and backward alone."""


FULL, QUICK = Size(10, 500, 8, 3, 5), Size(4, 100, 2, 2, 2)


def trial_config(name: str, epochs: int, precision: str) -> TrialConfig:
    return TrialConfig(
        model=ModelConfig(name=name),
        epochs=epochs,
        batch_size=BATCH,
        lr=LR,
        augment="medium",
        precision=precision,
    )


# ---------------------------------------------------------------------------------------------------------
# The loop that one writes by hand


def write_folder(parquet: Path, root: Path, size: Size) -> None:
    """Write the images that raysweep's set is made of as files, in ImageFolder's layout."""
    for split, limit in (("train", size.per_class), ("val", sys.maxsize)):
        written = dict.fromkeys(range(size.classes), 0)
        for label in written:
            (root / split / f"{label:03}").mkdir(parents=True)
        for batch in pq.ParquetFile(parquet / f"{split}.parquet").iter_batches(2000):
            rows = batch.filter(pc.less(batch["label"], size.classes))
            for image, label in zip(rows["image"].to_pylist(), rows["label"].to_pylist(), strict=True):
                if written[label] < limit:
                    (root / split / f"{label:03}" / f"{written[label]:04}.jpeg").write_bytes(image)
                    written[label] += 1


def author_epochs(root: Path, size: Size, seed: int) -> Iterator[dict[str, float]]:
    """Train and evaluate; yields `val_acc`."""
    device = resolve_device("auto")
    resize = v2.Resize(IMAGE_SIZE, v2.InterpolationMode.BICUBIC)  # as raysweep prepares images
    to_tensor = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(HALF, HALF)]
    augment = [
        v2.RandomHorizontalFlip(),
        v2.RandomVerticalFlip(),
        v2.RandomRotation(15, v2.InterpolationMode.BILINEAR),
        v2.GaussianBlur(3),
    ]
    torch.manual_seed(seed)
    sets = {
        "train": ImageFolder(root / "train", v2.Compose([resize, *augment, *to_tensor])),
        "val": ImageFolder(root / "val", v2.Compose([resize, *to_tensor])),
    }

    def load(split: str) -> DataLoader[Any]:
        return DataLoader(
            sets[split],
            BATCH,
            shuffle=split == "train",
            num_workers=os.cpu_count() or 1,
            multiprocessing_context="fork",  # as in a script that one starts by hand
            persistent_workers=True,
            pin_memory=device.type == "cuda",
        )

    loaders = {split: load(split) for split in sets}
    model = build_model(ModelConfig(name="baseline_block"), size.classes).to(device)
    optimizer = torch.optim.SGD(model.parameters(), LR, MOMENTUM, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, size.epochs)
    while True:
        model.train()
        running_loss = 0.0
        for images, labels in loaders["train"]:
            images, labels = images.to(device), labels.to(device)
            optimizer.zero_grad()
            loss = F.cross_entropy(model(images), labels)
            loss.backward()
            optimizer.step()
            running_loss += loss.item()
        schedule.step()
        model.eval()
        correct = 0
        with torch.no_grad():
            for images, labels in loaders["val"]:
                correct += int((model(images.to(device)).argmax(1).cpu() == labels).sum())
        yield {"val_acc": correct / len(sets["val"])}


# ---------------------------------------------------------------------------------------------------------
# Against it


class Contender:
    """A loop in a process of its own, which does an epoch when it is told to."""

    def __init__(self, epochs: Callable[..., Iterator[dict[str, float]]], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        self._process = context.Process(target=_compete, args=(theirs, epochs, arguments))

    def __enter__(self) -> Self:
        self._process.start()
        return self

    def epoch(self) -> dict[str, float]:
        """Its metrics, and `wall_s`."""
        self._ours.send(True)
        metrics: dict[str, float] = self._ours.recv()
        return metrics

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ours.send(False)
        self._process.join()


def _compete(orders: Connection, epochs: Callable[..., Iterator[dict[str, float]]], arguments: tuple[Any, ...]) -> None:
    loop = epochs(*arguments)
    while orders.recv():
        began = time.perf_counter()
        metrics = next(loop)
        orders.send({**metrics, "wall_s": time.perf_counter() - began})
    loop.close()


def raysweep_epochs(config: TrialConfig, data: DataConfig, seed: int) -> Iterator[dict[str, float]]:
    """Yield the metrics of `train`, in a process set up as a trial's."""
    keep_freed_memory()
    for epoch in train(config, open_data(data, sweep_folder=Path.cwd()), seed=seed):
        yield epoch.metrics


def against_author(data: DataConfig, folder: Path, size: Size) -> dict[str, float]:
    """Times of an epoch, their ratios, and the accuracies at the end of each seed."""
    default = resolve_precision(TrialConfig(), resolve_device("auto"))
    seconds: dict[str, list[float]] = {"author": [], "fp32": [], "bf16": []}
    final: dict[str, list[float]] = {"author": [], "raysweep": []}
    for seed in range(size.seeds):
        with ExitStack() as running:
            author = running.enter_context(Contender(author_epochs, folder, size, seed))
            contenders = {"author": author}
            for precision in ("fp32", "bf16"):
                config = trial_config("baseline_block", size.epochs, precision)
                contenders[precision] = running.enter_context(Contender(raysweep_epochs, config, data, seed))
            for epoch in range(size.epochs):
                for name, contender in contenders.items():
                    # Of the precision that raysweep would not choose here the time is enough.
                    if name in ("author", default) or (seed == 0 and epoch < BRIEFLY):
                        metrics = contender.epoch()
                        if epoch:
                            seconds[name].append(metrics["wall_s"])
                        if name in ("author", default):
                            last = final["author" if name == "author" else "raysweep"]
                            last[seed:] = [metrics["val_acc"]]
    figures = {f"baseline_block_{name}_epoch_s": statistics.median(each) for name, each in seconds.items()}
    for precision in ("fp32", "bf16"):
        pairs = zip(seconds["author"], seconds[precision], strict=False)
        figures[f"baseline_block_author_to_{precision}"] = statistics.median(a / b for a, b in pairs)
    return figures | accuracies(final)


def accuracies(final: dict[str, list[float]]) -> dict[str, float]:
    """Means and standard deviations over the seeds, and how far the means are apart in standard errors."""
    figures = {f"val_acc_{name}_mean": statistics.mean(values) for name, values in final.items()}
    figures |= {f"val_acc_{name}_sd": statistics.stdev(values) for name, values in final.items()}
    error = math.sqrt(sum(statistics.variance(values) / len(values) for values in final.values()))
    gap = abs(figures["val_acc_author_mean"] - figures["val_acc_raysweep_mean"])
    figures["val_acc_gap_in_standard_errors"] = gap / error if error else (math.inf if gap else 0.0)
    return figures


def forward_backward_epochs(config: TrialConfig, data: DataConfig) -> Iterator[dict[str, float]]:
    """Forward and backward of batches that lie ready, and nothing else, in a process set up as a trial's."""
    keep_freed_memory()
    device = resolve_device("auto")
    bf16 = resolve_precision(config, device) == "bf16"
    images = open_data(data, sweep_folder=Path.cwd())
    model = build_model(config.model, images.num_classes).to(device).to(memory_format=torch.channels_last).train()
    normalize = Normalize(HALF, HALF, device)
    splits = zip(images.train.images.split(BATCH), images.train.labels.split(BATCH), strict=True)
    batches = [(normalize(pixels.to(device)), labels.to(device)) for pixels, labels in splits]
    while True:
        for inputs, labels in batches:
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                loss = F.cross_entropy(model(inputs).float(), labels)
            loss.backward()
            model.zero_grad(set_to_none=True)
        if device.type == "cuda":
            torch.cuda.synchronize()
        yield {}


def against_forward_backward(data: DataConfig, size: Size) -> dict[str, float]:
    """Seconds of an epoch's training and of forward and backward alone, and their ratio: medians."""
    count = size.classes * size.per_class
    config = trial_config("resnet18", size.pairs + 1, "auto")
    alone, whole = [], []
    with (
        Contender(forward_backward_epochs, config, data) as bare,
        Contender(raysweep_epochs, config, data, 0) as ours,
    ):
        bare.epoch(), ours.epoch()
        for _ in range(size.pairs):
            alone.append(bare.epoch()["wall_s"])
            whole.append(count / ours.epoch()["images_per_s"])
    return {
        "resnet18_forward_backward_s": statistics.median(alone),
        "resnet18_train_s": statistics.median(whole),
        "resnet18_train_to_forward_backward": statistics.median(b / a for a, b in zip(alone, whole, strict=True)),
    }


# ---------------------------------------------------------------------------------------------------------
# Every network, on a GPU


def every_network(data: DataSet, names: list[str]) -> dict[str, float]:
    """Measure each network: images/s of training, seconds of an epoch with evaluation, share of the GPU's bf16 peak."""
    figures: dict[str, float] = {}
    peak = next((flops for board, flops in BF16_PEAK.items() if board in torch.cuda.get_device_name()), None)
    for name in names:
        config = TrialConfig(model=ModelConfig(name=name), epochs=2, batch_size=BATCH, lr=LR, augment="v2augs")
        *_, epoch = train(config, data, seed=0)
        rate = epoch.metrics["images_per_s"]
        figures |= {f"{name}_images_per_s": rate, f"{name}_epoch_s": epoch.metrics["seconds"]}
        if peak is not None:
            forward = summarize(config.model, data.num_classes, data.image_size).flops or 0
            figures[f"{name}_share_of_bf16_peak"] = 3 * forward * rate / peak  # backward is twice the forward
    return figures


def report_gpu_hours(figures: dict[str, float]) -> float:
    """The report's 25 runs, unpruned, at the measured seconds of an epoch."""
    trials = plan_trials(load_sweep(REPORT))
    return sum(trial.config.epochs * figures[f"{trial.config.model.name}_epoch_s"] for trial in trials) / 3600


def on_a_gpu(parquet: Path, arguments: argparse.Namespace) -> tuple[dict[str, float], dict[str, tuple[str, float]]]:
    per_class = 50 if arguments.quick else None
    data = open_data(DataConfig(name="parquet", path=str(parquet), image_size=IMAGE_SIZE, per_class=per_class),
                     sweep_folder=parquet)  # fmt: skip
    names = sorted({trial.config.model.name for trial in plan_trials(load_sweep(REPORT))} | {"resnet18"})
    figures = every_network(data, names)
    if arguments.quick:
        return figures, {}
    figures["report_gpu_hours"] = report_gpu_hours(figures)
    return figures, {
        "v2_receptive_resnet50_epoch_s": ("<=", 10.0),
        "v4_receptive_resnet50_epoch_s": ("<=", 40.0),
        "report_gpu_hours": ("<=", 6.0),
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    shared = os.environ.get("RAYSWEEP_SHARED")
    default = Path(shared) / "data" if shared else None
    text = "folder with tiny-imagenet-200/train.parquet and val.parquet (default: $RAYSWEEP_SHARED/data)"
    parser.add_argument("--images", type=Path, default=default, help=text)


def main() -> None:
    arguments = parse_arguments(__doc__, add_arguments)
    if arguments.images is None:
        skip("no images: set RAYSWEEP_SHARED, or name the folder with tiny-imagenet-200/train.parquet by --images")
    parquet = arguments.images / "tiny-imagenet-200"
    size = QUICK if arguments.quick else FULL
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["RAYSWEEP_CACHE"] = f"{scratch}/cache"
        config = DataConfig(name="parquet", path=str(parquet.resolve()), image_size=IMAGE_SIZE, classes=size.classes,
                            per_class=size.per_class)  # fmt: skip
        began = time.perf_counter()
        open_data(config, sweep_folder=parquet)
        figures = {"prepare_s": time.perf_counter() - began}
        write_folder(parquet, Path(scratch) / "images", size)
        figures |= against_author(config, Path(scratch) / "images", size)
        figures |= against_forward_backward(config, size)
        targets = {
            "baseline_block_author_to_bf16": (">=", 4.0),
            "resnet18_train_to_forward_backward": ("<=", 1.10),
        }
        if not arguments.quick:  # two short runs say nothing of accuracy
            targets["val_acc_gap_in_standard_errors"] = ("<=", WITHIN_NOISE)
        if torch.cuda.is_available():
            measured, wanted = on_a_gpu(parquet, arguments)
            figures |= measured
            targets |= wanted
        else:
            print(
                "no GPU: images/s and seconds an epoch of each network at 100,000 images not measured", file=sys.stderr
            )
    emit("loop", figures, targets, arguments)


if __name__ == "__main__":
    main()
