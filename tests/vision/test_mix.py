"""MixUp and CutMix agree with torchvision's on the same weight and box, and depend on seed, epoch and step alone."""

from __future__ import annotations

import collections
from types import SimpleNamespace

import pytest
import torch
from pydantic import ValidationError
from torchvision.transforms import v2

from raysweep.vision.config import MixConfig
from raysweep.vision.mix import Mix, cut, draw_mix
from raysweep.vision.randomness import generator


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    random = generator("cpu", "test", 0)
    return torch.rand(8, 3, 12, 12, generator=random), torch.randint(5, (8,), generator=random)


def mixed(mix: Mix, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return mix.images(images, images.roll(1, 0)), mix.labels(labels, labels.roll(1, 0), 5)


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_mixup_equals_torchvisions(weight: float, batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    transform = v2.MixUp(num_classes=5)
    transform.make_params = lambda inputs: {"lam": weight}
    torch.testing.assert_close(mixed(Mix(weight), *batch), transform(*batch))


@pytest.mark.parametrize(("y", "x"), [(0, 0), (5, 7), (11, 2)])
@pytest.mark.parametrize("weight", [0.0, 0.3, 0.99])
def test_cutmix_equals_torchvisions(weight: float, y: int, x: int, batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    transform = v2.CutMix(num_classes=5)
    with pytest.MonkeyPatch.context() as patched:
        drawn = iter([torch.tensor([x]), torch.tensor([y])])
        patched.setattr("torch.randint", lambda high, size: next(drawn))
        transform._dist = SimpleNamespace(sample=lambda shape: torch.tensor(weight, dtype=torch.float64))
        expected = transform(*batch)
    torch.testing.assert_close(mixed(cut(weight, y, x, 12), *batch), expected)


def test_bytes_are_cut_as_they_are_and_blended_on_the_scale_of_1(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    images = (batch[0] * 255).to(torch.uint8)
    assert cut(0.5, 5, 5, 12).images(images, images.roll(1, 0)).dtype == torch.uint8
    blended = Mix(0.5).images(images, images.roll(1, 0))
    torch.testing.assert_close(blended, Mix(0.5).images(images / 255, images.roll(1, 0) / 255))


def test_each_batch_draws_whether_and_how_it_is_mixed_and_a_place_draws_the_same_again() -> None:
    both = MixConfig(mixup=0.4, cutmix=1.0, p=0.5)
    drawn = [draw_mix(both, 12, 0, 0, step) for step in range(2000)]
    assert drawn == [draw_mix(both, 12, 0, 0, step) for step in range(2000)]
    kinds = collections.Counter("none" if mix is None else "cutmix" if mix.box else "mixup" for mix in drawn)
    assert 940 < kinds["none"] < 1060
    assert 440 < kinds["mixup"] < 560
    weights = torch.tensor([mix.weight for mix in drawn if mix and mix.box is None])
    assert weights.mean() == pytest.approx(0.5, abs=0.05)
    assert weights.var() == pytest.approx(1 / (4 * (2 * 0.4 + 1)), abs=0.02)


def test_a_mix_of_nothing_is_refused() -> None:
    with pytest.raises(ValidationError, match="must have mixup or cutmix, or both"):
        MixConfig(p=0.5)
