"""What an unknown key was meant to be: other tools' names for ours, and keys that stand in another place."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import BaseModel

from raysweep.config import kinds_of, names_of
from raysweep.errors import did_you_mean
from raysweep.sweepfile.schema import Sweep

SLIPS = {
    "accumulate_grad_batches": "accumulate",
    "amp": "precision",
    "arch": "model",
    "architecture": "model",
    "augmentation": "augment",
    "augmentations": "augment",
    "batch": "batch_size",
    "batchsize": "batch_size",
    "bs": "batch_size",
    "criterion": "loss",
    "cutmix": "mix",
    "dataset": "data",
    "decay": "optimizer.weight_decay",
    "fp16": "precision",
    "gpu": "resources.gpus",
    "gradient_accumulation_steps": "accumulate",
    "gradient_clip_val": "clip_grad_norm",
    "learning_rate": "lr",
    "lr_scheduler": "lr_schedule",
    "max_epochs": "epochs",
    "mixup": "mix",
    "n_epochs": "epochs",
    "net": "model",
    "network": "model",
    "num_epochs": "epochs",
    "num_samples": "random.samples",
    "num_workers": "resources.workers",
    "optim": "optimizer",
    "output_dir": "storage",
    "parameters": "grid",
    "pretrained": "model.weights",
    "random_seed": "seeds",
    "sched": "lr_schedule",
    "scheduler": "lr_schedule",  # under `base`; at the top of the file it is a key
    "seed": "seeds",
    "smoothing": "label_smoothing",
    "step_size": "lr_schedule.milestones",
    "transform": "augment",
    "transforms": "augment",
    "warmup": "lr_schedule.warmup_epochs",
    "wd": "optimizer.weight_decay",
}
"""Names that other tools have for a key, or that come to mind first, and the key."""


def hint(model: type[BaseModel], trial: type[BaseModel], way: tuple[str | int, ...], known: Iterable[str]) -> str:
    """Return ` (did you mean ...?)` for an unknown key, or nothing.

    Args:
        model: what was validated: a trial's config, the whole sweep, or a part of it.
        trial: the class of a trial's config.
        way: the way to the key, inside what was validated.
        known: the keys that are allowed beside it.
    """
    key, known = str(way[-1]), list(known)
    if others := _kinds_with(trial, str(way[-2]) if len(way) > 1 else "", key):
        return f" ({key} is a key of {' and '.join(others)})"
    slip = SLIPS.get(key, "")
    has_it = slip.partition(".")[0] in (trial.model_fields | Sweep.model_fields)
    meant = (slip if has_it else None) or _find(trial, key) or _find(Sweep, key)
    if meant is None:
        return did_you_mean(key, known)
    if meant.partition(".")[0] not in trial.model_fields:
        if model is trial and "." in meant and (near := did_you_mean(key, known)):
            return near  # `epoch` is `epochs` rather than `start.epoch`
        return f" (did you mean {meant!r}{'' if model is Sweep else ', at the top of the file'}?)"
    if model is trial and len(way) > 1 and "." not in meant:
        return f" (did you mean {meant!r}, outside of {way[-2]!r}?)"
    other = f", or {key!r}, at the top of the file" if key in Sweep.model_fields else ""
    return f" (did you mean '{'base.' if model is Sweep else ''}{meant}'{other}?)"


def _kinds_with(trial: type[BaseModel], section: str, key: str) -> list[str]:
    """Return the names of the section's kinds that have such a key."""
    found = [kind for root in (trial, Sweep) for kind in kinds_of(root, section) if key in kind.model_fields]
    return [str(name) for kind in found for name in names_of(kind)]


def _find(root: type[BaseModel], key: str) -> str | None:
    """Return where the root has such a key: at its top, or in a section."""
    if key in root.model_fields:
        return key
    inside = (section for section in root.model_fields for kind in kinds_of(root, section) if key in kind.model_fields)
    section = None if key == "name" else next(inside, None)
    return f"{section}.{key}" if section else None
