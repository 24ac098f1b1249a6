"""`raysweep convert`: the sweep file on stdout or in a file, what differs on stderr."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from raysweep.cli import main

WANDB = """\
method: random
run_cap: 4
metric: {name: val_loss, target: 0.1}
parameters: {lr: {min: 0.01, max: 0.1}}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("wandb.yaml").write_text(WANDB)
    return tmp_path


def test_the_sweep_file_is_printed_and_what_differs_told_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", "wandb.yaml"]) == 0
    printed = capsys.readouterr()
    assert printed.err.startswith("wandb.yaml:3: metric.target: has no counterpart")
    Path("sweep.yaml").write_text(printed.out)
    assert main(["plan", "sweep.yaml"]) == 0
    assert "4 trials" in capsys.readouterr().out


def test_on_a_terminal_what_differs_is_told_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(["convert", "wandb.yaml"]) == 0
    printed = capsys.readouterr()
    assert (printed.out.count("metric.target"), printed.err) == (1, "")


def test_a_file_that_is_written_replaces_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", "wandb.yaml", "--output", "sweep.yaml", "--samples", "6"]) == 0
    assert "sweep.yaml: 6 trials" in capsys.readouterr().err
    before = Path("sweep.yaml").read_text()
    assert main(["convert", "wandb.yaml", "--output", "sweep.yaml"]) == 2
    assert "exists already" in capsys.readouterr().err
    assert Path("sweep.yaml").read_text() == before


def test_a_wrong_file_writes_nothing_and_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    Path("wandb.yaml").write_text(WANDB.replace("method: random", "mehtod: random").replace("max: 0.1", "max: 0.001"))
    assert main(["convert", "wandb.yaml", "--output", "sweep.yaml"]) == 2
    found = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[1] for line in found] == ["method", "mehtod", "parameters.lr"]
    assert not Path("sweep.yaml").exists()


def test_a_loop_that_does_not_take_the_parameters_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    Path("wandb.yaml").write_text(WANDB.replace("lr:", "learning_rate:"))
    assert main(["convert", "wandb.yaml", "--loop", "classify"]) == 2
    assert "loop 'classify' cannot train this: random.learning_rate: unknown key" in capsys.readouterr().err
