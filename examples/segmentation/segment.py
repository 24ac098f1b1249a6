"""Finds discs and crosses in noisy images, by a small U-Net. The images are made on the spot."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import raysweep

CLASSES = 3  # the ground, discs, crosses


class Config(raysweep.Config):
    """What one trial trains with."""

    epochs: int = 12
    lr: float = 0.003
    batch_size: int = 32
    width: int = 8
    """Channels of the first level; the second has twice as many, the third four times."""
    loss: Literal["cross_entropy", "dice"] = "cross_entropy"
    examples: int = 480
    """How many images are made; a fifth of them are for validation."""
    size: int = 32
    noise: float = 0.5


def make_shapes(examples: int, size: int, noise: float) -> dict[str, np.ndarray]:
    """Return images, N x 1 x size x size, and for each of their pixels its class."""
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[:size, :size]
    masks = np.zeros((examples, size, size), np.int64)
    for mask in masks:
        for kind in (1, 2):
            row, column = random.integers(size // 5, size - size // 5, 2)
            reach = random.integers(size // 6, size // 4)
            near, far = np.sort([np.abs(rows - row), np.abs(columns - column)], 0)
            mask[np.hypot(near, far) < reach if kind == 1 else (far < reach) & (near < reach / 3)] = kind
    images = (masks > 0) + random.normal(0, noise, masks.shape)
    return {"images": images[:, None].astype(np.float32), "masks": masks}


def block(before: int, after: int) -> nn.Sequential:
    """Return two convolutions, each followed by batch norm and a ReLU."""
    layers = [(nn.Conv2d(n, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()) for n in (before, after)]
    return nn.Sequential(*layers[0], *layers[1])


class UNet(nn.Module):
    """Three levels, each at half the resolution of the one above (Ronneberger et al. 2015, arXiv:1505.04597)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.down = nn.ModuleList([block(1, width), block(width, 2 * width), block(2 * width, 4 * width)])
        self.up = nn.ModuleList([block(6 * width, 2 * width), block(3 * width, width)])
        self.head = nn.Conv2d(width, CLASSES, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits, N x classes x H x W."""
        top = self.down[0](images)
        middle = self.down[1](F.max_pool2d(top, 2))
        x = self.down[2](F.max_pool2d(middle, 2))
        x = self.up[0](torch.cat([F.interpolate(x, scale_factor=2.0), middle], 1))
        x = self.up[1](torch.cat([F.interpolate(x, scale_factor=2.0), top], 1))
        return self.head(x)


def dice_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Return one minus the mean Dice coefficient of the classes (Milletari et al. 2016, arXiv:1606.04797)."""
    found, truth = logits.softmax(1), F.one_hot(masks, CLASSES).permute(0, 3, 1, 2)
    return 1 - (2 * (found * truth).sum((0, 2, 3)) / (found + truth).sum((0, 2, 3))).mean()


def mean_iou(found: Tensor, masks: Tensor) -> float:
    """Return the mean over the classes of intersection over union."""
    pairs = [(found == kind, masks == kind) for kind in range(CLASSES)]
    return float(np.mean([((a & b).sum() / (a | b).sum()).item() for a, b in pairs]))


@raysweep.register_loop("segment", config=Config, metrics={"val_iou": "max", "val_loss": "min"}, prepare=make_shapes)
def train(config: Config, trial: raysweep.TrialContext) -> Iterator[raysweep.Epoch]:
    """Train, and report the validation images' mean IoU after each epoch."""
    images = torch.tensor(trial.data["images"], device=trial.device)
    masks = torch.tensor(trial.data["masks"], device=trial.device)
    held_out = len(images) // 5
    net = UNet(config.width).to(trial.device)
    optimizer = torch.optim.AdamW(net.parameters(), config.lr)
    loss_of = dice_loss if config.loss == "dice" else F.cross_entropy
    if state := trial.state:
        net.load_state_dict(state["net"])
        optimizer.load_state_dict(state["optimizer"])
    for _ in range(trial.epoch, config.epochs):
        losses = []
        net.train()
        for batch in (held_out + torch.randperm(len(images) - held_out)).split(config.batch_size):
            loss = loss_of(net(images[batch]), masks[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        net.eval()
        with torch.no_grad():
            logits = net(images[:held_out])
        yield raysweep.Epoch(
            metrics={
                "train_loss": float(np.mean(losses)),
                "val_loss": loss_of(logits, masks[:held_out]).item(),
                "val_iou": mean_iou(logits.argmax(1), masks[:held_out]),
            },
            state=lambda: {"net": net.state_dict(), "optimizer": optimizer.state_dict()},
            weights=net.state_dict,
        )
