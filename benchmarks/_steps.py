"""Training steps on images that lie ready, with nothing around them: what the benchmarks of speed have in common."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Literal

import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from raysweep.vision.compiled import begin_step, compile_network, release
from raysweep.vision.config import ModelConfig, TrialConfig
from raysweep.vision.device import resolve_precision
from raysweep.vision.models.build import build_model

IMAGE_SIZE, CLASSES = 40, 200
NETWORKS = {
    "baseline_block": "baseline_block",
    "resnet18": "resnet18",
    "resnet50": "resnet50",
    "v2": "v2_receptive_resnet50",
    "v4": "v4_receptive_resnet50",
}
"""The networks of the figures, by the names that these have there."""
Compile = bool | Literal["reduce-overhead"]


class Step:
    """A network with its optimizer and a batch on a device; each call trains it by one step."""

    def __init__(self, model: ModelConfig, batch: int, device: torch.device, compile: Compile = False) -> None:
        """`compile` as in a sweep file; the networks of one process that are compiled share their code."""
        self.device, self.firsts = device, 3 if compile == "reduce-overhead" else 1
        self.is_bf16 = resolve_precision(TrialConfig(), device) == "bf16"
        self.model = build_model(model, CLASSES).to(device).to(memory_format=torch.channels_last)
        self.forward: Callable[[torch.Tensor], torch.Tensor] = self.model
        if compile:
            computes = (model.model_dump_json(), batch, str(device))
            self.forward = compile_network(self.model, computes, with_graphs=compile == "reduce-overhead")
        self.optimizer = torch.optim.SGD(self.model.parameters(), 0.01, 0.9, weight_decay=5e-4, fused=True)
        images = torch.randn(batch, 3, IMAGE_SIZE, IMAGE_SIZE, device=device)
        self.images = images.contiguous(memory_format=torch.channels_last)
        self.labels = torch.randint(0, CLASSES, (batch,), device=device)
        self.model.train()

    def __call__(self, count: int | None = None) -> None:
        """Train on the first `count` images; default: all."""
        self.optimizer.zero_grad(set_to_none=True)
        begin_step(self.forward)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.is_bf16):
            loss = F.cross_entropy(self.forward(self.images[:count]).float(), self.labels[:count])
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()

    def evaluate(self) -> None:
        """Answer all images."""
        self.model.eval()
        begin_step(self.forward)
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.is_bf16):
            self.forward(self.images)
        self.model.train()

    def first_s(self) -> float:
        """Seconds that the first step, the first with fewer images and the first evaluation take more than later ones.

        That is what a trial's first epoch takes more than its second. Where there are CUDA graphs the first three of
        each count: torch runs a network as it is, then records it, then replays it.
        """
        kinds = (self, lambda: self(len(self.labels) // 2 + 1), self.evaluate)
        return sum(self.seconds(kind, self.firsts) * self.firsts - self.seconds(kind) * self.firsts for kind in kinds)

    def seconds(self, step: Callable[[], object] | None = None, times: int = 1) -> float:
        """Seconds of a step, or of what is given; the mean of so many in a row."""
        wait_for(self.device)
        began = time.perf_counter()
        for _ in range(times):
            (step or self)()
        wait_for(self.device)
        return (time.perf_counter() - began) / times

    def release(self) -> None:
        """Free what its CUDA graphs hold, if it has any; it is not called again."""
        release(self.forward)


def wait_for(device: torch.device) -> None:
    """Wait until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def steady_s(step: Step, seconds: float, run: Callable[[], object] | None = None) -> float:
    """Seconds of a step, or of what is given: the median of blocks that take so many seconds together."""
    run = run or step
    for _ in range(3):
        run()
    once = step.seconds(run)
    times = max(1, int(seconds / 10 / once))
    return statistics.median(step.seconds(run, times) for _ in range(min(10, max(3, int(seconds / once)))))


def flops_an_image(model: ModelConfig) -> float:
    """FLOPs of an image's forward and backward pass, a multiply-add counted as two (torch.utils.flop_counter)."""
    with torch.device("meta"):
        network = build_model(model, CLASSES)
        images = torch.empty(2, 3, IMAGE_SIZE, IMAGE_SIZE)
    with FlopCounterMode(display=False) as counter:
        network(images).sum().backward()
    return counter.get_total_flops() / len(images)


def matmul_flops(device: torch.device, is_bf16: bool) -> float:
    """FLOP/s of a large product of matrices, the best of some: what the device computes at most in that precision."""
    size, times = (8192, 50) if device.type == "cuda" else (2048, 2)
    kind = torch.bfloat16 if is_bf16 else torch.float32
    left, right = (torch.randn(size, size, device=device, dtype=kind) for _ in range(2))
    out = torch.empty_like(left)
    best = float("inf")
    for _ in range(5):
        wait_for(device)
        began = time.perf_counter()
        for _ in range(times):
            torch.mm(left, right, out=out)
        wait_for(device)
        best = min(best, (time.perf_counter() - began) / times)
    return 2 * size**3 / best
