"""A sweep file and overrides become a checked `Sweep`, or messages with file and line; never anything else."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import model_validator

import raysweep
from raysweep.config import kinds_of
from raysweep.errors import SweepFileError
from raysweep.sweepfile import Sweep, load_sweep, storage_of
from raysweep.sweepfile.hints import SLIPS
from raysweep.sweepfile.load import restore_sweep
from raysweep.sweepfile.plan import plan_trials
from raysweep.sweepfile.schema import AshaConfig, known_key
from raysweep.vision.config import TrialConfig

QUICKSTART = Path(__file__).parents[2] / "sweeps" / "quickstart.yaml"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAYSWEEP_STORAGE", raising=False)
    return tmp_path


def load(text: str | bytes, *overrides: str, name: bool = True) -> Sweep:
    data = text.encode() if isinstance(text, str) else text
    Path("s.yaml").write_bytes(b"name: a\n" + data if name else data)
    return load_sweep("s.yaml", overrides)


def problems(text: str | bytes, *overrides: str, name: bool = True) -> tuple[str, ...]:
    with pytest.raises(SweepFileError) as caught:
        load(text, *overrides, name=name)
    return caught.value.problems


def config_of(text: str, *overrides: str) -> dict[str, object]:
    trials = plan_trials(load(text, *overrides))
    assert len(trials) == 1
    return trials[0].config.model_dump(mode="json")


# ---------------------------------------------------------------------------------------------------------
# YAML 1.2


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 0.001), ("1E-3", 0.001), ("1.5e2", 150.0), ("0.1", 0.1), ("1", 1.0), (".5", 0.5)],
)
def test_numbers_are_numbers_without_quotes(folder: Path, text: str, value: float) -> None:
    assert config_of(f"base: {{lr: {text}}}")["lr"] == value


@pytest.mark.parametrize("word", ["off", "on", "yes", "no", "y", "1:30", "2020-01-01", "1/9"])
def test_words_that_other_yaml_readers_convert_stay_text(folder: Path, word: str) -> None:
    assert load(f"description: {word}").description == word


def test_a_number_in_quotes_is_text_and_refused_as_a_number(folder: Path) -> None:
    assert problems('base: {lr: "0.1"}') == ("s.yaml:2: base.lr: got '0.1', must be a number",)


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system [ls]", "!thing {a: 1}", "!!binary aGk=", "!!set {a}"])
def test_tags_are_refused(folder: Path, tag: str) -> None:
    (message,) = problems(f"base: {tag}")
    assert message.startswith("s.yaml:2: tag ")


def test_a_python_tag_runs_nothing(folder: Path) -> None:
    problems("base: !!python/object/apply:os.mkdir [made]")
    assert not (folder / "made").exists()


def test_duplicate_keys_are_an_error_at_the_second(folder: Path) -> None:
    assert problems("base:\n  lr: 1\n  lr: 2\n") == ("s.yaml:4: key 'lr' is given a second time",)


def test_anchors_may_be_used(folder: Path) -> None:
    sweep = load("base: &b {lr: 0.3}\nexclude: [*b]\ngrid: {lr: [0.3, 0.4]}")
    assert [trial.axes["lr"] for trial in plan_trials(sweep)] == [0.4]


def test_an_anchor_bomb_is_refused_at_once(folder: Path) -> None:
    lines = ["a: &a [x,x,x,x,x,x,x,x,x]"]
    lines += [f"{c}: &{c} [{','.join([f'*{p}'] * 9)}]" for p, c in zip("abcdefgh", "bcdefghi", strict=True)]
    start = time.perf_counter()
    (message,) = problems("\n".join(lines))
    assert "aliases followed" in message
    assert time.perf_counter() - start < 3


@pytest.mark.parametrize(
    "text",
    [
        "base: &b\n  data: *b\n",
        "base: " + "[" * 3000,
        "base: " + "{a: " * 3000 + "}" * 3000,
        "base: " + "[" * 100 + "]" * 100,
        "base: " + "- " * 3000,
    ],
)
def test_endless_and_deep_nesting_is_refused(folder: Path, text: str) -> None:
    (message,) = problems(text)
    assert message.startswith("s.yaml:")


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "must be a mapping"),
        (b"# only a comment\n", "must be a mapping"),
        (b"5", "must be a mapping"),
        (b"[1, 2]", "must be a mapping"),
        (b"name: a\nbase:\n  lr: \xff\xfe\n", "s.yaml:3: is not UTF-8"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "is not UTF-8"),
        (b"name: \x00", "is not YAML"),
        (b"name: [a", "is not YAML"),
        (b"name: a\nbase:\n\tlr: 1\n", "s.yaml:3: is not YAML"),
        (b"name: a\n---\nname: b\n", "is not YAML"),
        (b"name: *nothing", "is not YAML"),
        (b"name: a\nbase: {? [a, b] : 1}", "a key must be plain text"),
        (b"x" * 1_000_001, "bytes long"),
    ],
)
def test_a_file_that_is_no_plain_mapping_has_a_clean_error(folder: Path, data: bytes, what: str) -> None:
    assert what in problems(data, name=False)[0]


def test_a_missing_file_and_a_folder_have_clean_errors(folder: Path) -> None:
    for path in ("none.yaml", str(folder), "nul\0.yaml"):
        with pytest.raises(SweepFileError, match="cannot be read"):
            load_sweep(path)


# ---------------------------------------------------------------------------------------------------------
# What is wrong, where, and what would be right


@pytest.mark.parametrize(
    ("text", "start", "hint"),
    [
        ("gird: {lr: [1]}", "s.yaml:2: gird: unknown key", "did you mean 'grid'?"),
        ("base:\n  epohcs: 3", "s.yaml:3: base.epohcs: unknown key", "did you mean 'epochs'?"),
        ("grid:\n  lrr: [1, 2]", "s.yaml:3: grid.lrr: unknown key", "did you mean 'lr'?"),
        (
            "grid:\n  optimizer.momentun: [0.1]",
            "s.yaml:3: grid.optimizer.momentun: unknown",
            "did you mean 'momentum'?",
        ),
        ("grid:\n  optimiser.momentum: [0, 0.1]", "s.yaml:3: grid.optimiser.momentum:", "did you mean 'optimizer'?"),
        ("random:\n  samples: 2\n  lrr: {uniform: [0.1, 1]}", "s.yaml:4: random.lrr: unknown", "did you mean 'lr'?"),
        ("cases:\n  a:\n    lrr: 3", "s.yaml:4: cases.a.lrr: unknown key", "did you mean 'lr'?"),
        ("exclude:\n  - {lrr: 3}", "s.yaml:3: exclude.0.lrr: unknown key", "did you mean 'lr'?"),
        ("scheduler: {name: ray_asha, etaa: 2}", "s.yaml:2: scheduler.etaa: unknown key", "did you mean 'eta'?"),
        ("base: {optimizer: {name: adamw, momentum: 0.9}}", "s.yaml:2: base.optimizer.momentum: unknown", "betas"),
        ("scheduler: {eta: 2, rung: [1/3]}", "s.yaml:2: scheduler.rung: unknown key", "did you mean 'rungs'?"),
        (
            "scheduler:\n  group_by: [lr, optimiser.name]",
            "s.yaml:3: scheduler.group_by.1: unknown",
            "did you mean 'optimizer'?",
        ),
        ("limits: {gpu_hour: 3}", "s.yaml:2: limits.gpu_hour: unknown key", "did you mean 'gpu_hours'?"),
        ("base:\n  model: resnet81", "s.yaml:3: base.model: unknown network 'resnet81'", "baseline_block"),
        ("grid:\n  model:\n    - resnet18\n    - resnt18", "s.yaml:5: grid.model.1: unknown network", "'resnet18'?"),
        ("base: {data: digit}", "s.yaml:2: base.data: unknown data set 'digit'", "synthetic"),
        ("exclude:\n  - {model: resnet99}", "s.yaml:3: exclude.0.model: unknown network", "known:"),
        ("objective: {metric: val_ac}", "s.yaml:2: objective.metric: got 'val_ac'", "val_loss"),
        ("scheduler: ash", "s.yaml:2: scheduler: unknown scheduler 'ash'", "ray_asha"),
        ("base: {lr_schedule: cosin}", "s.yaml:2: base.lr_schedule: unknown lr_schedule", "did you mean 'cosine'?"),
        ("base: {augment: shfit}", "s.yaml:2: base.augment: unknown augmentation", "did you mean 'shift'?"),
        ("base: {augment: [{flpi: {}}]}", "s.yaml:2: base.augment.0.flpi: unknown key", "did you mean 'flip'?"),
        ("base: {normalize: imgnet}", "s.yaml:2: base.normalize: got 'imgnet'", "did you mean 'imagenet'?"),
    ],
)
def test_an_unknown_name_is_told_with_its_line_and_what_is_known(
    folder: Path, text: str, start: str, hint: str
) -> None:
    (message,) = problems(text)
    assert message.startswith(start)
    assert hint in message


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("base: {weight_decay: 0.1}", "did you mean 'optimizer.weight_decay'?"),
        ("grid: {wd: [0.1]}", "did you mean 'optimizer.weight_decay'?"),
        ("base: {momentum: 0.9}", "did you mean 'optimizer.momentum'?"),
        ("base: {learning_rate: 0.1}", "did you mean 'lr'?"),
        ("base: {optimizer: {learning_rate: 0.1}}", "did you mean 'lr', outside of 'optimizer'?"),
        ("lr: 0.1", "did you mean 'base.lr'?"),
        ("base: {max_epochs: 3}", "did you mean 'epochs'?"),
        ("num_epochs: 3", "did you mean 'base.epochs'?"),
        ("base: {bs: 3}", "did you mean 'batch_size'?"),
        ("grid: {width: [8]}", "did you mean 'model.width'?"),
        ("base: {dataset: digits}", "did you mean 'data'?"),
        ("base: {seed: 1}", "did you mean 'seeds', at the top of the file?"),
        ("base: {gpus: 1}", "did you mean 'resources.gpus', at the top of the file?"),
        ("base: {scheduler: asha}", "did you mean 'lr_schedule', or 'scheduler', at the top of the file?"),
        ("base: {optimizer: {name: adamw, momentum: 0.9}}", "momentum is a key of sgd"),
        ("base: {model: resnet-18}", "did you mean 'resnet18'?"),
    ],
)
def test_a_key_that_other_tools_have_or_that_stands_elsewhere_is_told_its_name_here(
    folder: Path, text: str, meant: str
) -> None:
    (message,) = problems(text)
    assert message.startswith("s.yaml:2: ")
    assert meant in message


def test_an_override_by_another_tools_name_is_told_the_name_here(folder: Path) -> None:
    (message,) = problems("", "weight_decay=0.1")
    assert message.startswith("override 'weight_decay=0.1': ")
    assert "did you mean 'optimizer.weight_decay'?" in message


def test_every_name_of_another_tool_leads_to_a_key_that_exists() -> None:
    for meant in SLIPS.values():
        head, _, rest = meant.partition(".")
        if head not in Sweep.model_fields:
            known_key(meant, TrialConfig)
        elif head != "random":
            assert not rest or any(rest in kind.model_fields for kind in kinds_of(Sweep, head))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base:\n  epochs: 0", "s.yaml:3: base.epochs: got 0, must be at least 1"),
        ("base: {epochs: true}", "s.yaml:2: base.epochs: got True, must be a whole number"),
        ("base: {epochs: 2.5}", "s.yaml:2: base.epochs: got 2.5, must be a whole number"),
        ("base: {lr: -1}", "s.yaml:2: base.lr: got -1, must be greater than 0"),
        ("base: {lr: .nan}", "s.yaml:2: base.lr: got nan, must be a finite number"),
        ("base: {lr: 1e999}", "s.yaml:2: base.lr: got inf, must be a finite number"),
        ("base: {model: 5}", "s.yaml:2: base.model: got 5, must be a mapping"),
        ("base: [1]", "s.yaml:2: base: got [1], must be a mapping"),
        ("grid: {lr: 0.1}", "s.yaml:2: grid.lr: got 0.1, must be a list"),
        ("cases: {b: }", "s.yaml:2: cases.b: got None, must be a mapping"),
        ("base: {compile: 1}", "s.yaml:2: base.compile: got 1, must be true or false, or 'reduce-overhead'"),
        ("base: {compile: maybe}", "s.yaml:2: base.compile: got 'maybe', must be true or false, or reduce-overhead"),
        ("seeds: [0, -1]", "s.yaml:2: seeds.1: got -1, must be at least 0"),
        ("resources: {gpus: -1}", "s.yaml:2: resources.gpus: got -1, must be at least 0, or 'auto'"),
        ("resources: {gpus: 4}", "s.yaml:2: resources.gpus: got 4, must be at most 1, since each worker trains on one "
         "GPU; for more a trial: workers: 4, gpus: 1"),
        ("resources: {gpus: 0, accelerator: T4}", "s.yaml:2: resources: accelerator: T4 is a kind of GPU, but "
         "gpus is 0; leave one of them out"),
        ("resources: {gpus: 1.5, cpus: 1}", "s.yaml:2: resources.gpus: got 1.5, must be at most 1, since each worker "
         "trains on one GPU; for more a trial: workers: 2, gpus: 1"),
        ("objective: val_acc_ema\nbase: {ema: false}", "s.yaml:2: objective: val_acc_ema is not measured with "
         "ema: false (1 of 1 trials); choose another, or change that"),
        ("grid: {ema: [false, {horizon_epochs: 2}], lr: [0.1, 0.2]}\nobjective:\n  metric: val_acc_ema",
         "s.yaml:3: objective: val_acc_ema is not measured with ema: false (2 of 4 trials); choose another, or change "
         "that"),
        ("base: {augment: [{flip: {p: 2}}]}", "s.yaml:2: base.augment.0.flip.p: got 2, must be at most 1"),
        ("base: {lr_schedule: step}", "s.yaml:2: base.lr_schedule.milestones: is missing"),
        ("random: {samples: 3, lr: {uniform: [1, 0.1]}}",
         "s.yaml:2: random.lr: the lower bound 1.0 is above the upper bound 0.1"),
        ("random: {samples: 3, epochs: {int: [1.5, 3]}}",
         "s.yaml:2: random.epochs.int.0: got 1.5, must be a whole number"),
        ("random: {lr: {uniform: [0.1, 1]}}", "s.yaml:2: random: needs `samples`: how many draws"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_told_once_with_line_value_and_bound(folder: Path, text: str, message: str) -> None:
    assert problems(text) == (message,)


def test_a_run_of_what_is_refused_by_now_can_still_be_read() -> None:
    sections = {"resources": {"gpus": 4}, "objective": "val_acc_ema", "base": {"ema": False}}
    assert restore_sweep({"name": "old", **sections}, "runs/old/resolved.yaml").resources.gpus == 4


def test_each_item_of_a_list_has_its_own_line(folder: Path) -> None:
    found = problems("grid:\n  lr:\n    - 0.1\n    - -1\n    - x\n")
    assert [message.split(": ")[0] for message in found] == ["s.yaml:5", "s.yaml:6"]


@pytest.mark.parametrize(
    "text", ["grid: {lr: []}", "grid: {}", "grid:\n", "zip: {lr: []}", "cases: {a: {grid: {lr: []}}}"]
)
def test_an_empty_grid_is_refused(folder: Path, text: str) -> None:
    assert problems(text)[0].startswith("s.yaml:2: ")


def test_zipped_lists_of_unequal_lengths_are_refused(folder: Path) -> None:
    (message,) = problems("zip: {lr: [0.1, 0.2], epochs: [1]}")
    assert message == "s.yaml:2: zip: its lists must be of one length: lr has 2, epochs has 1"
    assert "one length" in problems("cases:\n  b: {zip: {lr: [0.1, 0.2], epochs: [1]}}")[0]


@pytest.mark.parametrize(
    "text",
    ["grid: {lr: [1, 2]}\nzip: {lr: [3, 4]}", "grid: {lr: [1, 2]}\ncases: {b: {lr: 3}}"],
)
def test_a_key_in_two_places_that_vary_is_refused(folder: Path, text: str) -> None:
    assert "too; set it in one place" in problems(text)[0]


def test_a_plan_of_no_trials_is_refused(folder: Path) -> None:
    (message,) = problems("grid: {lr: [1, 2]}\nexclude: [{epochs: 20}]")
    assert message.startswith("s.yaml:3: exclude: ")


def test_a_plan_over_the_limit_is_refused_without_expanding_it(folder: Path) -> None:
    hundred = list(range(1, 101))
    keys = ("epochs", "batch_size", "lr", "model.width", "data.per_class", "data.seed")
    start = time.perf_counter()
    (message,) = problems("grid:\n" + "".join(f"  {key}: {hundred}\n" for key in keys))
    assert "1,000,000,000,000 trials" in message
    assert "limits.trials" in message
    assert time.perf_counter() - start < 2
    assert "limits.trials" in problems("random: {samples: 1000000000000, lr: {uniform: [0.1, 1]}}")[0]


def test_the_limit_of_trials_can_be_raised(folder: Path) -> None:
    text = f"grid: {{data.seed: {list(range(1001))}}}\n"
    assert "1,001 trials" in problems(text)[0]
    assert len(plan_trials(load(text + "limits: {trials: 2000}"))) == 1001


@pytest.mark.parametrize(
    "name", ["../x", "..", ".", "a/b", "a\\b", "", ".hidden", '"a\\n"', "~", "a" * 101, "a b", "5"]
)
def test_a_name_that_is_no_folder_name_is_refused(folder: Path, name: str) -> None:
    (message,) = problems(f"name: {name}", name=False)
    assert message.startswith("s.yaml:1: name: ")


@pytest.mark.parametrize(
    "url",
    [
        "s3://user:hunter2@bucket/x",
        "s3://bucket/x?access_key=abc&secret_key=hunter2",
        "s3://bucket?X-Amz-Signature=hunter2",
        "s3://user:hunter2@[broken",
    ],
)
def test_credentials_in_a_url_are_refused_and_not_repeated(
    folder: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for text in (f"storage: '{url}'", f"base: {{data: {{path: '{url}'}}}}"):
        (message,) = problems(text)
        assert message.startswith("s.yaml:2: ")
        assert "hunter2" not in message
    (message,) = problems("", f"storage={url}")
    assert message.startswith("override 'storage=***': ")
    monkeypatch.setenv("RAYSWEEP_STORAGE", url)
    with pytest.raises(SweepFileError) as caught:
        storage_of(load(""), "s.yaml")
    assert "hunter2" not in str(caught.value)


def test_all_faults_are_told_at_once(folder: Path) -> None:
    text = """\
