"""What an unknown key was meant to be: other tools' names for ours, and keys that stand in another place."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

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
    "bayes": "search",
    "bs": "batch_size",
    "criterion": "loss",
    "cutmix": "mix",
    "dataset": "data",
    "decay": "optimizer.weight_decay",
    "direction": "objective.mode",
    "early_stopping": "scheduler",
    "early_terminate": "scheduler",
    "fp16": "precision",
    "goal": "objective.mode",
    "gpu": "resources.gpus",
    "gradient_accumulation_steps": "accumulate",
    "gradient_clip_val": "clip_grad_norm",
    "learning_rate": "lr",
    "lr_scheduler": "lr_schedule",
    "max_epochs": "epochs",
    "method": "search.name",
    "mixup": "mix",
    "n_epochs": "epochs",
    "n_trials": "search.trials",
    "net": "model",
    "network": "model",
    "num_epochs": "epochs",
    "num_samples": "random.samples",
    "num_workers": "resources.workers",
    "optim": "optimizer",
    "output_dir": "storage",
    "parameters": "grid",
    "optuna": "search",
    "pretrained": "model.weights",
    "pruner": "scheduler",
    "random_seed": "seeds",
    "run_cap": "search.trials",
    "sampler": "search.name",
    "sched": "lr_schedule",
    "scheduler": "lr_schedule",  # under `base`; at the top of the file it is a key
    "seed": "seeds",
    "search_space": "search.space",
    "smoothing": "label_smoothing",
    "step_size": "lr_schedule.milestones",
    "timeout": "limits.wall_hours",
    "tpe": "search",
    "transform": "augment",
    "transforms": "augment",
    "warmup": "lr_schedule.warmup_epochs",
    "wd": "optimizer.weight_decay",
}
"""Names that other tools have for a key, or that come to mind first, and the key."""
SLIPS_IN = {
    "search": {
        "algorithm": "name",
        "batch": "generation",
        "count": "trials",
        "direction": "objective.mode",
        "distributions": "space",
        "init": "enqueue",
        "initial": "enqueue",
        "max_concurrent": "limits.max_concurrent",
        "max_concurrent_trials": "limits.max_concurrent",
        "max_trials": "trials",
        "method": "name",
        "metric": "objective",
        "n_jobs": "limits.max_concurrent",
        "n_trials": "trials",
        "num_samples": "trials",
        "num_trials": "trials",
        "parameters": "space",
        "params": "space",
        "points_to_evaluate": "enqueue",
        "population_size": "generation",
        "popsize": "generation",
        "run_cap": "trials",
        "sampler": "name",
        "samples": "trials",
        "search_alg": "name",
        "search_space": "space",
        "seed": "seed",
        "seeds": "seeds",
        "timeout": "limits.wall_hours",
    }
}
"""The same, by the section in which they stand: for its own keys, and for those that are at the top of the file."""
NAMES = {
    "bayes": "tpe",
    "bayesian": "tpe",
    "cma-es": "cmaes",
    "cma_es": "cmaes",
    "gp": "tpe",
    "hyperopt": "tpe",
    "optuna": "tpe",
    "sobol": "qmc",
}
"""Names that other tools have for one of a fixed list, and ours."""
IS_MISSING_IN = {
    ("search", "trials"): "how many configs to propose, as trials: 60",
    ("search", "space"): "how to draw each key, as space: {lr: {log_uniform: [0.001, 1]}}",
}
"""What a key that must be given is for, by the way to it."""


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
    if of_section := SLIPS_IN.get(str(way[-2]) if len(way) > 1 else ""):
        if own := of_section.get(key):
            return f" (did you mean {own!r}{'' if own in known else ', at the top of the file'}?)"
        if near := did_you_mean(key, known):
            return near
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


def as_draw(given: Mapping[str, Any]) -> str:
    """Return how a draw that is given in W&B's words, or Optuna's, is written here; nothing if that cannot be told."""
    step = given.get("step") or given.get("q") or 1
    if isinstance(values := given.get("values", given.get("choices")), list):
        return f"{{choice: {values}}}" if len(str(values)) < 80 else ""
    bounds = [given.get("min", given.get("low")), given.get("max", given.get("high"))]
    kind = str(given.get("distribution", "log_uniform_values" if given.get("log") else ""))
    if not all(isinstance(each, int | float) for each in bounds) or kind.startswith("inv_"):
        return ""
    if kind.endswith("log_uniform"):  # W&B's bounds are exponents there
        bounds = [float(f"{math.exp(min(each, 700)):.4g}") for each in bounds]
    is_whole = all(type(each) is int for each in (*bounds, step))
    is_whole = is_whole and (kind in ("", "int_uniform", "int", "q_uniform") or "log" in given or given.get("q") == 1)
    written = f"{'log_' * ('log_uniform' in kind)}{'int' if is_whole else 'uniform'}"
    steps = f", step: {step}" if step != 1 and "log" not in written else ""
    return f"{{{written}: [{', '.join(map(str, bounds))}]{steps}}}"


def wrong_draw(way: tuple[str | int, ...], value: Any) -> str:
    """Return what to write instead of a value that is no draw, or of a kind's value that is none; nothing elsewhere."""
    space = 2 if way[:2] == ("search", "space") else 1 if way[:1] == ("random",) else len(way)
    key, inner = str(way[space]) if len(way) > space else "samples", way[space + 1 :]
    if key == "samples":
        return ""
    if not inner and isinstance(value, list) and value:
        numbers = len(value) == 2 and all(isinstance(each, int | float) for each in value)
        return f"write {{choice: {as_text(value)}}}" + (f", or {{uniform: {as_text(value)}}}" if numbers else "")
    if not inner and not isinstance(value, Mapping) and value is not None:
        return f"a fixed value belongs in base, {{{key}: {as_text(value)}}}; a draw is written {{choice: [...]}}"
    if inner == ("choice",) and not isinstance(value, list):
        return f"must be a list of values: [{as_text(value)}, ...]"
    if inner in (("uniform",), ("log_uniform",), ("int",), ("log_int",)) and not (
        isinstance(value, list) and len(value) == 2
    ):
        is_stepped = isinstance(value, list) and len(value) == 3 and "log" not in str(inner[0])
        steps = f"; for steps: {{{inner[0]}: {as_text(value[:2])}, step: {value[2]}}}" if is_stepped else ""
        return f"must be a list of two bounds{steps}"
    return ""


def as_text(value: Any) -> str:
    """Return a plain value as YAML's flow style has it, near enough to be read."""
    if isinstance(value, list):
        return f"[{', '.join(map(as_text, value))}]"
    return {True: "true", False: "false"}.get(value, str(value)) if isinstance(value, bool) else str(value)


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
