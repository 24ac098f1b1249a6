"""Train a small network on scikit-learn's handwritten digits."""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import raysweep


class Config(raysweep.Config):
    epochs: int = 15
    lr: float = 0.1
    hidden: int = 64
    batch_size: int = 32


@raysweep.register_loop("digits_net", config=Config, metrics={"val_acc": "max", "val_loss": "min"})
def train(args, trial):
    images, labels = load_digits(return_X_y=True)
    data = TensorDataset(torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(labels))
    training, validation = torch.utils.data.random_split(data, [1400, 397], torch.Generator().manual_seed(0))
    loader = DataLoader(training, args.batch_size, shuffle=True)
    model = nn.Sequential(nn.Linear(64, args.hidden), nn.ReLU(), nn.Dropout(0.2), nn.Linear(args.hidden, 10))
    optimizer = torch.optim.SGD(model.parameters(), args.lr, momentum=0.9)
    if saved := trial.state:
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
    for epoch in range(trial.epoch, args.epochs):
        model.train()
        for inputs, targets in loader:
            loss = nn.functional.cross_entropy(model(inputs), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            inputs, targets = validation[:]
            logits = model(inputs)
        val_loss = nn.functional.cross_entropy(logits, targets).item()
        val_acc = (logits.argmax(1) == targets).float().mean().item()
        yield raysweep.Epoch(
            metrics={"val_loss": val_loss, "val_acc": val_acc},
            state=lambda: {"model": model.state_dict(), "optimizer": optimizer.state_dict()},
            weights=model.state_dict,
        )
