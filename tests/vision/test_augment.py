"""Batched augmentation: agrees with torchvision's v2 functional form on the same parameters; distributions."""

import pytest
import torch
from torch.testing import assert_close
from torchvision.transforms import v2
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as V

from raysweep.errors import UserError
from raysweep.registry import AUGMENTATIONS
from raysweep.vision.augment.batch import Normalize, build_augment
from raysweep.vision.augment.blur import Blur
from raysweep.vision.augment.color_jitter import ColorJitter
from raysweep.vision.augment.geometry import Crop, Flip, FlipAndRotate, Rotate
from raysweep.vision.augment.operations import AUGMENT_PRESETS, OPERATIONS, AugmentStep
from raysweep.vision.augment.rand_augment import KINDS, RandAugment, apply_kind
from raysweep.vision.augment.resized_crop import ResizedCrop
from raysweep.vision.config import TrialConfig
from raysweep.vision.randomness import generator

TOLERANCE = 1e-5  # on the scale 0..1: an 8-bit step is 4e-3


def rng(seed=0):
    return generator("cpu", "test", seed)


def float_images(count=16, height=20, width=20, seed=0):
    return torch.rand(count, 3, height, width, generator=rng(seed))


def byte_images(count=16, size=20):
    return torch.randint(0, 256, (count, 3, size, size), generator=rng(), dtype=torch.uint8)


def test_crop_takes_the_same_window_as_torchvision():
    images, padding = byte_images(), 3
    corners = Crop(padding=padding).draw(len(images), 20, rng())[0]
    ours = Crop(padding=padding).apply(images, corners)
    padded = V.pad(images, [padding])
    for i, (top, left) in enumerate(corners.T.tolist()):
        assert torch.equal(ours[i], V.crop(padded[i], top, left, 20, 20))


def test_crop_places_cover_the_whole_range():
    assert Crop(padding=2).draw(2000, 20, rng())[0].unique().tolist() == [0, 1, 2, 3, 4]


def test_flip_equals_torchvision():
    images = byte_images()
    flips = Flip(direction="both").draw(len(images), 20, rng())[0]
    ours = Flip().apply(images, flips)
    for i, (horizontal, vertical) in enumerate(flips.T.tolist()):
        expected = V.horizontal_flip(images[i]) if horizontal else images[i]
        assert torch.equal(ours[i], V.vertical_flip(expected) if vertical else expected)


@pytest.mark.parametrize(
    ("direction", "rates"), [("horizontal", (0.3, 0)), ("vertical", (0, 0.3)), ("both", (0.3, 0.3))]
)
def test_flip_rate_is_p_on_each_axis(direction, rates):
    flips = Flip(p=0.3, direction=direction).draw(20_000, 20, rng())[0]
    assert_close(flips.float().mean(1), torch.tensor(rates, dtype=torch.float), atol=0.015, rtol=0)


@pytest.mark.parametrize("shape", [(20, 20), (18, 25)])
@pytest.mark.parametrize("seed", range(3))
def test_flip_and_rotation_in_one_equal_torchvision_one_after_the_other(shape, seed):
    images = float_images(16, *shape, seed)
    flips = Flip(direction="both").draw(16, 20, rng(seed))[0]
    angles = Rotate(degrees=180).draw(16, 20, rng(seed))[0]
    ours = FlipAndRotate(flip=Flip(), rotate=Rotate(degrees=180)).apply(images, flips, angles)
    for i, image in enumerate(Flip().apply(images, flips)):
        expected = V.rotate(image, angles[i].item(), InterpolationMode.BILINEAR)
        assert_close(ours[i], expected, atol=5e-5, rtol=0)


def test_angles_spread_evenly_over_the_range():
    angles = Rotate(degrees=30).draw(20_000, 20, rng())[0]
    assert angles.abs().max() <= 30
    assert_close(angles.mean().item(), 0.0, atol=0.5, rtol=0)
    assert_close(angles.std().item(), 30 / 3**0.5, atol=0.3, rtol=0)


@pytest.mark.parametrize("kernel", [3, 5, 9])
def test_blur_equals_torchvision(kernel):
    images = float_images()
    sigmas = Blur(kernel=kernel).draw(16, 20, rng())[0]
    ours = Blur(kernel=kernel).apply(images, sigmas)
    for i in range(16):
        expected = V.gaussian_blur(images[i], [kernel, kernel], [sigmas[i].item()] * 2)
        assert_close(ours[i], expected, atol=TOLERANCE, rtol=0)


