"""What an epoch of `raysweep.vision.loop` costs over a bare loop on ready tensors.

Both train the same network on as many images of 40x40, evaluate plain and EMA weights after each epoch, and run
in the same process, which keeps freed memory as a trial's does, with the same threads, precision, fused optimizer and
memory format, one epoch of each in turn.
The bare loop's images are normalised float batches, in order, that lie ready; it averages weights with torch's own
AveragedModel and get_ema_multi_avg_fn; it measures nothing but its time. `train` beside that draws the order, indexes
uint8 images, shifts and normalises them, sums losses and hits, and takes the gradients' norm. The ratio is the median
over the pairs of epochs, without the first, which warms up.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator

import torch
from _report import emit, parse_arguments
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from raysweep.vision.augment.batch import Normalize
from raysweep.vision.config import SgdConfig, TrialConfig
from raysweep.vision.data.dataset import DataSet, Split
from raysweep.vision.device import resolve_device, resolve_precision
from raysweep.vision.loop import train
from raysweep.vision.models.build import build_model
from raysweep.worker.process import keep_freed_memory

CLASSES, IMAGE_SIZE, BATCH = 20, 40, 128


def images(train_count: int, val_count: int) -> DataSet:
    """Random images: what they show does not change what they cost."""
    generator = torch.Generator().manual_seed(0)

    def split(count: int) -> Split:
        shape = (count, 3, IMAGE_SIZE, IMAGE_SIZE)
        pixels = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        return Split(pixels, torch.randint(0, CLASSES, (count,), generator=generator))

    names = tuple(f"class {i}" for i in range(CLASSES))
    return DataSet("random", split(train_count), split(val_count), None, names, (0.5,) * 3, (0.25,) * 3, "-")


def bare_epochs(config: TrialConfig, data: DataSet) -> Iterator[tuple[float, float]]:
    """The loop with nothing around it; each epoch yields how many images plain and EMA weights get right."""
    device = resolve_device("auto")
    bf16 = resolve_precision(config, device) == "bf16"
    model = build_model(config.model, data.num_classes).to(device).to(memory_format=torch.channels_last)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.99), use_buffers=True)
    assert isinstance(config.optimizer, SgdConfig)
    momentum, decay = config.optimizer.momentum, config.optimizer.weight_decay
    optimizer = torch.optim.SGD(model.parameters(), config.lr, momentum, weight_decay=decay, fused=True)
    batches = ready_batches(data.train, BATCH, device)
    held_out = ready_batches(data.val, 256 if device.type == "cpu" else 2048, device)

    def evaluate(network: torch.nn.Module) -> float:
        network.eval()
        hits = torch.zeros((), device=device)
        for inputs, labels in held_out:
            with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                hits += (network(inputs).argmax(1) == labels).sum()
        return hits.item()

    while True:
        model.train()
        for inputs, labels in batches:
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                loss = F.cross_entropy(model(inputs).float(), labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            average.update_parameters(model)
        yield evaluate(model), evaluate(average)


def ready_batches(split: Split, size: int, device: torch.device) -> list[tuple[torch.Tensor, torch.Tensor]]:
    normalize = Normalize((0.5,) * 3, (0.5,) * 3, device)
    pairs = zip(split.images.split(size), split.labels.split(size), strict=True)
    return [(normalize(pixels.to(device)), labels.to(device)) for pixels, labels in pairs]


def seconds(step: Callable[[], object]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def compare(config: TrialConfig, data: DataSet, pairs: int) -> tuple[float, float, float]:
    """Median seconds an epoch of the bare loop and of `train`, and the median of their ratio."""
    ours, bare = train(config, data, seed=0), bare_epochs(config, data)
    next(ours), next(bare)
    times = []
    for pair in range(pairs):
        in_turn = [bare, ours] if pair % 2 else [ours, bare]
        taken = {loop: seconds(loop.__next__) for loop in in_turn}
        times.append((taken[bare], taken[ours]))
    ours.close()
    of_bare, of_ours = zip(*times, strict=True)
    return statistics.median(of_bare), statistics.median(of_ours), statistics.median(b / a for a, b in times)


def main() -> None:
    arguments = parse_arguments(__doc__)
    keep_freed_memory()
    pairs, count = (3, 384) if arguments.quick else (9, 1280)
    names = ("baseline_block",) if arguments.quick else ("baseline_block", "resnet18")
    data = images(count, count // 8)
    figures: dict[str, float] = {}
    targets: dict[str, tuple[str, float]] = {}
    for name in names:
        for precision in ("fp32", "bf16"):
            config = TrialConfig(
                model={"name": name},
                precision=precision,
                augment="shift",
                batch_size=BATCH,
                epochs=pairs + 2,
                lr=0.01,
                lr_schedule="constant",
            )
            key = f"{name}_{precision}"
            bare, ours, ratio = compare(config, data, pairs)
            figures |= {f"{key}_bare_epoch_s": bare, f"{key}_train_epoch_s": ours, f"{key}_train_to_bare": ratio}
            targets[f"{key}_train_to_bare"] = ("<=", 1.05)
    emit("epoch_overhead", figures, targets, arguments)


if __name__ == "__main__":
    main()
