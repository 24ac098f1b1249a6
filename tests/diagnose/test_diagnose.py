"""What curves with known faults, recorded curves and real runs are said to show."""

from __future__ import annotations

import math
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from faulty_curves import (
    CLASSES,
    NOISES,
    Faulty,
    all_curves,
    causes_right,
    cut_findings,
    faulty_curve,
    precision_and_recall,
    read,
    taken_back,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from labelled_curves import KINDS, Labelled, agreement, alexnet, labelled_trials, read_real, real_trials

from raysweep.diagnose import Diagnosis, Thresholds, diagnose, diagnose_record, diagnose_sweep
from raysweep.diagnose.words import describe, evidence_lines, sweep_sentences
from raysweep.store import Record, Score
from raysweep.sweepfile.schema import Objective

HELD_OUT = 1
"""The thresholds were chosen on seed 0."""


@pytest.fixture(scope="module")
def curves() -> list[tuple[Faulty, Diagnosis]]:
    return [(curve, read(curve)) for curve in all_curves(HELD_OUT)]


@pytest.fixture(scope="module")
def figures(curves: list[tuple[Faulty, Diagnosis]]) -> dict[tuple[str, float], dict[str, Any]]:
    assert len(curves) >= 500
    return precision_and_recall(curves)


# ---------------------------------------------------------------------------------------------------------
# Synthetic curves


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize(
    ("kind", "precision", "recall"),
    [
        ("dip", 0.93, 0.8),
        ("overfitting", 0.95, 0.95),
        ("underfitting", 0.95, 0.95),
        ("divergence", 0.98, 0.98),
        ("plateau", 0.85, 0.9),
    ],
)
def test_known_faults_are_found_and_others_are_not(
    figures: dict[tuple[str, float], dict[str, Any]], kind: str, precision: float, recall: float, noise: float
) -> None:
    figure = figures[kind, noise]
    if kind == "plateau" and noise == 0.02:
        precision = 0.7  # the noise is as large as the plateau may be high
    assert figure["precision"] >= precision, figure
    assert figure["recall"] >= recall, figure


def test_dips_are_given_their_true_cause_or_called_unexplained(curves: list[tuple[Faulty, Diagnosis]]) -> None:
    for cause, (right, total) in causes_right(curves).items():
        assert right / total >= 0.9, (cause, right, total)


def test_healthy_curves_have_no_findings(curves: list[tuple[Faulty, Diagnosis]]) -> None:
    healthy = [diagnosis for curve, diagnosis in curves if curve.fault == "none"]
    assert sum(not diagnosis.findings for diagnosis in healthy) >= 0.95 * len(healthy)


def test_what_the_first_epochs_show_the_whole_curve_shows(curves: list[tuple[Faulty, Diagnosis]]) -> None:
    found = cut_findings([curve for curve, _ in curves], cuts=2)
    said, wrong = map(sum, zip(*found.values(), strict=True))
    assert said >= 600
    assert wrong <= 0.005 * said, found
    assert found["none"][1] == 0


def test_depth_length_and_recovery_of_a_dip_are_measured() -> None:
    rows = steady(40)
    for row in rows[20:23]:
        row["val_acc"] -= 0.2
        row["train_loss"] += 0.5
    (dip,) = diagnose(rows).of("dip")
    assert (dip.first, dip.last, dip.recovered) == (21, 23, True)
    assert dip.numbers["depth"] == pytest.approx(0.2, abs=0.03)  # below the best before it
    assert "3 epochs, recovered; unexplained" in describe(dip)


def test_a_fall_that_never_recovers_is_a_dip_if_sudden() -> None:
    rows = steady(40)
    for row in rows[30:]:
        row["val_acc"] -= 0.2
    (dip,) = diagnose(rows).of("dip")
    assert (dip.first, dip.last, dip.recovered) == (31, 40, False)


def test_overfitting_says_epoch_gap_and_fall() -> None:
    curve = faulty_curve("decline", 0.002, np.random.default_rng(3))
    (finding,) = read(curve).of("overfitting")
    val = [row["val_acc"] for row in curve.rows]
    assert finding.numbers["fall"] == pytest.approx(max(val) - val[-1], abs=0.01)
    assert abs(finding.numbers["peak"] - 1 - int(np.argmax(val))) <= 3
    assert "overfits from epoch" in describe(finding)


def test_plateau_says_whether_the_schedule_made_it() -> None:
    rows = [{**row, "val_acc": min(row["val_acc"], 0.5), "lr": 0.1} for row in steady(60)]
    (plateau,) = diagnose(rows).of("plateau")
    assert plateau.numbers["lr_share"] == 1
    assert "stalled with lr at 100 %" in describe(plateau)
    cosine = [{**row, "lr": 0.001 if row["val_acc"] == 0.5 else 0.1} for row in rows]
    assert "the schedule ended it" not in describe(diagnose(cosine).of("plateau")[0]), "training went on"
    still = [{**row, "train_acc": min(row["train_acc"], 0.5)} for row in cosine]
    assert "the schedule ended it" in describe(diagnose(still).of("plateau")[0])


def test_a_plateau_of_validation_tells_that_training_went_on() -> None:
    rows = [{**row, "val_acc": min(row["val_acc"], 0.5), "lr": 0.1} for row in steady(60)]
    assert "while training accuracy rose by 1" in describe(diagnose(rows).of("plateau")[0])
    flat = [{**row, "train_acc": min(row["train_acc"], 0.5)} for row in rows]
    assert "while training" not in describe(diagnose(flat).of("plateau")[0])


def test_a_short_curve_ends_at_its_last_epoch() -> None:
    accuracies = [0.09, 0.14, 0.17, 0.20, 0.23, 0.26, 0.37]  # a step of the learning rate before the last
    rows = [{"train_acc": acc, "val_acc": min(acc, 0.28), "train_loss": 2.4 - acc} for acc in accuracies]
    assert not diagnose(rows).has("underfitting"), "it ends 9 points above validation, not level with it"
    rows[-1]["train_acc"] = 0.29
    (finding,) = diagnose(rows).findings
    assert describe(finding).startswith(
        "underfits: training accuracy ends at 29.0 %, validation at 28.0 %, still gaining"
    )


def test_a_loss_that_falls_to_that_of_guessing_has_not_diverged() -> None:
    rows = [{"train_loss": loss, "train_acc": 0.1, "val_acc": 0.1} for loss in (2.9, 3.0, 2.6, 2.36)]
    assert not diagnose(rows, classes=10).has("divergence")
    assert diagnose([*rows, *rows[:2]], classes=10).has("divergence")


def test_noise_is_no_gain() -> None:
    wobble = [0.02 * (i % 3 == 2) for i in range(14)]
    rows = [{"train_acc": 0.12 + noise, "val_acc": 0.12, "train_loss": 2.2} for noise in wobble]
    assert rows[-1]["train_acc"] - rows[-4]["train_acc"] == 0.0
    for last in (0.12, 0.135):
        rows[-1]["train_acc"] = last
        assert "still gaining" not in describe(diagnose(rows).of("underfitting")[0])


def test_overfitting_by_the_gap_alone_claims_no_fall_and_a_fall_is_from_a_value_that_was_there() -> None:
    noisy = [0.25 + 0.02 * (-1) ** i for i in range(40)]
    rows = [{"train_acc": 0.2 + 0.01 * i, "val_acc": acc} for i, acc in enumerate(noisy)]
    assert "fell" not in describe(diagnose(rows).of("overfitting")[0])
    sinking = [0.2 + 0.01 * min(i, 20) - 0.005 * max(0, i - 20) + 0.002 * (-1) ** i for i in range(60)]
    rows = [{"train_acc": 0.2 + 0.012 * i, "val_acc": acc} for i, acc in enumerate(sinking)]
    (finding,) = diagnose(rows).of("overfitting")
    assert sinking[int(finding.numbers["peak"]) - 1] == finding.numbers["peak_val_acc"]
    assert "validation accuracy fell" in describe(finding)


def test_thresholds_can_be_set() -> None:
    rows = steady(40)
    rows[20]["val_acc"] -= 0.1
    assert diagnose(rows).has("dip")
    assert not diagnose(rows, thresholds=Thresholds(min_dip=0.2)).has("dip")


def test_a_training_loss_above_that_of_guessing_is_divergence_and_one_near_it_learns_nothing() -> None:
    def flat(loss: float) -> Diagnosis:
        return diagnose([{"train_loss": loss, "train_acc": 0.1, "val_acc": 0.1}] * 10, classes=10)

    assert flat(4.0).has("divergence")
    assert not flat(2.3).has("divergence")
    (finding,) = flat(2.3).findings
    assert describe(finding).startswith("learns next to nothing")


def test_a_loss_like_that_of_guessing_beside_an_accuracy_that_is_not_is_learning() -> None:
    for loss in (2.3, 4.0):
        rows = [{"train_loss": loss, "train_acc": 0.55, "val_acc": 0.6}] * 10
        assert not any(
            finding.kind in ("divergence", "underfitting") for finding in diagnose(rows, classes=10).findings
        )


def test_training_on_mixed_images_is_no_underfitting_where_validation_is_fitted() -> None:
    for val, underfits in ((0.88, False), (0.47, True)):
        rows = [{"train_loss": 1.6, "train_acc": 0.44, "val_acc": val}] * 10
        assert diagnose(rows, classes=10).has("underfitting") == underfits


@pytest.mark.parametrize(("name", "kind"), [("cross_entropy", "divergence"), ("own", "underfitting")])
def test_a_loss_of_the_users_own_is_not_compared_with_that_of_guessing(name: str, kind: str) -> None:
    rows = [{"epoch": epoch, "train_loss": 40.0, "train_acc": 0.1, "val_acc": 0.1} for epoch in range(1, 11)]
    record = Record("a", "a", 0, {}, {"loss": {"name": name}}, 10, "finished", {"classes": list("0123456789")}, rows)
    assert [finding.kind for finding in diagnose_record(record).findings] == [kind]


def test_an_unfinished_trial_does_not_underfit() -> None:
    rows = [{"val_acc": 0.01 * i, "train_acc": 0.01 * i, "train_loss": 3 - 0.01 * i} for i in range(1, 21)]
    assert diagnose(rows, epochs=20).has("underfitting")
    assert not diagnose(rows, epochs=60, status="stopped").has("underfitting")


values = st.one_of(st.none(), st.floats(width=32), st.integers(-5, 5))
names = st.sampled_from(
    ["epoch", "train_loss", "train_acc", "val_loss", "val_acc", "val_acc_ema", "lr", "grad_norm_max"]
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.dictionaries(names.filter(lambda name: name != "epoch"), values), max_size=30), st.integers(0, 40))
def test_no_metrics_break_it(rows: list[dict[str, Any]], epochs: int) -> None:
    for finding in diagnose(rows, epochs, classes=10).findings:
        assert describe(finding)
        assert 1 <= finding.first <= finding.last <= len(rows) + 1
        evidence_lines(finding)


