"""`start`: every trial begins after an epoch of another run's trial, or with pulled weights."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import raysweep
from raysweep.errors import SweepFileError
from raysweep.loops import loop_named
from raysweep.sweepfile import Sweep, load_sweep
from raysweep.sweepfile.plan import StartedFrom, plan_trials
from raysweep.sweepfile.prefixes import Prefixes

BASE = "name: s\nbase: {data: digits, model: {name: baseline_block, width: 8}, epochs: 12}\n"
OF_A_TRIAL = "start: {run: runs/other, trial: 3f9a, epoch: 5}\n"


class OwnConfig(raysweep.Config):
    """The settings of a loop of one's own."""

    lr: float = 0.1


@raysweep.register_loop("starting", config=OwnConfig, metrics={"loss": "min"}, horizon=("epochs",))
def starting(config: OwnConfig, trial: raysweep.TrialContext) -> Iterator[raysweep.Epoch]:
    yield raysweep.Epoch({"loss": config.lr})


def origin(loop: str = "classify", epoch: int = 5, **config: Any) -> StartedFrom:
    """A trial of the other run folder."""
    values = {"model": {"name": "baseline_block", "width": 8}, "epochs": 12} | config
    checked = loop_named(loop).config.model_validate(values if loop == "classify" else config)
    return StartedFrom("/runs/other", "a-3f9a", epoch, loop, checked.model_dump(mode="json"), seed=7)


def load(folder: Path, text: str, found: StartedFrom | None = None) -> Sweep:
    path = folder / "s.yaml"
    path.write_text(text)
    return load_sweep(path, find_start=lambda sweep: found or origin())


def problem(folder: Path, text: str, found: StartedFrom | None = None) -> str:
    with pytest.raises(SweepFileError) as caught:
        load(folder, text, found)
    return str(caught.value).replace(f"{folder}/", "")


def test_trials_begin_with_the_epochs_of_the_trial_that_was_found_whatever_their_own_seed(tmp_path: Path) -> None:
    trials = plan_trials(load(tmp_path, BASE + OF_A_TRIAL + "grid: {clip_grad_norm: [1, 2]}\nseeds: [0, 1]\n"))
    assert [trial.start for trial in trials] == [origin()] * 4
    assert {Prefixes(trials).common(trials[0].id, other.id) for other in trials[1:]} == {5}


def test_where_trials_begin_is_in_their_ids(tmp_path: Path) -> None:
    ids = {
        plan_trials(load(tmp_path, text, found))[0].id
        for text, found in ((BASE, None), (BASE + OF_A_TRIAL, origin()), (BASE + OF_A_TRIAL, origin(epoch=6)))
    }
    assert len(ids) == 3


def test_without_what_finds_the_trial_no_other_trials_are_planned_silently(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(BASE + OF_A_TRIAL)
    with pytest.raises(SweepFileError, match=re.escape("s.yaml:3: start.run: cannot be looked up here")):
        load_sweep(path)


@pytest.mark.parametrize(
    ("start", "said"),
    [
        ("{run: runs/other}", "s.yaml:3: start: lacks trial: it is either {run: FOLDER, trial: ID, epoch: 30} or"),
        ("{}", "s.yaml:3: start: lacks run and trial"),
        ("{weights: w, epoch: 3}", "s.yaml:3: start: has weights and epoch: it is either"),
        ("{run: runs/other, trial: 3f9a, epoch: 0}", "s.yaml:3: start.epoch: got 0, must be greater than 0"),
        ("{run: 's3://', trial: 3f9a}", "start.run: got 's3://', which names no bucket"),
        ("{weight: w}", "s.yaml:3: start.weight: unknown key (did you mean 'weights'?)"),
    ],
)
def test_a_start_is_one_of_two_things(start: str, said: str, tmp_path: Path) -> None:
    assert said in problem(tmp_path, f"{BASE}start: {start}\n")


@pytest.mark.parametrize("trial", ["743126166391", "1e5", "012345678901", "0b1011010110", "'3f9a'"])
@pytest.mark.parametrize("override", ["start.trial={trial}", "start={{run: runs/other, trial: {trial}}}", None])
def test_the_name_of_a_trial_is_text_even_where_yaml_reads_a_number(
    trial: str, override: str | None, tmp_path: Path
) -> None:
    path, asked = tmp_path / "s.yaml", list[str | None]()
    path.write_text(BASE + OF_A_TRIAL.replace("3f9a", "other" if override else trial))

    def find(sweep: Sweep) -> StartedFrom:
        assert sweep.start
        asked.append(sweep.start.trial)
        return origin()

    load_sweep(path, [override.format(trial=trial)] if override else [], find)
    assert asked == [trial.strip("'")]


def test_trials_that_would_have_nothing_to_train_are_refused_with_all_else(tmp_path: Path) -> None:
    said = problem(tmp_path, BASE + "grid: {epochs: [4, 5, 9], lr: [0]}\n" + OF_A_TRIAL)
    assert said == "s.yaml:3: grid.lr.0: got 0, must be greater than 0"  # no trial can be planned with that
    said = problem(tmp_path, BASE + "grid: {epochs: [4, 5, 9]}\nseeds: [1, 1]\n" + OF_A_TRIAL)
    assert "s.yaml:5: start.epoch: begins after epoch 5, and there are trials of 4 and 5 epochs" in said
    assert "s.yaml:4: seeds.1: 1 is in the list twice" in said


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("{model: {name: baseline_block, width: 16}}", "model.width 16 here, 8 there"),
        ("{model: {name: baseline_block, width: 8, weights: a.pt}}", "model.weights a file here, not set there"),
        (
            "{model: {name: baseline_block, width: 8}, data: {name: digits, image_size: 12}}",
            "data.image_size 12 here, not set there",
        ),
    ],
)
def test_a_state_of_another_network_or_data_set_is_refused(config: str, said: str, tmp_path: Path) -> None:
    found = problem(tmp_path, f"name: s\nbase: {config}\n{OF_A_TRIAL}")
    assert "s.yaml:3: start.trial: its state does not fit 1 of 1 trials" in found
    assert said in found
    assert "to take its weights alone: start: {weights: DIR}" in found


