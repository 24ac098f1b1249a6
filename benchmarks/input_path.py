"""Images a second of one core on the input path: augmented, normalised batches of 128 images of 40x40, on one thread.

The preset `medium` (flips, rotation, blur) and the normalisation are done by
(a) raysweep: the whole batch at once, parameters for each image;
(b) torchvision.transforms.v2, image by image and then stacked, as a Dataset and a DataLoader worker do; from tensors,
    and from PIL images, as ImageFolder gives them;
(c) Kornia's batched augmentations, with parameters for each image too.
All start from decoded images and end with a normalised float32 batch. They take turns in one process, set up as a
trial's, and seconds are those of the processor's time, so that what else the machine does counts little; the figure is
the median turn's. The other presets follow, by raysweep alone. On a GPU (a) and (c) run there, by the clock on the
wall, and (b) does not.
"""

from __future__ import annotations

import importlib.util
import itertools
import statistics
import sys
import time
from collections.abc import Callable

import torch
from _report import emit, parse_arguments
from torchvision.transforms import v2

from raysweep.vision.augment.batch import Normalize, build_augment
from raysweep.vision.augment.operations import AUGMENT_PRESETS
from raysweep.vision.device import resolve_device
from raysweep.vision.randomness import generator
from raysweep.worker.process import keep_freed_memory

IMAGE_SIZE, BATCH = 40, 128
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
DEGREES, KERNEL, SIGMA, FLIP = 15, 3, (0.1, 2.0), 0.5  # of the preset `medium`

Batch = Callable[[], torch.Tensor]
"""Makes one batch."""


def raysweep_batch(images: torch.Tensor, preset: str) -> Batch:
    augment, normalize = build_augment(preset, IMAGE_SIZE), Normalize(MEAN, STD, images.device)
    steps = itertools.count()
    return lambda: normalize(augment(images, generator(images.device, "augment", 0, 0, next(steps))))


def torchvision_batch(images: torch.Tensor, from_pil: bool) -> Batch:
    augment = [
        v2.RandomHorizontalFlip(FLIP),
        v2.RandomVerticalFlip(FLIP),
        v2.RandomRotation(DEGREES, v2.InterpolationMode.BILINEAR),
        v2.GaussianBlur(KERNEL, SIGMA),
    ]
    finish = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    transform = v2.Compose([*augment, *finish])
    singles = [v2.functional.to_pil_image(image) for image in images] if from_pil else list(images)
    return lambda: torch.stack([transform(image) for image in singles])


def kornia_batch(images: torch.Tensor) -> Batch:
    import kornia.augmentation as K

    augment = K.AugmentationSequential(
        K.RandomHorizontalFlip(FLIP),
        K.RandomVerticalFlip(FLIP),
        K.RandomRotation(DEGREES, p=1.0),
        K.RandomGaussianBlur((KERNEL, KERNEL), SIGMA, p=1.0),
        K.Normalize(MEAN, STD),
        data_keys=["input"],
    )
    return lambda: augment(images / 255)


def images_per_s(ways: dict[str, Batch], turns: int, turn_s: float, device: torch.device) -> dict[str, float]:
    """Let each way make batches for `turn_s` seconds, in turn; returns each one's median rate over the turns."""
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for batch in ways.values():
        batch()
    for _ in range(turns):
        for name, batch in ways.items():
            began, batches = clock(device), 0
            while (taken := clock(device) - began) < turn_s:
                batch()
                batches += 1
            rates[name].append(batches * BATCH / taken)
    return {name: statistics.median(each) for name, each in rates.items()}


def clock(device: torch.device) -> float:
    """Seconds: of this process's work on a CPU; on a GPU by the wall, once what was begun is done."""
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def main() -> None:
    arguments = parse_arguments(__doc__)
    keep_freed_memory()
    torch.set_num_threads(1)
    turns, turn_s = (3, 0.3) if arguments.quick else (9, 1.5)
    device = resolve_device("auto")
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (BATCH, 3, IMAGE_SIZE, IMAGE_SIZE), generator=random, dtype=torch.uint8).to(device)
    ways = {"raysweep": raysweep_batch(images, "medium")}
    if device.type == "cpu":
        ways |= {"torchvision": torchvision_batch(images, False), "torchvision_pil": torchvision_batch(images, True)}
    if importlib.util.find_spec("kornia"):
        ways["kornia"] = kornia_batch(images)
    rates = images_per_s(ways, turns, turn_s, device)
    presets = images_per_s({name: raysweep_batch(images, name) for name in AUGMENT_PRESETS}, turns, turn_s / 2, device)
    figures = {f"{name}_images_per_s": rate for name, rate in rates.items()}
    figures |= {f"raysweep_to_{name}": rates["raysweep"] / rate for name, rate in rates.items() if name != "raysweep"}
    figures |= {f"preset_{name}_images_per_s": rate for name, rate in presets.items()}
    wanted = {"raysweep_to_torchvision": (">=", 15.0), "raysweep_to_kornia": (">=", 2.0)}
    if "kornia" not in ways:
        print("no comparison with Kornia, which is not installed: pip install 'raysweep[bench]'", file=sys.stderr)
    emit("input_path", figures, {name: wanted[name] for name in wanted if name in figures}, arguments)


if __name__ == "__main__":
    main()