# ---------------------------------------------------------------------------------------------------------
# Loops that call their metrics otherwise, or have others

ERROR = Objective(metric="val_mse", mode="min")
NAMES = {"train_acc": "train/acc", "val_acc": "val/acc", "train_loss": "train/loss", "val_loss": "val/loss"}


def errors(rise: float, noise: float, seed: int, epochs: int = 40) -> list[dict[str, float]]:
    """A training error that falls, and one of validation that falls until the middle and ends higher by a share."""
    rng, progress = np.random.default_rng(seed), np.arange(1, epochs + 1) / epochs
    train, val = np.exp(-4 * progress) + 0.05, np.exp(-4 * np.minimum(progress, 0.5)) + 0.15
    val *= 1 + rise * np.maximum(0, 2 * progress - 1)
    return [
        {"epoch": place, "train_mse": float(a * np.exp(e)), "val_mse": float(b * np.exp(f))}
        for place, (a, b, e, f) in enumerate(zip(train, val, *rng.normal(0, noise, (2, epochs)), strict=True), 1)
    ]


def test_findings_are_the_same_whatever_a_loop_calls_its_metrics_and_in_percent(
    curves: list[tuple[Faulty, Diagnosis]],
) -> None:
    for curve, _ in curves[::20]:
        rows = [
            {
                NAMES.get(name, name): value * (100 if name in ("train_acc", "val_acc") else 1)
                for name, value in row.items()
            }
            for row in ({name: row[name] for name in row if not name.endswith("_ema")} for row in curve.rows)
        ]
        plain = [{name: value for name, value in row.items() if not name.endswith("_ema")} for row in curve.rows]
        epochs, objective = len(rows), Objective(metric="val/acc")
        found = diagnose(rows, epochs, curve.status, classes=CLASSES, objective=objective).findings
        usual = diagnose(plain, epochs, curve.status, classes=CLASSES).findings
        assert [(each.kind, each.first, each.last) for each in found] == [
            (each.kind, each.first, each.last) for each in usual
        ]


