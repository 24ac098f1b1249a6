"""Several objectives in a sweep file: what is read, what is refused and where; one objective stays as it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import raysweep
from raysweep.cli import main
from raysweep.errors import SweepFileError
from raysweep.loops import Loop
from raysweep.sweepfile import Sweep, load_sweep
from raysweep.sweepfile.load import restore_sweep


class _Config(raysweep.Config):
    lr: float = 0.1


class _Counted(Loop):
    """A loop that knows what its trials cost."""

    name, config = "counted", _Config
    metrics = {"error": "min"}  # type: ignore[assignment]
    costs = {"weights": "min"}  # type: ignore[assignment]


raysweep.register_loop("counted")(_Counted)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s.yaml"


def load(path: Path, objective: str, *overrides: str, more: str = "") -> Sweep:
    path.write_text(f"name: s\n{objective}\n{more}base: {{data: digits, epochs: 9}}\n")
    return load_sweep(path, overrides)


def test_one_objective_is_dumped_as_it_was_before_there_could_be_several(path: Path) -> None:
    for objective in ("objective: val_loss", "objective: {metric: val_loss}"):
        assert load(path, objective).model_dump(mode="json")["objective"] == {"metric": "val_loss", "mode": "min"}


def test_the_first_of_a_list_ranks_and_the_others_are_what_it_is_traded_off_against(path: Path) -> None:
    sweep = load(path, "objective: [val_acc, flops, {metric: images_per_s}]")
    assert (sweep.objective.metric, sweep.objective.maximize) == ("val_acc", True)
    assert [(each.metric, each.maximize) for each in sweep.objective.against] == [
        ("flops", False),
        ("images_per_s", True),
    ]
    assert sweep.costs == ["flops"]


def test_what_a_run_folder_has_of_several_objectives_reads_back_the_same(path: Path) -> None:
    sweep = load(path, "objective: [val_acc, {metric: flops, mode: min}]")
    document = json.loads(json.dumps(sweep.model_dump(mode="json")))
    assert restore_sweep(document, "resolved.yaml").objective == sweep.objective


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (
            "objective:\n- val_acc\n- flop",
            "s.yaml:4: objective.1: got 'flop' (did you mean 'flops'?); allowed: val_acc",
        ),
        (
            "objective:\n- val_acc\n- metric: flops\n  mode: best",
            "s.yaml:5: objective.1.mode: got 'best'; allowed: max",
        ),
        ("objective:\n- val_acc\n- {metric: flops}\n- flops", "s.yaml:5: objective.2: flops is an objective twice"),
        ("objective:\n- val_acc\n- {metrik: flops}", "s.yaml:4: objective.1.metrik: unknown key"),
        ("objective:\n- {metric: val_acc, mode: top}\n- flops", "s.yaml:3: objective.0.mode: got 'top'"),
        ("objective:\n- flops\n- val_acc", "s.yaml:3: objective.0: got 'flops', by which no epoch can be chosen; name"),
        ("objective: [val_acc]", "s.yaml:2: objective: a list must have 2 to 4 objectives; got 1"),
        ("objective: [val_acc, 3]", "s.yaml:2: objective.1: got 3, must be a mapping"),
        (
            "objective: [{metric: val_acc, against: []}, flops]",
            "s.yaml:2: objective: the first of a list has `against`",
        ),
        (
            "objective: [val_acc, flops]\nscheduler: {name: asha, tolerance: 0.1}",
            "s.yaml:3: scheduler.tolerance: is of",
        ),
        (
            "loop: counted\nobjective:\n- error\n- speed",
            "s.yaml:5: objective.1: got 'speed'; allowed: error, weights; any",
        ),
        ("loop: counted\nobjective: [weights, error]", "s.yaml:3: objective.0: got 'weights', by which no epoch"),
    ],
)
def test_a_wrong_list_is_told_with_the_line_of_the_element(path: Path, objective: str, message: str) -> None:
    with pytest.raises(SweepFileError) as raised:
        load(path, objective if "loop" not in objective else f"{objective}\ncheckpoints: {{}}")
    assert any(message in problem for problem in raised.value.problems), raised.value.problems


def test_a_metric_that_nobody_knows_needs_its_mode_and_has_it_then(path: Path) -> None:
    path.write_text("name: s\nloop: counted\nobjective: [error, {metric: speed, mode: max}, weights]\n")
    sweep = load_sweep(path)
    assert [each.maximize for each in sweep.objective.against] == [True, False]
    assert sweep.costs == ["weights"]


@pytest.mark.parametrize(
    ("objective", "says"),
    [
        (
            "[val_acc, flops]",
            "objectives: val_acc, flops; halving goes by how many configs dominate one in val_acc, flops",
        ),
        ("[val_acc, images_per_s]", "halving goes by val_acc alone, since no other is known before training"),
        ("[val_acc, flops, seconds]", "dominate one in val_acc, flops; seconds cannot be known by then"),
    ],
)
def test_plan_says_by_what_halving_goes(
    path: Path, capsys: pytest.CaptureFixture[str], objective: str, says: str
) -> None:
    load(path, f"objective: {objective}", more="scheduler: asha\n")
    assert main(["plan", str(path)]) == 0
    assert says in capsys.readouterr().out
