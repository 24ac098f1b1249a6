"""Several ranks train one network as one would: the loop in processes on gloo, without Ray."""

from __future__ import annotations

import copy
import io
import itertools
import math
import multiprocessing
import os
import re
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist
from tiny_images import dataset
from torch import nn
from torch.nn import functional as F
from torch.optim.swa_utils import update_bn

from raysweep.errors import SweepFileError, UserError
from raysweep.sweepfile import load_sweep
from raysweep.vision.augment.batch import Normalize, build_augment
from raysweep.vision.config import TrialConfig
from raysweep.vision.data.dataset import DataSet
from raysweep.vision.distributed import Group, Pace, used_parameters
from raysweep.vision.feed import Place
from raysweep.vision.loop import Diverged, Interrupted, train
from raysweep.vision.models.build import build_model
from raysweep.vision.names import AUGMENTATIONS, METRICS, MODELS
from raysweep.vision.randomness import generator, seeded

BATCH_NORM = {"name": "baseline_block", "width": 4}
ALL_OF_IT = {"augment": "v1augs", "label_smoothing": 0.1, "clip_grad_norm": 0.5}


# -------------------------------------------------------------------------- what runs on each rank


def no_batch_norm(num_classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(72, 16),
        nn.ReLU(),
        nn.Linear(16, num_classes),
    )


class WithUnused(nn.Module):
    """Has a layer that nothing depends on."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.used, self.unused = no_batch_norm(num_classes), nn.Linear(3, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.used(images)


def dropping(num_classes: int) -> nn.Module:
    """Batch norm and dropout, of which each rank has its own."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Dropout(0.2), nn.Flatten(), nn.Linear(288, num_classes)
    )


def standardising(num_classes: int) -> nn.Module:
    """A batch norm without weights, with statistics of its own, as of a network that was trained before."""
    norm, drawn_from = nn.BatchNorm2d(64, affine=False), generator("cpu", "statistics")
    norm.running_mean.normal_(generator=drawn_from)
    norm.running_var.uniform_(0.5, 2, generator=drawn_from)
    return nn.Sequential(nn.Conv2d(3, 64, 3), norm, nn.Flatten(), nn.Linear(36 * 64, num_classes))


class RaisesOnRankOne(WithUnused):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.training and dist.is_initialized() and dist.get_rank() == 1:
            raise ArithmeticError("rank 1 broke down on purpose")
        return self.used(images)


def register() -> None:
    for name, net in {
        "plain": no_batch_norm,
        "unused": WithUnused,
        "raises": RaisesOnRankOne,
        "dropping": dropping,
        "standardising": standardising,
    }.items():
        MODELS.register(name)(net)
    METRICS.register("error")(lambda logits, labels: (logits.argmax(1) != labels).double().mean())


def config(**changes: Any) -> TrialConfig:
    return TrialConfig(**{"model": "plain", "epochs": 2, "batch_size": 16, "lr": 0.05, "precision": "fp32", **changes})


CLOCK = ("seconds", "images_per_s")


@patch.object(Pace, "ASK_EVERY_S", 0.0)  # before every step
def outcome(
    changes: dict[str, Any],
    sizes: tuple[int, int],
    state: bytes | None = None,
    epochs: int = 99,
    until: int | None = None,
    place: Place = "auto",
) -> dict[str, Any]:
    """Train for so many epochs at most, or until rank 0 saves before the step of that number, counted over all.

    The metrics of each epoch, and what is left of the last, or of that step, as one file's bytes.
    """
    metrics, file, asked = [], io.BytesIO(), itertools.count(1)
    loaded = torch.load(io.BytesIO(state), weights_only=True) if state else None
    loop = train(
        config(**changes),
        dataset(*sizes),
        seed=3,
        state=loaded,
        should_save=lambda: next(asked) == until,
        place=place,
    )
    for epoch in loop:
        if epoch.metrics:
            metrics.append({key: value for key, value in epoch.metrics.items() if key not in CLOCK})
        file = io.BytesIO()
        torch.save(epoch.state(), file)
        if epoch.number == epochs or not epoch.metrics:
            break
    loop.close()
    return {"metrics": metrics, "state": file.getvalue()}


