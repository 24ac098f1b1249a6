"""A GPU is never waited for inside a step: the real loop, on fake CUDA tensors (see `fake_cuda`)."""

import contextlib

import pytest
import torch
from fake_cuda import CUDA, Waits, fake_cuda

from raysweep.vision import loop
from raysweep.vision.augment.operations import AUGMENT_PRESETS, OPERATIONS
from raysweep.vision.config import TrialConfig
from raysweep.vision.data.dataset import DataSet, Split
from raysweep.vision.distributed import Group
from raysweep.vision.names import NETWORKS
from raysweep.vision.tta import MOST_VIEWS, views_of

SMALL = {"name": "baseline_block", "width": 8}
OF_TORCHVISION = {
    "alexnet": 64,
    "efficientnet_b0": 32,
    "mobilenet_v2": 32,
    "shufflenet_v2_x0_5": 32,
    "vgg16": 32,
    "vit_b_16": 224,
}
"""One of each family that the docs name, and the size of its images."""
NEEDED = {"rotate": {"degrees": 15}, "blur": {"kernel": 3}, "color_jitter": {"hue": 0.1}}


def split(count, size):
    return Split(torch.zeros(count, 3, size, size, dtype=torch.uint8), torch.zeros(count, dtype=torch.int64))


@contextlib.contextmanager
def fake_training(size=32, steps=1, val=2, batch_size=4, place="device", **settings):
    """A trial on a GPU that is not there, in whose steps nothing may wait."""
    images = split(batch_size * steps, size), split(val, size)
    data = DataSet("fake", *images, None, tuple("abcd"), (0.5,) * 3, (0.25,) * 3, "-")
    config = TrialConfig(**{"model": SMALL, "precision": "bf16", "batch_size": batch_size, **settings})
    with fake_cuda() as cuda, pytest.MonkeyPatch.context() as patch:
        begin = loop.begin

        def hollow(*arguments):
            with cuda.hollow():
                return begin(*arguments)

        patch.setattr(loop, "begin", hollow)
        patch.setattr(loop, "seeded", lambda *_, **__: contextlib.nullcontext())  # a GPU's generator is its driver's
        patch.setattr(loop, "check_image_size", lambda *_: None)  # on the meta device
        training = loop._Training(config, data, 0, CUDA, Group(), None, place, 1.0)
        step = training._step

        def backward(loss):
            assert loss.requires_grad
            for parameter in training.parameters:
                parameter.grad = torch.empty_like(parameter)

        def strict_step(*arguments):
            with cuda.no_waiting():
                return step(*arguments)

        patch.setattr(torch.Tensor, "backward", backward)
        patch.setattr(training, "_step", strict_step)
        yield cuda, training


def train_epoch(**settings):
    with fake_training(**settings) as (cuda, training):
        cuda.waits.clear()
        training.train_epoch(lambda: False, lambda: False)
        return len(cuda.waits)


@pytest.mark.parametrize("name", NETWORKS)
def test_no_step_of_a_network_waits(name):
    train_epoch(model={"name": name}, ema={} if name == "resnet50" else False)


@pytest.mark.parametrize("name", OF_TORCHVISION)
def test_no_step_of_a_network_of_torchvisions_waits(name):
    train_epoch(model={"name": f"torchvision/{name}"}, size=OF_TORCHVISION[name], ema=False)


@pytest.mark.parametrize(
    "augment", [*AUGMENT_PRESETS, *([{name: NEEDED.get(name, {})}] for name in OPERATIONS)], ids=str
)
def test_no_augmentation_waits(augment):
    train_epoch(augment=augment, batch_size=256, size=16)  # so many that RandAugment draws each of its operations


def test_two_rand_augments_do_not_wait():
    train_epoch(augment=[{"rand_augment": {}}, {"color_jitter": {"hue": 0.1}}, {"rand_augment": {}}])


