"""A trial's best weights as a folder that is enough to load its network: what `raysweep pull` writes.

`write_checkpoint` writes model.safetensors, config.yaml, classes.txt and metrics.json; `open_checkpoint` and
`load_model` read them and need no Ray. Of the user's own modules, only the one that registers the network is needed.
A trial of the user's own loop has no classes.txt, and where its loop reported a checkpoint folder, that folder as
`checkpoint/` in place of model.safetensors.
"""

from __future__ import annotations

import hashlib
import io
import json
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import nn

from raysweep.errors import StorageError, UserError
from raysweep.loops import CLASSIFY, evaluating_loop, loop_of
from raysweep.results.evaluation import Evaluation
from raysweep.results.ranking import trial_as_json
from raysweep.store import Record, RunFolder
from raysweep.store.faults import on_disk
from raysweep.store.filesystem import TEMPORARY, make_folder, write_whole
from raysweep.store.folders import is_folder, pack, unpack

FOLDER = "checkpoint"
"""Where a checkpoint that was reported as a folder lies below a pulled one."""
FILES = ("model.safetensors", "config.yaml", "classes.txt", "metrics.json")


@dataclass(frozen=True)
class Checkpoint:
    """The content of a pulled folder."""

    id: str
    config: dict[str, Any]  # the trial's settings, as JSON
    classes: list[str]  # the name of each label
    image_size: int  # height and width of the training images, in pixels
    mean: tuple[float, float, float]  # the mean that the input is normalised by, on the scale 0..1
    std: tuple[float, float, float]  # the standard deviation, likewise
    precision: str  # the precision of training and evaluation: fp32 or bf16
    val_acc: float | None  # validation accuracy, 0..1
    model: nn.Module  # the network with its weights, on the CPU, in evaluation mode


def open_checkpoint(folder: str | Path) -> Checkpoint:
    """Read a pulled folder.

    Raises:
        StorageError: the folder is not a whole pulled checkpoint.
        UserError: no network of that name is registered.
    """
    folder = Path(folder)
    missing = [name for name in FILES if not (folder / name).is_file()]
    _refuse_other_loops(folder)
    if missing:
        raise StorageError(f"{folder}: not a pulled checkpoint: no {', '.join(missing)}")
    try:
        weights, content = _read_files(folder)
    except (YAMLError, ValueError, KeyError, TypeError, OSError) as error:
        raise StorageError(f"{folder}: not as pull wrote it: {error}; pull it again to another folder") from error
    try:
        model = evaluating_loop(CLASSIFY).network(content["config"], len(content["classes"]))
    except UserError as error:
        raise UserError(f"{folder}/config.yaml: model: {error} (one of your own: --import its module)") from error
    _load_weights(model, weights, str(folder))
    return Checkpoint(model=model, **content)


