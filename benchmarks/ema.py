"""What an update of the EMA weights costs the processor, beside torch's own AveragedModel.

A GPU computes an update in less time than Python takes to ask for it, so what counts is the asking. It is measured on a
resnet50 whose tensors have been cut down to one element each: then nearly nothing is computed, and all that is left is
the listing of 320 tensors and the calls of torch's functions. On a GPU a foreach function is a few launches where here
it is a call for each tensor, so this is more than a GPU is asked in. What AveragedModel waits for its two copies is not
in its figure. Updates in turn, in processor time; the least of several turns, since other work only adds to it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import torch
from _report import emit, parse_arguments
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from raysweep.vision.config import ModelConfig
from raysweep.vision.ema import AveragedWeights
from raysweep.vision.models.build import build_model

CLASSES, STEPS = 200, 1000


def cut_down(model: nn.Module) -> nn.Module:
    """Leave one element of each parameter and buffer."""
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            parameter.data = parameter.data.flatten()[:1].clone()
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, buffer.flatten()[:1].clone())
    return model


def milliseconds(update: Callable[[], None], times: int) -> float:
    """Return the processor time of one update."""
    start = time.process_time()
    for _ in range(times):
        update()
    return (time.process_time() - start) / times * 1000


def main() -> None:
    arguments = parse_arguments(__doc__)
    turns, times = (3, 20) if arguments.quick else (15, 100)
    torch.set_num_threads(1)
    figures: dict[str, float] = {}
    for name in ("resnet18", "resnet50"):
        model = cut_down(build_model(ModelConfig(name=name), CLASSES))
        ours = AveragedWeights(model, STEPS)
        torchs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(1 - 1 / STEPS), use_buffers=True)
        taken: dict[str, list[float]] = {"raysweep": [], "torch": []}
        for _ in range(turns):
            taken["raysweep"].append(milliseconds(partial(ours.update_parameters, model), times))
            taken["torch"].append(milliseconds(partial(torchs.update_parameters, model), times))
        figures |= {f"{name}_{whose}_update_ms": min(each) for whose, each in taken.items()}
        figures[f"{name}_torch_to_raysweep"] = min(taken["torch"]) / min(taken["raysweep"])
    emit("ema", figures, {"resnet50_raysweep_update_ms": ("<=", 0.4)}, arguments)


if __name__ == "__main__":
    main()
