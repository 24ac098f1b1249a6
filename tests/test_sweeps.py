"""The sweeps that ship with raysweep: each plans, and they are the source report's runs."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from raysweep.cli import main
from raysweep.sweepfile import load_sweep
from raysweep.sweepfile.plan import plan_trials
from raysweep.sweepfile.prefixes import Prefixes
from raysweep.vision.config import LrScheduleConfig, StepConfig, TrialConfig

FOLDER = Path(__file__).parents[1] / "sweeps"
SWEEPS = sorted(path.stem for path in FOLDER.glob("*.yaml"))

# The report's runs: network, epochs, learning rate and its schedule, augmentation, normalisation.
V2, V4 = "v2_receptive_resnet50", "v4_receptive_resnet50"
RUNS = {
    1: ("baseline_block", 20, 0.1, "constant", "none", "half"),
    2: ("resnet152", 30, 0.1, "constant", "none", "half"),
    3: ("resnet34", 20, 0.1, "constant", "none", "half"),
    4: ("resnet50", 20, 0.1, "constant", "none", "half"),
    5: ("resnet34", 35, 0.1, "step 30", "none", "half"),
    6: ("resnet50", 35, 0.1, "step 30", "none", "half"),
    7: ("resnet34", 70, 0.1, "step 50 60", "none", "half"),
    8: ("resnet50", 70, 0.1, "step 50 60", "none", "half"),
    9: ("my_resnet34", 70, 0.5, "cosine", "hard", "half"),
    10: ("my_resnet50", 70, 0.5, "cosine", "hard", "half"),
    11: ("my_resnet34", 70, 0.5, "cosine", "medium", "half"),
    12: ("my_resnet50", 70, 0.5, "cosine", "medium", "half"),
    13: ("my_resnet50", 70, 0.5, "cosine", "medium", "imagenet"),
    14: ("my_resnet50", 70, 0.5, "cosine", "jitter", "imagenet"),
    15: ("receptive_resnet50", 70, 0.5, "cosine", "v1augs", "imagenet"),
    16: ("receptive_resnet50", 70, 0.5, "cosine", "v2augs", "imagenet"),
    17: (V2, 70, 0.5, "cosine", "v1augs", "imagenet"),
    18: (V2, 70, 0.5, "cosine", "v2augs", "imagenet"),
    19: (V2, 70, 0.1, "cosine", "v1augs", "imagenet"),
    20: (V2, 70, 0.1, "cosine", "v2augs", "imagenet"),
    21: (V2, 70, 0.01, "cosine", "v1augs", "imagenet"),
    22: (V2, 70, 0.01, "cosine", "v2augs", "imagenet"),
    23: ("v3_receptive_resnet50", 70, 0.1, "cosine", "v2augs", "imagenet"),
    24: (V4, 70, 0.1, "cosine", "v2augs", "imagenet"),
    25: (V4, 70, 0.01, "cosine", "v2augs", "imagenet"),
}
QUESTIONS = {
    "baseline": [1],
    "depth": [2],
    "vanilla": [3, 4],
    "step_schedules": [5, 6, 7, 8],
    "stem_and_augmentation": [9, 10, 11, 12],
    "normalization": [12, 13],
    "jitter": [13, 14],
    "receptive_field": [15, 16, 17, 18],
    "lr_stability": [17, 18, 19, 20, 21, 22],
    "bottleneck_3x3": [20, 23],
    "stem_stride": [20, 22, 24, 25],
    "cyclic_schedule": [13],
}
"""The source report's runs that each question's sweep has among its trials."""


def configs_of(name: str) -> list[TrialConfig]:
    return [trial.config for trial in plan_trials(load_sweep(FOLDER / f"{name}.yaml"))]


def in_words(schedule: LrScheduleConfig) -> str:
    milestones = schedule.milestones if isinstance(schedule, StepConfig) else []
    return " ".join([schedule.name, *map(str, milestones)])


@pytest.mark.parametrize("name", SWEEPS)
def test_every_shipped_sweep_plans_says_what_for_and_leaves_the_data_where_it_is(name: str) -> None:
    sweep = load_sweep(FOLDER / f"{name}.yaml")
    trials = plan_trials(sweep)
    assert trials
    assert sweep.name == name
    assert sweep.description
    assert {trial.config.data.path for trial in trials} == {None}


def test_the_report_is_its_25_runs_in_order() -> None:
    planned = [
        (c.model.name, c.epochs, c.lr, in_words(c.lr_schedule), c.augment, c.normalize) for c in configs_of("report")
    ]
    assert planned == list(RUNS.values())


def test_the_plan_of_the_report_is_one_line_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(FOLDER / "report.yaml")]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.split()[0].isdigit()][: len(RUNS)]
    assert [int(row.split()[0]) for row in rows] == list(RUNS)
    for row, (model, _, _, _, _, _) in zip(rows, RUNS.values(), strict=True):
        assert f" {model} " in row
    assert "step milestones=[50, 60]" in rows[6]


def test_the_reports_runs_share_what_it_says_of_all_and_our_assumptions() -> None:
    for config in configs_of("report"):
        assert config.data.name == "tiny_imagenet"
        assert (config.data.image_size, config.data.classes, config.data.per_class) == (40, None, None)
        assert config.batch_size == 128
        assert config.model.width is None
        assert config.optimizer.model_dump() == {
            "name": "sgd",
            "momentum": 0.9,
            "weight_decay": 5e-4,
            "nesterov": False,
            "decay_norm_and_bias": True,
        }
        if isinstance(config.lr_schedule, StepConfig):
            assert config.lr_schedule.gamma == 0.1
        else:
            assert getattr(config.lr_schedule, "t_max", None) is None


def test_every_run_of_the_report_is_in_the_sweep_of_a_question() -> None:
    assert {run for runs in QUESTIONS.values() for run in runs} == set(RUNS)
    assert {*QUESTIONS, "quickstart", "report", "report_small"} <= set(SWEEPS)


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_questions_sweep_has_the_reports_runs_that_ask_it(name: str) -> None:
    report, asked = configs_of("report"), configs_of(name)
    for run in QUESTIONS[name]:
        assert report[run - 1] in asked, f"run {run}"


def test_the_small_report_is_the_report_with_a_fifth_of_the_epochs_and_a_quarter_of_batch_and_learning_rate() -> None:
    trials = plan_trials(load_sweep(FOLDER / "report_small.yaml"))
    assert {trial.seed for trial in trials} == {0, 1}
    for run, small, config in zip(RUNS, [t.config for t in trials if t.seed == 0], configs_of("report"), strict=True):
        assert (small.model.name, small.augment, small.normalize) == (
            config.model.name,
            config.augment,
            config.normalize,
        )
        assert abs(small.epochs - config.epochs / 5) <= 0.5, f"run {run}"
        assert (small.lr, small.batch_size) == (config.lr / 4, config.batch_size / 4), f"run {run}"
        assert small.lr_schedule.name == config.lr_schedule.name
        if isinstance(small.lr_schedule, StepConfig) and isinstance(config.lr_schedule, StepConfig):
            assert small.lr_schedule.milestones == [milestone // 5 for milestone in config.lr_schedule.milestones]


UNIQUE = {
    "report": (1490, 1390),
    "step_schedules": (210, 150),
    "report_small": (596, 556),
    "cyclic_schedule": (350, 347),
}
"""The epochs that a sweep asks for, and how many of them are unique; in the other sweeps of the report all are."""
MANY_ENDS = {"how_long": (2700, 1062), "digits_how_long": (225, 141)}


@pytest.mark.parametrize("name", SWEEPS)
def test_a_sweeps_trials_share_as_many_epochs_as_the_documentation_says(name: str) -> None:
    prefixes = Prefixes(plan_trials(load_sweep(FOLDER / f"{name}.yaml")))
    told = {**UNIQUE, **MANY_ENDS}.get(name, (prefixes.asked_for,) * 2)
    assert (prefixes.asked_for, prefixes.unique_epochs) == told
    asked_for, unique = (f"{number:,}" for number in told)
    row = rf"`{name}.yaml`[^|]*\| {asked_for} \| {unique} "
    assert told[0] == told[1] or re.search(row, (FOLDER.parent / "docs" / "sharing.md").read_text())


@pytest.mark.slow
def test_the_reports_data_opens_and_every_network_trains_an_epoch_on_it(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from raysweep.vision.data import open_data
    from raysweep.vision.loop import train

    monkeypatch.setenv("RAYSWEEP_DATA", str(shared / "data"))
    monkeypatch.setenv("RAYSWEEP_CACHE", str(tmp_path))
    overrides = ["data.classes=4", "data.per_class=16", "model.width=4", "batch_size=32", "epochs=1"]
    trials = plan_trials(load_sweep(FOLDER / "report.yaml", overrides))
    (data_config,) = {trial.config.data for trial in trials}
    data = open_data(data_config, sweep_folder=tmp_path)
    assert data.train.images.shape == (64, 3, 40, 40)
    assert data.val.images.shape == (200, 3, 40, 40)
    for config in {trial.config.model.name: trial.config for trial in trials}.values():
        (epoch,) = train(config, data, seed=0, device="cpu")
        assert math.isfinite(epoch.metrics["val_loss"]), config.model.name
