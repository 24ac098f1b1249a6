"""Train a small network on scikit-learn's handwritten digits."""

import argparse

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def train(args):
    images, labels = load_digits(return_X_y=True)
    data = TensorDataset(torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(labels))
    training, validation = torch.utils.data.random_split(data, [1400, 397], torch.Generator().manual_seed(0))
    loader = DataLoader(training, args.batch_size, shuffle=True)
    model = nn.Sequential(nn.Linear(64, args.hidden), nn.ReLU(), nn.Dropout(0.2), nn.Linear(args.hidden, 10))
    optimizer = torch.optim.SGD(model.parameters(), args.lr, momentum=0.9)
    for epoch in range(args.epochs):
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
        print(f"epoch {epoch + 1}: val_loss {val_loss:.4f}, val_acc {val_acc:.4f}")
    torch.save(model.state_dict(), "digits.pt")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--batch_size", type=int, default=32)
    train(parser.parse_args())