def test_other_settings_and_other_paths_to_the_same_files_fit(tmp_path: Path) -> None:
    others = "optimizer: adamw, batch_size: 7, ema: false, augment: shift, freeze: [conv1], lr: 0.3"
    of_file = origin(model={"name": "baseline_block", "width": 8, "weights": "../there/w.pt"})
    config = "{data: {name: digits, path: /elsewhere}, model: {name: baseline_block, width: 8, weights: w.pt}, "
    assert plan_trials(load(tmp_path, f"name: s\nbase: {config}{others}}}\n{OF_A_TRIAL}", of_file))


def test_a_loop_of_ones_own_goes_on_from_a_trial_and_takes_no_weights(tmp_path: Path) -> None:
    text = "name: s\nloop: starting\nbase: {lr: 0.01}\n"
    trials = plan_trials(load(tmp_path, text + OF_A_TRIAL + "grid: {epochs: [8, 9]}\n", origin("starting", lr=0.5)))
    assert Prefixes(trials).common(trials[0].id, trials[1].id) == 8
    said = problem(tmp_path, text + "start: {weights: w}\n")
    assert said == (
        "s.yaml:4: start.weights: loop 'starting' has no key model.weights: let it load the weights that it begins "
        "with by itself"
    )


def test_weights_begin_every_trial_whatever_sets_its_network(tmp_path: Path) -> None:
    text = "name: s\nstart: {weights: pulled/best}\ngrid: {model: [resnet18, {name: baseline_block, width: 8}]}\n"
    configs: list[Any] = [trial.config for trial in plan_trials(load(tmp_path, text))]
    assert [(each.model.name, each.model.weights) for each in configs] == [
        ("resnet18", "pulled/best"),
        ("baseline_block", "pulled/best"),
    ]
    said = problem(tmp_path, "name: s\nbase: {model.weights: w.pt}\nstart: {weights: pulled/best}\n")
    assert said == "s.yaml:2: base.model.weights: is given by start.weights too; give it in one place"


def test_pulled_weights_of_another_network_are_refused_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "config.yaml").write_text("config: {model: {name: resnet18, width: 16, options: {}}}\n")
    text = "name: s\nstart: {weights: best}\n"
    said = problem(tmp_path, text + "grid: {model.name: [resnet18, resnet34], model.width: [16]}\n")
    assert said == (
        "s.yaml:2: start.weights: best has weights of resnet18, width 16, and 1 of 2 trials are of resnet34, width 16"
    )
    assert load(tmp_path, text + "base: {model: {name: resnet18, width: 16}}\n")
    (tmp_path / "best" / "config.yaml").write_text("config: [\n")
    assert "s.yaml:2: start.weights: is not as `raysweep pull` wrote it" in problem(tmp_path, text)
