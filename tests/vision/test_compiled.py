"""Compiled networks: what they compute, which of them are compiled anew, and what CUDA graphs are told.

A backend of torch.compile stands in for its own, which takes minutes of a processor for all of this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from raysweep.registry import register_metric
from raysweep.vision.compiled import MOST_KEPT, compile_network
from raysweep.vision.config import TrialConfig
from raysweep.vision.data.dataset import DataSet, Split
from raysweep.vision.loop import train
from raysweep.vision.models.build import build_model
from raysweep.vision.randomness import generator

pytestmark = pytest.mark.filterwarnings("ignore")
TINY = {"model": {"name": "baseline_block", "width": 4}, "epochs": 2, "batch_size": 16, "lr": 0.05, "precision": "fp32"}


def data(val: int = 20, size: int = 8) -> DataSet:
    def split(count: int, seed: int) -> Split:
        labels = torch.arange(count) % 4
        noise = torch.randint(0, 120, (count, 3, size, size), generator=generator("cpu", "test", seed))
        return Split((noise + labels.view(-1, 1, 1, 1) * 30).to(torch.uint8), labels)

    return DataSet("tiny", split(50, 0), split(val, 1), None, tuple("abcd"), (0.5,) * 3, (0.25,) * 3, "-")


def numbers(images: DataSet | None = None, **changes: Any) -> list[dict[str, float]]:
    """Train; return each epoch's metrics but for the times."""
    epochs = train(TrialConfig(**{**TINY, **changes}), images or data(), seed=0)
    times = ("seconds", "images_per_s")
    return [{key: each for key, each in epoch.metrics.items() if key not in times} for epoch in epochs]


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The mode of each graph that is made; it computes as the network does."""
    made: list[str] = []

    def count(graph: Any, inputs: Any, mode: str = "default") -> Any:
        made.append(mode)
        return graph.forward

    yield from _by(count, monkeypatch, made)


def _by(backend: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, given: list[str]) -> Iterator[list[str]]:
    """Give what the test asks for while torch compiles by `backend`, then forget what it made."""
    with monkeypatch.context() as patch:
        patch.setattr("raysweep.vision.compiled._kept", {})
        patch.setattr(torch, "compile", partial(torch.compile, backend=backend))
        yield given
    torch.compiler.reset()


def compiled(graphs: list[str], **changes: Any) -> int:
    before = len(graphs)
    numbers(compile=True, **changes)
    return len(graphs) - before


@pytest.mark.slow
@pytest.mark.parametrize("mode", [True, "reduce-overhead"])
def test_a_network_that_torch_compiles_trains_to_the_same_numbers(mode: Any) -> None:
    settings = {"epochs": 1, "batch_size": 25}
    assert numbers(compile=mode, **settings) == [pytest.approx(each, rel=1e-4) for each in numbers(**settings)]


@pytest.mark.usefixtures("graphs")
@pytest.mark.parametrize("mode", [True, "reduce-overhead"])
def test_a_compiled_trial_goes_on_to_the_same_numbers_and_its_weights_have_the_plain_names(mode: Any) -> None:
    settings = TrialConfig(**{**TINY, "compile": mode, "epochs": 3})
    *_, whole = train(settings, data(), seed=0)
    begun = train(settings, data(), seed=0)
    epoch = next(begun)
    state, weights = epoch.state(), epoch.weights(averaged=False)
    begun.close()
    assert weights.keys() == build_model(settings.model, 4).state_dict().keys()
    *_, resumed = train(settings, data(), seed=0, state=state)
    assert resumed.metrics["train_loss"] == whole.metrics["train_loss"]
    assert resumed.metrics["val_loss_ema"] == whole.metrics["val_loss_ema"]


def test_an_epoch_takes_few_graphs_however_its_batches_differ(graphs: list[str]) -> None:
    # Of whole batches and of others; for training and for the evaluation.
    assert compiled(graphs) <= 4


def test_networks_by_turns_are_each_compiled_once_in_a_process(graphs: list[str]) -> None:
    widths = (2, 3, 4, 5)
    of_each = [compiled(graphs, model={"name": "baseline_block", "width": width}) for width in widths]
    assert len(set(of_each)) == 1
    assert of_each[0] > 1
    again = [compiled(graphs, model={"name": "baseline_block", "width": width}, lr=0.01) for width in widths]
    assert again == [0] * len(widths)


def test_only_so_many_computations_stay_compiled(graphs: list[str]) -> None:
    network, images = nn.Conv2d(3, 2, 1), torch.zeros(2, 3, 4, 4)
    for computation in (*range(MOST_KEPT), 0, MOST_KEPT, 0):
        compile_network(network, computation)(images)
    assert len(graphs) == MOST_KEPT + 2


def test_cuda_graphs_are_recorded_anew_for_each_trial(graphs: list[str]) -> None:
    numbers(compile="reduce-overhead")
    once = len(graphs)
    numbers(compile="reduce-overhead")
    assert graphs == ["reduce-overhead"] * once * 2


@pytest.mark.usefixtures("graphs")
def test_cuda_graphs_are_told_of_each_step_once_however_many_parts_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[bool] = []
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: told.append(True))
    numbers(compile="reduce-overhead", accumulate=2, epochs=1)
    assert len(told) == 4 + 1  # 50 images in batches of 16, and one batch of the evaluation
    told.clear()
    numbers(compile=True, epochs=1)
    assert not told


@pytest.fixture
def overwriting(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """As CUDA graphs do, an evaluation's graph writes what it returns to the same place each time."""

    def overwrite(graph: Any, inputs: Any, mode: str = "default") -> Callable[..., Any]:
        places: dict[torch.Size, torch.Tensor] = {}

        def run(*given: Any) -> Any:
            (logits,) = graph.forward(*given)
            if torch.is_grad_enabled():
                return (logits,)
            return (places.setdefault(logits.shape, torch.empty_like(logits)).copy_(logits),)

        return run

    yield from _by(overwrite, monkeypatch, [])


@pytest.mark.usefixtures("overwriting")
def test_own_metrics_see_all_logits_where_a_graph_overwrites_them() -> None:
    @register_metric("spread", mode="max")
    def spread(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return (logits * torch.arange(len(logits)).unsqueeze(1)).mean()

    images = data(val=260, size=32)  # evaluated 64 at a time
    plain = numbers(images, epochs=1, metrics="spread")
    graphed = numbers(images, epochs=1, metrics="spread", compile="reduce-overhead")
    assert graphed == [pytest.approx(each, rel=1e-5) for each in plain]
