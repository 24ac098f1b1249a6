"""`plan` warns of what this machine lacks, and its table tells trials apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from raysweep.cli import main
from raysweep.cluster.places import data_problems
from raysweep.commands import plan
from raysweep.sweepfile import load_sweep


def test_a_gpu_that_this_machine_lacks_and_a_missing_folder_are_warnings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(plan, "GPU_DEVICES", (str(tmp_path / "gpu*"),))
    file = tmp_path / "s.yaml"
    file.write_text("name: a\nresources: {gpus: 1}\nbase: {data: {name: folder, path: pets}}\n")
    assert main(["plan", str(file)]) == 0
    out = capsys.readouterr().out
    assert "warning: resources.gpus is 1, and this machine has no GPU" in out
    assert "warning: data.path: pets is not on this machine" in out
    (tmp_path / "gpu0").touch()
    (tmp_path / "pets").mkdir()
    assert main(["plan", str(file)]) == 0
    assert "warning" not in capsys.readouterr().out


def test_weights_to_begin_with_that_are_absent_are_an_error_here_and_a_warning_where_a_cluster_may_have_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    (tmp_path / "best").mkdir()
    file = tmp_path / "s.yaml"
    file.write_text("name: a\nstart: {weights: bst}\n")
    for command in ("plan", "run"):
        assert main([command, str(file)]) == 2
        said = f"s.yaml:2: start.weights: no such folder: {tmp_path}/bst (did you mean 'best'?)"
        assert said in capsys.readouterr().err
    monkeypatch.setenv("RAY_ADDRESS", "ray://far:10001")
    assert main(["plan", str(file)]) == 0
    assert "warning: start.weights: bst is not on this machine" in capsys.readouterr().out
    (problem,) = data_problems(load_sweep(file), "s.yaml")
    assert problem.startswith("s.yaml: start.weights: 'bst' is relative")


def test_settings_that_end_like_a_column_of_the_table_keep_their_section(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "s.yaml"
    file.write_text("name: a\nbase: {data: synthetic}\ngrid: {data.seed: [7, 8]}\nseeds: [0, 1]\n")
    assert main(["plan", str(file)]) == 0
    head, *rows = [line.split() for line in capsys.readouterr().out.splitlines()][:5]
    assert head == ["#", "data.seed", "seed", "epochs", "trial"]
    assert [row[1:3] for row in rows] == [["7", "0"], ["7", "1"], ["8", "0"], ["8", "1"]]


def test_long_values_are_cut_where_they_still_differ(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "s.yaml"
    schedules = [f"{{name: step, milestones: [10, 20, 30, 40, {last}]}}" for last in (51, 52)]
    file.write_text(f"name: a\nbase: {{epochs: 60}}\ngrid: {{lr_schedule: [{', '.join(schedules)}]}}\n")
    assert main(["plan", str(file)]) == 0
    cells = [line.split("  ")[1] for line in capsys.readouterr().out.splitlines()[1:3]]
    assert cells[0] != cells[1]
    assert max(map(len, cells)) <= 24