def outcome_of_rank_0s_state(changes: dict[str, Any], sizes: tuple[int, int], state: bytes) -> dict[str, Any]:
    return outcome(changes, sizes, state if dist.get_rank() == 0 else None)


def correct_images(count: int) -> list[tuple[list[bool], float]]:
    """Which validation images are right after an epoch, by plain and by EMA weights, each with the accuracy."""
    loop = train(config(epochs=1), dataset(48, count), seed=3)
    epoch = next(loop)
    answers = [
        (epoch.correct(averaged).tolist(), epoch.metrics["val_acc_ema" if averaged else "val_acc"])
        for averaged in (False, True)
    ]
    loop.close()
    return answers


def epochs_where_rank_0_ends_after(number: int) -> int:
    """How many epochs a rank trains; only rank 0 closes the loop."""
    count = 0
    loop = train(config(epochs=9), dataset(40, 8), seed=3)
    for count, _ in enumerate(loop, 1):
        if dist.get_rank() == 0 and count == number:
            loop.close()
            break
    return count


@patch.object(Pace, "ASK_EVERY_S", 0.0)
def how_it_ends(rank_asked: int) -> str:
    """What the loop raises where one rank is told to stop, at the fifth step."""
    asked = 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        return dist.get_rank() == rank_asked and asked == 5

    try:
        list(train(config(epochs=2), dataset(48, 8), seed=3, should_stop=should_stop))
    except Interrupted as interrupted:
        return str(interrupted)
    return "finished"


def questions() -> tuple[list[float], str]:
    """When this rank is asked whether to stop, as rank 0 wants to after 1.5 s, and where it ends."""
    asked_at = [time.monotonic()]

    def should_stop() -> bool:
        asked_at.append(time.monotonic())
        return dist.get_rank() == 0 and asked_at[-1] - asked_at[0] > 1.5

    try:
        list(train(config(epochs=99, batch_size=2), dataset(4000, 8), seed=3, should_stop=should_stop))
    except Interrupted as interrupted:
        return asked_at[1:], str(interrupted)
    raise AssertionError("it was not stopped")


def divergence(changes: dict[str, Any]) -> tuple[str, dict[str, float]]:
    try:
        list(train(config(**changes), dataset(48, 8), seed=3))
    except Diverged as diverged:
        return str(diverged), {key: value for key, value in diverged.metrics.items() if key not in CLOCK}
    return "finished", {}


def failure(changes: dict[str, Any]) -> tuple[str, float]:
    began = time.monotonic()
    try:
        list(train(config(**changes), dataset(48, 8), seed=3))
    except Exception as error:
        return f"{type(error).__name__}: {error}", time.monotonic() - began
    return "finished", 0.0


# -------------------------------------------------------------------------- running it


