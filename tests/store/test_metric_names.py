"""What the names of metrics say, and how their values are written."""

from __future__ import annotations

import math

import pytest

from raysweep.store.metrics import families_of, roles_of
from raysweep.terminal import Metric, format_difference, format_score, format_score_and_error, significant

CLASSIFY = ("train_loss", "train_acc", "val_loss", "val_acc", "val_loss_ema", "val_acc_ema", "lr", "grad_norm")


@pytest.mark.parametrize(
    ("names", "pictures"),
    [
        (CLASSIFY, {"acc": 3, "loss": 3, "lr": 1, "grad_norm": 1}),
        (("train/loss", "val/loss", "val/acc"), {"acc": 1, "loss": 2}),
        (("loss", "accuracy", "val_loss", "val_accuracy"), {"accuracy": 2, "loss": 2}),
        (("loss", "eval_loss", "eval_runtime"), {"loss": 2, "runtime": 1}),
        (("trainLoss", "valLoss", "valAcc", "accTest"), {"acc": 1, "loss": 2, "accTest": 1}),
        (("loss", "evalLoss", "valAUC", "trainAUC"), {"loss": 2, "AUC": 2}),
        (("training_mse", "validation_mse"), {"mse": 2}),
        (("Loss/train", "Loss/test"), {"Loss": 2}),
        (("train_loss", "val_loss", "test_loss"), {"loss": 2, "test_loss": 1}),
        (("acc", "train_acc", "val_acc"), {"acc": 2, "acc itself": 1}),
        (("val_loss", "val/loss"), {"loss": 1, "val/loss": 1}),
        (("reward", "reward_ema"), {"reward": 2}),
        (("val", "test", "_ema", ""), {"val": 1, "test": 1, "_ema": 1, "": 1}),
    ],
)
def test_training_and_validation_of_one_quantity_are_told_by_their_names(
    names: tuple[str, ...], pictures: dict[str, int]
) -> None:
    found = families_of(names)
    assert {family.name: len(family.metrics) for family in found} == pictures
    assert sorted(name for family in found for name in family.metrics.values()) == sorted(names), "none twice"


@pytest.mark.parametrize(
    ("names", "objective", "roles"),
    [
        (CLASSIFY, "val_acc", {name: name for name in CLASSIFY if name != "grad_norm"}),
        (("loss", "eval_loss", "learning_rate"), "eval_loss", ("loss", "eval_loss", None, "learning_rate")),
        (("train/loss", "val/acc@1", "lr-AdamW"), "val/acc@1", ("train/loss", None, "val/acc@1", "lr-AdamW")),
        (("train_mse", "val_mse", "val_mae"), "val_mse", ("train_mse", "val_mse", None, None)),
        (("train_mse", "val_loss"), "train_mse", (None, "val_loss", None, None)),
        (("trainLoss", "valLoss", "valAcc"), "valAcc", ("trainLoss", "valLoss", "valAcc", None)),
        (("lr", "train_lr"), "lr", (None, None, None, "lr")),
        (("train_lr", "fps"), "train_lr", (None, None, None, None)),
        (("g_loss", "d_loss", "fid"), "fid", (None, None, None, None)),
    ],
)
def test_the_loss_is_what_is_called_one_or_else_the_objective_that_is_to_be_small(
    names: tuple[str, ...], objective: str, roles: dict[str, str] | tuple[str | None, ...]
) -> None:
    if isinstance(roles, tuple):
        given = zip(("train_loss", "val_loss", "val_acc", "lr"), roles, strict=True)
        roles = {role: name for role, name in given if name is not None}
    if objective == "fid":  # of two losses neither is the loss, and the objective is none
        assert roles_of(names, objective, maximize=False) == roles
    else:
        assert roles_of(names, objective, maximize="acc" in objective.lower()) == roles


@pytest.mark.parametrize(
    "name", ["val_acc", "valAcc", "val/acc@1", "acc1", "top5_accuracy", "MulticlassAccuracy", "Accuracy/test"]
)
def test_an_accuracy_of_0_to_1_is_written_in_percent(name: str) -> None:
    metric = Metric.of(name, [0.1234, 1.0, None, math.nan])
    assert format_score(0.1234, metric) == "12.34 %"
    assert format_score_and_error(0.1234, 0.001, metric) == "12.34 ± 0.10 %"
    assert format_difference(0.1, metric, signed=True) == "+10.00 points"


@pytest.mark.parametrize(
    ("name", "value"), [("accel_x", 0.5), ("vacc", 0.5), ("acc_loss", 0.5), ("val_mse", 0.5), ("val_acc", 50.5)]
)
def test_what_is_no_accuracy_by_its_words_or_its_values_is_written_as_it_is(name: str, value: float) -> None:
    metric = Metric.of(name, [value, 0.25])
    assert format_score(0.25, metric) == "0.25"
    assert format_difference(0.25, metric, signed=True) == "+0.25"


def test_numbers_have_four_digits_or_all_before_the_point() -> None:
    values = (0.0, 1.0, 0.123456, 9999.4, 12345.678, 1.5e8, 1e-5, -2.5e-12)
    written = ["0", "1", "0.1235", "9999", "12,346", "1.5e8", "1e-5", "-2.5e-12"]
    assert list(map(significant, values)) == written
