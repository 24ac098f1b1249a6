"""Run folders as a finished run leaves them, made without training."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import save_file

import raysweep
from raysweep.halving.scores import best_epoch
from raysweep.results.evidence import pack
from raysweep.results.mistakes import Answers, Mistakes, most_confident, only_one_is_right, write_mistakes
from raysweep.results.run import read_results
from raysweep.store import Record, RunFolder
from raysweep.store.record import planned_record
from raysweep.store.resolved import planned_entry
from raysweep.sweepfile import load_sweep
from raysweep.sweepfile.plan import plan_trials
from raysweep.sweepfile.schema import Objective

HTML = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
METRICS = {
    *("train_loss", "train_acc", "val_loss", "val_acc", "val_loss_ema", "val_acc_ema"),
    *("lr", "grad_norm", "grad_norm_max", "images_per_s", "seconds"),
}
"""The metrics that every epoch of the loop reports."""
CONDITIONS = {"workers": 1, "precision": "fp32", "data": "0123abcd", "classes": [f"class{i}" for i in range(20)]}
SWEEP = """
name: {name}
description: Does lr 0.5 cause the dips?
base: {{data: synthetic, epochs: {epochs}, model: baseline_block}}
grid: {{lr: [0.5, 0.1, 0.01], augment: [none, medium]}}
seeds: [0, 1]
scheduler: {scheduler}
"""


History = list[dict[str, float]]


def make_run(
    folder: Path,
    name: str = "made",
    epochs: int = 30,
    scheduler: str = "none",
    text: str = SWEEP,
    end: Callable[[Record, int], Record] = lambda record, place: record,
    former_ids: bool = False,
) -> Path:
    """Write a sweep file and its run folder `runs/<name>`; return the path of the sweep file.

    Args:
        folder: to write into.
        name: of the sweep.
        epochs: of each trial.
        scheduler: as the sweep file names it.
        text: of the sweep file; `{name}`, `{epochs}` and `{scheduler}` are filled in.
        end: what becomes of a trial: takes its finished record and its place in the plan.
        former_ids: name the trials as an older raysweep did.
    """
    path = folder / f"{name}.yaml"
    path.write_text(text.format(name=name, epochs=epochs, scheduler=scheduler))
    sweep = load_sweep(path)
    trials = [replace(trial, id=trial.former_id) if former_ids else trial for trial in plan_trials(sweep)]
    run = RunFolder(str(folder / "runs"), name)
    plan: list[dict[str, Any]] = []
    for place, trial in enumerate(trials):
        planned = planned_record(trial)
        reported = OTHER_LOOPS.get(sweep.loop)
        metrics = curve(planned.epochs, float(planned.config["lr"]), place)
        metrics = reported(metrics) if reported else metrics
        conditions = {"workers": 1, "loop": sweep.loop} if reported else CONDITIONS
        finished = planned.with_(status="finished", metrics=metrics, conditions=conditions)
        record = end(finished.with_(best=best_epoch(metrics, sweep.objective)), place)
        plan.append(planned_entry(planned if record.status == "planned" else record))
        if record.status != "planned":
            run.commit(record.with_(best=best_epoch(record.metrics, sweep.objective)), {})
    versions = {"raysweep": "0.1.0", "python": "3.11", "torch": "2.14.1", "ray": "2.60.0"}
    document: dict[str, Any] = {
        "sweep": sweep.model_dump(mode="json"),
        "versions": versions,
        "data": ["0123abcd"],
        "trials": plan,
    }
    run.files.write("resolved.yaml", json.dumps(document).encode())
    run.files.write("sweep.yaml", path.read_bytes())
    return path


def regression(rows: History) -> History:
    """Report one error and nothing else, from 200 down."""
    return [{"epoch": row["epoch"], "val_mse": 1000 * (0.7 - row["val_acc"]) ** 3} for row in rows]


def wandb_style(rows: History) -> History:
    """Report training and validation as `train/loss` and `val/loss`, accuracies of 0..100, and some losses."""
    kept = {"train_loss": "train/loss", "val_loss": "val/loss", "train_acc": "train/acc", "val_acc": "val/acc"}
    named = [{new: row[old] * (100 if "acc" in old else 1) for old, new in kept.items()} for row in rows]
    for place, row in enumerate(named):
        if place % 3 == 1:
            del row["train/loss"]
    return [{"epoch": row["epoch"], **each} for row, each in zip(rows, named, strict=True)]


def hugging_face(rows: History) -> History:
    """Report what Hugging Face's Trainer does of a language model."""
    kept = {"train_loss": "loss", "val_loss": "eval_loss", "lr": "learning_rate", "grad_norm": "grad_norm"}
    return [{"epoch": row["epoch"], **{new: row[old] for old, new in kept.items()}} for row in rows]


class OtherConfig(raysweep.Config):
    """The settings of a trial of another loop."""

    lr: float = 0.1
    augment: str = "none"
    width: int = 8


OTHER_LOOPS = {"regression": regression, "wandb_style": wandb_style, "hugging_face": hugging_face}
"""What loops report that know other metrics than the built-in one, made from what that one reports."""
OBJECTIVES: dict[str, dict[str, Literal["max", "min"]]] = {
    "regression": {"val_mse": "min"},
    "wandb_style": {"val/acc": "max", "val/loss": "min"},
    "hugging_face": {"eval_loss": "min"},
}
OTHER_SWEEP = """
name: {name}
loop: LOOP
base: {{epochs: {epochs}}}
grid: {{lr: [0.5, 0.1, 0.01], augment: [none, medium]}}
seeds: [0, 1]
scheduler: {scheduler}
"""