def test_an_error_that_rises_while_training_goes_on_is_overfitting_and_noise_is_none() -> None:
    found = diagnose(errors(0.5, 0.01, 0), objective=ERROR).of("overfitting")
    assert 18 <= found[0].first <= 24
    assert describe(found[0]).startswith(f"overfits from epoch {found[0].first}: val_mse rose ")
    assert describe(found[0]).endswith(", while train_mse fell")
    healthy = [diagnose(errors(0.0, noise, seed), objective=ERROR) for noise in (0.01, 0.1, 0.2) for seed in range(30)]
    assert not any(diagnosis.findings for diagnosis in healthy)
    names = {"train_mse": "loss", "val_mse": "eval_loss"}
    rows = [{names.get(name, name): value for name, value in row.items()} for row in errors(0.5, 0.01, 0)]
    with_accuracy = [{**row, "eval_accuracy": 0.7 + 0.001 * place} for place, row in enumerate(rows)]
    assert diagnose(with_accuracy, objective=Objective(metric="eval_accuracy")).of("overfitting"), (
        "as Hugging Face has it"
    )


def test_a_loop_with_nothing_but_a_score_has_no_findings() -> None:
    for name, mode in (("reward", "max"), ("val_mse", "min")):
        rows = [{"epoch": place, name: float(value)} for place, value in enumerate([5, 1, 9, 2, 8, 30, 1, 2], 1)]
        assert diagnose(rows, objective=Objective(metric=name, mode=mode)).findings == ()


