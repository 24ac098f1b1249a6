"""A trained network, used as its trial evaluated it: the same normalisation, precision and memory layout."""

from __future__ import annotations

import torch
from torch import nn

from raysweep.vision.augment.batch import Normalize
from raysweep.vision.data.dataset import Channels, Split
from raysweep.vision.device import resolve_device
from raysweep.vision.memory import Batches
from raysweep.vision.tta import views_of


class Classifier:
    """Classifies uint8 images on a device with a trained model, which is moved there.

    `mean` and `std` (scale 0..1) and `precision` (`fp32` or `bf16`) are those of the trial's conditions.
    """

    def __init__(
        self,
        model: nn.Module,
        mean: Channels,
        std: Channels,
        precision: str,
        image_size: int,
        device: str = "auto",
    ) -> None:
        self.device = resolve_device(device)
        self.batches = Batches(self.device, image_size)
        self._model = model.to(self.device).to(memory_format=torch.channels_last).eval()
        self._normalize = Normalize(mean, std, self.device)
        self._bf16 = precision == "bf16"

    def top(self, images: torch.Tensor, count: int = 1, tta: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the `count` most probable classes of each image: probabilities (float64) and labels, N x count.

        The images, uint8 N x 3 x H x W, may be on any device; probabilities are the mean over `tta` views. Of equally
        probable classes, as there are many among logits in bf16, the first comes first, as in an argmax.
        """

        def best(rows: slice) -> tuple[torch.Tensor, torch.Tensor]:
            ranked = self._mean_over_views(images[rows], tta).sort(dim=1, descending=True, stable=True)
            return ranked.values[:, :count].cpu(), ranked.indices[:, :count].cpu()

        probabilities, labels = zip(*self.batches.over(len(images), best), strict=True)
        return torch.cat(probabilities), torch.cat(labels)

    @torch.inference_mode()
    def _mean_over_views(self, images: torch.Tensor, tta: int) -> torch.Tensor:
        total: torch.Tensor | None = None
        for view in views_of(images.to(self.device), tta):
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self._bf16):
                logits = self._model(self._normalize(view)).float()
            # In float64 the softmax keeps the order of any two logits.
            probabilities = logits.double().softmax(1)
            total = probabilities if total is None else total + probabilities
        assert total is not None
        return total / max(1, tta)

    def accuracy(self, split: Split, tta: int = 0) -> float:
        """Return the share of the split's images, 0..1, whose most probable class is their label."""
        answers = self.top(split.images, tta=tta)[1][:, 0]
        return int((answers == split.labels.cpu()).sum()) / len(split)