def as_rank(rank: int, size: int, meeting: str, work: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    torch.set_num_threads(1)
    warnings.simplefilter("error", FutureWarning)  # pytest's own setting is not heard of here
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    register()
    dist.init_process_group("gloo", f"file://{meeting}", timedelta(minutes=2), size, rank)
    try:
        return work(*arguments)
    finally:
        dist.destroy_process_group()


InRanks = Callable[..., list[Any]]


@pytest.fixture(scope="module")
def in_ranks() -> Iterator[InRanks]:
    """`in_ranks(n, work, *arguments)`: what `work` returns on each of n ranks."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "raysweep.vision.loop", "raysweep.vision.models.resnets"])
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(3, context) as pool:
        numbers = iter(range(10**6))

        def run(size: int, work: Callable[..., Any], *arguments: Any) -> list[Any]:
            meeting = str(Path(folder) / f"meeting{next(numbers)}")
            futures = [pool.submit(as_rank, rank, size, meeting, work, arguments) for rank in range(size)]
            return [future.result(150) for future in futures]

        yield run


@pytest.fixture(autouse=True)
def _one_thread_and_our_nets() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    register()
    yield
    torch.set_num_threads(before)


def load(state: bytes) -> dict[str, Any]:
    return torch.load(io.BytesIO(state), weights_only=True)


def assert_close(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Metrics and all weights, plain and averaged, are equal within rounding."""
    for mine, other in zip(ours["metrics"], theirs["metrics"], strict=True):
        assert mine == {key: pytest.approx(value, rel=1e-3, abs=1e-6) for key, value in other.items()}
    for part in ("model", "average"):
        expected = load(theirs["state"])[part]
        for name, tensor in load(ours["state"])[part].items():
            torch.testing.assert_close(tensor, expected[name], rtol=1e-3, atol=2e-5)


# -------------------------------------------------------------------------- as one


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("changes", [{}, ALL_OF_IT], ids=["plain", "all-of-it"])
@pytest.mark.parametrize("sizes", [(48, 18), (50, 19), (49, 2), (47, 7)], ids=str)
def test_without_batch_norm_any_number_of_ranks_ends_with_what_one_process_does(
    in_ranks: InRanks, size: int, changes: dict[str, Any], sizes: tuple[int, int]
) -> None:
    alone = outcome(changes, sizes)
    first, *others = in_ranks(size, outcome, changes, sizes)
    assert all(other == first for other in others), "the ranks differ among themselves"
    if size == 1:
        assert first == alone
    assert_close(first, alone)


@pytest.mark.slow
def test_ranks_that_compute_their_part_in_parts_end_with_what_one_process_does_at_once(in_ranks: InRanks) -> None:
    settings = {**ALL_OF_IT, "mix": {"cutmix": 1.0, "mixup": 0.3}, "freeze": ["0"], "metrics": ["error"]}
    alone = outcome(settings, (50, 19))
    first, *others = in_ranks(3, outcome, {**settings, "accumulate": 3}, (50, 19))
    assert all(other == first for other in others)
    assert_close(first, alone)


@pytest.mark.slow
def test_a_frozen_batch_norm_stays_to_the_bit_in_any_number_of_ranks(in_ranks: InRanks) -> None:
    begun = standardising(4)[1].state_dict()
    first, *others = in_ranks(3, outcome, {"model": "standardising", "freeze": ["1"]}, (48, 18))
    assert all(other == first for other in others)
    state = load(first["state"])
    for name, value in begun.items():
        assert torch.equal(state["model"][f"1.{name}"], value), name
        assert torch.equal(state["average"][f"module.1.{name}"], value), name


@pytest.mark.slow
def test_every_rank_knows_of_all_validation_images_whether_they_are_right(in_ranks: InRanks) -> None:
    alone = correct_images(19)
    assert in_ranks(2, correct_images, 19) == [alone, alone]
    assert in_ranks(3, correct_images, 2) == [correct_images(2)] * 3, "one rank has no image"
    assert all(0 < sum(correct) < 19 and sum(correct) / 19 == accuracy for correct, accuracy in alone)


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("train_images", [48, 50, 53])
def test_batch_norm_matches_a_reference_of_shards_with_statistics_of_their_own(
    in_ranks: InRanks, size: int, train_images: int
) -> None:
    settings = {"model": BATCH_NORM, "augment": "shift"}
    first, *others = in_ranks(size, outcome, settings, (train_images, 10))
    assert all(other == first for other in others)
    expected = reference_of_shards(config(**settings), dataset(train_images, 10), size)
    for name, tensor in load(first["state"])["model"].items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-3, atol=2e-5)


