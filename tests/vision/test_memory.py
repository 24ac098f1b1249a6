"""Memory that runs out in training and evaluation; the allocator's limit is pretended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed._tools.mem_tracker import MemTracker

from raysweep.errors import OutOfMemory
from raysweep.registry import MODELS
from raysweep.vision.config import ModelConfig, TrialConfig
from raysweep.vision.data.dataset import DataSet, Split
from raysweep.vision.inference import Classifier
from raysweep.vision.loop import train
from raysweep.vision.memory import Batches, is_out_of_memory
from raysweep.vision.models.build import build_model
from raysweep.vision.models.resnets import baseline_block
from raysweep.vision.randomness import generator

CPU = torch.device("cpu")
FULL = "CUDA out of memory. Tried to allocate 2.00 GiB\nGPU 0 has a total capacity of 15 GiB"


def split(count: int, seed: int) -> Split:
    images = torch.randint(0, 256, (count, 3, 8, 8), generator=generator("cpu", "test", seed), dtype=torch.uint8)
    return Split(images, torch.arange(count) % 4)


DATA = DataSet("tiny", split(50, 0), split(77, 1), None, tuple("abcd"), (0.5,) * 3, (0.25,) * 3, "-")


def limited(most: int, in_training: bool = False, seen: list[int] | None = None) -> Callable[..., nn.Module]:
    """A network for which memory suffices up to `most` images, in evaluation or in training."""

    def build(num_classes: int, width: int | None = None) -> nn.Module:
        net = baseline_block(num_classes, 4)

        def look(module: nn.Module, inputs: Any) -> None:
            if module.training == in_training and not inputs[0].is_meta:
                if seen is not None:
                    seen.append(len(inputs[0]))
                if len(inputs[0]) > most:
                    raise torch.OutOfMemoryError(FULL)

        net.register_forward_pre_hook(look)
        return net

    return build


def metrics(name: str, **changes: Any) -> list[dict[str, float]]:
    config = TrialConfig(**{"model": name, "epochs": 2, "batch_size": 16, "precision": "fp32", **changes})
    clock = ("seconds", "images_per_s")
    found = [epoch.metrics for epoch in train(config, DATA, seed=3)]
    return [{key: value for key, value in of_epoch.items() if key not in clock} for of_epoch in found]


def test_evaluation_that_runs_out_of_memory_goes_on_in_smaller_batches_to_the_same_numbers() -> None:
    seen: list[int] = []
    MODELS.register("small_gpu")(limited(10, seen=seen))
    MODELS.register("large_gpu")(limited(1000))
    for halved, whole in zip(metrics("small_gpu"), metrics("large_gpu"), strict=True):
        assert halved == pytest.approx(whole, rel=1e-6)
        assert halved["val_acc"] == whole["val_acc"]
        assert halved["val_acc_ema"] == whole["val_acc_ema"]
    in_full = [9] * 8 + [5]
    assert seen == [77, 38, 19, *in_full * 4], "the batches stay halved"


def test_memory_that_runs_out_in_training_says_so_and_what_helps() -> None:
    MODELS.register("small_gpu")(limited(10, in_training=True))
    with pytest.raises(OutOfMemory) as caught:
        metrics("small_gpu")
    assert str(caught.value) == (
        "out of memory in training, with batch_size 16 (CUDA out of memory. Tried to allocate 2.00 GiB); a smaller "
        "batch_size, a smaller network or a larger accumulate makes it another trial; fewer trials at a time on "
        "the device (resources.gpus, limits.max_concurrent) leave more to each"
    )


def test_memory_that_runs_out_of_one_image_in_evaluation_says_so() -> None:
    MODELS.register("small_gpu")(limited(0))
    with pytest.raises(OutOfMemory, match=r"^out of memory in evaluation, in batches of 1 \(CUDA .*; fewer trials"):
        metrics("small_gpu")


def test_other_errors_of_an_evaluation_stay_what_they_are() -> None:
    def fail(rows: slice) -> None:
        raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match=r"^shapes cannot be multiplied$"):
        list(Batches(CPU, 8).over(5, fail))


@pytest.mark.parametrize("tta", [0, 4])
def test_prediction_that_runs_out_of_memory_goes_on_in_smaller_batches(tta: int) -> None:
    def classifier(most: int) -> Classifier:
        torch.manual_seed(0)
        return Classifier(limited(most)(4), (0.5,) * 3, (0.25,) * 3, "fp32", 8, device="cpu")

    small, large = classifier(10), classifier(1000)
    found, expected = small.top(DATA.val.images, 4, tta), large.top(DATA.val.images, 4, tta)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)
    assert small.batches.size < 10 < large.batches.size
    assert classifier(10).accuracy(DATA.val, tta) == large.accuracy(DATA.val, tta)


@pytest.mark.parametrize(
    ("device", "image_size", "batch_size", "size"),
    [
        ("cuda", 40, 128, 128),
        ("cuda", 64, 128, 128),
        ("cuda", 40, 8, 40),
        ("cuda", 8, 64, 1024),
        ("cuda", 224, 1, 1),
        ("cuda", 8, 65536, 2048),
        ("cpu", 8, 64, 256),
        ("cpu", 40, 128, 128),
    ],
)
def test_batches_of_an_evaluation_follow_the_training_batch_and_the_pixels(
    device: str, image_size: int, batch_size: int, size: int
) -> None:
    assert Batches(torch.device(device), image_size, batch_size).size == size


@pytest.mark.parametrize("name", ["baseline_block", "resnet50", "v4_receptive_resnet50"])
def test_an_evaluation_takes_less_memory_than_a_training_step_of_as_many_images(name: str) -> None:
    model = build_model(ModelConfig(name=name, width=8), 10).to(memory_format=torch.channels_last)
    images, labels = torch.rand(4, 3, 24, 24), torch.arange(4)

    def evaluate() -> None:
        with torch.inference_mode():
            model.eval()(images)

    def step() -> None:
        nn.functional.cross_entropy(model.train()(images), labels).backward()

    assert peak(evaluate) < peak(step)


def peak(compute: Callable[[], None]) -> int:
    """Bytes of tensors that are made and alive at the same time, at most."""
    tracker = MemTracker()
    with tracker:
        compute()
    return int(tracker.get_tracker_snapshot("peak")[CPU]["Total"])


def test_out_of_memory_is_known_on_cpu_and_gpu_and_other_errors_are_not() -> None:
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**50)
    assert is_out_of_memory(error.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
