"""The best checkpoint, as a folder that is enough to load the network: `raysweep pull`.

model.safetensors, config.yaml, classes.txt, metrics.json; `load_model(folder)` needs no Ray.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from rich.console import Console
from ruamel.yaml import YAML
from safetensors.torch import load as load_safetensors
from torch import nn

from raysweep.config import TrialConfig
from raysweep.errors import StorageError, UserError
from raysweep.models import build_model
from raysweep.results import can_win, read_results, trial_as_json
from raysweep.store import Record, RunFolder
from raysweep.sweepfile import load_sweep, storage_of

FILES = ("model.safetensors", "config.yaml", "classes.txt", "metrics.json")


def pull_best(
    sweep_path: str,
    to: str | None = None,
    rank: int = 1,
    as_json: bool = False,
    storage: str | None = None,
) -> int:
    """Copy the weights of the trial ranked `rank` (1: the best) into a folder; return the exit code.

    Args:
        sweep_path: of the sweep file.
        to: the folder; default: `pulled/<sweep>/<trial>` below the working directory.
        rank: which of the ranking.
        as_json: print `{"id", "val_acc", "path"}` on stdout.
        storage: where the run folder lies; default: $RAYSWEEP_STORAGE, else the sweep file's.

    Raises:
        UserError: there is no such trial, or the folder holds something else.
    """
    sweep = load_sweep(sweep_path)
    folder = RunFolder(storage_of(sweep, sweep_path, storage), sweep.name)
    result = read_results(folder)
    ranked = [record for record in result.trials if can_win(record)]
    if not 1 <= rank <= len(ranked):
        raise UserError(f"--rank {rank}: the ranking of {folder.path} has {len(ranked)} trials with a score")
    record = ranked[rank - 1]
    target = Path(to) if to else Path("pulled") / sweep.name / record.id
    contents = _contents(folder, record)
    _write(target, contents)
    best = record.best
    answer = {"id": record.id, "val_acc": best.val_acc if best else None, "path": str(target.absolute())}
    if as_json:
        print(json.dumps(answer))
    else:
        acc = f", val_acc {best.val_acc:.4f}" if best and best.val_acc is not None else ""
        Console().print(f"{target}: {record.id}{acc}", highlight=False, markup=False, soft_wrap=True)
    return 0


def load_model(folder: str | Path) -> nn.Module:
    """Load the network of a pulled folder, in evaluation mode; its input: float, N x 3 x H x W, normalised.

    Raises:
        StorageError: the folder is not a whole pulled checkpoint.
    """
    folder = Path(folder)
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise StorageError(f"{folder}: not a pulled checkpoint: no {', '.join(missing)}")
    document = YAML(typ="safe", pure=True).load(folder / "config.yaml")
    classes = (folder / "classes.txt").read_text().splitlines()
    return _build(document["config"], len(classes), (folder / "model.safetensors").read_bytes())


def build_from_record(folder: RunFolder, record: Record) -> nn.Module:
    """Build a trial's network with its best weights, in evaluation mode.

    Raises:
        StorageError: its weights are not whole.
    """
    data = _best_weights(folder, record)
    return _build(record.config, len(record.conditions["classes"]), data)


def _build(config: dict[str, Any], num_classes: int, weights: bytes) -> nn.Module:
    model = build_model(TrialConfig.model_validate(config).model, num_classes)
    model.load_state_dict(load_safetensors(weights))
    return model.eval()


def _best_weights(folder: RunFolder, record: Record) -> bytes:
    data = folder.read_weights(record, "best")
    if data is None:
        kept = "keeps no weights any more" if "best" not in record.weights else "has best weights that are not whole"
        raise StorageError(f"{folder.path}/trials/{record.id}: {kept}; try another --rank, or train it again")
    return data


def _contents(folder: RunFolder, record: Record) -> dict[str, bytes]:
    text = io.StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    settings = {key: record.conditions[key] for key in ("mean", "std", "image_size")}
    yaml.dump({"config": record.config, "seed": record.seed, "input": settings}, text)
    metrics = {**trial_as_json(record), "metrics": record.metrics, "conditions": record.conditions}
    return {
        "model.safetensors": _best_weights(folder, record),
        "config.yaml": text.getvalue().encode(),
        "classes.txt": "".join(f"{name}\n" for name in record.conditions["classes"]).encode(),
        "metrics.json": json.dumps(metrics, indent=1).encode(),
    }


def _write(target: Path, contents: dict[str, bytes]) -> None:
    """Write the files; the same ones being there already is fine, others are left alone.

    Raises:
        UserError: one of the files is there with other content.
    """
    for name, data in contents.items():
        path = target / name
        if path.exists() and path.read_bytes() != data:
            raise UserError(f"{path}: is there already, with other content; pull --to another folder")
    target.mkdir(parents=True, exist_ok=True)
    for name, data in contents.items():
        (target / name).write_bytes(data)
