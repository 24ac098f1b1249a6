"""Which views test-time augmentation takes, and that their softmax probabilities are averaged."""

import pytest
import torch
from torch import nn

from raysweep.vision.data.dataset import Split
from raysweep.vision.inference import Classifier
from raysweep.vision.tta import MOST_VIEWS, shift_of, views_of

IMAGES = torch.arange(2 * 3 * 40 * 40).remainder(251).to(torch.uint8).view(2, 3, 40, 40)


def views(count, images=IMAGES):
    return list(views_of(images, count))


@pytest.mark.parametrize("count", [0, 1])
def test_none_and_one_view_are_the_image_alone(count):
    (view,) = views(count)
    assert torch.equal(view, IMAGES)


@pytest.mark.parametrize("count", range(2, MOST_VIEWS + 1))
def test_views_are_as_many_as_asked_for_and_each_number_adds_to_the_ones_before(count):
    taken = views(count)
    assert len(taken) == count
    assert all(torch.equal(a, b) for a, b in zip(taken, views(count - 1), strict=False))
    assert all(view.dtype == torch.uint8 and view.shape == IMAGES.shape for view in taken)
    assert not any(torch.equal(taken[-1], other) for other in taken[:-1])


def test_every_second_view_is_the_mirror_image_of_the_one_before():
    taken = views(MOST_VIEWS)
    assert all(torch.equal(taken[i + 1], taken[i].flip(3)) for i in range(0, MOST_VIEWS, 2))


def test_shifts_are_two_pixels_at_40_and_one_at_8_and_reflect_the_border():
    assert [shift_of(size) for size in (4, 8, 40, 64)] == [1, 1, 2, 3]
    up_left = views(3)[2]
    assert torch.equal(up_left[:, :, :-2, :-2], IMAGES[:, :, 2:, 2:])
    padded = torch.nn.functional.pad(IMAGES.float(), (2, 2, 2, 2), mode="reflect").to(torch.uint8)
    windows = {(y, x): padded[:, :, y : y + 40, x : x + 40] for y in (0, 4) for x in (0, 4)}
    taken = views(MOST_VIEWS)[2::2]
    assert all(torch.equal(view, windows[at]) for view, at in zip(taken, [(4, 4), (0, 0), (4, 0), (0, 4)], strict=True))


def test_more_views_than_there_are_are_refused():
    with pytest.raises(ValueError, match="11 views: must be 0 to 10"):
        views(11)


class Corner(nn.Module):
    """Logits are three pixels of the image's top left corner: it tells the views apart."""

    def forward(self, images):
        return images[:, :, 0, 0]


def classifier(model, precision="fp32"):
    return Classifier(model, (0.5, 0.5, 0.5), (0.25, 0.5, 1.0), precision, 40, device="cpu")


def test_probabilities_are_the_mean_of_the_views_softmax():
    logits = [(view[:, :, 0, 0] / 255 - 0.5) / torch.tensor([0.25, 0.5, 1.0]) for view in views(4)]
    expected = torch.stack(logits).double().softmax(2).mean(0)
    probabilities, labels = classifier(Corner()).top(IMAGES, 3, tta=4)
    torch.testing.assert_close(probabilities, expected.gather(1, labels), rtol=1e-6, atol=0)
    assert torch.equal(labels, expected.argsort(1, descending=True))


def test_of_equally_probable_classes_the_first_comes_first_as_in_an_argmax():
    grey = torch.full((4, 3, 40, 40), 7, dtype=torch.uint8)
    flat = Classifier(Corner(), (0.5,) * 3, (0.5,) * 3, "fp32", 40, device="cpu")
    assert flat.top(grey, 2)[1].tolist() == [[0, 1]] * 4


def test_accuracy_counts_every_image_once_over_uneven_batches():
    images = IMAGES[:1].repeat(300, 1, 1, 1)
    images[::3, 0, 0, 0] = 255
    images[1::3, 2, 0, 0] = 255
    images[2::3, 1, 0, 0] = 255
    labels = torch.tensor([0, 2, 1]).repeat(100)
    labels[:30] = (labels[:30] + 1) % 3
    images[:, :, 0, 0] = torch.where(images[:, :, 0, 0] == 255, 255, 0)
    assert classifier(Corner()).accuracy(Split(images, labels)) == 0.9


def test_bf16_computes_the_network_in_bf16():
    seen = []

    class Conv(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, images):
            x = self.conv(images)
            seen.append(x.dtype)
            return x.mean(dim=(2, 3))

    classifier(Conv(), "bf16").top(IMAGES)
    assert seen == [torch.bfloat16]
