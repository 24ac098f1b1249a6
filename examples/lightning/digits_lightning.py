"""A Lightning module on handwritten digits, trained as Ray's guide to Lightning has it, and registered as a loop."""

from __future__ import annotations

import os
from typing import Annotated, Any

import lightning.pytorch as pl
import ray.train
import torch
from pydantic import Field
from ray.train.lightning import RayDDPStrategy, RayLightningEnvironment, RayTrainReportCallback, prepare_trainer
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import raysweep


class Config(raysweep.Config):
    """The settings of a trial."""

    lr: Annotated[float, Field(gt=0)] = 0.01
    hidden: int = 32
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    batch_size: int = 64


class Digits(pl.LightningModule):
    """One hidden layer over 8x8 pixels."""

    def __init__(self, hidden: int, dropout: float, lr: float) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Linear(64, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, 10))

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], index: int) -> torch.Tensor:
        images, labels = batch
        loss = nn.functional.cross_entropy(self.net(images), labels)
        self.log("train_loss", loss, on_step=False, on_epoch=True, sync_dist=True)
        return loss

    def validation_step(self, batch: tuple[torch.Tensor, torch.Tensor], index: int) -> None:
        images, labels = batch
        logits = self.net(images)
        self.log("val_loss", nn.functional.cross_entropy(logits, labels), sync_dist=True)
        self.log("val_acc", (logits.argmax(1) == labels).float().mean(), sync_dist=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=self.hparams["lr"])


def loaders(batch_size: int) -> tuple[DataLoader[Any], DataLoader[Any]]:
    """Return the loaders of 1,400 images for training and 397 for validation."""
    images, labels = load_digits(return_X_y=True)
    data = TensorDataset(torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(labels))
    train, val = torch.utils.data.random_split(data, [1400, 397], torch.Generator().manual_seed(0))
    return DataLoader(train, batch_size, shuffle=True), DataLoader(val, batch_size=397)


def train_func(config: dict[str, Any]) -> None:
    """Train as Ray Train has it: nothing in here knows raysweep."""
    model = Digits(config["hidden"], config["dropout"], config["lr"])
    trainer = pl.Trainer(
        max_epochs=config["max_epochs"],
        devices="auto",
        accelerator="auto",
        strategy=RayDDPStrategy(),
        plugins=[RayLightningEnvironment()],
        callbacks=[RayTrainReportCallback()],
        enable_checkpointing=False,
        enable_progress_bar=False,
        logger=False,
    )
    trainer = prepare_trainer(trainer)
    train, val = loaders(config["batch_size"])
    if checkpoint := ray.train.get_checkpoint():
        with checkpoint.as_directory() as folder:
            trainer.fit(model, train, val, ckpt_path=os.path.join(folder, RayTrainReportCallback.CHECKPOINT_NAME))
    else:
        trainer.fit(model, train, val)


raysweep.register_loop("digits", config=Config, metrics={"val_acc": "max", "val_loss": "min"}, epochs="max_epochs")(
    train_func
)
