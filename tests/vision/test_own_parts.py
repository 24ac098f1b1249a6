"""Losses, metrics, optimizers and schedules of the user's own: where they are called, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import own_parts  # noqa: F401  # registers them
import pytest
import torch

from raysweep.errors import SweepFileError, UserError
from raysweep.registry import LOSSES, OPTIMIZERS, accepting_names_of
from raysweep.sweepfile import load_sweep
from raysweep.sweepfile.load import restore_sweep
from raysweep.vision.config import TrialConfig
from raysweep.vision.data.dataset import DataSet, Split
from raysweep.vision.loop import train
from raysweep.vision.randomness import generator

TINY = {"model": {"name": "baseline_block", "width": 4}, "epochs": 3, "batch_size": 16, "lr": 0.05, "precision": "fp32"}


def data() -> DataSet:
    def split(count: int, seed: int) -> Split:
        labels = torch.arange(count) % 4
        noise = torch.randint(0, 120, (count, 3, 8, 8), generator=generator("cpu", "test", seed))
        return Split((noise + labels.view(-1, 1, 1, 1) * 30).to(torch.uint8), labels)

    return DataSet("tiny", split(50, 0), split(20, 1), None, tuple("abcd"), (0.5,) * 3, (0.25,) * 3, "-")


def trained(**changes: Any) -> tuple[list[dict[str, float]], dict[str, torch.Tensor], list[Any]]:
    """Return the metrics of each epoch, the last weights and each epoch's state."""
    rows, states, state = [], [], changes.pop("state", None)
    for epoch in train(TrialConfig(**{**TINY, **changes}), data(), seed=3, state=state):
        rows.append({key: each for key, each in epoch.metrics.items() if key not in ("seconds", "images_per_s")})
        states.append(epoch.state())
        weights = epoch.weights(averaged=False)
    return rows, weights, states


@pytest.mark.parametrize(
    ("own", "builtin"),
    [
        ({"loss": "own_loss"}, {}),
        ({"loss": "own_loss", "mix": {"mixup": 0.4}, "accumulate": 2}, {"mix": {"mixup": 0.4}, "accumulate": 2}),
        ({"optimizer": "own_optimizer"}, {}),
        (
            {"optimizer": {"name": "own_optimizer", "options": {"momentum": 0.5}, "decay_norm_and_bias": False}},
            {"optimizer": {"momentum": 0.5, "decay_norm_and_bias": False}},
        ),
        ({"lr_schedule": {"name": "own_schedule", "warmup_epochs": 1}}, {"lr_schedule": {"warmup_epochs": 1}}),
        (
            {"lr_schedule": {"name": "own_schedule", "per": "step", "options": {"least": 0.2}}},
            {"lr_schedule": {"per": "step", "min_lr": 0.2 * 0.05}},
        ),
    ],
    ids=str,
)
def test_one_that_computes_what_a_built_in_one_does_comes_to_the_same_numbers(own: Any, builtin: Any) -> None:
    for ours, theirs in zip(trained(**own)[0], trained(**builtin)[0], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-6)


def test_a_loss_of_ones_own_is_what_val_loss_measures() -> None:
    still = {"lr": 1e-9, "epochs": 1}
    ((first,), *_), ((scaled,), *_) = (
        trained(loss={"name": "own_loss", "options": {"scale": scale}}, **still) for scale in (1.0, 3.0)
    )
    assert scaled["val_loss"] == pytest.approx(3 * first["val_loss"], rel=1e-3)
    assert scaled["train_loss"] == pytest.approx(3 * first["train_loss"], rel=1e-3)


def test_a_metric_is_measured_of_plain_and_of_averaged_weights() -> None:
    for row in trained(metrics="own_metric")[0]:
        assert row["val_own_metric"] == pytest.approx(1 - row["val_acc"])
        assert row["val_own_metric_ema"] == pytest.approx(1 - row["val_acc_ema"])
    assert "val_own_metric_ema" not in trained(metrics=["own_metric"], ema=False)[0][0]


def test_with_all_of_them_resuming_equals_never_stopping() -> None:
    settings = {
        "loss": "own_loss",
        "metrics": "own_metric",
        "optimizer": "own_optimizer",
        "lr_schedule": "own_schedule",
    }
    rows, weights, states = trained(**settings)
    later, last, _ = trained(**settings, state=states[0])
    assert later == rows[1:]
    assert all(torch.equal(last[name], value) for name, value in weights.items())


def test_a_loss_that_is_no_number_for_each_image_is_an_error_that_says_so() -> None:
    LOSSES.register("mean")(torch.nn.functional.cross_entropy)
    with pytest.raises(
        UserError, match=r"loss mean: returned a single number for 16 images, must return a loss for each"
    ):
        trained(loss="mean")


# -------------------------------------------------------------------------- in the sweep file


def plan(folder: Path, text: str) -> Any:
    path = folder / "s.yaml"
    path.write_text(f"name: a\n{text}\n")
    return load_sweep(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "base: {optimizer: lion}",
            "s.yaml:2: base.optimizer: unknown optimizer 'lion'; known: sgd, adam, adamw, muon, own",
        ),
        (
            "base: {optimizer: {name: own_optimizer, momentum: 1}}",
            "momentum: unknown key (momentum is a key of sgd and muon); allowed: decay_norm_and_bias, name, options",
        ),
        ("base: {lr_schedule: own_schedul}", "did you mean 'own_schedule'?"),
        ("base: {metrics: [acc]}", "got 'acc', must be another name"),
        ("base: {label_smoothing: 0.1, loss: own_loss}", "base.label_smoothing: own_loss does not know of it"),
        ("base: {loss: {options: {scale: 2}}}", "base.loss.options: cross_entropy takes none"),
        ("objective: val_own_metric", "val_own_metric is not measured with metrics: [] (1 of 1 trials)"),
        ("objective: val_top5", "got 'val_top5'"),
    ],
)
def test_what_is_wrong_with_them_is_told_with_its_line(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(SweepFileError) as caught:
        plan(tmp_path, text)
    assert message in "\n".join(caught.value.problems)


def test_a_metric_of_ones_own_can_be_the_objective(tmp_path: Path) -> None:
    objective = plan(tmp_path, "base: {metrics: own_metric}\nobjective: val_own_metric").objective
    assert (objective.metric, objective.maximize) == ("val_own_metric", False)


def test_a_run_folder_that_names_them_is_read_where_nobody_has_registered_them() -> None:
    config = {"loss": {"name": "lost"}, "metrics": ["lost"], "optimizer": {"name": "lost"}, "lr_schedule": "lost"}
    sweep = {"name": "a", "base": config, "objective": {"metric": "val_lost", "mode": "min"}}
    with pytest.raises(SweepFileError, match="unknown loss 'lost'"):
        restore_sweep(sweep, "a")
    with accepting_names_of([config]):
        assert not restore_sweep(sweep, "a").objective.maximize


def test_another_kinds_settings_are_dropped_on_an_axis_of_names(tmp_path: Path) -> None:
    sweep = plan(tmp_path, "base: {optimizer.momentum: 0.5}\ngrid: {optimizer.name: [sgd, own_optimizer]}")
    assert sweep.base == {"optimizer.momentum": 0.5}


def test_a_built_in_name_is_not_to_be_had() -> None:
    with pytest.raises(UserError, match="cannot register optimizer 'muon': a built-in has that name"):
        OPTIMIZERS.register("muon")