def test_a_loss_that_is_not_measured_in_each_epoch_has_not_diverged_and_one_that_is_no_number_any_more_has() -> None:
    rows = [{"epoch": place, "train_loss": 3 / place, "val_loss": 3 / place} for place in range(1, 21)]
    absent = [row if row["epoch"] % 5 == 1 else {"epoch": row["epoch"]} for row in rows]
    nan = [row if row["epoch"] % 5 == 1 else {**row, "train_loss": math.nan} for row in rows]
    assert diagnose(absent).findings == diagnose(nan).findings == ()
    lost = [row if row["epoch"] < 18 else {**row, "train_loss": math.nan} for row in rows]
    assert describe(diagnose(lost).of("divergence")[0]).startswith("diverged: the loss of epoch 18 is not finite")


# ---------------------------------------------------------------------------------------------------------
# Trials that have not trained to their end


def test_one_epoch_with_a_loss_above_that_of_guessing_has_not_diverged() -> None:
    rows = [{"epoch": 1, "lr": 0.01, "train_loss": 2.61, "val_loss": 2.24, "train_acc": 0.11, "val_acc": 0.13}]
    for status in ("stopped", "running", "paused", "interrupted"):
        assert diagnose(rows, 9, status, classes=10).findings == ()


def test_a_validation_loss_below_that_of_guessing_speaks_against_divergence() -> None:
    rows = [{"train_loss": 2.7, "train_acc": 0.1, "val_acc": 0.11, "val_loss": loss} for loss in (2.9, *[2.2] * 5)]
    assert not diagnose(rows, classes=10).has("divergence")
    assert diagnose([{**row, "val_loss": 2.9} for row in rows], classes=10).has("divergence")


@pytest.mark.parametrize("status", ["running", "stopped"])
def test_a_gap_that_may_close_when_the_learning_rate_falls_is_no_overfitting_yet(status: str) -> None:
    train = [0.30, 0.45, 0.62, 0.77, *np.linspace(0.8, 0.9, 26)]
    val = [0.28, 0.42, 0.52, 0.49, *np.linspace(0.6, 0.75, 26)]
    losses = [1.9, 1.6, 1.35, 1.62, *np.linspace(1.3, 1.0, 26)]
    rows = [
        {"train_acc": t, "val_acc": v, "val_loss": loss, "train_loss": 2 * (1 - t)}
        for t, v, loss in zip(train, val, losses, strict=True)
    ]
    assert diagnose(rows[:4], 30, status, classes=10).findings == ()
    assert diagnose(rows, 30, classes=10).findings == ()


