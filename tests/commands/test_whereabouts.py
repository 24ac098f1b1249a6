"""`plan` and `data` say where the data will lie, and how much memory that takes."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from raysweep.cli import main
from raysweep.terminal import format_bytes

SET_BYTES = 2 * (8 + 2) * (3 * 16**2 + 8)
"""Of the images and labels of `synthetic` with 2 classes of 8 training images and 2 validation images."""
IMAGE_BYTES = 2 * (8 + 2) * 3 * 16**2
MEMORY = psutil.virtual_memory().total


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("RAYSWEEP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    store_of(monkeypatch, 10**6)
    file = tmp_path / "s.yaml"
    file.write_text("name: a\nbase: {data: {name: synthetic, classes: 2, per_class: 8}}\n")
    return str(file)


def store_of(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Have Ray make an object store of so many bytes at most."""
    monkeypatch.setenv("RAY_DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES", str(size))


def gpu_of(folder: Path, free_mib: int) -> None:
    """Have a GPU of 1,000 MiB, as far as NVIDIA's command goes."""
    (folder / "bin").mkdir()
    (folder / "bin" / "nvidia-smi").write_text(f"#!/bin/sh\necho '0, GPU-1a, {free_mib}, 1000'\n")
    (folder / "bin" / "nvidia-smi").chmod(0o755)


def lines(capsys: pytest.CaptureFixture[str], *command: str) -> list[str]:
    assert main([*command]) == 0
    return [line.removeprefix("data: ") for line in capsys.readouterr().out.splitlines() if line.startswith("data: ")]


def numbers(capsys: pytest.CaptureFixture[str], *command: str) -> Any:
    assert main([*command, "--json"]) == 0
    return json.loads(capsys.readouterr().out)["memory"]


