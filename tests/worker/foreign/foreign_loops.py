"""Registers the training functions of this folder, which were not written for raysweep, as they are."""

from __future__ import annotations

from importlib.util import find_spec

import raysweep


class Torch(raysweep.Config):
    batch_size: int = 50
    hidden: int = 32
    lr: float = 0.01


class Mnist(raysweep.Config):
    batch_size: int = 50
    lr: float = 1.0
    gamma: float = 0.9


class Lightning(raysweep.Config):
    lr: float = 0.01


class HuggingFace(raysweep.Config):
    learning_rate: float = 0.01


import torch_digits  # noqa: E402
import torch_mnist  # noqa: E402

raysweep.register_loop("torch", config=Torch, metrics={"accuracy": "max", "loss": "min"}, epochs="num_epochs")(
    torch_digits.train_func
)
raysweep.register_loop("mnist", config=Mnist, metrics={"accuracy": "max", "test_loss": "min"})(torch_mnist.main)
if find_spec("lightning"):
    import lightning_digits

    raysweep.register_loop("lightning", config=Lightning, metrics={"val_loss": "min"}, epochs="max_epochs")(
        lightning_digits.train_func
    )
if find_spec("transformers"):
    import huggingface_bert

    raysweep.register_loop("bert", config=HuggingFace, metrics={"eval_loss": "min"}, epochs="num_train_epochs")(
        huggingface_bert.train_func
    )
