"""A plain PyTorch script in the shape of torch's MNIST example, and a report an epoch; it has no checkpoints."""

from __future__ import annotations

from typing import Any

import ray.train
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn, optim
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader, TensorDataset, random_split


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3)
        self.dropout = nn.Dropout(0.25)
        self.fc = nn.Linear(72, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(self.conv(x)), 2)
        return F.log_softmax(self.fc(self.dropout(torch.flatten(x, 1))), dim=1)


def train(model: nn.Module, device: torch.device, train_loader: Any, optimizer: optim.Optimizer) -> None:
    model.train()
    for data, target in train_loader:
        data, target = data.to(device), target.to(device)
        optimizer.zero_grad()
        loss = F.nll_loss(model(data), target)
        loss.backward()
        optimizer.step()


def test(model: nn.Module, device: torch.device, test_loader: Any) -> tuple[float, float]:
    model.eval()
    test_loss, correct = 0.0, 0
    with torch.no_grad():
        for data, target in test_loader:
            data, target = data.to(device), target.to(device)
            output = model(data)
            test_loss += F.nll_loss(output, target, reduction="sum").item()
            correct += output.argmax(dim=1).eq(target).sum().item()
    return test_loss / len(test_loader.dataset), correct / len(test_loader.dataset)


def main(config: dict[str, Any]) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    images, labels = load_digits(return_X_y=True)
    dataset = TensorDataset(
        torch.tensor(images[:600], dtype=torch.float32).view(-1, 1, 8, 8) / 16, torch.tensor(labels[:600])
    )
    train_data, test_data = random_split(dataset, [500, 100])
    train_loader = DataLoader(train_data, batch_size=config["batch_size"], shuffle=True)
    test_loader = DataLoader(test_data, batch_size=100)

    model = Net().to(device)
    optimizer = optim.Adadelta(model.parameters(), lr=config["lr"])
    scheduler = StepLR(optimizer, step_size=1, gamma=config["gamma"])
    for _ in range(config["epochs"]):
        train(model, device, train_loader, optimizer)
        test_loss, accuracy = test(model, device, test_loader)
        scheduler.step()
        ray.train.report({"test_loss": test_loss, "accuracy": accuracy})