def test_overfitting_that_lasts_is_found_before_the_end() -> None:
    rows = [
        {
            "train_acc": 0.3 + 0.03 * i,
            "val_acc": 0.5 - 0.005 * i,
            "val_loss": 1.5 + 0.05 * i,
            "train_loss": 2 - 0.08 * i,
        }
        for i in range(20)
    ]
    found = [diagnose(rows[:count], 40, "running", classes=10).has("overfitting") for count in range(1, 21)]
    assert not any(found[:8])
    assert found == sorted(found), "once said, it stays"
    (finding,) = diagnose(rows, 40, "running", classes=10).of("overfitting")
    assert "training accuracy is so far" in describe(finding)


def test_a_fall_in_the_last_epoch_so_far_is_not_called_a_dip_until_the_next_one() -> None:
    rows = steady(40)
    for row in rows[20:23]:
        row["val_acc"] -= 0.2
    found = {count: diagnose(rows[:count], 40, "running").has("dip") for count in (21, 22, 40)}
    assert found == {21: False, 22: True, 40: True}


def test_progress_lost_for_a_few_epochs_may_come_back() -> None:
    losses = [*np.linspace(2.3, 1.0, 20), *[2.4] * 20]
    rows = [{"train_loss": loss, "train_acc": 0.1, "val_acc": 0.1} for loss in losses]
    assert not diagnose(rows[:23], 40, "running", classes=10).has("divergence")
    assert diagnose(rows[:30], 40, "running", classes=10).has("divergence")


# ---------------------------------------------------------------------------------------------------------
# Recorded ImageNet curves


@pytest.fixture(scope="module")
def imagenet(shared: Path) -> list[tuple[dict[str, Any], Diagnosis]]:
    runs = pq.read_table(shared / "data" / "learning-curves" / "opda-imagenet-alexnet.parquet").to_pylist()
    return [(run, diagnose_run(run)) for run in runs]


def diagnose_run(run: dict[str, Any]) -> Diagnosis:
    rows, epochs, status, classes = alexnet(run)
    return diagnose(rows, epochs, status, classes=classes)


def test_recorded_runs_that_diverged_are_found_and_none_that_learned(
    imagenet: list[tuple[dict[str, Any], Diagnosis]],
) -> None:
    diverged = [diagnosis.has("divergence") for run, diagnosis in imagenet if run["nan_train_loss"]]
    assert len(diverged) == 147
    assert all(diverged)
    for run, diagnosis in imagenet:
        if not run["nan_train_loss"] and diagnosis.has("divergence"):
            assert run["curve_train_loss"][-1] > 6.7  # guessing: 6.91
            assert max(run["curve_top_1"][-3:]) < 0.005


def test_recorded_dips_came_while_the_learning_rate_rose(imagenet: list[tuple[dict[str, Any], Diagnosis]]) -> None:
    dips = [(run, dip) for run, diagnosis in imagenet for dip in diagnosis.of("dip")]
    assert len(dips) >= 20
    rising = [dip.first <= run["lr_peak_epoch"] for run, dip in dips]
    assert sum(rising) >= 0.9 * len(rising)
    for run, dip in dips:
        values = run["curve_top_1"]
        assert max(values[: dip.first]) - values[int(dip.numbers["bottom"]) - 1] >= 0.02
        if not 0 < dip.first - run["lr_peak_epoch"] <= 3:
            assert ("rising_lr" in dip.causes) == (dip.first <= run["lr_peak_epoch"])


def test_recorded_runs_that_learned_nothing_are_called_so(imagenet: list[tuple[dict[str, Any], Diagnosis]]) -> None:
    for run, diagnosis in imagenet:
        if not run["nan_train_loss"] and np.median(run["curve_train_loss"][-3:]) > 6.85:
            assert diagnosis.has("underfitting") or diagnosis.has("divergence")
        if run["curve_top_1"] and run["curve_top_1"][-1] > 0.05:
            assert not diagnosis.has("underfitting")


# ---------------------------------------------------------------------------------------------------------
# Real curves: labels, and epochs so far

