"""The function of Ray's guide to Hugging Face's Trainer, with a small BERT made from a config, on random tokens."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import ray.train
import ray.train.huggingface.transformers
import torch
from torch.utils.data import Dataset
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments


class Reviews(Dataset[dict[str, torch.Tensor]]):
    """Sixteen tokens each; the label says which of two words is there more often."""

    def __init__(self, count: int, seed: int) -> None:
        self.tokens = torch.randint(2, 50, (count, 16), generator=torch.Generator().manual_seed(seed))
        self.labels = ((self.tokens == 2).sum(1) > (self.tokens == 3).sum(1)).long()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.tokens[index], "labels": self.labels[index]}


def train_func(config: dict[str, Any]) -> None:
    small_train_dataset, small_eval_dataset = Reviews(256, seed=0), Reviews(128, seed=1)

    model = BertForSequenceClassification(
        BertConfig(
            vocab_size=50,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=16,
            num_labels=2,
        )
    )

    def compute_metrics(eval_pred: Any) -> dict[str, float]:
        logits, labels = eval_pred
        return {"accuracy": float((np.argmax(logits, axis=-1) == labels).mean())}

    training_args = TrainingArguments(
        output_dir="test_trainer",
        eval_strategy="epoch",
        save_strategy="epoch",
        num_train_epochs=config["num_train_epochs"],
        learning_rate=config["learning_rate"],
        per_device_train_batch_size=32,
        seed=config["seed"],
        report_to="none",
        use_cpu=not torch.cuda.is_available(),
        disable_tqdm=True,
    )
    trainer = Trainer(
        model=model,
        args=training_args,
        train_dataset=small_train_dataset,
        eval_dataset=small_eval_dataset,
        compute_metrics=compute_metrics,
    )
    callback = ray.train.huggingface.transformers.RayTrainReportCallback()
    trainer.add_callback(callback)
    trainer = ray.train.huggingface.transformers.prepare_trainer(trainer)

    checkpoint = ray.train.get_checkpoint()
    if checkpoint:
        with checkpoint.as_directory() as checkpoint_dir:
            trainer.train(resume_from_checkpoint=os.path.join(checkpoint_dir, "checkpoint"))
    else:
        trainer.train()
