"""The engine without the built-in loop: a copy of raysweep whose `vision` is gone still trains, resumes and reports."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GONE = 'raise ModuleNotFoundError("raysweep.vision is gone", name="raysweep.vision")\n'
"""In place of the package: an editable install would find the original."""
ENGINE = (
    "halving/test_halving.py",
    "halving/test_scores.py",
    "store/test_store.py",
    "store/test_folders.py",
    "store/test_metric_names.py",
    "worker/test_loops.py",
    "results/test_by_class.py",
    "results/test_tuning.py",
    "results/test_winner.py",
    "driver/test_queue.py",
    "driver/test_nodes.py",
    "driver/test_events.py",
)
"""Tests whose sweeps do not train with the built-in loop."""
OWN = """
import torch, raysweep

@raysweep.register_loop("own", metrics={"val_mse": "min"})
def train(config, trial):
    for epoch in range(trial.epoch + 1, config.epochs + 1):
        yield raysweep.Epoch({"val_mse": 1 / epoch}, state=dict, weights=lambda: {"w": torch.ones(1)})
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package and its tests, without `vision` and its own tests."""
    folder = tmp_path_factory.mktemp("copy")
    for name in ("raysweep", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "vision"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    (folder / "raysweep" / "vision").mkdir()
    (folder / "raysweep" / "vision" / "__init__.py").write_text(GONE)
    return folder


def run(copy: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(copy)}
    return subprocess.run([sys.executable, "-m", *words], cwd=copy, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_the_engines_tests_pass(copy: Path) -> None:
    tests = [f"tests/{each}" for each in ENGINE]
    done = run(copy, "pytest", "-q", "-p", "no:cacheprovider", "-m", "not ray and not long", *tests)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]


@pytest.mark.slow
@pytest.mark.ray
def test_a_sweep_of_a_loop_of_ones_own_runs_and_the_built_in_one_is_missed_by_name(copy: Path) -> None:
    (copy / "own.py").write_text(OWN)
    (copy / "s.yaml").write_text("name: s\nloop: own\nbase: {epochs: 2}\nseeds: [0, 1]\nresources: {gpus: 0}\n")
    done = run(copy, "raysweep", "s.yaml", "--import", "own")
    assert done.returncode == 0, done.stderr[-3000:]
    for words in (["status", "runs/s"], ["report", "runs/s"], ["pull", "runs/s", "--to", "best"]):
        done = run(copy, "raysweep", *words)
        assert done.returncode == 0, done.stderr[-3000:]
    assert (copy / "best" / "model.safetensors").exists()