@pytest.mark.parametrize(
    "settings",
    [
        {"mix": {"mixup": 0.2}},
        {"mix": {"cutmix": 1.0}, "accumulate": 2, "label_smoothing": 0.1},
        {"clip_grad_norm": 1.0, "precision": "fp32"},
        {"ema": False, "freeze": ["conv1", "bn1"], "lr_factors": {"layer1": 0.1}},
        {"optimizer": {"name": "sgd", "nesterov": True}},
        {"optimizer": {"name": "adam"}},
        {"optimizer": {"name": "adamw", "decay_norm_and_bias": False}},
        {"optimizer": {"name": "muon"}},
    ],
    ids=str,
)
def test_no_setting_waits(settings):
    train_epoch(steps=3, **settings)


@pytest.mark.parametrize("place", ["device", "host"])
def test_an_epoch_waits_as_often_whether_it_has_many_steps_or_few(place):
    assert train_epoch(steps=2, place=place) == train_epoch(steps=5, place=place)


def test_streamed_images_are_copied_beside_what_is_computed_which_waits_for_them():
    with fake_training(steps=2, place="host") as (cuda, training):
        training.train_epoch(lambda: False, lambda: False)
        assert sorted(cuda.stream_log[:4]) == ["copied", "copied", "event", "event"]
        assert cuda.stream_log[4:] == ["waited", "recorded"] * 2


def test_an_evaluation_waits_for_its_two_numbers_alone():
    with fake_training(val=10) as (cuda, training):
        cuda.waits.clear()
        training.val_batches.size = 2
        training.evaluate(training.average.module, training.average.module)
        assert len(cuda.waits) == 2, cuda.waits


def test_views_for_test_time_augmentation_do_not_wait():
    with fake_cuda() as cuda:
        images = torch.zeros(2, 3, 16, 16, dtype=torch.uint8, device=CUDA)
        with cuda.no_waiting():
            assert len(list(views_of(images, MOST_VIEWS))) == MOST_VIEWS


WAITING = {
    "a number that is asked for": lambda images: images * images.mean().item(),
    "a decision": lambda images: images if (images > 0).any() else -images,
    "a shape": lambda images: images.flatten()[images.flatten().nonzero()].mean() * images,
    "a mask as an index": lambda images: images.index_put((images < 0,), images.flatten()),
    "numbers of Python's": lambda images: images * torch.tensor([0.5], device=images.device),
    "memory that is not pinned": lambda images: images * torch.rand(1).to(images.device, non_blocking=True),
    "a copy that blocks": lambda images: images * torch.rand(1).pin_memory().to(images.device),
    "a copy to the host": lambda images: images * images.cpu().to(images.device),
}


@pytest.mark.parametrize("planted", WAITING.values(), ids=WAITING)
def test_what_waits_in_a_step_is_found(planted):
    with fake_training() as (_, training):
        normalize = training.normalize
        training.normalize = lambda images: planted(normalize(images))
        with pytest.raises(Waits):
            training.train_epoch(lambda: False, lambda: False)


def test_a_step_that_mixes_devices_is_found():
    with fake_training() as (_, training):
        normalize = training.normalize
        training.normalize = lambda images: normalize(images) + torch.zeros(3, 1, 1)
        with pytest.raises(RuntimeError, match="two devices"):
            training.train_epoch(lambda: False, lambda: False)


@pytest.mark.parametrize(
    "harmless",
    [
        lambda images: images * torch.tensor(0.5),
        lambda images: images * torch.rand(3, 1, 1).pin_memory().to(images.device, non_blocking=True),
        lambda images: images.masked_fill(images < 0, 0),
    ],
    ids=["a number of the host's", "pinned memory", "a mask"],
)
def test_what_does_not_wait_is_let_pass(harmless):
    with fake_training() as (_, training):
        normalize = training.normalize
        training.normalize = lambda images: harmless(normalize(images))
        training.train_epoch(lambda: False, lambda: False)