name: a/b
base:
  epochs: 0
  modle: x
grid:
  lr: []
  model: [resnt18]
scheduler: foo
zip: {batch_size: [1], epochs: [1, 2]}
retries: -1
"""
    found = problems(text, "lr_schedule=[", name=False)
    places = sorted(message.split(": ")[0] for message in found)
    assert places == ["override 'lr_schedule=['", *(f"s.yaml:{n}" for n in (1, 10, 3, 4, 6, 7, 8, 9))]


# ---------------------------------------------------------------------------------------------------------
# Overrides


def test_an_override_without_section_means_base(folder: Path) -> None:
    config = config_of("base: {model: resnet18, optimizer: sgd}", "epochs=2", "lr=1e-3", "optimizer.momentum=0.5")
    assert config["epochs"] == 2
    assert config["lr"] == 0.001
    plain = {"name": "sgd", "weight_decay": 0.0005, "nesterov": False, "decay_norm_and_bias": True}
    assert config["optimizer"] == {**plain, "momentum": 0.5}


@pytest.mark.parametrize(
    "text",
    [
        "grid: {lr: [1, 2]}",
        "zip: {lr: [1, 2]}",
        "random: {samples: 3, lr: {uniform: [1, 2]}}",
        "cases: {b: {lr: 3}}",
        "cases: {b: {grid: {lr: [1, 2]}}}",
        "cases: {b: {zip: {lr: [1, 2]}}}",
    ],
)
def test_an_override_pins_the_axis_of_its_name(folder: Path, text: str) -> None:
    assert config_of(text, "lr=0.25")["lr"] == 0.25


@pytest.mark.parametrize(
    "text",
    [
        "base: {optimizer: sgd, optimizer.momentum: 0.9}",
        "base: {optimizer.momentum: 0.9, optimizer: {weight_decay: 0}}",
        "grid: {optimizer: [{name: sgd, momentum: 0.9}]}",
        "cases: {b: {optimizer: {name: sgd, momentum: 0.9}}}",
        "random: {samples: 1, optimizer: {choice: [{name: sgd, momentum: 0.9}]}}",
    ],
)
def test_an_override_wins_over_whatever_sets_the_section_around_it(folder: Path, text: str) -> None:
    optimizer = config_of(text, "optimizer.momentum=0.25")["optimizer"]
    assert isinstance(optimizer, dict)
    assert optimizer["momentum"] == 0.25


def test_an_override_of_a_whole_section_keeps_axes_inside_it(folder: Path) -> None:
    trials = plan_trials(load("grid: {model.width: [4, 8]}", "model=resnet18"))
    assert [(trial.config.model.name, trial.config.model.width) for trial in trials] == [
        ("resnet18", 4),
        ("resnet18", 8),
    ]


def test_overrides_reach_every_section(folder: Path) -> None:
    sweep = load(
        "scheduler: ray_asha",
        *("scheduler.eta=2", "resources.workers=2", "name=b", "seeds=[3, 4]", "limits.trials=9"),
        *("grid.optimizer.momentum=[0.8, 0.9]", "cases.big.model.width=32", "base.epochs=3"),
    )
    assert sweep.scheduler.model_dump() == {"name": "ray_asha", "grace_period": 1, "eta": 2.0, "brackets": 1}
    assert (sweep.name, sweep.resources.workers, sweep.limits.trials) == ("b", 2, 9)
    assert len(plan_trials(sweep)) == 4


@pytest.mark.parametrize(
    ("rungs", "fractions"),
    [
        ("[1/9, 1/3]", [Fraction(1, 9), Fraction(1, 3)]),
        ("[0.07, 0.5]", [Fraction(7, 100), Fraction(1, 2)]),
        ("[1 / 27]", [Fraction(1, 27)]),
    ],
)
def test_rungs_are_exact_fractions(folder: Path, rungs: str, fractions: list[Fraction]) -> None:
    scheduler = load(f"scheduler: {{rungs: {rungs}}}").scheduler
    assert isinstance(scheduler, AshaConfig)
    assert scheduler.rungs == fractions
    assert AshaConfig.model_validate(scheduler.model_dump(mode="json")) == scheduler


@pytest.mark.parametrize(
    ("rungs", "message"),
    [
        ("[1/3, 4/3]", "rungs.1: got '4/3', must be a fraction"),
        ("[1/0]", "rungs.0: got '1/0', must be a fraction"),
        ("[1]", "rungs.0: got 1, must be a fraction"),
        ("[true]", "rungs.0: got True, must be a fraction"),
        ("[0.5, 1/2]", "rungs: must ascend; got 1/2, 1/2"),
        ("1/3", "rungs: got '1/3', must be a list"),
        ("[]", "rungs: got [], "),
    ],
)
def test_rungs_that_cannot_be_are_refused(folder: Path, rungs: str, message: str) -> None:
    (problem,) = problems(f"scheduler: {{rungs: {rungs}}}")
    assert problem.startswith(f"s.yaml:2: scheduler.{message}")


def test_a_sweep_runs_in_full_unless_it_names_a_scheduler(folder: Path) -> None:
    assert load("").scheduler.name == "none"
    assert load("scheduler: asha").scheduler == AshaConfig(name="asha")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("lr=abc", "override 'lr=abc': base.lr: got 'abc', must be a number"),
        ("scheduler.eta=1", "override 'scheduler.eta=1': scheduler.eta: got 1, must be at least 2"),
        ("retries=-1", "override 'retries=-1': retries: got -1, must be at least 0"),
    ],
)
def test_a_wrong_override_is_named_in_place_of_a_line(folder: Path, override: str, message: str) -> None:
    assert problems("", override) == (message,)


def test_an_override_is_named_for_faults_inside_it_though_the_file_had_a_value_there(folder: Path) -> None:
    override = "augment=[{blur: {}}]"
    place = f"override '{override}'"
    assert problems("base: {augment: [{blur: {kernel: 3}}]}", override) == (
        f"{place}: base.augment.0.blur.kernel: is missing",
    )


@pytest.mark.parametrize(
    "override", ["lr", "=3", "lr.=3", ".lr=3", "lr=[", "lr=!!python/name:os.system x", "lr=1: 2: 3"]
)
def test_an_override_that_is_none_is_refused(folder: Path, override: str) -> None:
    assert problems("", override)[0].startswith("override ")


# ---------------------------------------------------------------------------------------------------------
# Storage


def test_storage_is_relative_to_the_sweep_file(folder: Path) -> None:
    (folder / "deep").mkdir()
    path = folder / "deep" / "s.yaml"
    path.write_text("name: a\n")
    assert storage_of(load_sweep(path), path) == str(folder / "deep" / "runs")
    path.write_text("name: a\nstorage: ../elsewhere\n")
    assert storage_of(load_sweep(path), path) == str(folder / "elsewhere")


def test_storage_is_overridden_by_the_environment_and_both_by_the_option(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = load("storage: s3://bucket/runs")
    assert storage_of(sweep, "s.yaml") == "s3://bucket/runs"
    monkeypatch.setenv("RAYSWEEP_STORAGE", "gs://other")
    assert storage_of(sweep, "s.yaml") == "gs://other"
    assert storage_of(sweep, "s.yaml", "here") == str(folder / "here")


# ---------------------------------------------------------------------------------------------------------
# Any file: a plan, or messages with a place

SEED_TEXT = """\
name: fuzz
base:
  data: {name: digits, path: ./data}
  optimizer: {name: sgd, momentum: 0.9}
  augment: [{flip: {p: 0.5}}]
