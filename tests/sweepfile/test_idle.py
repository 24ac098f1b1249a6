"""What a sweep file says in vain is an error at its line, unless an override took its effect away."""

from __future__ import annotations

from pathlib import Path

import pytest

from raysweep.errors import SweepFileError
from raysweep.sweepfile import Sweep, load_sweep, storage_of


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAYSWEEP_STORAGE", raising=False)


def load(text: str, *overrides: str) -> Sweep:
    Path("s.yaml").write_text(f"name: a\n{text}\n")
    return load_sweep("s.yaml", overrides)


STEP = "lr_schedule: {name: step, milestones: [5, 30]}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("grid: {lr: [1, 0.1]}\nexclude:\n  - {lr: 0.1}\n  - {lr: 3}", "s.yaml:5: exclude.1: matches no trial"),
        (f"base:\n  epochs: 10\n  {STEP}", "s.yaml:4: base.lr_schedule.milestones: milestone 30 is never reached"),
        (
            "base: {epochs: 9, lr_schedule: {name: step, warmup_epochs: 4, milestones: [5]}}",
            "milestone 5 is never reached: training ends after epoch 5 after the warm-up",
        ),
        (
            "grid:\n  epochs: [10, 40]\n  lr_schedule:\n  - {name: step, milestones: [30]}\n"
            "  - {name: step, milestones: [60]}",
            "s.yaml:6: grid.lr_schedule.1.milestones: milestone 60 is never reached: training ends after epoch 40",
        ),
        ("base: {epochs: 3, lr_schedule: {warmup_epochs: 3}}", "the warm-up of 3 epochs takes all of the training's 3"),
        (
            "base:\n  epochs: 10\n  lr_schedule: {name: wsd, warmup_epochs: 4, decay: 0.7}",
            "s.yaml:4: base.lr_schedule.decay: the warm-up leaves 6 of the training's 10 epochs, fewer than this share",
        ),
        (
            "base: {lr_schedule: {name: step, milestones: [5], per: step}}",
            "s.yaml:2: base.lr_schedule.per: without a warm-up, `step` changes the learning rate between two epochs",
        ),
        ("base: {batch_size: 8, accumulate: 5}", "s.yaml:2: base.accumulate: a batch of 8 has at most 4 parts"),
        (
            "base: {optimizer: {weight_decay: 0, decay_norm_and_bias: false}}",
            "base.optimizer.decay_norm_and_bias: nothing decays with optimizer.weight_decay: 0",
        ),
        ("grid:\n  lr:\n  - 1\n  - 1", "s.yaml:5: grid.lr.1: 1 is in the list twice"),
        ("grid: {lr: [1, 0.1, 1.0]}", "s.yaml:2: grid.lr.2: 1.0 is in the list twice"),
        (
            "zip:\n  lr: [1, 0.1, 1.0]\n  epochs: [3, 3, 3]",
            "s.yaml:3: zip.lr.2: {'lr': 1.0, 'epochs': 3} is in the list twice",
        ),
        (
            "cases: {a: {model: {width: 8}}}\ngrid: {model.width: [4, 16]}",
            "s.yaml:2: cases.a.model.width: reaches no trial: it is replaced by grid.model.width; set it in one place",
        ),
        (
            "grid:\n  model:\n  - resnet34\n  - {name: resnet18, width: 4}\n  model.width: [8, 16]",
            "s.yaml:5: grid.model.1.width: reaches no trial: it is replaced by grid.model.width; set it in one place",
        ),
        (
            "base: {optimizer.weight_decay: 0.01}\ngrid: {optimizer: [sgd, adamw]}",
            "s.yaml:2: base.optimizer.weight_decay: reaches no trial: its whole section is replaced by grid.optimizer; "
            "set it there, or write optimizer.name, which keeps it where it fits",
        ),
        (
            "base:\n  model: {name: resnet18, width: 16}\ncases: {a: {model: resnet34}, b: {model: resnet50}}",
            "base.model.width: reaches no trial: its whole section is replaced by cases.a.model, cases.b.model",
        ),
        (
            "base: {optimizer.momentum: 0.5, optimizer: sgd}",
            "base.optimizer.momentum: reaches no trial: its whole section is replaced by base.optimizer",
        ),
        (
            "random:\n  samples: 1\n  model.width: {int: [4, 8]}\n  model:\n    choice:\n    - resnet34\n"
            "    - {name: resnet18, width: 4}",
            "s.yaml:8: random.model.choice.1.width: reaches no trial: it is replaced by random.model.width",
        ),
        ("cases: {a: {grid: {model: [resnet18, resnet18]}}}", "s.yaml:2: cases.a.grid.model.1: 'resnet18' is in the"),
        ("seeds: [0, 1, 0]", "s.yaml:2: seeds.2: 0 is in the list twice"),
        ("storage: s3://", "s.yaml:2: storage: got 's3://', which names no bucket: s3://bucket/folder"),
    ],
)
def test_what_would_change_nothing_is_an_error(text: str, message: str) -> None:
    with pytest.raises(SweepFileError) as caught:
        load(text)
    (problem,) = caught.value.problems
    assert message in problem


@pytest.mark.parametrize(
    "text",
    [
        "grid: {optimizer: [sgd, {name: sgd, weight_decay: 0.01}]}\n"
        "cases: {x: {optimizer.weight_decay: 0.5}, y: {lr: 0.3}}",
        "base: {optimizer.weight_decay: 0.01}\ngrid: {optimizer.name: [sgd, adamw]}",
        "base: {optimizer.weight_decay: 0.01}\ncases: {x: {optimizer: adamw}, y: {lr: 0.3}}",
        "base: {model: {name: resnet18, width: 8}}\n"
        "grid: {model: [{name: resnet18, width: 4}, {name: resnet34, width: 8}]}",
        "base: {model: resnet18, augment: none, lr: 1}\ngrid: {model: [{width: 4}, {width: 8}], lr: [1, 2]}",
        "base: {augment: none}\ngrid: {augment: [[{flip: {p: 0.5}}], none]}",
    ],
)
def test_a_value_that_some_trial_gets_and_a_default_of_base_are_no_faults(text: str) -> None:
    assert load(text)


def test_a_quick_try_with_fewer_epochs_may_end_before_the_milestones() -> None:
    assert load(f"base: {{epochs: 40, {STEP}}}", "epochs=1")


def test_an_exclusion_may_match_nothing_once_an_override_has_taken_its_trials_away() -> None:
    assert load("grid: {lr: [1, 0.1]}\nexclude: [{lr: 0.1}]", "lr=1")


def test_an_exclusion_of_drawn_values_may_match_none_by_chance() -> None:
    assert load("random: {samples: 1, model: {choice: [resnet18, resnet34]}}\nexclude: [{model: baseline_block}]")


def test_a_schedule_may_reach_its_milestone_in_the_longer_trials_alone() -> None:
    assert load("base: {lr_schedule: {name: step, milestones: [30]}}\ngrid: {epochs: [10, 40]}")


@pytest.mark.parametrize("given", ["s3://", "gs:///folder"])
def test_storage_without_a_bucket_is_refused_wherever_it_is_given(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = load("")
    with pytest.raises(SweepFileError, match=r"--storage: .* names no bucket"):
        storage_of(sweep, "s.yaml", given)
    monkeypatch.setenv("RAYSWEEP_STORAGE", given)
    with pytest.raises(SweepFileError, match=r"RAYSWEEP_STORAGE: .* names no bucket"):
        storage_of(sweep, "s.yaml")
