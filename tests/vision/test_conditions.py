"""A trial trains under the conditions that were resolved when its run began, or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from raysweep.errors import UserError
from raysweep.loops import CLASSIFY, TrialContext, evaluating_loop
from raysweep.vision.config import TrialConfig

LOOP = evaluating_loop(CLASSIFY)


@pytest.fixture
def arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("RAYSWEEP_CACHE", str(tmp_path))
    return LOOP.prepare(config(), tmp_path)


def config(**changes: Any) -> TrialConfig:
    images = {"name": "synthetic", "image_size": 8, "classes": 2, "per_class": 20}
    return TrialConfig(data=images, model={"name": "baseline_block", "width": 4}, epochs=1, **changes)


def computes_bf16(monkeypatch: pytest.MonkeyPatch, answer: bool) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: answer)


def loss(config: TrialConfig, arrays: dict[str, Any], conditions: dict[str, Any]) -> float:
    (epoch,) = LOOP.train(config, TrialContext(data=arrays, conditions=conditions))
    return epoch.metrics["train_loss"]


def test_a_run_that_began_in_fp32_stays_in_fp32_on_a_device_that_computes_bf16(
    arrays: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    computes_bf16(monkeypatch, False)
    conditions = LOOP.conditions(config(), arrays)
    assert conditions["precision"] == "fp32"
    computes_bf16(monkeypatch, True)
    in_fp32, in_bf16 = (
        loss(config(precision=each), arrays, {**conditions, "precision": each}) for each in ("fp32", "bf16")
    )
    assert in_fp32 != in_bf16
    assert loss(config(), arrays, conditions) == in_fp32


def test_a_run_that_began_in_bf16_is_refused_on_a_device_that_cannot_in_one_sentence(
    arrays: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    computes_bf16(monkeypatch, True)
    conditions = LOOP.conditions(config(), arrays)
    assert conditions["precision"] == "bf16"
    computes_bf16(monkeypatch, False)
    with pytest.raises(
        UserError, match=r"^precision: auto became bf16 when the run began, which the CPU of .* does not"
    ):
        LOOP.train(config(), TrialContext(data=arrays, conditions=conditions))


def test_bf16_that_the_sweep_file_asks_for_is_computed_anywhere(
    arrays: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    computes_bf16(monkeypatch, False)
    asked = config(precision="bf16")
    assert loss(asked, arrays, LOOP.conditions(asked, arrays)) > 0


def test_images_that_changed_before_they_were_loaded_anew_are_refused(arrays: dict[str, Any]) -> None:
    conditions = {**LOOP.conditions(config(), arrays), "data": "the old ones"}
    with pytest.raises(UserError, match="images or labels changed"):
        LOOP.train(config(), TrialContext(data=arrays, conditions=conditions))
