"""Every kind of every section of a trial's config: written as JSON, read back, and trained."""

from __future__ import annotations

import json
import shutil
from typing import Any

import own_parts
import pytest
from drawn import Kind, kinds_in, kinds_that_can_be, values_of
from hypothesis import HealthCheck, assume, given, settings
from pydantic import ValidationError
from run_folders import write_pulled
from running import Command

from raysweep.config import Config
from raysweep.errors import SweepFileError
from raysweep.sweepfile import load_sweep
from raysweep.sweepfile.load import restore_sweep
from raysweep.sweepfile.plan import StartedFrom, plan_trials
from raysweep.sweepfile.schema import Draw, Sweep
from raysweep.vision.augment.operations import AUGMENT_PRESETS
from raysweep.vision.config import ModelConfig, TrialConfig
from raysweep.vision.models.build import build_model

DRAWN = settings(
    max_examples=500, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
SECTIONS = (
    "objective",
    "scheduler",
    "resources",
    "cluster",
    "checkpoints",
    "limits",
    "evaluate",
    "confirm",
    "report",
    "start",
    "search",
)
"""The sections of a sweep file around its trials."""
STARTED = StartedFrom("r", "t", 3, "classify", {}, 0)
"""What their `start` stands for, if it names a trial."""


def test_every_config_that_the_plan_accepts_is_the_same_after_json_and_back() -> None:
    seen = set()

    @DRAWN
    @given(values_of(TrialConfig))
    def survives(values: dict[str, Any]) -> None:
        try:
            config = TrialConfig.model_validate(values)
        except ValidationError:
            assume(False)
        written = json.dumps(config.model_dump(mode="json"), allow_nan=False)
        assert TrialConfig.model_validate(json.loads(written)) == config
        seen.update(kinds_in(config))

    survives()
    assert seen >= sections_of(TrialConfig)


def test_every_section_around_the_trials_is_the_same_after_json_and_back() -> None:
    seen = set()

    @DRAWN
    @given(values_of(Sweep))
    def survives(values: dict[str, Any]) -> None:
        sections = {key: values[key] for key in SECTIONS if key in values}
        try:
            sweep = restore_sweep({"name": "drawn", **sections}, "drawn", STARTED)
        except SweepFileError:
            assume(False)
        written = json.loads(json.dumps(sweep.model_dump(mode="json"), allow_nan=False))
        again = restore_sweep(written, "written", STARTED)
        assert all(getattr(again, key) == getattr(sweep, key) for key in SECTIONS)
        seen.update(*(kinds_in(getattr(sweep, key)) for key in SECTIONS))

    survives()
    assert seen >= sections_of(Sweep) - sections_of(Draw) - {("Sweep", "", None)}


def sections_of(model: type[Config]) -> set[Kind]:
    return {kind for kind in kinds_that_can_be(model) if not kind[1]}


LISTS = """
      - [{flip: {p: 0.4}}, {rotate: {degrees: 10, p: 0.5}}, {crop: {}}]
      - [{blur: {kernel: 3, sigma: [0.2, 1]}}, {flip: {direction: vertical}}, {crop: {padding: 2}}]
      - [{flip: {direction: both}}, {color_jitter: {brightness: 0.2, hue: 0.1}}, {rotate: {degrees: 5}}]
      - [{rand_augment: {operations: 1}}, {resized_crop: {scale: [0.5, 1]}}]
"""
SWEEP = f"""
name: kinds
base:
  data: {{name: synthetic, image_size: 8, classes: 3, per_class: 8}}
  model: {{name: baseline_block, width: 4}}
  epochs: 1
  batch_size: 8
cases:
  presets:
    grid: {{augment: [{", ".join(AUGMENT_PRESETS)}]}}
  lists:
    epochs: 3
    optimizer: {{name: adamw, betas: [0.8, 0.99]}}
    lr_schedule: {{name: step, milestones: [1], warmup_epochs: 1}}
    normalize: {{mean: [0.4, 0.5, 0.6], std: [1, 0.5, 0.25]}}
    grid:
      augment: {LISTS}
  names:
    ema: false
    lr_schedule: constant
    data: digits
    data.on_corrupt: skip
    data.per_class: 8
    grid: {{normalize: [imagenet, dataset], precision: [fp32, bf16]}}
  weights:
    model: {{name: baseline_block, width: 4, weights: pulled}}
    normalize: weights
    freeze: [conv1, bn1]
    mix: {{mixup: 0.2, cutmix: 1}}
    grid: {{optimizer: [adam, {{name: muon, adjust_lr: original, decay_norm_and_bias: false}}, muon]}}
  compiled: {{compile: reduce-overhead}}
  own:
    loss: own_loss
    metrics: own_metric
    optimizer: own_optimizer
    epochs: 3
    grid:
      lr_schedule:
      - own_schedule
      - {{name: own_schedule, per: step}}
      - {{name: cosine, per: step}}
      - {{name: constant, per: step, warmup_epochs: 1}}
      - {{name: wsd, warmup_epochs: 1}}
      - {{name: wsd, per: step}}
      - {{name: step, milestones: [1], per: step, warmup_epochs: 1}}
"""


@pytest.mark.slow
@pytest.mark.ray
def test_a_sweep_with_every_kind_of_every_section_trains_and_a_rerun_finds_it_done(command: Command) -> None:
    path = command.folder / "kinds.yaml"
    path.write_text(SWEEP)
    write_pulled(command.folder / "pulled", build_model(ModelConfig(width=4), 7).state_dict())
    shutil.copy(own_parts.__file__, command.folder)
    planned = [trial.config for trial in plan_trials(load_sweep(path))]
    assert kinds_in(planned) == kinds_that_can_be(TrialConfig)
    command(path, "--import", "own_parts")
    records = command.records("kinds")
    assert {record["status"] for record in records.values()} == {"finished"}
    assert len(records) == len(planned)
    lists = [record["config"]["augment"] for record in records.values() if record["axes"]["augment"] != "none"]
    assert {len(row) for operations in lists if isinstance(operations, list) for row in operations} == {1}
    _, err = command(path, "--import", "own_parts")
    assert f"nothing is left to train ({len(planned)} trials done)" in err
