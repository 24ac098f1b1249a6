"""
Batch-norm statistics that are gathered anew ("precise batch norm").

Training keeps an exponential average over the last batches, each normalised by the weights of its own step; where
weights move fast it lags behind them. What is gathered here is the mean over batches that all see the same weights (Wu
and Johnson 2021, "Rethinking 'Batch' in BatchNorm", section 3; torch.optim.swa_utils.update_bn computes the same).

* gathered_anew              what a block's forward passes see is what the network's batch norms then evaluate by
* check_precise_batch_norm   refuses what cannot be gathered
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from raysweep.errors import UserError
from raysweep.vision.config import TrialConfig

PRECISE_IMAGES = 10_000
"""Images that the statistics are gathered of, if there are as many; more made no difference to Wu and Johnson."""


def check_precise_batch_norm(config: TrialConfig, ranks: int, batch_size: int) -> None:
    """Refuse `precise_batch_norm` where some of the ranks have no image of a batch, and so no statistics."""
    if config.precise_batch_norm and batch_size < 2 * ranks:
        raise UserError(
            f"precise_batch_norm: true: each of {ranks} workers needs two images of a batch, and a batch has "
            f"{batch_size}; set batch_size to {2 * ranks} or more, or precise_batch_norm: false"
        )


@contextmanager
def gathered_anew(model: nn.Module, frozen: Collection[nn.Module]) -> Iterator[None]:
    """Let each forward pass in the block add its batch's statistics to a plain mean; put all back as it was after it.

    All but the batch norms compute as in an evaluation, without dropout, so nothing is drawn. `frozen` batch norms
    normalise by their own statistics here, too. `model.eval()` inside the block ends the gathering.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module not in frozen]
    norms = [norm for norm in norms if norm.running_mean is not None]
    kept = [(norm.momentum, {name: buffer.clone() for name, buffer in norm.named_buffers()}) for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    try:
        yield
    finally:
        with torch.no_grad():
            for norm, (momentum, buffers) in zip(norms, kept, strict=True):
                norm.momentum = momentum
                for name, buffer in norm.named_buffers():
                    buffer.copy_(buffers[name])