def _register(name: str) -> None:
    @raysweep.register_loop(name, config=OtherConfig, metrics=OBJECTIVES[name])
    def train(config: OtherConfig, trial: raysweep.TrialContext) -> Iterator[raysweep.Epoch]:
        for row in OTHER_LOOPS[name](curve(config.epochs, config.lr, trial.seed))[trial.epoch :]:
            yield raysweep.Epoch(metrics=row)


for each in OTHER_LOOPS:
    _register(each)


def mixed(record: Record, place: int) -> Record:
    """Make one each of twelve trials diverged, failed, stopped, planned and half-written."""
    match place:
        case 3:
            error = {"type": "Diverged", "message": f"not finite {HTML}", "epoch": "8", "lr": "0.1", "grad_norm": "inf"}
            return record.with_(status="diverged", metrics=record.metrics[:7], error=error)
        case 4:
            return record.with_(status="failed", metrics=[], error={"type": "X", "message": f"broke {HTML}"})
        case 5:
            return record.with_(status="stopped", metrics=record.metrics[:4])
        case 6:
            return record.with_(status="planned", metrics=[])
        case 7:
            broken = [{**row, "val_acc": float("nan"), "train_loss": None} for row in record.metrics[:5]]
            return record.with_(status="running", metrics=[*broken, *record.metrics[5:9]])
    return record


def scoring(record: Record, score: float) -> Record:
    """The same trial, with one validation accuracy at all epochs."""
    metrics = [{**row, "val_acc": score, "val_acc_ema": score} for row in record.metrics]
    return record.with_(metrics=metrics, best=best_epoch(metrics, Objective()))


def hostile(record: Record, place: int) -> Record:
    """Do as `mixed` does, with HTML in every name and setting."""
    record = mixed(record, place)
    return record.with_(name=HTML, axes={**record.axes, "augment": HTML}, config={**record.config, "augment": HTML})


def curve(epochs: int, lr: float, seed: int) -> list[dict[str, float]]:
    """A plausible history: noisier and with a dip at a high learning rate, overfitting at a low one."""
    rng = np.random.default_rng(seed)
    progress = np.arange(1, epochs + 1) / epochs
    val = 0.05 + 0.5 * (1 - np.exp(-5 * progress)) * (1.1 - lr) + rng.normal(0, 0.004, epochs)
    train = val + (0.03 if lr > 0.05 else 0.35 * progress)
    norms = np.exp(rng.normal(0.5, 0.1, epochs))
    if lr > 0.3:
        place = epochs // 2
        val[place : place + 2] -= 0.15
        norms[place] *= 31
    return [
        {
            "epoch": i + 1,
            "train_loss": float(-np.log(np.clip(train[i], 0.01, 1))),
            "train_acc": float(np.clip(train[i], 0, 1)),
            "val_loss": float(-np.log(np.clip(val[i], 0.01, 1)) * (1 if lr > 0.05 else 1 + progress[i] / 2)),
            "val_acc": float(np.clip(val[i], 0, 1)),
            "val_loss_ema": float(-np.log(np.clip(val[i], 0.01, 1))),
            "val_acc_ema": float(np.clip(val[: i + 1].mean(), 0, 1)),
            "lr": float(lr * (1 + np.cos(np.pi * (i / epochs))) / 2),
            "grad_norm": float(norms[i] / 2),
            "grad_norm_max": float(norms[i]),
            "images_per_s": 10_000.0,
            "seconds": 2.5,
        }
        for i in range(epochs)
    ]


def add_mistakes(folder: RunFolder, names: list[str], per_class: int = 4, wants_images: bool = True) -> Mistakes:
    """Give a made run what its winner and its runner-up get wrong, among classes of these names.

    Of each class the winner takes its first image for the next class; the runner-up takes its last one for that.
    """
    truth = np.repeat(np.arange(len(names)), per_class)
    place = np.tile(np.arange(per_class), len(names))
    winner, rival = ((truth + (place == wrong)) % len(names) for wrong in (0, per_class - 1))
    result = read_results(folder)
    records = [config.best for config in result.configs[:2]]
    answers = []
    for record, labels, kind in zip(records, (winner, rival), ("best", "correct"), strict=True):
        assert record is not None
        conditions = {**record.conditions, "classes": names}
        files = {"best": record.id.encode(), "correct": pack(labels == truth)}
        committed = folder.commit(record.with_(conditions=conditions), files)
        sureness = np.linspace(0.5, 1, len(truth), dtype=np.float32)
        answers.append(Answers(record.id, committed.weights[kind].sha256, labels == truth, labels, sureness))
    mistakes = Mistakes(truth, answers[0], answers[1], None, wants_images, {})
    if wants_images:
        import torch  # the benchmark of the report measures memory without it

        from raysweep.vision.data.thumbnails import thumbnail

        webp = thumbnail(torch.full((3, 8, 8), 99, dtype=torch.uint8))
        rows = [*most_confident(mistakes), *only_one_is_right(mistakes)[0], *only_one_is_right(mistakes)[1]]
        mistakes = replace(mistakes, thumbnails=dict.fromkeys(rows, webp))
    write_mistakes(folder, mistakes)
    return mistakes


def write_pulled(folder: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write what `model.weights` reads of a folder that `raysweep pull` made."""
    folder.mkdir()
    save_file({name: each.contiguous() for name, each in tensors.items()}, folder / "model.safetensors")
    (folder / "config.yaml").write_text("input: {mean: [0.1, 0.2, 0.3], std: [1, 2, 3]}\n")
