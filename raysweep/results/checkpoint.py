"""The best checkpoint, as a folder that is enough to load the network: `raysweep pull`.

model.safetensors, config.yaml, classes.txt, metrics.json; `open_checkpoint(folder)` and `load_model(folder)` read it
again and need no Ray.
"""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import nn

from raysweep.errors import StorageError, UserError
from raysweep.registry import loop
from raysweep.results.evaluation import Evaluation
from raysweep.results.ranking import trial_as_json
from raysweep.store import Record, RunFolder
from raysweep.store.faults import on_disk
from raysweep.store.filesystem import write_whole

FILES = ("model.safetensors", "config.yaml", "classes.txt", "metrics.json")


@dataclass(frozen=True)
class Checkpoint:
    """A pulled folder's content."""

    id: str
    """Of the trial."""
    config: dict[str, Any]
    """Its settings, as JSON."""
    classes: list[str]
    """Name of each label."""
    image_size: int
    """Height and width, in pixels, that the network was trained at."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    """Of the input, scale 0..1."""
    precision: str
    """That it was trained and evaluated in: fp32 or bf16."""
    val_acc: float | None
    model: nn.Module
    """On the CPU, in evaluation mode."""


def open_checkpoint(folder: str | Path) -> Checkpoint:
    """Read a folder that `pull` made.

    Raises:
        StorageError: the folder is not a whole pulled checkpoint.
        UserError: its network is not known here.
    """
    folder = Path(folder)
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise StorageError(f"{folder}: not a pulled checkpoint: no {', '.join(missing)}")
    try:
        document = YAML(typ="safe", pure=True).load(folder / "config.yaml")
        settings = document["input"]
        mean, std = (
            (float(red), float(green), float(blue)) for red, green, blue in (settings["mean"], settings["std"])
        )
        metrics = json.loads((folder / "metrics.json").read_text())
        classes = (folder / "classes.txt").read_text().split("\n")[:-1]
        known = {"id": metrics["id"], "val_acc": metrics["val_acc"], "precision": settings["precision"]}
        size = int(settings["image_size"])
        config = document["config"]
        weights = (folder / "model.safetensors").read_bytes()
        if metrics.get("sha256") not in (None, hashlib.sha256(weights).hexdigest()):
            raise ValueError("model.safetensors has another checksum than metrics.json tells")
        if len(classes) != len(metrics["conditions"]["classes"]):
            raise ValueError(f"classes.txt names {len(classes)} classes, not those of metrics.json")
    except (YAMLError, ValueError, KeyError, TypeError, OSError) as error:
        raise StorageError(f"{folder}: not as pull wrote it: {error}; pull it again to another folder") from error
    try:
        model = _with_weights(config, len(classes), weights, str(folder))
    except UserError as error:
        if isinstance(error, StorageError):
            raise
        raise UserError(f"{folder}/config.yaml: model: {error} (one of your own: --import its module)") from error
    return Checkpoint(config=config, classes=classes, image_size=size, mean=mean, std=std, model=model, **known)


def load_model(folder: str | Path) -> nn.Module:
    """Load the network of a pulled folder, in evaluation mode; its input: float, N x 3 x H x W, normalised.

    Raises:
        StorageError: the folder is not a whole pulled checkpoint.
    """
    return open_checkpoint(folder).model


def build_from_record(folder: RunFolder, record: Record) -> nn.Module:
    """Build a trial's network with its best weights, in evaluation mode.

    Raises:
        StorageError: its weights are not whole.
    """
    classes = record.conditions["classes"]
    return _with_weights(
        record.config, len(classes), _best_weights(folder, record), f"{folder.path}/trials/{record.id}"
    )


def _with_weights(config: dict[str, Any], num_classes: int, weights: bytes, where: str) -> nn.Module:
    model = loop().network(config, num_classes)
    try:
        model.load_state_dict(load_safetensors(weights))
    except (SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise StorageError(f"{where}: its weights are not those of {config['model']['name']}: {reason}") from error
    return model.eval()


def _best_weights(folder: RunFolder, record: Record) -> bytes:
    data = folder.read_weights(record, "best")
    if data is None:
        kept = "keeps no weights any more" if "best" not in record.weights else "has best weights that are not whole"
        raise StorageError(f"{folder.path}/trials/{record.id}: {kept}; try another --rank, or train it again")
    return data


def write_checkpoint(target: Path, folder: RunFolder, record: Record, evaluation: Evaluation | None) -> None:
    """Write a trial's checkpoint into the folder `target`.

    Raises:
        UserError: one of its files is there with other content.
        StorageError: a file cannot be written, or the trial's weights are not whole.
    """
    write_files(target, _contents(folder, record, evaluation))


def write_files(target: Path, contents: dict[str, bytes]) -> None:
    """Write the files; the same ones being there already is fine, others are left alone.

    Raises:
        UserError: one of the files is there with other content.
        StorageError: they cannot be written.
    """
    try:
        for name, data in contents.items():
            path = target / name
            if path.exists() and path.read_bytes() != data:
                raise UserError(f"{path}: is there already, with other content; pull --to another folder")
        for name, data in contents.items():
            write_whole(target / name, data)
    except OSError as error:
        raise on_disk(error, error.filename or str(target)) from error


def _contents(folder: RunFolder, record: Record, evaluation: Evaluation | None) -> dict[str, bytes]:
    text = io.StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    settings = {key: record.conditions[key] for key in ("mean", "std", "image_size", "precision")}
    yaml.dump({"config": record.config, "seed": record.seed, "input": settings}, text)
    metrics = {**trial_as_json(record), "metrics": record.metrics, "conditions": record.conditions}
    metrics["evaluation"] = evaluation.as_json() if evaluation and evaluation.is_of(record) else None
    weights = _best_weights(folder, record)
    metrics["sha256"] = record.weights["best"].sha256
    return {
        "model.safetensors": weights,
        "config.yaml": text.getvalue().encode(),
        "classes.txt": "".join(f"{name}\n" for name in record.conditions["classes"]).encode(),
        "metrics.json": json.dumps(metrics, indent=1).encode(),
    }
