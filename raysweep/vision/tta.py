"""Test-time augmentation: the same image seen several times, and the class probabilities averaged.

View 1 is the image, view 2 its mirror image (left to right); views 3 to 10 are the two again, shifted diagonally by
`shift_of(image size)` pixels. So N = 2 is the mirror, and 10 the ten crops of Krizhevsky et al. (2012), but with the
border reflected into the image rather than cut off. Softmax probabilities are averaged, as there, not logits.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

SHIFTS = ((0, 0), (-1, -1), (1, 1), (-1, 1), (1, -1))
"""Down and right, in units of `shift_of`; each shift makes two views, straight and mirrored."""
MOST_VIEWS = 2 * len(SHIFTS)


def views_of(images: torch.Tensor, count: int) -> Iterator[torch.Tensor]:
    """Yield the first `count` views of a batch, N x 3 x H x W of any type; 0 and 1 both mean the images alone."""
    if not 0 <= count <= MOST_VIEWS:
        raise ValueError(f"{count} views: must be 0 to {MOST_VIEWS}")
    yield images
    for number in range(1, count):
        down, right = SHIFTS[number // 2]
        shifted = _shift(_shift(images, down, 2), right, 3)
        yield shifted.flip(3) if number % 2 else shifted


def shift_of(image_size: int) -> int:
    """Return the pixels of one shift: a twentieth of the image, at least 1."""
    return max(1, image_size // 20)


def _shift(images: torch.Tensor, steps: int, dim: int) -> torch.Tensor:
    """Move the content by `steps` of `shift_of` towards higher indices; what comes in at the border is reflected."""
    if steps == 0:
        return images
    last = images.shape[dim] - 1
    source = torch.arange(last + 1, device=images.device) - steps * shift_of(last + 1)
    return images.index_select(dim, last - (last - source.abs()).abs())
