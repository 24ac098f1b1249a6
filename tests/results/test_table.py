"""The ranking in the terminal: configs by the settings that vary, in lines that fit; how trials ended."""

from __future__ import annotations

from pathlib import Path

import pytest
from run_folders import make_run

from raysweep.cli import main
from raysweep.store import Record
from raysweep.sweepfile.patch import short_labels

MANY_SETTINGS = """
name: {name}
base: {{data: synthetic, epochs: {epochs}}}
grid:
  model.name: [v2_receptive_resnet50, baseline_block]
  lr: [0.5, 0.1]
  augment: [none, medium]
  optimizer.weight_decay: [0.001, 0.0005]
  normalize: [half, imagenet]
seeds: [0, 1]
scheduler: {scheduler}
"""
SMALL = """
name: {name}
base: {{data: synthetic, model: baseline_block, epochs: {epochs}}}
grid: {{lr: [0.5, 0.1, 0.01], model.width: [8, 16]}}
"""


def status(path: Path, capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    assert main(["status", str(path), *words]) == 0
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("width", [80, 120])
def test_the_ranking_fits_the_terminal_and_names_the_settings_that_it_has_no_room_for(
    width: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_run(tmp_path, text=MANY_SETTINGS)
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr("raysweep.terminal.WIDTH_IN_A_PIPE", width)
    lines = status(path, capsys)
    (head,) = [place for place, line in enumerate(lines) if line.startswith("rank")]
    table = [line for line in lines[head:] if line.startswith(("rank", " "))]
    assert len(table) == 1 + 32 + 64, "a line for each config and each of its seeds"
    assert max(map(len, table)) <= width
    settings = {"model", "lr", "augment", "weight_decay", "normalize"}
    hidden = "columns hidden for lack of room: "
    (left_out,) = [line.removeprefix(hidden).split(", ") for line in lines if line.startswith(hidden)]
    assert settings & set(table[0].split()) == settings - set(left_out)
    assert "v2_receptive_resnet50" in table[1] or "model" in left_out


def test_trials_have_short_ids_by_which_why_finds_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = make_run(tmp_path, text=SMALL)
    row = next(line.split() for line in status(path, capsys) if line.split()[:1] == ["1"])
    assert row[1:3] == ["0.1", "8"] or float(row[1]) in (0.5, 0.1, 0.01)
    assert status(path, capsys, "--why", row[-1])[0].split(":")[0].endswith(row[-1])


def test_a_trial_that_was_running_when_its_run_ended_is_interrupted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def cut(record: Record, place: int) -> Record:
        return record.with_(status="running", metrics=record.metrics[:3]) if place == 0 else record

    path = make_run(tmp_path, text=SMALL, end=cut)
    assert sum("3/30  interrupted" in line for line in status(path, capsys)) == 1


def test_trials_that_failed_alike_share_a_line_with_the_place_in_the_users_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(record: Record, place: int) -> Record:
        error = {
            "type": "ValueError",
            "message": "no such shape",
            "at": "/home/me/nets.py:7",
            "traceback": "Trace\n  7",
        }
        return record.with_(status="failed", metrics=[], error=error) if place < 2 else record

    path = make_run(tmp_path, text=SMALL, end=broken)
    (line,) = [line for line in status(path, capsys) if "failed alike" in line]
    assert line.startswith("2 trials failed alike: ValueError: no such shape (at /home/me/nets.py:7): ")
    assert status(path, capsys, "--why", line.split()[-1])[-2:] == ["Trace", "  7"]


def test_labels_are_the_shortest_ends_of_keys_that_tell_them_apart() -> None:
    keys = ["model.name", "model.width", "optimizer.weight_decay", "data.width", "lr", "augment"]
    labels = ["model", "model.width", "weight_decay", "data.width", "lr", "augment"]
    assert list(short_labels(keys).values()) == labels