grid: {lr: [0.5, 1e-1], model.width: [8, 16]}
zip: {epochs: [1, 2], batch_size: [32, 64]}
random: {samples: 2, label_smoothing: {uniform: [0, 0.1]}}
cases:
  a: {lr_schedule: {name: step, milestones: [1]}}
  b: {grid: {optimizer.weight_decay: [0, 1e-4]}}
exclude: [{lr: 0.5, model: {width: 8}}]
seeds: [0, 1]
scheduler: {name: ray_asha, eta: 3}
resources: {gpus: auto}
"""
TOKENS = [
    *("null", "[]", "{}", "-1", "1e400", "true", "''", "'..'", "&x", "*x", "!!t", ":", ",", "\t", "\n", "- ", "{", "]"),
    *("\ud800", "\x00", "lr", "name", "grid: ", "samples", ".", "a.b", "[1, [2]]", "{a: {b: c}}", "|", "? "),
]


def assert_plan_or_messages(data: bytes, *overrides: str) -> None:
    Path("s.yaml").write_bytes(data)
    told: tuple[str, ...] | None = None
    try:
        assert plan_trials(load_sweep("s.yaml", overrides))
    except SweepFileError as error:
        told = error.problems
    assert told is None or (told and all(problem.startswith(("s.yaml:", "override ")) for problem in told))


@pytest.mark.parametrize("part", range(6))
def test_a_mutated_file_gives_a_plan_or_messages_with_a_place(folder: Path, part: int) -> None:
    draw = random.Random(part)
    for _ in range(60):
        text = SEED_TEXT
        for _ in range(draw.randint(1, 3)):
            start = draw.randrange(len(text))
            text = text[:start] + draw.choice(["", *TOKENS]) + text[start + draw.choice([0, 0, 1, 3, 12]) :]
        assert_plan_or_messages(text.encode("utf-8", "surrogatepass"))


SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.floats(), st.text(max_size=4), st.just("sgd"))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    key=st.sampled_from([*Sweep.model_fields, "lr", "optimizer", "model.width", "augment", "cases.a", "grid.lr"]),
    value=VALUES,
)
def test_any_override_gives_a_plan_or_messages_with_a_place(folder: Path, key: str, value: object) -> None:
    assert_plan_or_messages(SEED_TEXT.encode(), f"{key}={value!r}")


@pytest.mark.parametrize("path", sorted(QUICKSTART.parent.glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_sweep_loads_and_plans(path: Path) -> None:
    assert plan_trials(load_sweep(path))


def test_a_fault_between_the_keys_of_a_loops_config_is_told_at_the_base(folder: Path) -> None:
    class Bounds(raysweep.Config):
        low: int = 0
        high: int = 1

        @model_validator(mode="after")
        def _ascend(self) -> Bounds:
            if self.low > self.high:
                raise ValueError(f"low {self.low} is above high {self.high}")
            return self

    @raysweep.register_loop("bounded", config=Bounds, metrics={"val_acc": "max"})
    def train(config: Bounds, trial: raysweep.TrialContext) -> Iterator[raysweep.Epoch]:
        yield raysweep.Epoch({"val_acc": 1.0})

    (told,) = problems("loop: bounded\nbase:\n  low: 3")
    assert told == "s.yaml:3: base: low 3 is above high 1"