def test_blur_leaves_images_that_are_not_chosen():
    images = float_images()
    sigmas = Blur(kernel=5, p=0.5).draw(16, 20, rng())[0]
    assert 0 < (sigmas == 0).sum() < 16
    assert_close(Blur(kernel=5).apply(images, sigmas)[sigmas == 0], images[sigmas == 0])


def test_blur_wider_than_the_image_is_refused():
    with pytest.raises(UserError, match="kernel 31 is too large for images of 8 pixels"):
        build_augment([AugmentStep(blur=Blur(kernel=31))], 8)


@pytest.mark.parametrize("size", [20, 33])
def test_resized_crop_equals_torchvision(size):
    images = float_images(24, size, size)
    crops = ResizedCrop(scale=(0.01, 1)).draw(24, size, rng())[0]
    ours = ResizedCrop().apply(images, crops)
    for i, (top, left, height, width) in enumerate(crops.T.tolist()):
        assert_close(ours[i], V.resized_crop(images[i], top, left, height, width, [size, size]), atol=5e-5, rtol=0)


@pytest.mark.parametrize(
    "settings",
    [{}, {"scale": (0.2, 0.5)}, {"scale": (0.9, 1), "ratio": (1, 3)}, {"scale": (1, 1), "ratio": (2, 4)}],
    ids=str,
)
def test_resized_crops_are_distributed_as_torchvisions(settings):
    ours = ResizedCrop(**settings).draw(4000, 32, rng())[0].double()
    torch.manual_seed(0)
    transform, image = v2.RandomResizedCrop(32, **settings), torch.zeros(3, 32, 32)
    drawn = (transform.make_params([image]) for _ in range(4000))
    theirs = torch.tensor([[each[key] for key in ("top", "left", "height", "width")] for each in drawn]).double().T
    assert_close(ours.mean(1), theirs.mean(1), atol=0.5, rtol=0)
    assert_close(ours.std(1), theirs.std(1), atol=0.4, rtol=0)
    assert (ours[:2] + ours[2:] <= 32).all()
    assert (ours[2:] > 0).all()


NAMES_OF_TORCHVISION = dict(zip(v2.RandAugment._AUGMENTATION_SPACE, KINDS, strict=True))


@pytest.mark.parametrize("as_bytes", [True, False])
@pytest.mark.parametrize("kind", NAMES_OF_TORCHVISION)
def test_each_operation_of_rand_augment_equals_torchvisions_image_by_image(kind, as_bytes):
    images = byte_images(4) if as_bytes else float_images(4)
    transform, (levels, signed) = v2.RandAugment(), v2.RandAugment._AUGMENTATION_SPACE[kind]
    for level in (0, 9, 30, *((-9, -30) if signed else ())):
        values = levels(31, 20, 20)
        value = 0.0 if values is None else float(values[abs(level)]) * (-1 if level < 0 else 1)
        theirs = [transform._apply_image_or_video_transform(i, kind, value, "nearest", {}) for i in images]
        assert_close(
            apply_kind(images, NAMES_OF_TORCHVISION[kind], level),
            torch.stack(theirs),
            atol=1 if as_bytes else 1e-5,
            rtol=0,
        )


def test_rand_augment_applies_to_each_image_its_own_operations_in_order():
    images, operation = byte_images(), RandAugment(operations=3, magnitude=20)
    kinds, signs = operation.draw(16, 20, rng())
    ours = operation.apply(images, kinds, signs)
    for i, expected in enumerate(images):
        for kind, sign in zip(kinds[:, i].tolist(), signs[:, i].tolist(), strict=True):
            name = list(KINDS)[kind]
            expected = apply_kind(expected, name, 20 * sign if KINDS[name] else 20)
        assert torch.equal(ours[i], expected)


def test_rand_augment_draws_all_operations_and_both_signs_equally_often():
    kinds, signs = RandAugment().draw(14_000, 20, rng())
    assert kinds.flatten().bincount().sub(2000).abs().max() < 150
    assert signs.double().mean().abs() < 0.02


def test_a_second_rand_augment_draws_other_operations_than_the_first():
    images, once = byte_images(), AugmentStep(rand_augment=RandAugment())
    first = build_augment([once], 20)(images, rng())
    both = build_augment([once, once], 20)(images, rng())
    assert torch.equal(both, build_augment([once, once], 20)(images, rng()))
    same_again = build_augment([once], 20)(first, rng())
    differ = (both != same_again).flatten(1).any(1)
    assert differ.double().mean() > 0.5


