"""The function of Ray's guide to Lightning, on digits: a module, and Ray's own strategy, environment and callback."""

from __future__ import annotations

import os
from typing import Any

import lightning.pytorch as pl
import ray.train
import ray.train.lightning
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class DigitsClassifier(pl.LightningModule):
    def __init__(self, lr: float) -> None:
        super().__init__()
        self.lr = lr
        self.model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 10))
        self.criterion = nn.CrossEntropyLoss()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.model(x)
        return answer

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        x, y = batch
        loss = self.criterion(self.forward(x), y)
        self.log("train_loss", loss, on_step=False, on_epoch=True, sync_dist=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        x, y = batch
        outputs = self.forward(x)
        self.log("val_loss", self.criterion(outputs, y), sync_dist=True)
        self.log("val_acc", (outputs.argmax(1) == y).float().mean(), sync_dist=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.lr)


def train_func(config: dict[str, Any]) -> None:
    images, labels = load_digits(return_X_y=True)
    images, labels = torch.tensor(images[:600], dtype=torch.float32) / 16, torch.tensor(labels[:600])
    train_dataloader = DataLoader(TensorDataset(images[:500], labels[:500]), batch_size=50, shuffle=True)
    val_dataloader = DataLoader(TensorDataset(images[500:], labels[500:]), batch_size=100)

    model = DigitsClassifier(config["lr"])
    trainer = pl.Trainer(
        max_epochs=config["max_epochs"],
        devices="auto",
        accelerator="auto",
        strategy=ray.train.lightning.RayDDPStrategy(),
        plugins=[ray.train.lightning.RayLightningEnvironment()],
        callbacks=[ray.train.lightning.RayTrainReportCallback()],
        enable_checkpointing=False,
        enable_progress_bar=False,
        logger=False,
    )
    trainer = ray.train.lightning.prepare_trainer(trainer)

    checkpoint = ray.train.get_checkpoint()
    if checkpoint:
        with checkpoint.as_directory() as ckpt_dir:
            ckpt_path = os.path.join(ckpt_dir, ray.train.lightning.RayTrainReportCallback.CHECKPOINT_NAME)
            trainer.fit(model, train_dataloader, val_dataloader, ckpt_path=ckpt_path)
    else:
        trainer.fit(model, train_dataloader, val_dataloader)