LEAST_KAPPA = {"divergence": 0.95, "dip": 0.45, "overfitting": 0.95, "underfitting": 0.95, "plateau": 0.85}
"""docs/diagnosis.md has the figures."""


def test_findings_agree_with_the_labels_of_a_reader_of_the_curves_in_the_repository() -> None:
    assert_agreement(labelled_trials(None), 53, {kind: LEAST_KAPPA[kind] for kind in KINDS if kind != "divergence"})


def test_findings_agree_with_the_labels_of_a_reader_of_all_labelled_curves(shared: Path) -> None:
    assert_agreement(labelled_trials(shared), 113, LEAST_KAPPA)


def assert_agreement(trials: list[Labelled], count: int, least: dict[str, float]) -> None:
    assert len(trials) == count
    found = [(labelled, read_real(labelled.trial)) for labelled in trials]
    for kind, kappa in least.items():
        told = agreement((one.labels[kind], diagnosis.has(kind)) for one, diagnosis in found if kind in one.labels)
        assert told.kappa >= kappa, (kind, told)


def test_what_the_first_epochs_of_real_trials_show_the_whole_trial_shows() -> None:
    said = wrong = 0
    for trial in [trial for trials in real_trials(None).values() for trial in trials]:
        whole = read_real(trial)
        for count in range(1, len(trial.rows)):
            found = read_real(trial.cut(count))
            said += len({finding.kind for finding in found.findings})
            wrong += len(taken_back(found, whole))
    assert said >= 300
    assert wrong <= 0.01 * said


# ---------------------------------------------------------------------------------------------------------
# A sweep


def steady(epochs: int) -> list[dict[str, float]]:
    """A healthy curve without noise."""
    return [
        {
            "epoch": i,
            "val_acc": 0.2 + 0.5 * i / epochs,
            "train_acc": 0.2 + 0.52 * i / epochs,
            "train_loss": 2 - i / epochs,
        }
        for i in range(1, epochs + 1)
    ]


def trial(lr: float, seed: int = 0, dip: bool = False, spike: float = 1.0, score: float = 0.7, **axes: Any) -> Record:
    name = f"lr={lr}-" + "-".join(map(str, axes.values()))
    own = 1e-6 * zlib.crc32(f"{name}-{seed}".encode()) / 2**32  # trials with equal rows would share their epochs
    rows = [{**row, "lr": lr, "grad_norm_max": 2.0, "train_loss": row["train_loss"] + own} for row in steady(40)]
    if dip:
        rows[20]["val_acc"] -= 0.2
        rows[20]["train_loss"] += 0.5
        rows[20]["grad_norm_max"] *= spike
    config = {"lr": lr, **axes}
    best = Score(40, score, False, score)
    return Record(f"{name}-{seed}", name, seed, config, config, 40, "finished", metrics=rows, best=best)


def test_a_sweep_says_which_setting_goes_with_dips() -> None:
    records = [trial(0.5, dip=i < 4, spike=31 if i == 0 else 12, net=f"net{i}") for i in range(6)]
    records += [trial(0.1, net=f"net{i}") for i in range(2)]
    records += [trial(0.01, dip=i == 1, net=f"net{i + 4}") for i in range(2)]
    sentences = sweep_sentences(diagnose_sweep(records, Objective()))
    (dips,) = [sentence for sentence in sentences if " dip." in sentence]
    assert dips.startswith("5 of 10 trials dip. ")
    expected = "4 of 6, after gradient norms of up to 31 times the usual; lr 0.1: 0 of 2; lr 0.01: 1 of 2, unexplained."
    assert dips.endswith(expected)


def test_trials_at_a_lower_lr_speak_for_or_against_a_high_one() -> None:
    records = [trial(0.5, dip=True, net="a"), trial(0.1, net="a"), trial(0.5, dip=True, net="b")]
    records += [trial(0.1, net="b", dip=True)]
    sweep = diagnose_sweep(records, Objective())
    (calm,) = sweep.trials[records[0].id].of("dip")
    (not_calm,) = sweep.trials[records[2].id].of("dip")
    assert calm.causes == ("high_lr",)
    assert not_calm.causes == ()
    assert (
        "against too high a learning rate: at a lower lr, all else equal, 1 of 1 trials dip or diverge"
        in evidence_lines(not_calm)
    )


