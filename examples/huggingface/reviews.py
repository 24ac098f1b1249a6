"""A small BERT from a config, fine-tuned by Hugging Face's Trainer as Ray's guide has it, and registered as a loop.

The sentences are made on the spot, of words that praise, blame or negate; nothing is downloaded.
"""

from __future__ import annotations

import os
import random
from typing import Annotated, Any

import numpy as np
import ray.train
import torch
from pydantic import Field
from ray.train.huggingface.transformers import RayTrainReportCallback, prepare_trainer
from torch.utils.data import Dataset
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

import raysweep

WORDS = ["[PAD]", "the", "food", "room", "staff", "was", "and", "not", "good", "great", "bad", "awful", "never", "but"]
GOOD, BAD, NEGATIONS = {"good", "great"}, {"bad", "awful"}, {"not", "never"}
LENGTH = 12


class Config(raysweep.Config):
    """The settings of a trial."""

    epochs: int = 6
    learning_rate: Annotated[float, Field(gt=0)] = 3e-3
    layers: int = 2
    hidden: int = 32
    batch_size: int = 32
    warmup_steps: int = 10


class Reviews(Dataset[dict[str, torch.Tensor]]):
    """Sentences of three claims; the label says whether more of them praise than blame."""

    def __init__(self, count: int, seed: int) -> None:
        self.rows = [self._row(random.Random(f"{seed}/{index}")) for index in range(count)]

    @staticmethod
    def _row(draw: random.Random) -> tuple[list[int], int]:
        words: list[str] = []
        praise = 0
        for _ in range(3):
            negation, word = draw.choice(["", *sorted(NEGATIONS)]), draw.choice(sorted(GOOD | BAD))
            words += [draw.choice(["food", "room", "staff"]), *([negation] if negation else []), word]
            praise += 1 if (word in GOOD) != bool(negation) else -1
        tokens = [WORDS.index(word) for word in words]
        return tokens + [0] * (LENGTH - len(tokens)), int(praise > 0)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        tokens, label = self.rows[index]
        ids = torch.tensor(tokens)
        return {"input_ids": ids, "attention_mask": (ids > 0).long(), "labels": torch.tensor(label)}


def accuracy(predicted: Any) -> dict[str, float]:
    """Return the share of right answers, as Trainer's `compute_metrics`."""
    logits, labels = predicted
    return {"acc": float((np.argmax(logits, axis=-1) == labels).mean())}


def train_func(config: dict[str, Any]) -> None:
    """Train as Ray Train has it: nothing in here knows raysweep."""
    model = BertForSequenceClassification(
        BertConfig(
            vocab_size=len(WORDS),
            hidden_size=config["hidden"],
            num_hidden_layers=config["layers"],
            num_attention_heads=2,
            intermediate_size=2 * config["hidden"],
            max_position_embeddings=LENGTH,
        )
    )
    arguments = TrainingArguments(
        output_dir="trainer",
        num_train_epochs=config["num_train_epochs"],
        learning_rate=config["learning_rate"],
        per_device_train_batch_size=config["batch_size"],
        warmup_steps=config["warmup_steps"],
        seed=config["seed"],
        eval_strategy="epoch",
        save_strategy="epoch",  # the callback reports where a checkpoint is saved
        logging_strategy="epoch",
        save_total_limit=1,
        use_cpu=not torch.cuda.is_available(),
        report_to="none",
        disable_tqdm=True,
    )
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=Reviews(1024, seed=0),
        eval_dataset=Reviews(512, seed=1),
        compute_metrics=accuracy,
        callbacks=[RayTrainReportCallback()],
    )
    trainer = prepare_trainer(trainer)
    if checkpoint := ray.train.get_checkpoint():
        with checkpoint.as_directory() as folder:
            trainer.train(resume_from_checkpoint=os.path.join(folder, RayTrainReportCallback.CHECKPOINT_NAME))
    else:
        trainer.train()


raysweep.register_loop(
    "reviews", config=Config, metrics={"eval_acc": "max", "eval_loss": "min"}, epochs="num_train_epochs"
)(train_func)
