"""The function of Ray's guide to PyTorch, on digits: `prepare_model`, `prepare_data_loader`, a report an epoch."""

from __future__ import annotations

import os
import tempfile
from typing import Any

import ray.train.torch
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def digits() -> tuple[TensorDataset, TensorDataset]:
    images, labels = load_digits(return_X_y=True)
    images, labels = torch.tensor(images[:600], dtype=torch.float32) / 16, torch.tensor(labels[:600])
    return TensorDataset(images[:500], labels[:500]), TensorDataset(images[500:], labels[500:])


def train_func(config: dict[str, Any]) -> None:
    world_size = ray.train.get_context().get_world_size()
    train_data, val_data = digits()
    train_loader = DataLoader(train_data, batch_size=config["batch_size"] // world_size, shuffle=True)
    train_loader = ray.train.torch.prepare_data_loader(train_loader)
    network = nn.Sequential(
        nn.Linear(64, config["hidden"]), nn.ReLU(), nn.Dropout(0.1), nn.Linear(config["hidden"], 10)
    )
    model = ray.train.torch.prepare_model(network)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=config["lr"])

    start_epoch = 0
    checkpoint = ray.train.get_checkpoint()
    if checkpoint:
        with checkpoint.as_directory() as checkpoint_dir:
            saved = torch.load(os.path.join(checkpoint_dir, "checkpoint.pt"))
        network.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        start_epoch = saved["epoch"] + 1

    for epoch in range(start_epoch, config["num_epochs"]):
        if world_size > 1:
            train_loader.sampler.set_epoch(epoch)
        model.train()
        for images, labels in train_loader:
            loss = criterion(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            images, labels = val_data.tensors
            accuracy = (network(images).argmax(1) == labels).float().mean()

        metrics = {"loss": loss.item(), "accuracy": accuracy, "epoch": epoch}
        with tempfile.TemporaryDirectory() as temp_checkpoint_dir:
            checkpoint = None
            if ray.train.get_context().get_world_rank() == 0:
                state = {"model": network.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch}
                torch.save(state, os.path.join(temp_checkpoint_dir, "checkpoint.pt"))
                checkpoint = ray.train.Checkpoint.from_directory(temp_checkpoint_dir)
            ray.train.report(metrics, checkpoint=checkpoint)