def test_the_lowest_lr_of_a_sweep_is_not_called_too_high_where_higher_ones_do_not_diverge() -> None:
    alike = [lost(0.01), trial(0.03), trial(0.1)]
    (divergence,) = diagnose_sweep(alike, Objective()).trials["lost"].findings
    assert "high_lr" not in divergence.causes
    assert any("against too high a learning rate: at a higher lr" in line for line in evidence_lines(divergence))
    unlike = [lost(0.01), trial(0.03, net="a"), trial(0.1, net="b"), trial(0.2, net="c")]
    (divergence,) = diagnose_sweep(unlike, Objective()).trials["lost"].findings
    assert "high_lr" not in divergence.causes
    (divergence,) = diagnose_sweep([lost(0.2), trial(0.03), trial(0.1)], Objective()).trials["lost"].findings
    assert divergence.causes[0] == "high_lr"


def lost(lr: float) -> Record:
    """A trial whose first epoch's loss was not finite."""
    error = {"type": "Diverged", "message": "not finite", "epoch": "1", "lr": str(lr), "loss": "nan"}
    return Record("lost", "lost", 0, {"lr": lr}, {"lr": lr}, 10, "diverged", error=error)


def test_a_setting_that_matters_by_chance_alone_is_not_blamed() -> None:
    records = [trial(lr, dip=net in "abc", net=net) for lr in (0.5, 0.1) for net in "abcdefgh"][1:]
    records = [record.with_(config={**record.config, "net": 0}, axes={"lr": record.axes["lr"]}) for record in records]
    sentences = sweep_sentences(diagnose_sweep(records, Objective()))
    assert any("No setting clearly goes with this" in sentence for sentence in sentences)


def test_shares_of_underfitting_are_of_trials_that_trained_to_their_end() -> None:
    rows = [{"epoch": i, "val_acc": 0.01 * i, "train_acc": 0.01 * i, "train_loss": 2 - 0.01 * i} for i in range(1, 41)]
    records = [trial(lr, net=f"net{i}").with_(metrics=rows) for lr in (0.1, 0.5) for i in range(3)]
    stopped = [record.with_(id=f"{record.id}-2", metrics=rows[:4], status="stopped") for record in records]
    (sentence,) = [
        text for text in sweep_sentences(diagnose_sweep([*records, *stopped], Objective())) if "underfit" in text
    ]
    assert sentence == "6 of 6 trials that trained to their end underfit."


def test_a_setting_that_all_dips_share_is_named() -> None:
    records = [trial(lr, dip=lr == 0.5, spike=20, net=f"net{i}") for lr in (0.5, 0.1) for i in range(6)]
    sentences = sweep_sentences(diagnose_sweep(records, Objective()))
    assert any("This goes with lr: lr 0.5: 6 of 6" in sentence for sentence in sentences)


def test_a_setting_that_never_changed_alone_is_named_with_a_caution() -> None:
    cases = [trial(0.5, dip=True, spike=20, net="a"), trial(0.1, net="b")]
    records = [replace(record, id=f"{record.id}-{seed}", seed=seed) for record in cases for seed in range(6)]
    sentences = sweep_sentences(diagnose_sweep(records, Objective()))
    (dips,) = [sentence for sentence in sentences if " dip." in sentence]
    assert dips.endswith("lr 0.1: 0 of 6. Other settings changed along with it, so it need not be the cause.")
    both = [*records, *(trial(0.1, net="a", seed=seed) for seed in range(6))]
    assert not any("changed along" in sentence for sentence in sweep_sentences(diagnose_sweep(both, Objective())))


def test_means_over_configs_that_are_not_alike_are_called_so() -> None:
    alike = [trial(lr, net=net, seed=seed, score=lr) for lr in (0.5, 0.1) for net in "ab" for seed in (0, 1)]
    assert not any("fair" in sentence for sentence in sweep_sentences(diagnose_sweep(alike, Objective())))
    more = [*alike, trial(0.5, net="c")]
    sentences = sweep_sentences(diagnose_sweep(more, Objective()))
    assert sentences[-1].startswith("The configs behind the means by lr, net differ in other settings too")


