"""Predicts the next character of the Python library's documentation, by a small transformer."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import raysweep

MODULES = (
    *("argparse", "collections", "csv", "datetime", "decimal", "difflib", "doctest", "email", "fractions", "functools"),
    *("heapq", "html", "inspect", "itertools", "json", "logging", "mailbox", "optparse", "os", "pathlib", "pickle"),
    *("random", "re", "shutil", "smtplib", "statistics", "string", "subprocess", "tarfile", "textwrap", "threading"),
    *("tokenize", "turtle", "unittest", "urllib", "uuid", "zipfile"),
)


class Net(raysweep.Section):
    """The network: a section of the settings, whose keys a sweep file writes with a dot (`net.width`)."""

    width: int = 48
    layers: int = 2
    heads: int = 4
    dropout: float = 0.0


class Config(raysweep.Config):
    """What one trial trains with."""

    epochs: int = 10
    lr: float = 0.003
    net: Net = Net()
    batch_size: int = 32
    context: int = 48
    """The characters that it sees before the one to predict."""
    steps_per_epoch: int = 60


def read_documentation() -> dict[str, np.ndarray]:
    """Return the text, as its characters' codes, 0 to 127."""
    texts = []
    for module in map(importlib.import_module, MODULES):
        members = [each for _, each in sorted(vars(module).items()) if inspect.isclass(each) or inspect.isroutine(each)]
        texts += [inspect.getdoc(each) or "" for each in (module, *members)]
    text = "\n\n".join(dict.fromkeys(texts)).encode("ascii", "replace")
    return {"text": np.frombuffer(text, np.uint8)}


class Transformer(nn.Module):
    """Reads `context` characters; at each of them it predicts the next."""

    def __init__(self, net: Net, context: int) -> None:
        super().__init__()
        self.letters, self.places = nn.Embedding(128, net.width), nn.Embedding(context, net.width)
        layer = nn.TransformerEncoderLayer(
            net.width, net.heads, 4 * net.width, net.dropout, batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, net.layers, enable_nested_tensor=False)
        self.head = nn.Linear(net.width, 128)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(context), persistent=False)

    def forward(self, text: Tensor) -> Tensor:
        """Return logits, N x context x 128, of characters N x context."""
        places = torch.arange(text.shape[1], device=text.device)
        return self.head(self.layers(self.letters(text) + self.places(places), mask=self.mask, is_causal=True))


def loss_of(net: Transformer, windows: Tensor) -> Tensor:
    """Return the mean cross-entropy of the next characters, in nats; windows are context + 1 long."""
    return F.cross_entropy(net(windows[:, :-1]).flatten(0, 1), windows[:, 1:].flatten())


@raysweep.register_loop("next_letter", config=Config, metrics={"val_loss": "min"}, prepare=read_documentation)
def train(config: Config, trial: raysweep.TrialContext) -> Iterator[raysweep.Epoch]:
    """Train on the first nine tenths of the text, and report the loss on the rest after each epoch."""
    windows = torch.tensor(trial.data["text"]).long().unfold(0, config.context + 1, 1).to(trial.device)
    split = len(windows) * 9 // 10
    validation = windows[split + config.context :: config.context + 1][:400]
    net = Transformer(config.net, config.context).to(trial.device)
    optimizer = torch.optim.AdamW(net.parameters(), config.lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.lr, config.epochs * config.steps_per_epoch)
    parts = {"net": net, "optimizer": optimizer, "schedule": schedule}
    if state := trial.state:
        for name, part in parts.items():
            part.load_state_dict(state[name])
    for _ in range(trial.epoch, config.epochs):
        losses = []
        net.train()
        for _ in range(config.steps_per_epoch):
            loss = loss_of(net, windows[torch.randint(split, (config.batch_size,))])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        net.eval()
        with torch.no_grad():
            val_loss = loss_of(net, validation).item()
        yield raysweep.Epoch(
            metrics={"train_loss": float(np.mean(losses)), "val_loss": val_loss},
            state=lambda: {name: part.state_dict() for name, part in parts.items()},
            weights=net.state_dict,
        )
