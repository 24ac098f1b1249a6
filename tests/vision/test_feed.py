"""Images on the device, streamed from host memory, and mapped from files: the same batches, and the same numbers."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_images import dataset
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from raysweep.errors import OutOfMemory
from raysweep.vision import feed
from raysweep.vision.config import TrialConfig
from raysweep.vision.data.dataset import DataSet, Split, as_tensor
from raysweep.vision.feed import Resident, Streamed, feed_of
from raysweep.vision.loop import train
from raysweep.vision.names import AUGMENTATIONS, MODELS


def config(**changes: Any) -> TrialConfig:
    return TrialConfig(**{"model": {"name": "baseline_block", "width": 4}, "epochs": 2, "batch_size": 16, **changes})


def mapped(data: DataSet, folder: Path) -> DataSet:
    """The same set, with images that are mapped from files and cannot be written to."""

    def in_a_file(name: str, split: Split) -> Split:
        np.save(folder / f"{name}.npy", split.images.numpy())
        return replace(split, images=as_tensor(np.load(folder / f"{name}.npy", mmap_mode="r")))

    return replace(data, train=in_a_file("train", data.train), val=in_a_file("val", data.val))


def outcome(settings: TrialConfig, data: DataSet, place: feed.Place, stop_at: int | None = None) -> dict[str, Any]:
    """The metrics and all of the state at the end; before it, the trial is saved at a step and goes on from there."""
    metrics, state, step = [], None, 0

    def should_save() -> bool:
        nonlocal step
        step += 1
        return step == stop_at

    for _ in range(2):
        for epoch in train(settings, data, seed=3, place=place, state=state, should_save=should_save):
            buffer = io.BytesIO()
            torch.save(epoch.state(), buffer)
            state = torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)
            if not epoch.metrics:
                break
            clock = ("seconds", "images_per_s")
            metrics.append({name: value for name, value in epoch.metrics.items() if name not in clock})
    return {"metrics": metrics, "state": state}


def assert_same(one: Any, other: Any) -> None:
    assert one["metrics"] == other["metrics"]
    for part in ("model", "average"):
        for name, tensor in one["state"][part].items():
            assert torch.equal(tensor, other["state"][part][name]), name


@pytest.mark.parametrize(
    "changes",
    [
        {"augment": "hard", "clip_grad_norm": 1.0},
        {"augment": "of_ones_own"},
        {"augment": "shift", "accumulate": 3, "mix": {"mixup": 0.2, "cutmix": 1.0}},
    ],
    ids=["a preset", "a function of whole batches", "accumulated and mixed"],
)
def test_a_set_gives_the_same_numbers_wherever_it_lies(changes: dict[str, Any], tmp_path: Path) -> None:
    AUGMENTATIONS.register("of_ones_own")(lambda images, rng: images.flip(0) ^ int(torch.randint(9, (), generator=rng)))
    data, settings = dataset(), config(**changes)
    there = outcome(settings, data, "device")
    assert_same(there, outcome(settings, data, "host"))
    assert_same(there, outcome(settings, mapped(data, tmp_path), "auto"))
    assert_same(there, outcome(settings, mapped(data, tmp_path), "host", stop_at=5))


def test_a_set_larger_than_half_of_the_free_memory_is_streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    data = dataset()
    size, everything = data.train.images.nbytes + data.val.images.nbytes, slice(0, 40)
    for free, kind in ((2 * size, Resident), (2 * size - 1, Streamed)):
        monkeypatch.setattr(feed, "free_bytes", lambda device, gpu_share, free=free: free)
        given = feed_of(data, everything, torch.device("cpu"))
        assert type(given.train) is type(given.val) is kind
        given.close()


def test_a_trial_may_take_its_share_of_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (70, 80))
    assert feed.free_bytes(torch.device("cuda"), 1.0) == 70
    assert feed.free_bytes(torch.device("cuda"), 0.25) == 20


def test_a_set_stays_on_a_gpu_for_the_next_trial_until_another_one_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The meta device stands for a GPU; before a set is copied there, it is asked for the room."""
    monkeypatch.setattr(feed, "_kept", None)
    asked: list[torch.device] = []
    monkeypatch.setattr(feed, "free_bytes", lambda device, gpu_share: asked.append(device) or 10**9)
    whole, few = dataset(), replace(dataset(), train=dataset().train[:20])

    def copies(data: DataSet, place: feed.Place = "auto") -> int:
        before = len(asked)
        given = feed_of(data, slice(0, 40), torch.device("meta"), place)
        assert given.train[0:5].shape == (5, 3, 8, 8)
        given.close()
        return len(asked) - before

    assert [copies(whole), copies(whole), copies(few), copies(few), copies(whole)] == [1, 0, 1, 0, 1]


def test_a_set_that_is_streamed_leaves_none_on_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "_kept", None)
    feed_of(dataset(), slice(0, 40), torch.device("meta"), "device").close()
    assert feed._kept is not None
    feed_of(dataset(), slice(0, 40), torch.device("cpu"), "host").close()
    assert feed._kept is None


def test_a_loss_that_writes_to_labels_changes_no_other_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    data = dataset()
    for place in ("device", "host"):
        given = feed_of(data, slice(0, 40), torch.device("cpu"), place)
        given.train_labels.fill_(9)
        given.val_labels.fill_(9)
        given.close()
    assert data.train.labels.max() == data.val.labels.max() == 3


def test_memory_that_runs_out_in_a_reader_is_told_as_everywhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    def run_out(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(np, "take", run_out)
    with pytest.raises(OutOfMemory, match="out of memory in fetching images"):
        next(train(config(), dataset(), seed=3, place="host"))


def test_rows_that_follow_are_on_their_way_and_any_others_come_too() -> None:
    images = dataset().val.images
    streamed = Streamed(images, torch.device("cpu"))
    for rows in (slice(0, 16), slice(16, 32), slice(32, 36), slice(36, 40), slice(3, 4)):
        assert torch.equal(streamed[rows], images[rows])
    streamed.close()


def test_rows_that_were_not_asked_for_are_an_error() -> None:
    streamed = Streamed(dataset().train.images, torch.device("cpu"))
    (rows,) = streamed.batches([torch.arange(10, 20)], lambda count: [slice(9, 10), slice(2, 5)])
    assert torch.equal(rows(slice(9, 10)), dataset().train.images[19:20])
    assert torch.equal(rows(slice(3, 5)), dataset().train.images[13:15])
    with pytest.raises(IndexError, match=r"rows 0\.\.2"):
        rows(slice(0, 2))
    streamed.close()


class Copies(TorchDispatchMode):
    """Counts the bytes of matrices that are copied: of weights, their momentum and their averages."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.ops.aten._to_copy.default, torch.ops.aten.clone.default, torch.ops.aten.copy_.default):
            self.bytes += sum(each.nbytes for each in args if each.dtype == torch.float32 and each.dim() == 2)
        return func(*args, **kwargs or {})


def test_an_epoch_without_a_commit_copies_no_state() -> None:
    MODELS.register("wide")(lambda classes: nn.Sequential(nn.Flatten(), nn.Linear(192, 128), nn.Linear(128, classes)))
    epochs = train(config(model="wide", epochs=3), dataset(), seed=1)
    next(epochs)
    with Copies() as copies:
        epoch = next(epochs)
        assert copies.bytes == 0
        epoch.state()
        assert copies.bytes > 3 * 4 * 192 * 128, "weights, momentum and averages"
    epochs.close()