def _refuse_other_loops(folder: Path) -> None:
    """Say how to use what was pulled of a loop whose networks raysweep cannot build; it may be no pulled folder, too.

    Raises:
        UserError: it is such a folder.
    """
    try:
        conditions = json.loads((folder / "metrics.json").read_text())["conditions"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    if (loop := loop_of(conditions)) != CLASSIFY:
        weights = "model.safetensors"
        how = f"safetensors.torch.load_file('{folder}/{weights}') loads its weights"
        if not (folder / weights).exists():
            how = f"its checkpoint is the folder {folder}/checkpoint"
        raise UserError(f"{folder}: trained by loop {loop!r}, whose network only its own code can build; {how}")


def _read_files(folder: Path) -> tuple[bytes, dict[str, Any]]:
    """Return the weights, and the rest of a `Checkpoint`."""
    document = YAML(typ="safe", pure=True).load(folder / "config.yaml")
    metrics = json.loads((folder / "metrics.json").read_text())
    classes = (folder / "classes.txt").read_text().split("\n")[:-1]
    weights = (folder / "model.safetensors").read_bytes()
    settings = document["input"]
    mean, std = ((float(red), float(green), float(blue)) for red, green, blue in (settings["mean"], settings["std"]))
    known = {"id": metrics["id"], "val_acc": metrics["val_acc"], "precision": settings["precision"]}
    size, config = int(settings["image_size"]), {"model": document["config"]["model"], **document["config"]}
    if metrics.get("sha256") not in (None, hashlib.sha256(weights).hexdigest()):
        raise ValueError("model.safetensors does not have the checksum that metrics.json gives")
    if len(classes) != len(metrics["conditions"]["classes"]):
        raise ValueError(f"classes.txt names {len(classes)} classes, not as many as metrics.json")
    return weights, {**known, "config": config, "classes": classes, "image_size": size, "mean": mean, "std": std}


def load_model(folder: str | Path) -> nn.Module:
    """Load the network of a pulled folder, in evaluation mode; its input is float, N x 3 x H x W, normalised."""
    return open_checkpoint(folder).model


def build_from_record(folder: RunFolder, record: Record) -> nn.Module:
    """Build a trial's network with its best weights, in evaluation mode; StorageError if these are not whole."""
    model = evaluating_loop(loop_of(record.conditions)).network(record.config, len(record.conditions["classes"]))
    _load_weights(model, _best_weights(folder, record), f"{folder.path}/trials/{record.id}")
    return model


def _load_weights(model: nn.Module, weights: bytes, where: str) -> None:
    try:
        model.load_state_dict(load_safetensors(weights))
    except (SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise StorageError(f"{where}: its weights are not those of the network in its config: {reason}") from error
    model.eval()


def check_has_weights(folder: RunFolder, record: Record) -> None:
    """Raise StorageError if a trial's record says that its best weights are no longer there."""
    if "best" not in record.weights:
        path = f"{folder.path}/trials/{record.id}"
        raise StorageError(f"{path}: no longer has weights; try another --rank, or train it again")


def _best_weights(folder: RunFolder, record: Record) -> bytes:
    check_has_weights(folder, record)
    data = folder.read_weights(record, "best")
    if data is None:
        path = f"{folder.path}/trials/{record.id}"
        again = "delete this folder and run the sweep again, which trains it anew"
        raise StorageError(f"{path}: has damaged weights; try another --rank, or {again}")
    return data


def write_checkpoint(target: Path, folder: RunFolder, record: Record, evaluation: Evaluation | None) -> None:
    """Write a trial's checkpoint as `write_files` does; StorageError too if its record or weights are not whole."""
    weights = _best_weights(folder, record)
    try:
        contents = _contents(record, evaluation)
    except (KeyError, TypeError, ValueError) as error:
        raise StorageError(f"{folder.path}/trials/{record.id}: its record is not as a run wrote it: {error}") from error
    if is_folder(weights):
        _write_folder(target / FOLDER, weights)
    else:
        contents = {"model.safetensors": weights, **contents}
    write_files(target, contents)


def _write_folder(target: Path, packed: bytes) -> None:
    """Unpack a checkpoint, as a whole or not at all; one that is there already with the same content is fine."""
    if target.exists():
        if pack(target) != packed:
            raise UserError(f"{target}: exists already, with other content; pull --to another folder")
        return
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}{TEMPORARY}")
    try:
        make_folder(partial)
        unpack(packed, partial)
        partial.rename(target)
    except OSError as error:
        raise on_disk(error, error.filename or str(target)) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_files(target: Path, contents: dict[str, bytes]) -> None:
    """Write files into a folder; files that are there already with the same content are fine.

    Raises:
        UserError: a file is there with other content; nothing is written.
        StorageError: a file cannot be written.
    """
    try:
        for name, data in contents.items():
            path = target / name
            if path.exists() and path.read_bytes() != data:
                raise UserError(f"{path}: exists already, with other content; pull --to another folder")
        for name, data in contents.items():
            write_whole(target / name, data)
    except OSError as error:
        raise on_disk(error, error.filename or str(target)) from error


def _contents(record: Record, evaluation: Evaluation | None) -> dict[str, bytes]:
    text = io.StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    loop, conditions = loop_of(record.conditions), record.conditions
    document: dict[str, Any] = {"config": record.config, "seed": record.seed}
    classes = {}
    if loop == CLASSIFY:
        document["input"] = {key: conditions[key] for key in ("mean", "std", "image_size", "precision")}
        classes["classes.txt"] = "".join(f"{name}\n" for name in conditions["classes"]).encode()
    else:
        document["loop"] = loop
    yaml.dump(document, text)
    metrics = {**trial_as_json(record), "metrics": record.metrics, "conditions": conditions}
    metrics["evaluation"] = evaluation.as_json() if evaluation and evaluation.is_of(record) else None
    metrics["sha256"] = record.weights["best"].sha256
    return {"config.yaml": text.getvalue().encode(), **classes, "metrics.json": json.dumps(metrics, indent=1).encode()}
