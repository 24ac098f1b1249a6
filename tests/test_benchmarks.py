"""Every benchmark's `--json`: one document on stdout and nothing else, whatever else is printed meanwhile."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
NOISY = """
import os, subprocess, sys
from _report import emit, parse_arguments, skip
arguments = parse_arguments("noise")
print("a line that Ray prints for one of its processes")
os.write(1, b"a line of a C library\\n")
subprocess.run(["echo", "a line of a child process"])
skip("no GPU") if "--quick" in sys.argv else emit("noise", {"ratio": 0.5}, {"ratio": ("<=", 1.0)}, arguments)
print("a line at the end")
"""


def run(*words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": f"{BENCHMARKS}:{BENCHMARKS.parent}"}
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, env=environment, check=True)


def test_all_that_is_printed_beside_the_document_goes_to_stderr() -> None:
    done = run("-c", NOISY, "--json")
    document = json.loads(done.stdout)
    assert (document["name"], document["figures"], document["met"]) == ("noise", {"ratio": 0.5}, True)
    assert done.stderr.count("a line") == 4


def test_a_benchmark_that_cannot_run_here_says_why_in_its_document() -> None:
    assert json.loads(run("-c", NOISY, "--json", "--quick").stdout) == {"skipped": "no GPU"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ema", "large_data", "report", "search_slots"])
def test_a_benchmark_prints_one_json_document(name: str) -> None:
    document = json.loads(run(str(BENCHMARKS / f"{name}.py"), "--quick", "--json").stdout)
    assert set(document) == {"name", "machine", "versions", "figures", "targets", "met"}
    assert document["figures"]


@pytest.mark.slow
def test_the_gpu_benchmark_runs_on_a_cpu_and_says_what_needs_a_gpu() -> None:
    document = json.loads(run(str(BENCHMARKS / "gpu.py"), "--device", "cpu", "--quick", "--json").stdout)
    ways = ("eager", "train", "trials_1", "trials_2")
    assert all(document["figures"][f"baseline_block_{way}_images_per_s"] > 0 for way in ways)
    notes = document["notes"]
    assert {notes[f"baseline_block_{way}"] for way in ("captured", "graphed", "trials_mps")} == {"needs a GPU"}
