"""`raysweep data`: what it prepares and prints."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from data_files import write_classes

from raysweep import Config, register_loop
from raysweep.cli import main
from raysweep.loops import LOOPS
from raysweep.vision.data import load


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


def write_sweep(folder: Path, text: str) -> str:
    path = folder / "sweep.yaml"
    path.write_text(text)
    return str(path)


@pytest.fixture
def command_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RAYSWEEP_CACHE", str(cache))
    monkeypatch.delenv("RAYSWEEP_DATA", raising=False)
    return cache


@pytest.mark.usefixtures("command_cache")
def test_data_prepares_each_set_once_and_says_what_it_holds(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_classes(root, each=10)
    (root / "ant" / "3.png").write_bytes(b"no image")
    sweep = write_sweep(
        tmp_path,
        "name: a\nbase: {data: {name: folder, on_corrupt: skip}}\ngrid: {lr: [1, 2], data.image_size: [4, 6]}\n",
    )
    assert main(["data", sweep, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["name"] == "a"
    small, large = document["data"]
    assert (small["source"], small["path"]) == ("folder", str(root))
    assert small["images"] == {"train": 15, "val": 4}
    assert (small["classes"], small["num_classes"], small["skipped"]) == (["ant", "bee"], 2, 1)
    assert (small["image_size"], large["image_size"]) == (4, 6)
    assert small["skipped_images"][0].startswith(f"{root}/ant/3.png")
    data = load(Path(small["prepared"]))
    assert (small["fingerprint"], small["mean"], small["std"]) == (data.fingerprint, list(data.mean), list(data.std))
    assert main(["data", sweep]) == 0
    printed = capsys.readouterr()
    for part in (str(root), "train 15, val 4", "2: ant; bee", "4 x 4", data.fingerprint, "1 image that", "ant/3.png"):
        assert part in printed.out
    assert printed.err == "", "prepared already"


@pytest.mark.usefixtures("command_cache")
def test_data_takes_overrides_and_sources_without_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = write_sweep(tmp_path, "name: a\n")
    assert main(["data", "--json", sweep, "data.name=synthetic", "data.classes=3"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["data"]
    assert (found["source"], found["path"], found["num_classes"]) == ("synthetic", None, 3)


def test_data_says_that_another_loops_data_is_not_its_to_prepare(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with LOOPS.for_now():
        register_loop("mlp", config=Config, metrics={"loss": "min"})(lambda config, trial: iter(()))
        assert main(["data", sweep := write_sweep(tmp_path, "name: a\nloop: mlp\n")]) == 2
    assert capsys.readouterr().err == (
        f"{sweep}:2: loop: mlp prepares its data itself; `raysweep data` is for sweeps of classify\n"
    )


def test_data_names_the_faults_of_all_sets_and_ends_with_2(
    root: Path, tmp_path: Path, command_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "cow").mkdir()
    sweep = write_sweep(tmp_path, "name: a\ngrid: {data: [folder, csv, digits]}\n")
    assert main(["data", sweep]) == 2
    printed = capsys.readouterr()
    assert printed.out.startswith("digits\n")
    folder_line, csv_line = (line for line in printed.err.splitlines() if "Preparing" not in line)
    assert f"{root}/cow" in folder_line
    assert f"{root}/train.csv" in csv_line
    assert [path.name.partition("-")[0] for path in (command_cache / "sets").iterdir()] == ["digits"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "first", "last"),
    [
        ("data", "Preparing synthetic: ", "interrupted; no set is left half-prepared\n"),
        ("rehearse", "rehearsing ", "interrupted\n"),  # while another process imports torch
    ],
)
def test_ctrl_c_is_one_line_and_leaves_nothing_half_prepared(
    tmp_path: Path, command_cache: Path, command: str, first: str, last: str
) -> None:
    sweep = write_sweep(tmp_path, "name: a\nbase: {data: {name: synthetic, per_class: 100000, image_size: 32}}\n")
    words = [sys.executable, "-m", "raysweep", command, sweep]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith(first)
        time.sleep(0.5)
        os.killpg(process.pid, signal.SIGINT)  # to all processes of the terminal
        assert process.stderr.read() == last
    assert process.returncode == 130
    assert list(command_cache.glob("sets/*")) == []