STRONG = ColorJitter(brightness=0.8, contrast=0.8, saturation=0.8, hue=0.5)
CHANGES = (V.adjust_brightness, V.adjust_contrast, V.adjust_saturation, V.adjust_hue)


@pytest.mark.parametrize("seed", range(4))
def test_color_jitter_equals_torchvision_in_every_images_own_order(seed):
    images = float_images(24, seed=seed)
    jitter = STRONG.draw(24, 20, rng(seed))
    ours = STRONG.apply(images, *jitter)
    values = torch.cat([jitter.factors, jitter.hue[None]])
    for i, expected in enumerate(images):
        for change in jitter.ranks[:, i].argsort().tolist():
            expected = CHANGES[change](expected, values[change, i].item())
        assert_close(ours[i], expected, atol=2e-4, rtol=0)  # hue amplifies rounding where chroma is small


def test_color_jitter_draws_all_orders_equally_often():
    ranks = STRONG.draw(24_000, 20, rng()).ranks
    _, counts = ranks.unique(dim=1, return_counts=True)
    assert len(counts) == 24
    assert counts.min() > 850
    assert counts.max() < 1150


def test_color_jitter_ranges_are_torchvisions():
    jitter = ColorJitter(brightness=0.4, hue=0.1).draw(20_000, 20, rng())
    assert_close(jitter.factors[0].aminmax(), (torch.tensor(0.6), torch.tensor(1.4)), atol=1e-3, rtol=0)
    assert (jitter.factors[1:] == 1).all()
    assert_close(jitter.hue.aminmax(), (torch.tensor(-0.1), torch.tensor(0.1)), atol=1e-3, rtol=0)


def test_color_jitter_leaves_gray_gray():
    gray = torch.rand(8, 1, 6, 6, generator=rng()).expand(8, 3, 6, 6)
    ranks = torch.arange(4).view(4, 1).expand(4, 8)
    ours = STRONG.apply(gray, torch.ones(3, 8), torch.linspace(-0.5, 0.5, 8), ranks)
    assert_close(ours, gray.contiguous())


def test_normalize_equals_torchvision_from_bytes_and_from_floats():
    images = byte_images()
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    expected = V.normalize(images / 255, list(mean), list(std))
    normalize = Normalize(mean, std, "cpu")
    assert normalize(images).is_contiguous(memory_format=torch.channels_last)
    assert_close(normalize(images), expected, atol=1e-5, rtol=0)
    assert_close(normalize(images / 255), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_changes_each_image_by_its_own_parameters_and_leaves_its_input(name):
    needed = {"rotate": {"degrees": 30}, "blur": {"kernel": 3}}
    operation = OPERATIONS[name](**needed.get(name, {}))
    images = byte_images()
    before = images.clone()
    parameters = operation.draw(16, 20, rng())
    whole = operation.apply(images, *parameters)
    parts = [
        operation.apply(images[rows], *(each[..., rows] for each in parameters)) for rows in torch.arange(16).split(5)
    ]
    assert whole.shape == images.shape
    assert torch.equal(images, before)
    assert_close(torch.cat(parts), whole)


@pytest.mark.parametrize("preset", AUGMENT_PRESETS)
def test_every_preset_keeps_shape_range_and_its_input(preset):
    images = byte_images()
    before = images.clone()
    augment = build_augment(TrialConfig(augment=preset).augment, 20)
    ours = augment(images, rng())
    assert ours.shape == images.shape
    assert ours.min() >= 0
    assert ours.max() <= (255 if ours.dtype == torch.uint8 else 1 + TOLERANCE)
    assert torch.equal(images, before)
    assert torch.equal(ours, augment(images, rng()))
    assert preset == "none" or not torch.equal(ours, augment(images, rng(1)))


def test_a_list_applies_its_operations_in_order():
    steps = [AugmentStep(flip=Flip(p=1)), AugmentStep(crop=Crop(padding=2)), AugmentStep(flip=Flip(p=1))]
    images, random = byte_images(), rng()
    Flip(p=1).draw(16, 20, random)[0]
    corners = Crop(padding=2).draw(16, 20, random)[0]
    expected = Crop(padding=2).apply(images.flip(3), corners).flip(3)
    assert torch.equal(build_augment(steps, 20)(images, rng()), expected)


def test_a_registered_augmentation_is_called_with_images_and_generator():
    AUGMENTATIONS.register("negative")(lambda images, generator: 255 - images)
    images = byte_images()
    assert torch.equal(build_augment("negative", 20)(images, rng()), 255 - images)
