"""What a trial's numbers depend on beside its config, found out on a node where trials run. No Ray."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import raysweep
from raysweep.vision.config import DataConfig, TrialConfig
from raysweep.vision.data import DataSet, mean_std, open_data
from raysweep.vision.loop import check_sync_batch_norm, resolve_precision
from raysweep.vision.models import build_model, check_image_size


def prepare_set(
    data: DataConfig, sweep_folder: Path, samples: Sequence[TrialConfig], workers: int
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Prepare a data set, and check that the networks can be built for it.

    Args:
        data: of the set.
        sweep_folder: which relative paths start from.
        samples: the configs that use the set.
        workers: ranks of a trial.

    Returns:
        The arrays, and the conditions by `precision`.

    Raises:
        DataError: the data set cannot be read as asked.
        UserError: a network cannot be built, or not for these images.
    """
    dataset = open_data(data, sweep_folder=sweep_folder)
    for config in {(sample.model.model_dump_json(), sample.sync_batch_norm): sample for sample in samples}.values():
        check_model(config, dataset)
    return dataset.to_arrays(), {config.precision: conditions(config, dataset, workers) for config in samples}


def conditions(config: TrialConfig, data: DataSet, workers: int) -> dict[str, Any]:
    """What a trial's numbers depend on beside its config; what of it must stay the same is in `driver.resolved`."""
    mean, std = mean_std(config.normalize, data)
    return {
        "workers": workers,
        "precision": resolve_precision(config, torch.device("cuda" if torch.cuda.is_available() else "cpu")),
        "data": data.fingerprint,
        "classes": list(data.classes),
        "image_size": data.image_size,
        "test_images": len(data.test) if data.test else 0,
        "mean": list(mean),
        "std": list(std),
        "versions": {"raysweep": raysweep.__version__, "torch": torch.__version__.split("+")[0]},
    }


def check_model(config: TrialConfig, data: DataSet) -> None:
    """Build the trial's network and check that it takes the images, before anything is trained.

    Raises:
        UserError: it cannot be built as asked, or the images are too small for it.
    """
    check_sync_batch_norm(config, "cuda" if torch.cuda.is_available() else "cpu")
    model = build_model(config.model, data.num_classes)
    check_image_size(model, config.model.name, data.image_size, batch_size=2)