def test_plan_knows_a_size_once_the_set_is_prepared(
    sweep: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lines(capsys, "plan", sweep) == [
        f"synthetic: the size is not known yet; `raysweep data {sweep}` tells it, and prepares what is absent"
    ]
    assert numbers(capsys, "plan", sweep)["bytes"] is None
    told = lines(capsys, "data", sweep)
    assert told == lines(capsys, "plan", sweep)
    assert told == [
        "synthetic, 15.5 kB, shared through Ray's object store: an object store of 19.4 kB is needed on each node, "
        "here it would have 1 MB",
        f"on a CPU, read where it is: 30.7 kB of memory are needed, this machine has {format_bytes(MEMORY)} "
        "(a GPU with 30.7 kB free would keep it; nvidia-smi shows none here)",
    ]
    elsewhere = tmp_path / "elsewhere" / "s.yaml"  # which makes no difference to a source that needs no files
    elsewhere.parent.mkdir()
    elsewhere.write_text(Path(sweep).read_text())
    assert told == lines(capsys, "plan", str(elsewhere))
    assert numbers(capsys, "data", sweep) == {
        "bytes": SET_BYTES,
        "sets": [{"name": "synthetic", "settings": {}, "bytes": SET_BYTES, "in_store": True}],
        "object_store": {"needed_bytes": SET_BYTES * 1.25, "here_bytes": 10**6, "holds_it": True},
        "gpu": {"needed_bytes": 2 * IMAGE_BYTES, "here_bytes": None, "holds_it": None},
        "cpu": {"needed_bytes": 2 * IMAGE_BYTES, "here_bytes": MEMORY, "holds_it": True},
    }


def test_a_set_that_an_object_store_does_not_hold_is_mapped_from_the_cache(
    sweep: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store_of(monkeypatch, SET_BYTES)
    assert lines(capsys, "data", sweep)[0] == (
        "synthetic, 15.5 kB, memory-mapped from each node's cache: an object store of 19.4 kB would be needed on each "
        "node, here it would have 15.5 kB"
    )


def test_a_trial_on_a_cpu_reads_a_set_where_it_is_if_that_has_at_most_half_of_the_memory(
    sweep: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lines(capsys, "data", sweep, "resources.gpus=0")[1] == (
        f"on a CPU, read where it is: 30.7 kB of memory are needed, this machine has {format_bytes(MEMORY)}"
    )
    assert lines(capsys, "plan", sweep, "resources.gpus=1")[1] == (
        "kept on a trial's GPU if 30.7 kB are free there, else streamed to it; nvidia-smi shows no GPU here"
    )
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(total=20_000, used=0, available=20_000))
    assert lines(capsys, "plan", sweep, "resources.gpus=0")[1] == (
        "on a CPU, read ahead by a thread: 30.7 kB of memory would be needed to read it where it is, "
        "this machine has 20 kB"
    )


def test_of_several_sets_each_is_told_with_what_differs_and_where_it_lies(
    sweep: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store_of(monkeypatch, 100_000)
    gpu_of(tmp_path, free_mib=900)
    Path(sweep).write_text(Path(sweep).read_text() + "grid: {data.image_size: [64, 16]}\nresources: {gpus: 1.0e-4}\n")
    assert lines(capsys, "data", sweep) == [
        "synthetic (image_size 16), 15.5 kB, shared through Ray's object store",
        "synthetic (image_size 64), 246 kB, memory-mapped from each node's cache",
        "all 2 sets, 261 kB: an object store of 327 kB would be needed on each node, here it would have 100 kB",
        "synthetic (image_size 16): kept on each trial's GPU: 30.7 kB are needed there, "
        "105 kB are free here in its share of 0.0001",
        "synthetic (image_size 64): streamed to each trial's GPU: 492 kB would be needed to keep it there, "
        "105 kB are free here in its share of 0.0001",
    ]
    large, small = numbers(capsys, "plan", sweep)["sets"]
    assert (large["settings"], large["in_store"]) == ({"image_size": 64}, False)
    assert (small["settings"], small["in_store"]) == ({"image_size": 16}, True)


def test_the_sets_of_a_sweep_share_an_object_store(
    sweep: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store_of(monkeypatch, 2 * SET_BYTES)
    assert numbers(capsys, "data", sweep)["object_store"]["holds_it"]
    Path(sweep).write_text(Path(sweep).read_text() + "grid: {data.seed: [0, 1], model.weights: [w.pt, null]}\n")
    assert [line.partition(", ")[0] for line in lines(capsys, "data", sweep)[:4]] == [
        "synthetic with w.pt (seed 0)",
        "synthetic (seed 0)",
        "synthetic with w.pt (seed 1)",
        "synthetic (seed 1)",
    ]
    in_store = [each["in_store"] for each in numbers(capsys, "plan", sweep)["sets"]]
    assert in_store == [True, False, False, False]


def test_a_trial_keeps_its_set_on_a_gpu_of_which_it_has_enough(
    sweep: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu_of(tmp_path, free_mib=900)
    assert lines(capsys, "data", sweep)[1] == "kept on each trial's GPU: 30.7 kB are needed there, 944 MB are free here"
    # Half of it holds the images, and would not hold the labels too.
    assert lines(capsys, "plan", sweep, "resources.gpus=0.0000294")[1].startswith("kept on each trial's GPU")
    assert lines(capsys, "plan", sweep, "resources.gpus=0.00002")[1] == (
        "streamed to each trial's GPU: 30.7 kB would be needed to keep it there, "
        "21 kB are free here in its share of 2e-05"
    )


def test_plan_warns_of_a_set_that_is_larger_than_memory(
    sweep: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", sweep]) == 0
    (note,) = (tmp_path / "cache" / "notes").iterdir()
    note.write_text(
        json.dumps({**json.loads(note.read_text()), "bytes": 10**14})
    )  # no machine prepares that for a test
    capsys.readouterr()
    assert main(["plan", sweep]) == 0
    assert "warning: the data has 100 TB, this machine's memory" in capsys.readouterr().out
