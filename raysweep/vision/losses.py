"""Losses: what training makes smaller, built in or of the user's own."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from raysweep.errors import UserError
from raysweep.vision.config import TrialConfig
from raysweep.vision.names import CROSS_ENTROPY, LOSSES


class Loss:
    """The loss of a trial, on logits, N x classes, and labels: int64, N, or of mixed images float, N x classes."""

    def __init__(self, config: TrialConfig) -> None:
        self._config, self._smoothing = config.loss, config.label_smoothing
        self._own = None if config.loss.name == CROSS_ENTROPY else LOSSES.get(config.loss.name)

    def mean(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the mean over the images, with label smoothing."""
        if self._own is None:
            return F.cross_entropy(logits, labels, label_smoothing=self._smoothing)
        return self._of_each(logits, labels).mean()

    def sum(self, logits: torch.Tensor, labels: torch.Tensor, smoothed: bool = True) -> torch.Tensor:
        """Return the sum over the images, which may be none."""
        if self._own is None:
            smoothing = self._smoothing if smoothed else 0.0
            return F.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="sum")
        return self._of_each(logits, labels).sum()

    def _of_each(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        assert self._own is not None
        losses: torch.Tensor = self._own(logits, labels, **self._config.options)
        if losses.shape != logits.shape[:1]:
            given = "x".join(map(str, losses.shape)) or "a single number"
            raise UserError(
                f"loss {self._config.name}: returned {given} for {len(logits)} images, must return a loss for each; "
                "torch's own losses do with reduction='none'"
            )
        return losses