def reference_of_shards(settings: TrialConfig, images: DataSet, size: int) -> dict[str, torch.Tensor]:
    """One network whose batch norms see a shard at a time, each with running statistics of its own, averaged at the end
    of an epoch; written without a process group."""
    with seeded(torch.device("cpu"), "weights", 3):
        replicas = [build_model(settings.model, 4).to(memory_format=torch.channels_last)]
    for _ in range(size - 1):
        with seeded(torch.device("cpu"), "weights", 3):
            replicas.append(build_model(settings.model, 4).to(memory_format=torch.channels_last))
    optimizers = [torch.optim.SGD(net.parameters(), 0.05, momentum=0.9, weight_decay=5e-4) for net in replicas]
    augment, normalize = build_augment(settings.augment, 8), Normalize((0.5,) * 3, (0.5,) * 3, "cpu")
    for epoch in range(settings.epochs):
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = 0.05 * (1 + math.cos(math.pi * epoch / settings.epochs)) / 2
        order = torch.randperm(len(images.train), generator=generator("cpu", "order", 3, epoch))
        for step, batch in enumerate(order.split(16)):
            whole = normalize(augment(images.train.images[batch], generator("cpu", "augment", 3, epoch, step)))
            busy = min(size, max(1, len(batch) // 2))  # nobody gets a single image
            bounds = [rank * len(batch) // busy for rank in range(busy + 1)]
            for net, start, end in zip(replicas, bounds, bounds[1:], strict=False):
                logits = net.train()(whole[start:end])
                (
                    F.cross_entropy(logits, images.train.labels[batch[start:end]], reduction="sum") / len(batch)
                ).backward()
            for same in zip(*(net.parameters() for net in replicas), strict=True):
                total = sum(parameter.grad for parameter in same if parameter.grad is not None)
                for parameter in same:
                    parameter.grad = total.clone()
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
        for same_buffer in zip(*(net.buffers() for net in replicas), strict=True):
            mean = torch.stack([buffer.float() for buffer in same_buffer]).mean(0)
            for buffer in same_buffer:
                buffer.copy_(mean if buffer.is_floating_point() else same_buffer[0])
    return replicas[0].state_dict()


@pytest.mark.slow
def test_statistics_gathered_anew_are_the_mean_of_those_of_each_ranks_parts_and_change_no_training(
    in_ranks: InRanks,
) -> None:
    settings, images = {"model": BATCH_NORM, "epochs": 1}, dataset(50, 19)
    without = in_ranks(2, outcome, settings, (50, 19))[0]
    first, other = in_ranks(2, outcome, {**settings, "precise_batch_norm": True}, (50, 19))
    assert first == other
    model = build_model(config(**settings).model, 4).to(memory_format=torch.channels_last)
    model.load_state_dict(load(without["state"])["model"])
    normalize, batches = (
        Normalize((0.5,) * 3, (0.5,) * 3, "cpu"),
        torch.randperm(50, generator=generator("cpu", "order", 3, 0)).split(16)[:3],
    )
    parts = [copy.deepcopy(model) for _ in range(2)]
    for rank, part in enumerate(parts):
        update_bn([normalize(images.train.images[batch[8 * rank : 8 * rank + 8]]) for batch in batches], part)
    for buffer, *both in zip(model.buffers(), *(part.buffers() for part in parts), strict=True):
        buffer.copy_(sum(both) / 2)
    with torch.inference_mode():
        loss = F.cross_entropy(model.eval()(normalize(images.val.images)), images.val.labels).item()
    more = first["metrics"][0]
    assert more.pop("val_loss_precise") == pytest.approx(loss, rel=1e-4)
    assert 0 <= more.pop("val_acc_precise") <= 1
    assert [more] == without["metrics"]
    assert all(
        torch.equal(value, load(first["state"])["model"][name])
        for name, value in load(without["state"])["model"].items()
    )


@pytest.mark.slow
def test_statistics_gathered_anew_are_refused_where_a_rank_has_no_image_of_a_batch(in_ranks: InRanks) -> None:
    told = in_ranks(3, failure, {"model": BATCH_NORM, "batch_size": 4, "precise_batch_norm": True})
    assert all("precise_batch_norm: true" in each and "set batch_size to 6" in each for each, _ in told)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["plain", BATCH_NORM], ids=str)
@pytest.mark.parametrize("size", [2, 3])
def test_resuming_from_rank_0s_state_equals_never_stopping(in_ranks: InRanks, size: int, model: Any) -> None:
    settings = {"model": model, "epochs": 3, "augment": "shift"}
    whole = in_ranks(size, outcome, settings, (50, 19))[0]
    begun = in_ranks(size, outcome, settings, (50, 19), None, 1)[0]
    first, *others = in_ranks(size, outcome_of_rank_0s_state, settings, (50, 19), begun["state"])
    assert all(other == first for other in others)
    resumed = {**first, "metrics": begun["metrics"] + first["metrics"]}
    if size == 2:  # sums of three depend on their order, which the first step of a process has another of
        assert resumed == whole
    assert_close(resumed, whole)


@pytest.mark.slow
@pytest.mark.parametrize("step", [2, 6])
def test_resuming_in_the_middle_of_an_epoch_of_two_ranks_equals_never_stopping(in_ranks: InRanks, step: int) -> None:
    settings = {"model": "dropping", "epochs": 2, "augment": "shift"}
    whole = in_ranks(2, outcome, settings, (50, 19))[0]
    begun = in_ranks(2, outcome, settings, (50, 19), None, 99, step)[0]
    assert len(load(begun["state"])["begun"]["of_ranks"]) == 2
    first, other = in_ranks(2, outcome_of_rank_0s_state, settings, (50, 19), begun["state"])
    assert first == other
    assert {**first, "metrics": begun["metrics"] + first["metrics"]} == whole


@pytest.mark.slow
def test_each_rank_streams_the_rows_that_it_looks_at(in_ranks: InRanks) -> None:
    settings = {"augment": "shift", "mix": {"mixup": 0.2}, "accumulate": 2, "epochs": 2}
    there, streamed = (in_ranks(2, outcome, settings, (50, 19), None, 99, None, place) for place in ("device", "host"))
    assert there[0]["metrics"] == streamed[0]["metrics"] == streamed[1]["metrics"]
    assert there[0]["state"] == streamed[0]["state"]


@pytest.mark.slow
def test_a_network_with_parameters_that_nothing_depends_on_trains(in_ranks: InRanks) -> None:
    assert_close(in_ranks(2, outcome, {"model": "unused"}, (50, 8))[0], outcome({"model": "unused"}, (50, 8)))


# -------------------------------------------------------------------------- together to the end


@pytest.mark.slow
def test_ranks_are_asked_every_few_steps_and_stop_at_the_same_one_within_a_second(in_ranks: InRanks) -> None:
    (asked_at, where), (_, other) = in_ranks(2, questions)
    epoch, step, steps = map(int, re.findall(r"\d+", where))
    assert where == other
    assert len(asked_at) < ((epoch - 1) * steps + step) / 4
    assert statistics.median(b - a for a, b in itertools.pairwise(asked_at)) < 1


@pytest.mark.slow
def test_no_rank_goes_on_after_rank_0_ends_the_loop(in_ranks: InRanks) -> None:
    assert in_ranks(3, epochs_where_rank_0_ends_after, 2) == [2, 2, 2]


@pytest.mark.slow
def test_rank_0_alone_is_asked_whether_to_stop_and_all_stop_before_the_same_step(in_ranks: InRanks) -> None:
    assert in_ranks(2, how_it_ends, 0) == ["stopped in epoch 2, before step 2 of 3"] * 2
    assert in_ranks(2, how_it_ends, 1) == ["finished"] * 2


@pytest.mark.slow
def test_a_loss_that_is_not_finite_is_seen_by_all_ranks(in_ranks: InRanks) -> None:
    first, second = in_ranks(2, divergence, {"lr": 1e20, "lr_schedule": "constant", "epochs": 4})
    assert first == second
    assert "is not finite" in first[0]


@pytest.mark.slow
def test_a_rank_that_raises_ends_the_others_at_once(in_ranks: InRanks) -> None:
    from raysweep.worker.ranks import is_lost_contact

    (lost, seconds), (raised, _) = in_ranks(2, failure, {"model": "raises"})
    assert raised == "ArithmeticError: rank 1 broke down on purpose"
    assert is_lost_contact(RuntimeError(lost)), lost
    assert seconds < 60


# -------------------------------------------------------------------------- parts


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
def test_parts_of_a_batch_are_all_of_it_once_and_nobody_gets_a_single_image(size: int) -> None:
    for count in range(1, 40):
        parts, shares = [], []
        for rank in range(size):
            group = Group()
            group.rank, group.size = rank, size
            parts.append(range(count)[group.part(count)])
            shares.append(range(count)[group.share(count)])
        assert [row for part in parts for row in part] == list(range(count))
        assert [row for share in shares for row in share] == list(range(count))
        lengths = [len(part) for part in parts if part]
        assert min(lengths) == group.smallest_part(count) >= min(2, count)
        assert max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("wanted", [1, 2, 3, 4, 5])
def test_every_rank_has_as_many_parts_of_a_step_as_the_others(size: int, wanted: int) -> None:
    for count in range(1, 41):
        parts = []
        for rank in range(size):
            group = Group()
            group.rank, group.size = rank, size
            parts.append([range(count)[rows] for rows in group.parts(count, wanted)])
        assert len({len(of_rank) for of_rank in parts}) == 1, "a batch norm over all ranks would wait forever"
        assert [row for of_rank in parts for part in of_rank for row in part] == list(range(count))
        assert 1 <= len(parts[0]) <= wanted
        assert {len(part) for of_rank in parts for part in of_rank} & {1} <= {count}
        if count >= 4 * size * wanted:
            assert len(parts[0]) == wanted


@pytest.mark.parametrize("preset", ["none", "shift", "hard", "v1augs", "of_ones_own"])
def test_a_part_of_a_batch_is_augmented_as_within_the_whole(preset: str) -> None:
    AUGMENTATIONS.register("of_ones_own")(lambda images, rng: images.flip(0) ^ int(torch.randint(9, (), generator=rng)))
    augment, images = build_augment(config(augment=preset).augment, 8), dataset(200, 1).train.images
    batch = torch.randperm(200)[:150]
    whole = augment(images[batch], generator("cpu", 1))
    for rows in (slice(0, 150), slice(0, 70), slice(70, 150), slice(150, 150)):
        assert torch.equal(augment.parts(images[batch].__getitem__, 150, 8, generator("cpu", 1))(rows), whole[rows])


def test_unused_parameters_are_found() -> None:
    assert used_parameters(WithUnused(4), 8) == [True] * 6 + [False] * 2
    assert used_parameters(no_batch_norm(4), 8) == [True] * 6


def test_batch_norm_over_all_ranks_needs_gpus() -> None:
    with pytest.raises(UserError, match="sync_batch_norm: true"):
        next(train(config(sync_batch_norm=True), dataset(8, 2), seed=0, device="cpu"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_batch_norm_over_all_ranks_without_gpus_is_refused_before_a_run_starts() -> None:
    from raysweep.vision.classify import check_model

    with pytest.raises(UserError, match="sync_batch_norm: true"):
        check_model(config(sync_batch_norm=True), dataset(8, 2))


def test_workers_of_one_trial_share_no_gpu(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("name: s\nresources: {workers: 2, gpus: 0.5}\n")
    with pytest.raises(SweepFileError, match=r"gpus: got 0.5, must be whole with workers: 2"):
        load_sweep(path)
    assert load_sweep(path, ["resources.workers=1"]).resources.gpus == 0.5