def test_more_seeds_and_configs_tell_smaller_differences() -> None:
    def said(configs: int) -> bool:
        records = [
            trial(lr, net=str(net), seed=seed, score=0.7 + 0.01 * (lr == 0.5) + (0.015 if seed else -0.015))
            for lr in (0.5, 0.1)
            for net in range(configs)
            for seed in (0, 1)
        ]
        sentences = sweep_sentences(diagnose_sweep(records, Objective()))
        return any("Seeds alone could make" in sentence for sentence in sentences if "by lr" in sentence)

    assert said(1)
    assert not said(40)


def test_scores_by_setting_are_means_over_configs_with_the_spread_of_seeds() -> None:
    scores = {(0.5, "a"): (0.60, 0.62), (0.1, "a"): (0.70, 0.72), (0.5, "b"): (0.50, 0.52), (0.1, "b"): (0.40, 0.42)}
    records = [
        trial(lr, seed=seed, score=score, net=net)
        for (lr, net), pair in scores.items()
        for seed, score in enumerate(pair)
    ]
    sweep = diagnose_sweep(records, Objective())
    assert sweep.seed_spread == pytest.approx(np.std([0.6, 0.62], ddof=1))
    (lr,) = [axis for axis in sweep.axes if axis.key == "lr"]
    assert [(v.value, v.configs, v.ahead, v.comparisons) for v in lr.values] == [("0.5", 2, 1, 2), ("0.1", 2, 1, 2)]
    assert [v.score for v in lr.values] == pytest.approx([0.56, 0.56])
    sentences = sweep_sentences(sweep)
    assert any("Seeds alone could make" in sentence for sentence in sentences if "by lr" in sentence)
    assert not any("Seeds alone could make" in sentence for sentence in sentences if "by net" in sentence)


def test_numbers_of_many_values_are_compared_in_thirds() -> None:
    records = [trial(0.01 * i, dip=i > 6, spike=10) for i in range(1, 10)]
    (lr,) = diagnose_sweep(records, Objective()).axes
    assert [(value.value, value.trials, value.counts["dip"]) for value in lr.values] == [
        ("0.01 to 0.03", 3, 0),
        ("0.04 to 0.06", 3, 0),
        ("0.07 to 0.09", 3, 3),
    ]


def test_trials_that_never_began_or_diverged_at_once_are_no_obstacle() -> None:
    config = {"lr": 9.0}
    error = {"type": "Diverged", "message": "not finite", "epoch": "1", "lr": "9.0", "grad_norm": "inf", "loss": "nan"}
    records = [
        Record("planned", "planned", 0, {"lr": 0.2}, {"lr": 0.2}, 10),
        Record("lost", "lost", 0, config, config, 10, "diverged", error=error),
        trial(0.1),
    ]
    sweep = diagnose_sweep(records, Objective())
    (lost,) = sweep.trials["lost"].findings
    assert lost.causes[0] == "high_lr"
    assert [(value.value, value.trials) for value in sweep.axes[0].values] == [("9", 1), ("0.1", 1)]


# ---------------------------------------------------------------------------------------------------------
# A real run


@pytest.mark.slow
def test_a_real_run_at_a_too_large_lr_is_found_to_diverge_and_one_at_a_good_lr_is_not() -> None:
    found = {lr: train_digits(lr) for lr in (0.05, 1e4)}
    assert not found[0.05].has("divergence")
    (divergence,) = found[1e4].of("divergence")
    assert "high_lr" in divergence.causes, evidence_lines(divergence)


def train_digits(lr: float) -> Diagnosis:
    import torch

    from raysweep.vision.config import TrialConfig
    from raysweep.vision.data import open_data
    from raysweep.vision.loop import Diverged, train

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        config = TrialConfig.model_validate({"lr": lr, "epochs": 6, "model": {"width": 8}, "batch_size": 64})
        data = open_data(config.data, sweep_folder=Path("."))
        rows: list[dict[str, Any]] = []
        try:
            for epoch in train(config, data, seed=0, device="cpu"):
                rows.append({"epoch": epoch.number, **epoch.metrics})
        except Diverged as lost:
            error = {name: str(lost.numbers[name]) for name in ("lr", "grad_norm")} | {"epoch": str(lost.epoch)}
            return diagnose(rows, 6, "diverged", error, data.num_classes)
        return diagnose(rows, 6, "finished", None, data.num_classes)
    finally:
        torch.set_num_threads(threads)
